"""The pair of networks with its likelihood and its prior."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from skhebae.code_map import CodeMap
from skhebae.data import Minibatch
from skhebae.likelihoods import Likelihood
from skhebae.linear_fill import LinearFill
from skhebae.networks import CustomEncoder, Decoder, Encoder
from skhebae.prior import Prior


class Autoencoder(nn.Module):
    """Encoder, decoder, likelihood and prior; rows are standardised on both sides.

    Parameters
    ----------
    encoder : Encoder or CustomEncoder
    decoder : torch.nn.Module
    likelihood : Likelihood
    prior : Prior
    n_batches : int
        Experimental batches whose one-hot labels the decoder sees behind the code, 0 for none.
    encode_batch : bool
        Whether the encoder sees them too.
    constant : Tensor of int, optional
        Features that have not varied so far. The encoder does not see them.

    Attributes
    ----------
    varies : Tensor of shape (p,) or None
        0 for these features and 1 for others; None where all vary.
    training_dtype : torch.dtype
        Precision of matrix products in training mode; always float32 in evaluation mode.
    code_map : CodeMap or None
        The map behind the encoder and before the decoder; None in training, and where codes stay
        as they are.
    fill : LinearFill or None
        What the encoder sees in place of missing entries; None is the mean of each feature.
    """

    varies: Tensor | None
    training_dtype = torch.float32
    code_map: CodeMap | None
    fill: LinearFill | None

    def __init__(
        self,
        encoder: Encoder | CustomEncoder,
        decoder: nn.Module,
        likelihood: Likelihood,
        prior: Prior,
        n_batches: int = 0,
        encode_batch: bool = False,
        constant: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.likelihood = likelihood
        self.prior = prior
        self.code_map = None
        self.fill = None
        self.n_batches = n_batches
        self.encode_batch = encode_batch
        self.register_buffer("varies", None, persistent=False)
        none = torch.empty(0, dtype=torch.int64, device="cpu")
        self.hide(none if constant is None else constant)

    def hide(self, constant: Tensor) -> None:
        """Hide these features, and no others, from the encoder."""
        self.varies = None
        if len(constant):
            self.varies = torch.ones(self.n_features, dtype=torch.float32, device=self.device)
            self.varies[constant.to(self.device)] = 0.0

    def stay_linear(self) -> None:
        """Set what the perceptrons add to a linear path to 0."""
        for part in (self.encoder, self.decoder):
            if isinstance(part, Encoder | Decoder):
                part.stay_linear()

    @property
    def is_linear(self) -> bool:
        """Whether the perceptrons beside a linear path add nothing to it."""
        paths = [p for p in (self.encoder, self.decoder) if isinstance(p, Encoder | Decoder)]
        return len(paths) == 2 and all(part.is_linear for part in paths)

    @property
    def device(self) -> torch.device:
        """Device that holds the weights."""
        return self.likelihood.location.device

    @property
    def n_features(self) -> int:
        """Number of features p."""
        return self.likelihood.location.numel()

    @property
    def n_components(self) -> int:
        """Number of latent dimensions d."""
        return self.encoder.n_components

    def encode(self, minibatch: Minibatch) -> tuple[Tensor, Tensor]:
        """Map rows to posterior means (n, d) and the scale head (n, n_scales), float32.

        The scales are those of the encoder's own codes, before the `code_map`.
        """
        x = self.encoder_input(minibatch)
        if self.encode_batch:
            x = torch.cat([x, self.labels(minibatch.batch)], dim=1)
        with self._autocast():
            mu, scales = self.encoder(x)
        if self.code_map is not None:
            mu = self.code_map(mu)
        if minibatch.mask is not None:
            # A row of which nothing is known has the code of the prior.
            mu = mu * minibatch.mask.any(dim=1, keepdim=True)
        return mu, scales

    def encoder_input(
        self, minibatch: Minibatch, fill_generator: torch.Generator | None = None
    ) -> Tensor:
        """Return what the encoder sees of rows, without labels, (n, p).

        With a `fill_generator`, with draws of missing entries in place of their expected values.
        """
        x, seen = minibatch.x, minibatch.mask
        if minibatch.input_dropout is not None:
            seen = minibatch.input_dropout(x, seen)
        if self.varies is not None:
            # Here too, so that they do not add to totals that others are divided by.
            x = x * self.varies
        if seen is not None:
            x = self.likelihood.with_usual_values(x, seen)
        x = self.likelihood.encoder_input(x)
        if seen is not None:
            fill = self.fill
            x = x.where(seen, 0.0) if fill is None else fill(x, seen, fill_generator)
        if minibatch.input_noise is not None:
            x = minibatch.input_noise(x)
        return x if self.varies is None else x * self.varies

    def decode(
        self, z: Tensor, batch: Tensor | None = None, log_size: Tensor | None = None
    ) -> Tensor:
        """Map codes to the parameter of the likelihood (n, p), float32.

        Parameters
        ----------
        z : Tensor of shape (n, d)
        batch : Tensor of int of shape (n,), optional
            Index of each row's experimental batch; needed where the model has batches.
        log_size : Tensor of shape (n,), optional
            Logarithm of each row's exposure; by default that of a typical row.
        """
        if self.code_map is not None:
            z = self.code_map.undo(z)
        if self.n_batches > 0:
            z = torch.cat([z, self.labels(batch)], dim=1)
        with self._autocast():
            output: Tensor = self.decoder(z)
        return self.likelihood.parameter(output.float(), log_size)

    def decode_rows(self, z: Tensor, minibatch: Minibatch) -> Tensor:
        """Map codes to the parameter (n, p), for the batches and exposures of rows."""
        return self.decode(z, minibatch.batch, minibatch.log_size)

    def log_prob(self, minibatch: Minibatch, z: Tensor) -> Tensor:
        """Return ``log p(x | z)`` of each row at its code, (n,), nats."""
        parameter = self.decode_rows(z, minibatch)
        return self.likelihood.log_prob(minibatch.x, parameter, minibatch.mask)

    def labels(self, batch: Tensor | None) -> Tensor:
        """Return one-hot labels of experimental batches, (n, n_batches), float32."""
        assert batch is not None  # checked where rows enter
        return one_hot(batch, self.n_batches, torch.float32)

    def _autocast(self) -> AbstractContextManager[object]:
        """Lower the precision of the networks, in training only.

        Moments, Cholesky factors and likelihoods lie outside this context.
        """
        if not self.training or self.training_dtype == torch.float32:
            return nullcontext()
        # Each weight is used once a step. A cache of lowered weights would outlive the step, and
        # its weights, where the caller is within an autocast of their own.
        return torch.autocast(self.device.type, dtype=self.training_dtype, cache_enabled=False)


def one_hot(index: Tensor, n_classes: int, dtype: torch.dtype) -> Tensor:
    """Return one-hot rows, (n, n_classes), for indices (n,)."""
    rows = torch.zeros(len(index), n_classes, dtype=dtype, device=index.device)
    return rows.scatter_(1, index[:, None], 1.0)
