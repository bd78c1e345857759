"""Wasserstein autoencoder with a maximum-mean-discrepancy penalty."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, ClassVar

import numpy as np

from skhebae.estimators._docs import shared_docs
from skhebae.estimators._sklearn import Interval
from skhebae.estimators.base import BaseAutoencoder
from skhebae.networks import DecoderFactory, EncoderFactory
from skhebae.objectives import WAEObjective


@shared_docs
class WAETransformer(BaseAutoencoder):
    """Wasserstein autoencoder with a maximum-mean-discrepancy penalty.

    The encoder is deterministic; the aggregate of the codes is compared with
    draws from N(0, I) by a kernel two-sample statistic [1]_. The loss is, in
    nats a row, ``-log p(x | mu(x)) + reg_weight * MMD(codes, prior)``.

    Parameters
    ----------
    n_components : int, default=10
        Dimensions of the code.
    {network}
    reg_weight : float, default=10.0
        Weight of the penalty.
    {training}

    Attributes
    ----------
    {attributes}

    See Also
    --------
    HEBAETransformer : Regularises the aggregate of the codes in closed form.
    VAETransformer : Regularises every row's posterior.

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

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseAutoencoder._parameter_constraints,
        "reg_weight": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        n_components: int = 10,
        *,
        hidden_layer_sizes: Sequence[int] = (128,),
        activation: str = "silu",
        likelihood: str = "gaussian",
        encode_batch: bool = False,
        reg_weight: float = 10.0,
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
        self.reg_weight = reg_weight

    def _objective(self) -> WAEObjective:
        return WAEObjective(self.reg_weight)
