"""Hierarchical empirical Bayes autoencoder."""

from __future__ import annotations

from numbers import Real

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skhebae._sklearn import Interval, StrOptions
from skhebae.data import Matrix
from skhebae.estimators.base import BaseAutoencoder
from skhebae.fitted import parameter, with_parameters
from skhebae.objectives import HEBAEObjective
from skhebae.process import in_plain_modes


@with_parameters
class HEBAETransformer(BaseAutoencoder):
    """Hierarchical empirical Bayes autoencoder.

    The penalty pulls the *aggregate* of the codes of a minibatch towards N(0, I), by the
    closed-form divergence of its mean and full covariance. It leaves single rows free, so
    dimensions do not collapse and the penalty weight hardly matters [1]_. The loss in nats per row
    is ``-log p(x | z) + reg_weight * KL(N(m, S) || N(0, I))``.

    Parameters
    ----------
    reg_weight : float, default=1.0
        Weight of the penalty. The penalty of one minibatch is noisy, so large weights, such as
        100, need more epochs than the default.
    covariance : {"full", "diag"}, default="full"
        Whether the noise of a code follows the covariance S of the codes ("full") or only its
        diagonal ("diag"), as in the published experiments. The penalty uses the full S in
        both cases.
    posterior_scale : {"diagonal", "scalar"}, default="diagonal"
        One noise scale per row and dimension, or one per row.
    covariance_prior : float, default=1.0
        Number of pseudo-rows from N(0, I) that are mixed into S, as a conjugate prior. They keep S
        positive definite with fewer rows than dimensions, or with constant codes, so
        `n_components` may exceed n_samples - 1.
    row_share : float or "auto", default="auto"
        Share of the penalty, from 0 to 1, that acts on the posterior of each row instead of the
        aggregate of the codes. At 0, the published method, nothing rewards noise: it vanishes,
        codes become points, and reconstruction is best. Above 0, codes keep about
        ``reg_weight * row_share`` times the variance that the decoder's uncertainty about them
        calls for. At 1 the loss is the evidence lower bound of a VAE whose posterior has a full
        covariance: likelihood and samples from the prior are better, reconstruction is worse,
        and dimensions may collapse as in a VAE. "auto" is 1 for mixed frames, whose categories
        noiseless codes would learn by heart, and 0 for other tables.
    batch_share : float, default=1.0
        Share of the aggregate's penalty that acts on the codes of each batch instead of those of
        all rows, if `fit` is given batches. At 1 the codes of every batch are pulled
        towards N(0, I), as the model assumes that a code does not know its batch. This moves
        batches onto each other even where their rows differ in kind. At 0 only the decoder
        corrects for batches.

    See Also
    --------
    VAETransformer : Regularises the posterior of each row.
    WAETransformer : Regularises the aggregate by a kernel discrepancy.

    References
    ----------
    .. [1] W. Cheng et al., "Generalizing Variational Autoencoders with
       Hierarchical Empirical Bayes", arXiv:2007.10389.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skhebae import HEBAETransformer
    >>> X = load_digits().data[:500] / 16
    >>> model = HEBAETransformer(2, random_state=0).fit(X)
    >>> codes = model.transform(X)
    >>> codes.shape, codes.dtype
    ((500, 2), dtype('float32'))
    >>> bool(((model.inverse_transform(codes) - X) ** 2).mean() < 0.04)
    True
    """

    reg_weight: float = parameter(Interval(Real, 0, None, closed="left"), default=1.0)
    covariance: str = parameter(StrOptions({"full", "diag"}), default="full")
    posterior_scale: str = parameter(StrOptions({"diagonal", "scalar"}), default="diagonal")
    covariance_prior: float = parameter(Interval(Real, 0, None, closed="neither"), default=1.0)
    row_share: float | str = parameter(
        Interval(Real, 0, 1, closed="both"), StrOptions({"auto"}), default="auto"
    )
    batch_share: float = parameter(Interval(Real, 0, 1, closed="both"), default=1.0)

    def make_objective(self) -> HEBAEObjective:
        """Make the objective from the parameters."""
        return HEBAEObjective(
            self.reg_weight,
            covariance=self.covariance,
            posterior_scale=self.posterior_scale,
            covariance_prior=self.covariance_prior,
            row_share=None if isinstance(self.row_share, str) else self.row_share,
            batch_share=self.batch_share,
        )

    @in_plain_modes
    def hebae_bound(
        self,
        X: ArrayLike | Matrix,
        *,
        batch: ArrayLike | None = None,
        size_factor: ArrayLike | None = None,
    ) -> NDArray[np.float32]:
        """Return the bound of the HEBAE paper for each row, in nats.

        ``E_q log p(x | z) - KL(N(m, S) || N(0, I))`` (equation 7 of [1]_ with
        the posterior of `posterior`), where m and S are the moments of the training codes and of
        one pseudo-row of N(0, I). By theorem 1 of [1]_ it is an evidence lower bound under the
        hierarchical prior that the minibatch implies. The divergence under that prior has no
        posterior noise in it, so this bound is *not* comparable with that of a VAE, and mostly far
        above it. Use `elbo` for comparisons. The bound is that of ``reg_weight=1`` and
        ``row_share=0``, whatever the parameters are.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows with the features of `fit`.
        batch, size_factor : array-like of shape (n_samples,), optional
            Batches and size factors of the rows, as in `fit`.

        Returns
        -------
        ndarray of shape (n_samples,), float32
            Nats, summed over features, in the units of the rows of `fit`.

        Raises
        ------
        NotFittedError, ValueError
            As `transform`.

        References
        ----------
        .. [1] W. Cheng et al., "Generalizing Variational Autoencoders with
           Hierarchical Empirical Bayes", arXiv:2007.10389.
        """
        X = self.validate_rows(X)
        fitted = self.fitted_
        expected = fitted.expected_log_prob(X, batch, size_factor)
        divergence = fitted.code_moments.kl_to(fitted.prior)
        result: NDArray[np.float32] = expected - np.float32(divergence)
        return result
