"""Likelihoods of counts: Poisson, and negative binomial with or without extra zeros.

Rows are raw counts. The decoder's output becomes the logarithm of the mean: a softmax over
features times the row's exposure (its size factor), so that codes describe composition and not
depth.

References
----------
.. [1] Lopez et al., "Deep generative modeling for single-cell transcriptomics",
   Nature Methods 15, 2018.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils.validation import check_non_negative
from torch import Tensor, nn
from torch.nn import functional

from skhebae.data import Matrix, Scaling, value_range
from skhebae.likelihoods.base import (
    Decoded,
    Evidence,
    Likelihood,
    as_tensor,
    identity_calibration,
)
from skhebae.likelihoods.calibration import CALIBRATION_NUMBERS, most_likely_gains
from skhebae.likelihoods.count_densities import (
    negative_binomial_entries,
    negative_binomial_log_prob,
    negative_binomial_zero,
    poisson_entries,
    poisson_log_prob,
    zero_inflated_entries,
    zero_inflated_log_prob,
)
from skhebae.likelihoods.count_scaling import CountScaling
from skhebae.likelihoods.dispersion import (
    bounded_log_theta,
    common_log_theta,
    most_likely,
    raw_log_theta,
)

#: Largest count that is accepted: the likelihoods keep their digits up to it.
LARGEST_COUNT = 1e9

#: Numbers of a table on which feature-wise parameters are fitted; of a larger one, a sample.
FITTED_NUMBERS = 2**21

#: Mean under which a count of 0 is certain, to rounding.
SMALLEST_MEAN = 1e-10

#: Zero-inflation logit that is likely before any count is seen: one extra zero in twenty entries.
USUAL_ZI_LOGIT = -3.0


def are_counts(X: Matrix) -> bool:
    """Whether all entries of an ndarray or CSR matrix are integers >= 0, and none is missing.

    What is counted is known; genotypes, which are not, are no counts.
    """
    values = X.data if sparse.issparse(X) else X
    return bool(values.size == 0 or (values.min() >= 0 and not are_fractional(values).any()))


def are_fractional(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Find the numbers that are not integers; an empty array for an integer dtype.

    NaN, a missing entry, is no number.
    """
    if values.dtype.kind != "f":
        return np.zeros(0, dtype=bool)
    fractional: NDArray[np.bool_] = values != np.rint(values)
    if fractional.any():
        fractional &= ~np.isnan(values)
    return fractional


