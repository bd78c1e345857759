"""What an objective is, and the terms it returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from skhebae.processes import WHOLE, Part

if TYPE_CHECKING:
    from skhebae.model import Autoencoder


class Terms(NamedTuple):
    """The parts of one minibatch's loss, in nats, before weighting.

    Attributes
    ----------
    reconstruction : Tensor of shape (B,)
        ``-log p(x_i | z_i)`` summed over features.
    row_penalty : Tensor of shape (B,) or None
        Latent term of each row: a mean over rows.
    minibatch_penalty : Tensor of shape () or None
        Latent term of the minibatch as a whole. A log-determinant is not a
        mean over rows, so it must not be averaged over shards.
    row_divergence : Tensor of shape (B,) or None
        ``KL(q(z | x_i) || N(0, I))``, penalised or not, for the standard bound
        beside the objective's own; None where q is a point.
    """

    reconstruction: Tensor
    row_penalty: Tensor | None = None
    minibatch_penalty: Tensor | None = None
    row_divergence: Tensor | None = None

    def penalty(self, mean: Callable[[Tensor], Tensor] = WHOLE.mean) -> Tensor:
        """Both latent terms as one number, (), with the `mean` of a `Part`."""
        total = self.reconstruction.new_zeros(())
        if self.row_penalty is not None:
            total = total + mean(self.row_penalty)
        if self.minibatch_penalty is not None:
            total = total + self.minibatch_penalty
        return total

    def elbo(self, mean: Callable[[Tensor], Tensor] = WHOLE.mean) -> Tensor:
        """Mean standard evidence lower bound (equation 1), (); minus infinity for points."""
        if self.row_divergence is None:
            return self.reconstruction.new_full((), -torch.inf)
        return -mean(self.reconstruction.detach() + self.row_divergence.detach())


class Objective(ABC):
    """Draws codes from the approximate posterior and penalises them.

    The posterior of a row is ``N(mu_i, D_i C D_i)``: D_i from the scale head, C
    common to all rows. A new objective is one file: the four abstract methods
    below and a `weight`.

    Attributes
    ----------
    weight : float
        Factor of the penalty in the loss.
    row_weight : float
        Factor in the loss of each row's own divergence from the prior, the
        only term that rewards posterior noise; 0 where there is none.
    initial_scale : float
        Bias of the scale head before training.
    """

    weight: float
    row_weight: float = 0.0
    initial_scale: float = 0.0

    @abstractmethod
    def n_scales(self, n_components: int) -> int:
        """Width of the encoder's scale head."""

    @abstractmethod
    def __call__(
        self,
        model: Autoencoder,
        x: Tensor,
        generator: torch.Generator,
        input_noise: float = 0.0,
        part: Part = WHOLE,
    ) -> Terms:
        """Terms of one minibatch of standardised rows `x` (B, p).

        The encoder sees `x` with Gaussian noise of standard deviation
        `input_noise`; the likelihood is that of the clean rows. Where several processes
        fit, `x` is this one's `part` of the minibatch: terms of rows are of its rows,
        terms of the minibatch of the codes that the part gathers from all.
        """

    @abstractmethod
    def spread(self, scales: Tensor, n_components: int) -> Tensor:
        """Diagonal of ``D_i``: the scale head as standard deviations, (n, n_components)."""

    @abstractmethod
    def noise_covariance(self, code_covariance: Tensor, n_rows: int) -> Tensor:
        """``C`` in each row's posterior ``N(mu_i, D_i C D_i)``, (d, d).

        Parameters
        ----------
        code_covariance : Tensor of shape (d, d)
            Sample covariance of the codes (posterior means) of the training set.
        n_rows : int
            Rows of a minibatch of training.
        """

    def prior_penalty(self, n_rows: int, n_components: int) -> float:
        """Return the mean penalty of a minibatch of codes drawn from the prior.

        What is reported is the penalty above this value.
        """
        del n_rows, n_components
        return 0.0
