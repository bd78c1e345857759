"""Wasserstein autoencoder with a maximum-mean-discrepancy penalty."""

from __future__ import annotations

from numbers import Real

from skhebae._sklearn import Interval
from skhebae.estimators.base import BaseAutoencoder
from skhebae.fitted import parameter, with_parameters
from skhebae.objectives import WAEObjective


@with_parameters
class WAETransformer(BaseAutoencoder):
    """Wasserstein autoencoder with a maximum-mean-discrepancy penalty.

    The encoder is deterministic. The penalty compares the codes of a minibatch with draws from
    N(0, I) by a kernel two-sample statistic [1]_. The loss in nats per row is
    ``-log p(x | mu(x)) + reg_weight * MMD(codes, prior)``.

    Parameters
    ----------
    reg_weight : float, default=10.0
        Weight of the penalty.

    See Also
    --------
    HEBAETransformer : Regularises the aggregate of the codes in closed form.
    VAETransformer : Regularises the posterior of each row.

    References
    ----------
    .. [1] I. Tolstikhin et al., "Wasserstein Auto-Encoders", arXiv:1711.01558.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skhebae import WAETransformer
    >>> X = load_digits().data[:500] / 16
    >>> model = WAETransformer(2, random_state=0).fit(X)
    >>> codes = model.transform(X)
    >>> codes.shape, codes.dtype
    ((500, 2), dtype('float32'))
    >>> bool(((model.inverse_transform(codes) - X) ** 2).mean() < 0.04)
    True
    """

    reg_weight: float = parameter(Interval(Real, 0, None, closed="left"), default=10.0)

    def make_objective(self) -> WAEObjective:
        """Make the objective from the parameters."""
        return WAEObjective(self.reg_weight)
