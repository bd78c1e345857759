"""Variational autoencoder."""

from __future__ import annotations

from numbers import Real

from skhebae._sklearn import Interval
from skhebae.estimators.base import BaseAutoencoder
from skhebae.fitted import parameter, with_parameters
from skhebae.objectives import VAEObjective


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

    See Also
    --------
    HEBAETransformer : Regularises the aggregate of the codes in closed form.
    WAETransformer : Regularises the aggregate by a kernel discrepancy.

    References
    ----------
    .. [1] D. P. Kingma and M. Welling, "Auto-Encoding Variational Bayes",
       arXiv:1312.6114.

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

    def make_objective(self) -> VAEObjective:
        """Make the objective from the parameters."""
        return VAEObjective(self.beta)
