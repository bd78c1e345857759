"""Variational autoencoder."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real

from skhebae._sklearn import Interval
from skhebae.estimators.base import BaseAutoencoder
from skhebae.fitted import parameter, with_parameters
from skhebae.objectives import CapacityObjective, VAEObjective, check_capacity


@with_parameters
class VAETransformer(BaseAutoencoder):
    """Variational autoencoder.

    Regularises each row's posterior ``N(mu_i, diag sigma_i^2)`` towards
    N(0, I) [1]_. The loss is the negative evidence lower bound, in nats per row:
    ``-log p(x | z) + beta * KL(N(mu_i, diag sigma_i^2) || N(0, I))``.

    Parameters
    ----------
    beta : float, default=1.0
        Weight of the penalty. Well above 1, dimensions collapse.
    capacity : (start, end, epochs), default=None
        Information per row, in nats, that codes are to have: the penalty is ``capacity_weight *
        |mean KL - C|`` [2]_, where C goes from `start` to `end` in a line and stays there, so
        that the mean divergence ends as `end`. `epochs` are those of the line, as an integer
        or as a share of those of `fit`, between 0 and 1. In `fit` they are at most three
        quarters of all, and no training stops before; through calls of `partial_fit` and of
        `fit` with `warm_start`, epochs are counted on. None: the penalty of `beta`, which must be
        1 with a capacity.
    capacity_weight : float, default=100.0
        Weight of the distance to C.

    See Also
    --------
    HEBAETransformer : Regularises the aggregate of the codes in closed form.
    WAETransformer : Regularises the aggregate by a kernel discrepancy.

    References
    ----------
    .. [1] D. P. Kingma and M. Welling, "Auto-Encoding Variational Bayes",
       arXiv:1312.6114.
    .. [2] C. P. Burgess et al., "Understanding disentangling in beta-VAE",
       arXiv:1804.03599.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skhebae import VAETransformer
    >>> X = load_digits().data[:500] / 16
    >>> model = VAETransformer(2, random_state=0).fit(X)
    >>> codes = model.transform(X)
    >>> codes.shape, codes.dtype
    ((500, 2), dtype('float32'))
    >>> bool(((model.inverse_transform(codes) - X) ** 2).mean() < 0.04)
    True
    """

    beta: float = parameter(Interval(Real, 0, None, closed="left"), default=1.0)

    capacity: Sequence[float] | None = parameter(tuple, list, None, default=None)
    capacity_weight: float = parameter(Interval(Real, 0, None, closed="neither"), default=100.0)

    def make_objective(self) -> VAEObjective:
        """Make the objective from the parameters.

        Raises
        ------
        ValueError
            If `capacity` is none, or does not go with `beta`.
        """
        if self.capacity is None:
            return VAEObjective(self.beta)
        if self.beta != 1.0:
            raise ValueError(
                f"beta={self.beta!r} and capacity={self.capacity!r} are two penalties, of which a "
                "fit has one. Leave beta at 1, or set capacity=None."
            )
        return CapacityObjective(*check_capacity(self.capacity), self.capacity_weight)
