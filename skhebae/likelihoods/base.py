"""Likelihoods p(x | z), given the decoder's output.

Networks see *standardised* rows, so that training does not depend on the units of the table. A
likelihood knows that map and reports log-densities of the *original* rows, in nats, summed over
features. It also owns all other knowledge of its family: which rows it accepts, what has to be
measured of a table, what training must count or finish, and what users may read of it afterwards.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skhebae.data import FeatureScaling, Matrix, Scaling
from skhebae.likelihoods.variances import least_variance

Float32Array = NDArray[np.float32]

#: Smallest probability by whose root a residual is divided. By less, the rounding of a standardised
#: indicator would count.
LEAST_PROBABILITY = 1e-6


class Decoded(NamedTuple):
    """Some rows of `fit` with what one draw of their codes decodes to.

    Attributes
    ----------
    x : Tensor of shape (m, p)
        Standardised rows.
    parameter : Tensor of shape (m, p)
        The likelihood's parameter.
    mask : Tensor of bool of shape (m, p) or None
        True where an entry is observed.
    weight : Tensor of shape (m,) or None
        How many rows each row stands for. None means that each stands for itself.
    """

    x: Tensor
    parameter: Tensor
    mask: Tensor | None
    weight: Tensor | None = None

    def every(self, step: int) -> Decoded:
        """Return each `step`-th row."""
        mask, weight = (None if of is None else of[::step] for of in (self.mask, self.weight))
        return Decoded(self.x[::step], self.parameter[::step], mask, weight)

    def total(self, values: Tensor) -> Tensor:
        """Add up values (m, ...) over rows, each as often as it counts, (...)."""
        if self.weight is None:
            return values.sum(dim=0)
        total: Tensor = torch.tensordot(self.weight.to(values), values, dims=1)
        return total

    def n_counted(self) -> float:
        """Count the rows that these stand for."""
        return len(self.x) if self.weight is None else float(self.weight.double().sum())


class Evidence(Protocol):
    """The trained networks and the training rows, as `Likelihood.finish` sees them."""

    #: Whether codes of training have less noise than their posterior, so that residuals are too
    #: small.
    lacks_noise: bool
    #: Rows of the table in all processes, or their summed weight.
    n_rows: float
    #: Whether the table is a part of a stream, which may not stand for the others.
    is_part: bool

    def mean_over_rows(self, function: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Average ``function(x, parameter)`` (n, p) over observed entries, (p,).

        With one draw of each row's code.
        """
        ...

    def sum_over_rows(self, function: Callable[[Decoded], Tensor]) -> Tensor:
        """Add up what `function` returns for chunks of all rows, in float64 on the CPU.

        With one draw of each row's code.
        """
        ...

    def decode_some(self, n_numbers: int) -> list[Decoded]:
        """Decode rows spread over the table until they have about `n_numbers` entries.

        All rows of this process if they have no more. What they decode to is in memory together.
        """
        ...

    def sum(self, values: Tensor) -> Tensor:
        """Add up the values of all processes."""
        ...

    def code_variance(self) -> Tensor:
        """Return the variance of each output that codes of training lack, (n_features,).

        Depends on the likelihood's present parameters.
        """
        ...