class CountLikelihood(Likelihood):
    """Counts with log-mean ``log softmax(output) + log size``.

    Parameters
    ----------
    location, scale : Tensor of shape (n_features,)
        Centre and unit of the log-normalised rows, for the encoder.
    proportions : Tensor of shape (n_features,)
        Share of each feature in all counts, positive.
    typical_size : Tensor of shape ()
        Total that rows are normalised to before the logarithm.
    """

    accepts_missing: ClassVar[bool] = True
    scaling_class: ClassVar[type[Scaling]] = CountScaling
    support: ClassVar[tuple[float, float]] = (0.0, np.inf)
    # Most of a count's variance is the noise of counting: add as much again.
    input_noise: ClassVar[float] = 1.0
    largest_decay: ClassVar[float] = 0.3
    # Thousands of noisy features are over-fitted sooner.
    half_rows: ClassVar[int] = 24_000
    sparse_draws: ClassVar[bool] = True
    needs_totals: ClassVar[bool] = True

    proportions: Tensor
    typical_size: Tensor

    def __init__(
        self, location: Tensor, scale: Tensor, proportions: Tensor, typical_size: Tensor
    ) -> None:
        super().__init__(location, scale)
        self.register_buffer("proportions", proportions)
        self.register_buffer("typical_size", typical_size)

    @classmethod
    def check(cls, X: Matrix, name: str) -> None:
        """Raise unless every entry is an integer from 0 to `LARGEST_COUNT`.

        Raises
        ------
        ValueError
            Naming an entry that is not, and where counts may be found.
        """
        check_non_negative(X, f"likelihood={name!r}")
        values = X.data if sparse.issparse(X) else X
        bad = are_fractional(values)
        if bad.any():
            raise ValueError(
                f"likelihood={name!r} needs counts, integers >= 0, but "
                f"{bad.sum() / max(1, values.size):.0%} of the entries of X are not integers, such "
                f"as {values[bad].flat[0]:.6g}. Are they log-normalised or scaled? Pass the raw "
                "counts (of an AnnData often layers['counts'] or .raw), or use "
                "likelihood='gaussian'."
            )
        largest = value_range(values)[1]
        if largest > LARGEST_COUNT:
            raise ValueError(
                f"likelihood={name!r} takes counts up to {LARGEST_COUNT:.0e}, but X has "
                f"{largest:.4g}."
            )

    @classmethod
    def from_scaling(cls, scaling: Scaling) -> Self:
        """Make the likelihood of rows measured by a `CountScaling`, in float32."""
        assert isinstance(scaling, CountScaling)
        parts = (scaling.location, scaling.scale, scaling.proportions, scaling.typical_size)
        return cls(*map(as_tensor, parts)).float()

    def encoder_input(self, x: Tensor) -> Tensor:
        """Return ``log(1 + x t / sum x)`` with the typical total t, standardised, (n, p).

        The total is the row's own, whatever exposure the decoder is given: a row's
        code depends on nothing but the row.
        """
        total = x.sum(dim=1, keepdim=True).clamp_min(1.0)
        normalised = x * (self.typical_size / total)
        return normalised.log1p_().sub_(self.location).div_(self.scale)

    def with_usual_values(self, x: Tensor, seen: Tensor) -> Tensor:
        """Return rows whose unseen features have their usual shares in the counts, (n, p).

        So that the total of a row, and with it what is seen, does not depend on how many features
        are.
        """
        shares = (seen * self.proportions).sum(dim=1, keepdim=True).clamp_min(SMALLEST_MEAN)
        total = x.where(seen, 0.0).sum(dim=1, keepdim=True) / shares
        return x.where(seen, total * self.proportions)

    def parameter(self, output: Tensor, log_size: Tensor | None) -> Tensor:
        """Return the log-mean, (n, p): ``log softmax(output) + log size``, then calibrated."""
        size = self.typical_size.log() if log_size is None else log_size[:, None]
        log_mean = functional.log_softmax(output, dim=1) + size
        return log_mean if self.training else self.calibrate(log_mean, self.calibration)

    def linear_loadings(self, loadings: Tensor) -> Tensor:
        """Divide by the slope of ``log(1 + m)`` in log m, ``m / (1 + m)``, at the means m.

        Means under 1 count as 1, or the logarithms of rare counts would move too far.
        """
        mean = (self.proportions * self.typical_size).clamp_min(1.0)
        return loadings * (self.scale * (1.0 + mean) / mean)[:, None]

    def calibrate(self, parameter: Tensor, calibration: Tensor) -> Tensor:
        """Apply shift and gain to the logarithms of shares, which then add up to 1 again."""
        log_size = parameter.logsumexp(dim=1, keepdim=True)
        log_share = super().calibrate(parameter - log_size, calibration)
        return functional.log_softmax(log_share, dim=1) + log_size

    def contrast(self, parameter: Tensor) -> Tensor:
        """Return the logarithms of shares less those of the table, (n, p)."""
        return super().contrast(parameter - parameter.logsumexp(dim=1, keepdim=True))

    def finish(self, evidence: Evidence) -> None:
        """Set the most likely calibration, given the networks; not in a stream."""
        if not evidence.is_part:
            self._finish_calibration(evidence, CALIBRATION_NUMBERS)

    def _finish_calibration(self, evidence: Evidence, n_numbers: int) -> list[Decoded]:
        """Set the calibration; return rows decoded by it, of up to so many entries."""
        if evidence.is_part:
            return evidence.decode_some(n_numbers)
        self.calibration.copy_(identity_calibration(self.location))
        rows = evidence.decode_some(n_numbers)
        # Evenly over the table, like the rows themselves.
        every = -(-sum(part.x.numel() for part in rows) // CALIBRATION_NUMBERS) or 1
        some = [part.every(every) for part in rows]

        def log_prob(x: Tensor, log_mean: Tensor) -> Tensor:
            return self._row_log_prob(x, log_mean, *self._own())

        calibration = most_likely_gains(self, log_prob, some, evidence)
        self.calibration.copy_(calibration)
        return [
            part._replace(parameter=self.calibrate(part.parameter, calibration)) for part in rows
        ]

    def mean(self, parameter: Tensor) -> Tensor:
        """Return the exponential of the log-mean, (n, p)."""
        return parameter.exp()

    def misfit(self, x: Tensor, parameter: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return ``-2 log p(x | z)`` of each row, (n,), nats.

        With `least_misfit` the deviance. Squared errors of counts are those of a few abundant
        features; deviances weigh each count by its own variance.
        """
        parameter = parameter.contiguous()  # which the fused sums need
        if mask is None:
            return -2.0 * self._row_log_prob(x, parameter, *self._own())
        entries = self._entry_log_prob(x, parameter, *self._own())
        return -2.0 * entries.where(mask, 0.0).sum(dim=1)

    def least_misfit(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return ``-2 log p(x | mean = x)`` of each row, (n,), nats."""
        return self.misfit(x, x.clamp_min(SMALLEST_MEAN).log(), mask)

    def distance_jacobian(self, parameter: Tensor, jacobian: Tensor) -> Tensor:
        """Return the root of the Fisher information times the Jacobian, (n, p, d).

        To second order, that is the deviance between two codes.
        """
        return self.fisher_information(parameter).sqrt()[:, :, None] * jacobian

    def initial_bias(self) -> Tensor:
        """Return the logarithm of the features' shares in all counts, (p,)."""
        return self.proportions.log()

    def sample(self, parameter: Tensor, generator: torch.Generator) -> Tensor:
        """Draw counts, (n, p)."""
        # torch's gamma draws take no generator; numpy's do, and are as exact.
        seed = int(torch.randint(2**31 - 1, (), generator=generator, device=generator.device))
        mean = self.mean(parameter).detach().cpu().double().numpy()
        draws = self._draw(mean, np.random.default_rng(seed))
        return torch.from_numpy(draws.astype(np.float32)).to(parameter.device)

    def entry_log_prob(self, x: Tensor, parameter: Tensor) -> Tensor:
        """Return the log-probability of each entry, (n, p), nats."""
        return self._evaluated(self._entry_log_prob, x, parameter, *self._own())

    def log_prob(self, x: Tensor, parameter: Tensor, mask: Tensor | None = None) -> Tensor:
        """Sum the log-probabilities of each row's entries, (n,), nats."""
        if mask is not None:
            return super().log_prob(x, parameter, mask)
        return self._evaluated(self._row_log_prob, x, parameter, *self._own())

    @abstractmethod
    def _row_log_prob(self, x: Tensor, log_mean: Tensor, *values: Tensor) -> Tensor:
        """Return the log-probability of each row for some feature-wise parameters, (n,)."""

    @abstractmethod
    def _entry_log_prob(self, x: Tensor, log_mean: Tensor, *values: Tensor) -> Tensor:
        """Return that of each entry, (n, p)."""

    def _own(self) -> tuple[Tensor, ...]:
        """Return the feature-wise parameters, each (p,), with gradients."""
        return ()

    def _evaluated(self, function: Callable[..., Tensor], *parts: Tensor) -> Tensor:
        """Apply `function` to `parts`; in evaluation mode, in double.

        Gamma functions lose digits in float32, and which ones depends on where an entry
        stands in memory: a row's value would depend on the rows it comes with.
        """
        if self.training or parts[0].device.type == "mps":  # has no double
            return function(*parts)
        return function(*(part.double() for part in parts)).to(parts[0].dtype)

    def average(self, parameters: Tensor) -> Tensor:
        """Return the logarithm of the average mean, (n, p)."""
        return parameters.logsumexp(dim=0) - math.log(len(parameters))

    @abstractmethod
    def _draw(self, mean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw counts with the given means, (n, p)."""


class PoissonLikelihood(CountLikelihood):
    """``p(x_j | z) = Poisson(x_j; mean_j(z))``."""

    def _row_log_prob(self, x: Tensor, log_mean: Tensor, *values: Tensor) -> Tensor:
        return poisson_log_prob(x, log_mean)

    def _entry_log_prob(self, x: Tensor, log_mean: Tensor, *values: Tensor) -> Tensor:
        return poisson_entries(x, log_mean)

    def fisher_information(self, parameter: Tensor) -> Tensor:
        """Return that of the log-mean, which is the mean, (n, p)."""
        return parameter.exp()

    def _draw(self, mean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return rng.poisson(mean)


class NegativeBinomialLikelihood(CountLikelihood):
    """``p(x_j | z) = NB(x_j; mean_j(z), theta_j)`` with one learned theta per feature.

    The variance is ``mean + mean^2 / theta``.
    """

    def __init__(
        self, location: Tensor, scale: Tensor, proportions: Tensor, typical_size: Tensor
    ) -> None:
        super().__init__(location, scale, proportions, typical_size)
        self.raw_log_theta = nn.Parameter(raw_log_theta(torch.zeros_like(location)))

    @classmethod
    def from_scaling(cls, scaling: Scaling) -> Self:
        """Start at the dispersions that the second moments of the table give."""
        own = super().from_scaling(scaling)
        assert isinstance(scaling, CountScaling)
        if scaling.dispersion is not None:  # files of version 0.1 hold none
            own._set_values(own._start(scaling))
        return own

    def _start(self, scaling: CountScaling) -> Tensor:
        """Return the feature-wise parameters at which training starts, (p, k)."""
        assert scaling.dispersion is not None
        return -as_tensor(scaling.dispersion).log()[:, None]

    def log_theta(self) -> Tensor:
        """Return the logarithm of the inverse dispersion, within its bounds, (p,)."""
        return bounded_log_theta(self.raw_log_theta)

    def theta(self) -> Tensor:
        """Return the inverse dispersion, (p,)."""
        return self.log_theta().exp()

    def learned(self, scaling: Scaling) -> dict[str, NDArray[np.float64]]:
        """Return `theta_`, the inverse dispersion of each feature."""
        return {"theta_": self.theta().detach().cpu().double().numpy()}

    def finish(self, evidence: Evidence) -> None:
        """Set the calibration, and the feature-wise parameters that are most likely after it.

        Under a normal prior around what all features together have, which decides for features of
        few counts. Of a large table, on a sample of its rows; the result then counts by their
        share, next to what training has learned from all.
        """
        rows = self._finish_calibration(evidence, FITTED_NUMBERS)
        code_variance = torch.zeros_like(self.location)
        trained = self._values()

        def adopt(values: Tensor) -> None:
            self._set_values(values)
            if evidence.lacks_noise:
                code_variance.copy_(evidence.code_variance())

        def log_prob(part: Decoded, values: Tensor) -> Tensor:
            total = self._total_log_prob(part, *values.unbind(dim=1))
            if not evidence.lacks_noise:
                return total
            # E log p(x | z) over the noise that codes of training lack, to second order.
            information = self._information(part.parameter, *values.unbind(dim=1))
            if part.mask is not None:
                information = information * part.mask
            return total - 0.5 * (part.total(information) @ code_variance)

        adopt(trained)
        centre = self._centre(common_log_theta(rows, code_variance, evidence))
        values = most_likely(log_prob, trained, centre, rows, evidence, adopt)
        n_fitted = evidence.sum(
            torch.tensor(
                float(sum(part.n_counted() for part in rows)), dtype=torch.float64, device="cpu"
            )
        )
        self._set_values(torch.lerp(trained, values, float(n_fitted) / evidence.n_rows))

    def _values(self) -> Tensor:
        """Return the feature-wise parameters side by side, (p, k)."""
        return self.log_theta().detach()[:, None]

    def _set_values(self, values: Tensor) -> None:
        """Set them, (p, k)."""
        with torch.no_grad():
            self.raw_log_theta.copy_(raw_log_theta(values[:, 0]))

    def _centre(self, log_theta: float) -> Tensor:
        """Return their most likely values before any count is seen, (p, k)."""
        return torch.full_like(self.location, log_theta)[:, None]

    def _total_log_prob(self, rows: Decoded, *values: Tensor) -> Tensor:
        """Sum the log-probabilities of rows for some feature-wise parameters, ()."""
        x, log_mean, mask = rows.x, rows.parameter, rows.mask
        if mask is None:
            return rows.total(self._row_log_prob(x, log_mean, *values))
        return rows.total(self._entry_log_prob(x, log_mean, *values).where(mask, 0.0)).sum()

    def _row_log_prob(self, x: Tensor, log_mean: Tensor, *values: Tensor) -> Tensor:
        return negative_binomial_log_prob(x, log_mean, *values)

    def _entry_log_prob(self, x: Tensor, log_mean: Tensor, *values: Tensor) -> Tensor:
        return negative_binomial_entries(x, log_mean, *values)

    def fisher_information(self, parameter: Tensor) -> Tensor:
        """Return that of the log-mean, (n, p)."""
        return self._information(parameter, *self._own())

    def _own(self) -> tuple[Tensor, ...]:
        return (self.log_theta(),)

    def _information(self, log_mean: Tensor, log_theta: Tensor) -> Tensor:
        """Return ``mean theta / (mean + theta)``, (n, p)."""
        # 1 / (1 / mean + 1 / theta), without overflow.
        return (-torch.logaddexp(-log_mean, -log_theta)).exp()

    def _draw(self, mean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        theta = self.theta().detach().cpu().double().numpy()
        return rng.poisson(rng.gamma(theta, mean / theta))

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *arguments: Any) -> None:
        """Translate the parameter of files of version 0.1, ``log theta = 10 tanh(free / 10)``."""
        free = state.pop(f"{prefix}log_theta_free", None)
        if free is not None:
            state[f"{prefix}raw_log_theta"] = raw_log_theta(10.0 * torch.tanh(free / 10.0))
        super()._load_from_state_dict(state, prefix, *arguments)


class ZeroInflatedNegativeBinomialLikelihood(NegativeBinomialLikelihood):
    """A negative binomial with extra zeros, whose probability per feature is learned."""

    def __init__(
        self, location: Tensor, scale: Tensor, proportions: Tensor, typical_size: Tensor
    ) -> None:
        super().__init__(location, scale, proportions, typical_size)
        self.zi_logits = nn.Parameter(torch.full_like(location, USUAL_ZI_LOGIT))

    def _start(self, scaling: CountScaling) -> Tensor:
        return as_tensor(np.stack(scaling.zero_inflated_moments(), axis=1))

    def _values(self) -> Tensor:
        return torch.stack([self.log_theta(), self.zi_logits], dim=1).detach()

    def _set_values(self, values: Tensor) -> None:
        super()._set_values(values)
        with torch.no_grad():
            self.zi_logits.copy_(values[:, 1])

    def _centre(self, log_theta: float) -> Tensor:
        usual = torch.full_like(self.location, USUAL_ZI_LOGIT)[:, None]
        return torch.cat([super()._centre(log_theta), usual], dim=1)

    def _row_log_prob(self, x: Tensor, log_mean: Tensor, *values: Tensor) -> Tensor:
        return zero_inflated_log_prob(x, log_mean, *values)

    def _entry_log_prob(self, x: Tensor, log_mean: Tensor, *values: Tensor) -> Tensor:
        return zero_inflated_entries(x, log_mean, *values)

    def _own(self) -> tuple[Tensor, ...]:
        return self.log_theta(), self.zi_logits

    def mean(self, parameter: Tensor) -> Tensor:
        """Return the negative binomial's mean times the probability of no extra zero, (n, p)."""
        return torch.sigmoid(-self.zi_logits) * parameter.exp()

    def _information(self, log_mean: Tensor, log_theta: Tensor, *zi_logits: Tensor) -> Tensor:
        """Return that of the log-mean of the negative binomial, (n, p).

        The score is ``theta (x - mean) / (theta + mean)`` at x > 0. At 0 it is the negative
        binomial's score times the probability w that the zero is one of its own. Hence
        ``I = (1 - pi) (I_NB - NB(0) s_0^2 (1 - w))`` with ``s_0 = -I_NB``.
        """
        (logits,) = zi_logits
        information = super()._information(log_mean, log_theta)
        log_zero = negative_binomial_zero(log_mean, log_theta)
        own = torch.sigmoid(log_zero - logits)
        lost = log_zero.exp() * information.square() * (1.0 - own)
        return torch.sigmoid(-logits) * (information - lost)

    def _draw(self, mean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        kept = torch.sigmoid(-self.zi_logits).detach().cpu().double().numpy()
        counts = super()._draw(mean / kept, rng)
        return np.where(rng.random(mean.shape) < kept, counts, 0)
