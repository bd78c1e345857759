"""Variational autoencoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, ClassVar

import numpy as np

from skhebae.estimators._docs import shared_docs
from skhebae.estimators._sklearn import Interval
from skhebae.estimators.base import BaseAutoencoder
from skhebae.networks import DecoderFactory, EncoderFactory
from skhebae.objectives import VAEObjective


@shared_docs
class VAETransformer(BaseAutoencoder):
    """Variational autoencoder.

    Regularises each row's posterior ``N(mu_i, diag sigma_i^2)`` towards
    N(0, I) [1]_. The loss is the negative evidence lower bound, in nats a row:
    ``-log p(x | z) + beta * KL(N(mu_i, diag sigma_i^2) || N(0, I))``.

    Parameters
    ----------
    n_components : int, default=10
        Dimensions of the code.
    {network}
    beta : float, default=1.0
        Weight of the penalty. Well above 1, dimensions collapse.
    {training}

    Attributes
    ----------
    {attributes}

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

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseAutoencoder._parameter_constraints,
        "beta": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        n_components: int = 10,
        *,
        hidden_layer_sizes: Sequence[int] = (128,),
        activation: str = "silu",
        likelihood: str = "gaussian",
        encode_batch: bool = False,
        beta: float = 1.0,
        encoder: EncoderFactory | None = None,
        decoder: DecoderFactory | None = None,
        image_shape: Sequence[int] | None = None,
        input_noise: float | str = "auto",
        learning_rate_init: float = 0.005,
        learning_rate: str | Callable[[int], float] = "linear",
        weight_decay: float = 0.0,
        batch_size: int | str = "auto",
        max_iter: int | str = "auto",
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        tol: float = 1e-3,
        warm_start: bool = False,
        device: str = "auto",
        precision: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        window_mb: float = 400,
        compile: bool = False,
        distributed: bool | str = "auto",
        verbose: int = 0,
    ) -> None:
        super().__init__(
            n_components,
            hidden_layer_sizes=hidden_layer_sizes,
            activation=activation,
            likelihood=likelihood,
            encode_batch=encode_batch,
            encoder=encoder,
            decoder=decoder,
            image_shape=image_shape,
            input_noise=input_noise,
            learning_rate_init=learning_rate_init,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            batch_size=batch_size,
            max_iter=max_iter,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            tol=tol,
            warm_start=warm_start,
            device=device,
            precision=precision,
            random_state=random_state,
            window_mb=window_mb,
            compile=compile,
            distributed=distributed,
            verbose=verbose,
        )
        self.beta = beta

    def _objective(self) -> VAEObjective:
        return VAEObjective(self.beta)
