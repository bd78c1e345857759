"""What a likelihood is: p(x | z), given the decoder's output.

Networks see *standardised* rows, ``(x - location) / scale`` per feature, so
that training does not depend on the units of the table. A likelihood knows
that map and reports log-densities of the *original* rows, in nats, summed
over features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class Likelihood(nn.Module, ABC):
    """One factorised observation model over `n_features` columns.

    Parameters
    ----------
    location, scale : Tensor of shape (n_features,)
        The standardisation the rows went through.
    """

    location: Tensor
    scale: Tensor

    def __init__(self, location: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("location", location)
        self.register_buffer("scale", scale)

    def encoder_input(self, x: Tensor) -> Tensor:
        """Return what the encoder sees of rows `x` (n, p), centred and of unit scale."""
        return x

    def parameter(self, output: Tensor, log_size: Tensor | None) -> Tensor:
        """Parameter of p(x | z), (n, p), from the decoder's `output` (n, p).

        `log_size` (n, 1) is the logarithm of each row's exposure, for counts.
        """
        del log_size
        return output

    @abstractmethod
    def log_prob(self, x: Tensor, parameter: Tensor) -> Tensor:
        """Log-density of standardised rows `x` (n, p), as original rows: (n,), nats."""

    @abstractmethod
    def mean(self, parameter: Tensor) -> Tensor:
        """E[x | z] on the standardised scale, (n, p)."""

    @abstractmethod
    def sample(self, parameter: Tensor, generator: torch.Generator) -> Tensor:
        """Draw rows from p(x | z) on the standardised scale, (n, p)."""

    @abstractmethod
    def fisher_information(self, parameter: Tensor) -> Tensor:
        """Fisher information of the parameter, (n, p): diagonal, positive."""

    @abstractmethod
    def initial_bias(self) -> Tensor:
        """Return the decoder bias that predicts the feature means, (p,)."""
