"""Variational autoencoder."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real

from skhebae._sklearn import Interval, StrOptions
from skhebae.estimators.base import BaseAutoencoder
from skhebae.fitted import parameter, with_parameters
from skhebae.objectives import (
    CapacityObjective,
    Objective,
    TiltedVAEObjective,
    VAEObjective,
    check_capacity,
)
from skhebae.tilted_prior import LARGEST_TILT


@with_parameters
class VAETransformer(BaseAutoencoder):
    """Variational autoencoder.

    The penalty pulls the posterior ``N(mu_i, diag sigma_i^2)`` of each row towards N(0, I) [1]_.
    The loss in nats per row is the negative evidence lower bound,
    ``-log p(x | z) + beta * KL(N(mu_i, diag sigma_i^2) || N(0, I))``.

    Parameters
    ----------
    beta : float, default=1.0
        Weight of the penalty. Dimensions collapse if it is well above 1.
    prior : {"standard", "tilted"}, default="standard"
        Prior p(z). "standard" is N(0, I). "tilted" is ``exp(tilt * |z|) N(z; 0, I) / Z``, near
        a sphere [2]_. Posteriors are then ``N(mu_i, I)``, and the penalty is
        ``(|mu_i| - r)^2 / 2``, where r is the length with the smallest divergence. Codes keep
        their own axes and scale, whatever `whiten` says.
    tilt : float or "auto", default="auto"
        Tilt tau of the tilted prior, up to 10,000. "auto" is 3 times the square root of
        `n_components`, and codes then have about 3 times the standard deviation of their noise.
        For tilts up to about the square root of `n_components`, r is 0.
    capacity : (start, end, epochs), default=None
        Information that codes should have, in nats per row. The penalty is ``capacity_weight *
        |mean KL - C|`` [3]_. C rises linearly from `start` to `end` over `epochs` and stays there,
        so the mean divergence ends at `end`. `epochs` is an integer, or a share of the epochs of
        `fit` between 0 and 1. In `fit` it is at most three quarters of all epochs, and training
        does not stop before. Calls of `partial_fit`, and of `fit` with `warm_start`, go on
        counting. None uses the penalty of `beta`, which must be 1 with a capacity.
    capacity_weight : float, default=100.0
        Weight of the distance between the mean divergence and C.

    See Also
    --------
    HEBAETransformer : Regularises the aggregate of the codes in closed form.
    WAETransformer : Regularises the aggregate by a kernel discrepancy.

    References
    ----------
    .. [1] D. P. Kingma and M. Welling, "Auto-Encoding Variational Bayes",
       arXiv:1312.6114.
    .. [2] G. Floto, S. Kremer and M. Nica, "The Tilted Variational Autoencoder: Improving
       Out-of-Distribution Detection", arXiv:2111.15646.
    .. [3] C. P. Burgess et al., "Understanding disentangling in beta-VAE",
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
    prior: str = parameter(StrOptions({"standard", "tilted"}), default="standard")
    tilt: float | str = parameter(
        Interval(Real, 0, LARGEST_TILT, closed="right"), StrOptions({"auto"}), default="auto"
    )
    capacity: Sequence[float] | None = parameter(tuple, list, None, default=None)
    capacity_weight: float = parameter(Interval(Real, 0, None, closed="neither"), default=100.0)

    def make_objective(self) -> Objective:
        """Make the objective from the parameters.

        Raises
        ------
        ValueError
            If `capacity` is not one, or cannot be combined with `beta` or `prior`.
        """
        if self.capacity is None:
            return (
                VAEObjective(self.beta)
                if self.prior == "standard"
                else TiltedVAEObjective(self.beta)
            )
        if self.prior != "standard":
            raise ValueError(
                f"capacity={self.capacity!r} is a divergence from N(0, I), and prior="
                f"{self.prior!r}. Use prior='standard', or set capacity=None."
            )
        if self.beta != 1.0:
            raise ValueError(
                f"beta={self.beta!r} and capacity={self.capacity!r} are two penalties, of which a "
                "fit has one. Leave beta at 1, or set capacity=None."
            )
        return CapacityObjective(*check_capacity(self.capacity), self.capacity_weight)

    @property
    def prior_tilt(self) -> float | str | None:
        """Tilt of the built-in tilted prior, "auto" to choose one; None is N(0, I).

        Raises
        ------
        ValueError
            If there is a tilt for N(0, I).
        """
        if self.prior == "tilted":
            return self.tilt
        if not isinstance(self.tilt, str):
            raise ValueError(
                f"tilt={self.tilt!r} is that of the tilted prior, and prior={self.prior!r}. Use "
                'prior="tilted", or tilt="auto".'
            )
        return None
