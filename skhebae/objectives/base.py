"""The interface of an objective, and the terms that it returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple, Self

import torch
from torch import Tensor

from skhebae.data import Minibatch
from skhebae.distributed import WHOLE
from skhebae.likelihoods import Likelihood
from skhebae.model import Autoencoder
from skhebae.prior import Prior


class Terms(NamedTuple):
    """The parts of one minibatch's loss, in nats, before weighting.

    Attributes
    ----------
    reconstruction : Tensor of shape (B,)
        ``-log p(x_i | z_i)`` summed over features.
    row_penalty : Tensor of shape (B,) or None
        Latent term of each row, to be averaged over rows.
    minibatch_penalty : Tensor of shape () or None
        Latent term of the minibatch as a whole. A log-determinant is not a
        mean over rows, so it must not be averaged over shards.
    row_divergence : Tensor of shape (B,) or None
        ``KL(q(z | x_i) || p(z))``, whether penalised or not, for the standard bound that is
        reported next to the objective's own. None if q is a point.
    batch_sizes : Tensor of shape (n_present,) or None
        Rows of the experimental batches in the whole minibatch, or their summed weights, if
        `minibatch_penalty` depends on them.
    """

    reconstruction: Tensor
    row_penalty: Tensor | None = None
    minibatch_penalty: Tensor | None = None
    row_divergence: Tensor | None = None
    batch_sizes: Tensor | None = None

    def penalty(self, mean: Callable[[Tensor], Tensor] = WHOLE.mean) -> Tensor:
        """Add both latent terms, (), using the `mean` of a minibatch."""
        total = self.reconstruction.new_zeros(())
        if self.row_penalty is not None:
            total = total + mean(self.row_penalty)
        if self.minibatch_penalty is not None:
            total = total + self.minibatch_penalty
        return total

    def elbo(self, mean: Callable[[Tensor], Tensor] = WHOLE.mean) -> Tensor:
        """Return the mean standard bound (equation 1), (); minus infinity for points."""
        if self.row_divergence is None:
            return self.reconstruction.new_full((), -torch.inf)
        return -mean(self.reconstruction.detach() + self.row_divergence.detach())


class Objective(ABC):
    """Base class of objectives, which draw codes from the posterior and penalise them.

    The posterior of a row is ``N(mu_i, D_i C D_i)``. D_i comes from the scale head, and C is common
    to all rows. To write an objective, implement the abstract methods below.

    Attributes
    ----------
    weight : float
        Factor of the penalty in the loss.
    standardises_codes : bool
        Whether the objective asks for codes (posterior means) with mean 0 and covariance I. The
        codes of the training rows are then mapped to have exactly these after training.
    row_weight : float
        Factor of the divergence of each row from the prior in the loss, the only term that rewards
        posterior noise. 0 if the loss has no such term.
    initial_scale : float
        Bias of the scale head before training.
    settling_epochs : float
        Number of epochs, from the first one of the model, during which the loss itself changes.
        Training does not stop before, because the losses of these epochs cannot be compared.
    """

    weight: float = 1.0
    standardises_codes: bool = False
    row_weight: float = 0.0
    initial_scale: float = 0.0
    settling_epochs: float = 0.0

    @abstractmethod
    def n_scales(self, n_components: int) -> int:
        """Return the width of the encoder's scale head."""

    @abstractmethod
    def __call__(self, model: Autoencoder, minibatch: Minibatch) -> Terms:
        """Return the terms of one minibatch of standardised rows.

        With several processes, `minibatch` holds the rows of this one. Take codes for
        minibatch-level terms from ``minibatch.gather``, and noise from ``minibatch.draw``. Terms of
        rows are averaged by ``minibatch.weight``, if there is one; those of the minibatch heed it
        themselves, as ``minibatch.gathered_weight()``.
        """

    @abstractmethod
    def spread(self, scales: Tensor, n_components: int) -> Tensor:
        """Return the diagonal of ``D_i``, standard deviations (n, n_components)."""

    @abstractmethod
    def noise_covariance(self, code_covariance: Tensor, n_rows: float) -> Tensor:
        """Return ``C`` in each row's posterior ``N(mu_i, D_i C D_i)``, (d, d).

        Parameters
        ----------
        code_covariance : Tensor of shape (d, d)
            Sample covariance of the codes (posterior means) of the training set.
        n_rows : float
            Rows of a minibatch of training, or their summed weights.
        """

    def prior_penalty(
        self, n_rows: float, n_components: int, batch_sizes: Tensor | None = None
    ) -> float | Tensor:
        """Return the mean penalty of a minibatch of codes drawn from the prior.

        Penalties are reported relative to this value. `batch_sizes` is what the objective
        returned in `Terms`. `n_rows` is an integer, or the sum of weights.
        """
        return 0.0

    def shape_penalty(self, penalty: Tensor, minibatch: Minibatch, epoch: Tensor) -> Tensor:
        """Return what `weight` multiplies in the loss, (); by default, the `penalty` itself.

        Parameters
        ----------
        penalty : Tensor of shape ()
            Penalty of the minibatch. With several processes, each has its own, and the average
            over processes is the penalty. The same must hold for the result and its gradient.
        minibatch : Minibatch
        epoch : Tensor of shape ()
            Epochs that the model was trained for, including the part of the current one.
        """
        return penalty

    def scheduled(self, n_epochs: int | None, first_epoch: int = 0) -> Self:
        """Return the objective for a training of `n_epochs` epochs; by default, itself.

        The model was trained for `first_epoch` epochs before. `n_epochs` is None for a stream,
        whose length is unknown.
        """
        return self

    def suited(self, likelihood: type[Likelihood]) -> Self:
        """Return the objective with what it leaves to the likelihood set; by default, itself."""
        return self

    def supports(self, prior: Prior) -> bool:
        """Whether the objective can regularise codes towards `prior`."""
        return True
