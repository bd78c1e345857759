"""An autoencoder whose objective, likelihood or prior is the user's own."""

from __future__ import annotations

from collections.abc import Callable

from skhebae.estimators.base import BaseAutoencoder
from skhebae.fitted import parameter, with_parameters
from skhebae.fitted.build import PriorFactory
from skhebae.networks import own_copy
from skhebae.objectives import HEBAEObjective, Objective
from skhebae.prior import Prior


@with_parameters
class AutoencoderTransformer(BaseAutoencoder):
    """Autoencoder with an objective, a likelihood or a prior of your own.

    Pass classes or functions from the top level of a file, so that the estimator can be cloned and
    pickled. A saved file holds only their names, so pass them to `load` again.

    Parameters
    ----------
    objective : callable, default=None
        ``objective()`` returns a new `skhebae.objectives.Objective`, which says how codes are
        regularised. None is that of `HEBAETransformer` with its defaults.
    prior : callable, default=None
        ``prior(n_components)`` returns a new `skhebae.prior.Prior`. None is N(0, I). The
        objective must support it. Those of VAE and WAE support other priors, that of HEBAE does
        not.

    See Also
    --------
    HEBAETransformer : Regularises the aggregate of the codes in closed form.
    VAETransformer : Regularises the posterior of each row.
    WAETransformer : Regularises the aggregate by a kernel discrepancy.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skhebae import AutoencoderTransformer
    >>> from skhebae.objectives import VAEObjective
    >>> X = load_iris().data
    >>> model = AutoencoderTransformer(2, objective=VAEObjective, max_iter="auto", random_state=0)
    >>> model.fit_transform(X).shape
    (150, 2)
    """

    objective: Callable[[], Objective] | None = parameter(callable, None, default=None)
    prior: PriorFactory | None = parameter(callable, Prior, None, default=None)

    def make_objective(self) -> Objective:
        """Make the objective.

        Raises
        ------
        TypeError
            If `objective` is an objective, or returns something else than one.
        """
        if isinstance(self.objective, Objective):
            raise TypeError(
                f"objective={type(self.objective).__name__}(...) is an objective, but every fit "
                "makes a new one. Pass the class, or a function that returns it."
            )
        if self.objective is None:
            return HEBAEObjective(batch_share=1.0)
        objective = self.objective()
        if not isinstance(objective, Objective):
            raise TypeError(
                f"objective={self.objective!r} returned {type(objective).__name__}. It must "
                "return a skhebae.objectives.Objective."
            )
        return own_copy("objective", objective, {})

    @property
    def prior_factory(self) -> PriorFactory | None:
        """Factory of the prior p(z); None is N(0, I)."""
        return self.prior