class Likelihood(nn.Module, ABC):
    """Base class of observation models p(x | z) that factorise over columns.

    To write a family, implement the abstract methods and override the class attributes and hooks
    that differ for it.

    Parameters
    ----------
    location, scale : Tensor of shape (n_features,)
        Standardisation of the rows.

    Attributes
    ----------
    scaling_class : type of Scaling
        What the family measures of a table before training.
    support : tuple of float
        Smallest and largest value that a row may have.
    accepts_missing : bool
        Whether rows may hold NaN for missing entries.
    input_noise : float
        Noise at which ``input_noise="auto"`` starts.
    row_share : float
        Value of HEBAE's ``row_share="auto"``.
    starts_linear : bool
        Whether ``linear_path="auto"`` lets built-in networks start as principal component analysis.
    keeps_linear_start : bool
        Whether networks may stay linear if a trial says so. They then stay as they started, and
        training only sets the noise.
    largest_decay : float
        Largest ``weight_decay="auto"`` of built-in networks without a linear path.
    half_rows : int
        Number of rows at which ``max_iter="auto"`` takes half of its largest number of steps. It
        is larger for families that overfit sooner.
    sparse_draws : bool
        Whether most entries of a drawn row are 0.
    needs_totals : bool
        Whether row and column sums are measured. A pass over a file does this while it checks.
    counts_code_variance : bool
        Whether `extra_loss` needs `set_code_variance` to be called during training.
    """

    scaling_class: ClassVar[type[Scaling]] = FeatureScaling
    support: ClassVar[tuple[float, float]] = (-np.inf, np.inf)
    accepts_missing: ClassVar[bool] = False
    input_noise: ClassVar[float] = 0.3
    row_share: ClassVar[float] = 0.0
    starts_linear: ClassVar[bool] = False
    keeps_linear_start: ClassVar[bool] = True
    largest_decay: ClassVar[float] = 0.0
    half_rows: ClassVar[int] = 6000
    sparse_draws: ClassVar[bool] = False
    needs_totals: ClassVar[bool] = False
    counts_code_variance: ClassVar[bool] = False

    location: Tensor
    scale: Tensor
    calibration: Tensor

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if cls.accepts_missing and not cls.scaling_class.may_miss:
            raise TypeError(
                f"{cls.__name__} accepts missing values, so its scaling_class must mark them: "
                f"{cls.scaling_class.__name__}.may_miss is False. Use a Scaling of your own."
            )

    def __init__(self, location: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("location", location)
        self.register_buffer("scale", scale)
        self.register_buffer("calibration", identity_calibration(location))

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *arguments: Any) -> None:
        """Load a state; files of version 0.1 hold no calibration."""
        state.setdefault(f"{prefix}calibration", identity_calibration(self.location))
        super()._load_from_state_dict(state, prefix, *arguments)

    # Tables

    @classmethod
    def check(cls, X: Matrix, name: str) -> None:
        """Raise unless the family accepts the rows of a numeric ndarray or CSR matrix.

        Parameters
        ----------
        X : ndarray or CSR of shape (n_samples, n_features)
            At least one row, with finite values unless the family accepts missing ones.
        name : str
            Name of the family for the message.

        Raises
        ------
        ValueError
            If a value is not accepted. The message names it and the cure.
        """

    @classmethod
    def from_scaling(cls, scaling: Scaling) -> Self:
        """Make the likelihood of rows standardised by `scaling`, in float32."""
        # Built in double, so that any unit has a logarithm.
        return cls(as_tensor(scaling.location), as_tensor(scaling.scale)).float()

    def original_rows(self, rows: Float32Array, scaling: Scaling, *, drawn: bool) -> Float32Array:
        """Map means, or draws if `drawn`, from the standardised scale to original units."""
        return scaling.restore(rows)

    # Networks

    def encoder_input(self, x: Tensor) -> Tensor:
        """Map standardised rows `x` (n, p) to the encoder's input, centred and of unit scale."""
        return x

    def with_usual_values(self, x: Tensor, seen: Tensor) -> Tensor:
        """Return rows whose unseen entries have values of which `encoder_input` is about 0, (n, p).

        By default 0, the mean of each feature on the standardised scale.

        Parameters
        ----------
        x : Tensor of shape (n, p)
            Standardised rows, anything where an entry is not seen.
        seen : Tensor of bool of shape (n, p)
        """
        return x.where(seen, 0.0)

    def parameter(self, output: Tensor, log_size: Tensor | None) -> Tensor:
        """Map the decoder's `output` (n, p) to the parameter of p(x | z), (n, p).

        `log_size` (n,) is the logarithm of each row's exposure, for counts.
        """
        return output

    def start_linear(self) -> None:
        """Prepare for networks that start as principal component analysis."""

    def start_residual(self, residual: float) -> None:
        """Receive the mean variance of what a linear start leaves of a feature's encoder input."""

    def linear_loadings(self, loadings: Tensor) -> Tensor:
        """Map loadings of what the encoder sees to those of the decoder's output, (p, d).

        At the feature means, to first order. By default both are the same.
        """
        return loadings

    @abstractmethod
    def initial_bias(self) -> Tensor:
        """Return the decoder bias that predicts the feature means, (p,)."""

    def calibrate(self, parameter: Tensor, calibration: Tensor) -> Tensor:
        """Return ``c + shift + gain (parameter - c)`` per feature, c the `initial_bias`, (n, p).

        Parameters
        ----------
        parameter : Tensor of shape (n, p)
        calibration : Tensor of shape (p, 2)
            Shift and gain of each feature, which `finish` of our own families sets.
        """
        shift, gain = calibration.unbind(dim=1)
        return torch.addcmul(shift + (1.0 - gain) * self.initial_bias(), parameter, gain)

    def set_calibration(self, calibration: Tensor) -> None:
        """Set shift and gain of each feature, (p, 2)."""
        self.calibration.copy_(calibration)

    def contrast(self, parameter: Tensor) -> Tensor:
        """Return what the gain of `calibrate` multiplies, (n, p)."""
        return parameter - self.initial_bias()

    # Densities

    @abstractmethod
    def entry_log_prob(self, x: Tensor, parameter: Tensor) -> Tensor:
        """Return the log-density of each entry of standardised rows `x`, (n, p), nats.

        The density is that of the entry in its original unit.
        """

    def log_prob(self, x: Tensor, parameter: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the log-density of each row, (n,), nats.

        Parameters
        ----------
        x : Tensor of shape (n, p)
            Standardised rows.
        parameter : Tensor of shape (n, p)
        mask : Tensor of bool of shape (n, p), optional
            True for the entries that count; None counts all.
        """
        entries = self.entry_log_prob(x, parameter)
        return (entries if mask is None else entries.where(mask, 0.0)).sum(dim=1)

    @abstractmethod
    def mean(self, parameter: Tensor) -> Tensor:
        """Return E[x | z] on the standardised scale, (n, p)."""

    def average(self, parameters: Tensor) -> Tensor:
        """Return the parameter whose mean is the average of those of parameters (k, n, p), (n, p).

        This makes one observation model of what several experimental batches decode to. By default
        it is the average of the parameters, which is right if `mean` is linear.
        """
        return parameters.mean(dim=0)

    @abstractmethod
    def sample(self, parameter: Tensor, generator: torch.Generator) -> Tensor:
        """Draw rows from p(x | z) on the standardised scale, (n, p)."""

    @abstractmethod
    def fisher_information(self, parameter: Tensor) -> Tensor:
        """Return the Fisher information of the parameter, (n, p): diagonal, positive."""

    def variance(self, parameter: Tensor) -> Tensor:
        """Return the variance of each entry given z on the standardised scale, (n, p).

        By default it is the smallest one that the mean and the Fisher information allow. That is
        the variance if the parameter is one number per entry of an exponential family.
        """
        return least_variance(self.mean, self.fisher_information(parameter), parameter)

    def residual(self, x: Tensor, parameter: Tensor) -> Tensor:
        """Return the distance of each entry from its mean, half standardised, (n, p).

        The residual is ``sign(r) sqrt(|r| |x - E[x | z]|)`` with Pearson's residual
        ``r = s / sqrt(I)``, the score s of the entry over the square root of its Fisher
        information. Its units are halfway between the standardised scale of `x` and the one on
        which all entries have the same deviation. Novelty scores add up the squares.
        """
        gap = x - self.mean(parameter)
        pearson = self.pearson_residual(x, parameter)
        return gap.sign() * (gap * pearson).abs().sqrt()

    def pearson_residual(self, x: Tensor, parameter: Tensor) -> Tensor:
        """Return the score of each entry over the root of its Fisher information, (n, p)."""
        with torch.enable_grad():
            leaf = parameter.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.entry_log_prob(x, leaf).sum(), leaf)
        information = self.fisher_information(parameter)
        # Where it underflows, so does the score.
        return slope / information.clamp_min(torch.finfo(information.dtype).tiny).sqrt()

    # Principal codes

    def misfit(self, x: Tensor, parameter: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return how badly each row is reconstructed, (n,); less is better.

        By default it is the squared error of the mean on the standardised scale, summed over
        observed entries. `explained_variance_ratio_` compares misfits minus the `least_misfit`.
        """
        squares = (x - self.mean(parameter)).square()
        return (squares if mask is None else squares.where(mask, 0.0)).sum(dim=1)

    def least_misfit(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the `misfit` of each row that is reconstructed without error, (n,)."""
        return torch.zeros_like(x[:, 0])

    def distance_jacobian(self, parameter: Tensor, jacobian: Tensor) -> Tensor | None:
        """Return K such that codes a little dz apart have the distance ``|K dz|``; None by default.

        With None, the distance between codes is that between their linear regressions of what
        the encoder sees.

        Parameters
        ----------
        parameter : Tensor of shape (n, p)
        jacobian : Tensor of shape (n, p, d)
            That of the parameter.

        Returns
        -------
        Tensor of shape (n, p, d) or None
        """
        return None

    # Training

    def extra_loss(self) -> Tensor | None:
        """Return a term that training adds to the loss without reporting it, (); or None.

        Families that set `counts_code_variance` are not asked if codes have their full noise.
        """
        return None

    def set_code_variance(self, variance: Tensor) -> None:
        """Receive `Evidence.code_variance` of a few rows, now and then during training."""

    def finish(self, evidence: Evidence) -> None:
        """Set the feature-wise parameters to their best values, given the trained networks."""

    def learned(self, scaling: Scaling) -> dict[str, NDArray[np.float64]]:
        """Return fitted parameters per feature that users may read, by attribute name.

        In the original units, each of shape (n_features,); names end in an underscore.
        """
        return {}


def identity_calibration(location: Tensor) -> Tensor:
    """Return shifts of 0 and gains of 1, (p, 2)."""
    return torch.stack([torch.zeros_like(location), torch.ones_like(location)], dim=1)


def as_tensor(array: NDArray[Any]) -> Tensor:
    """Copy an array into a tensor; a memory-mapped pickle holds read-only arrays."""
    return torch.from_numpy(np.array(array))
