"""Measurement of principal codes on the training rows, once the networks are trained."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skhebae.code_map import CodeMap
from skhebae.data import Minibatch
from skhebae.divergences import in_double, mean_of_rows
from skhebae.fitted.axes import (
    CodeAxes,
    DecoderGeometry,
    apply_matrix,
    principal_rotation,
)
from skhebae.fitted.measure import TrainedRows, uncalibrated
from skhebae.likelihoods.jacobians import push_forward
from skhebae.model import Autoencoder
from skhebae.posterior import gain

FloatArray = NDArray[np.float64]

#: Numbers in the rows that are regressed on codes, about, and the fewest rows; directions of codes
#: whose variance is a smaller share of the largest one are left out.
REGRESSED_NUMBERS, FEWEST_REGRESSED, SMALLEST_SHARE = 2**23, 2048, 1e-8

#: Rows whose truncated codes are decoded, and numbers that they decode to, in general and in a
#: part of a stream, at most: beyond that, an evenly spaced part of the rows stands for all.
#: `CHUNK_ROWS` are in memory together.
TRUNCATED_ROWS, CHUNK_ROWS = 2048, 512
DECODED_NUMBERS, PART_NUMBERS = 2**23, 2**20


class EarlierAxes(NamedTuple):
    """What tables before the present one of a stream have shown.

    Attributes
    ----------
    geometry : DecoderGeometry
        Of the encoder's codes.
    explained_variance_ratio : ndarray of shape (d,)
    share : float
        Share of the present table among all rows.
    """

    geometry: DecoderGeometry
    explained_variance_ratio: FloatArray
    share: float


def measure_axes(
    evidence: TrainedRows,
    regression: CodeRegression,
    code_map: CodeMap | None,
    whiten: bool | str,
    earlier: EarlierAxes | None = None,
) -> CodeAxes:
    """Find the axes of the codes behind a map, and what each of them explains.

    They are turned only where the prior is N(0, I), which looks the same from all sides.

    The metric of distances decides on the axes and their order, and not the Fisher information:
    then linear networks with the gaussian likelihood have the axes and the order of PCA. By
    information a component would come first that reconstructs only features of little noise. For
    counts both are the same metric.

    Parameters
    ----------
    evidence : TrainedRows
        Of a model whose likelihood has finished.
    regression : CodeRegression
        `regress_on_codes` of it.
    code_map : CodeMap or None
        What `evidence` does not see yet.
    whiten : bool or "reliability"
    earlier : EarlierAxes, optional
    """
    # Where codes themselves are to be N(0, I), their noise is none of their variance.
    geometry = measure_geometry(evidence, regression, noised=code_map is None)
    if earlier is not None:
        geometry = earlier.geometry.mixed(geometry, earlier.share)
    geometry = geometry.behind(code_map)
    turns = evidence.model.prior.is_standard
    rotation = np.eye(len(geometry.distances))
    if turns:
        rotation = principal_rotation(geometry.distances, geometry.loadings)
    geometry = geometry.through(rotation)
    shares = explained_shares(evidence, code_map, rotation)
    if earlier is not None:
        shares = earlier.explained_variance_ratio + earlier.share * (
            shares - earlier.explained_variance_ratio
        )
    axes = CodeAxes(
        rotation=rotation,
        scale=np.ones(len(rotation)),
        **geometry._asdict(),
        explained_variance_ratio=shares,
    ).rescaled(whiten if turns else True)
    # Machines may round differently, which turns axes that are hardly told apart.
    return evidence.group.from_first(lambda: axes)


def measure_geometry(
    evidence: TrainedRows, regression: CodeRegression, *, noised: bool
) -> DecoderGeometry:
    """Average the decoder's metrics and Jacobians over some rows, with all processes.

    `noised` says whether rows are regressed on draws of codes or on their means.
    """
    model, at = evidence.model, evidence.linearised
    likelihood = model.likelihood
    with torch.no_grad():
        calibration = likelihood.calibration
        jacobian = push_forward(
            lambda parameter: likelihood.calibrate(parameter, calibration),
            at.parameter,
            at.jacobian,
        )
        parameter = likelihood.calibrate(at.parameter, calibration)
        roots = likelihood.distance_jacobian(parameter, jacobian)
        slopes = push_forward(likelihood.mean, parameter, jacobian)
        at = at._replace(parameter=parameter, jacobian=jacobian)
        weight = evidence.linearised_weights
        means = [
            mean_of_rows(gain(model, at), weight),
            mean_of_rows(in_double(slopes), weight).T,
        ]
        if roots is not None:
            wide = in_double(roots)
            means.append(mean_of_rows(wide.mT @ wide, weight))
    information, loadings, *distances = (
        np.nan_to_num(evidence.mean(value).cpu().double().numpy()) for value in means
    )
    if not distances:
        slope = regression.slope(noised=noised)
        distances = [slope @ slope.T]
    return DecoderGeometry(distances[0], information, loadings)


class CodeRegression(NamedTuple):
    """Moments of codes and of what the encoder sees, over some rows of all processes.

    Attributes
    ----------
    inputs_mean, variances : ndarray of shape (p,)
        Of what the encoder sees.
    covariance : ndarray of shape (d, d)
        Of the means of codes.
    cross : ndarray of shape (d, p)
        Their covariance with what the encoder sees.
    noise : ndarray of shape (d, d)
        Mean covariance of the codes' noise.
    """

    inputs_mean: FloatArray
    variances: FloatArray
    covariance: FloatArray
    cross: FloatArray
    noise: FloatArray

    def slope(self, *, noised: bool) -> FloatArray:
        """Return the slopes of a linear regression on codes, (d, p).

        On draws of codes if `noised`: a code that hardly differs between rows (a collapsed
        dimension of a VAE) then explains nothing.
        """
        within = self.covariance + self.noise if noised else self.covariance
        slope: FloatArray = np.linalg.lstsq(
            np.nan_to_num(within), np.nan_to_num(self.cross), rcond=SMALLEST_SHARE
        )[0]
        return slope


def regress_on_codes(evidence: TrainedRows) -> CodeRegression:
    """Measure how what the encoder sees goes with codes, over some rows, with all processes."""
    model, d = evidence.model, evidence.model.n_components
    most = max(FEWEST_REGRESSED, REGRESSED_NUMBERS // model.n_features)
    indices = evidence.spaced(most)
    width = d + model.n_features
    first = torch.zeros(width, dtype=torch.float64, device="cpu")
    second = torch.zeros(d, width, dtype=torch.float64, device="cpu")
    squares = torch.zeros(width, dtype=torch.float64, device="cpu")
    spreads = torch.zeros(d, d, dtype=torch.float64, device="cpu")
    with torch.no_grad():
        for rows, codes, spread in evidence.take_encoded(indices, CHUNK_ROWS):
            both = in_double(torch.cat([codes, model.encoder_input(rows)], dim=1))
            wide = in_double(spread)
            if rows.weight is not None:
                root = in_double(rows.weight).sqrt()[:, None]
                first += (root.square() * both).sum(dim=0).cpu()
                both, wide = root * both, root * wide
            else:
                first += both.sum(dim=0).cpu()
            second += (both[:, :d].T @ both).cpu()
            squares += both.square().sum(dim=0).cpu()
            spreads += (wide.T @ wide).cpu()
    count = evidence.weight_of(indices) or 1
    mean, products, square, spread_products = (
        evidence.mean(of / count).cpu().numpy() for of in (first, second, squares, spreads)
    )
    covariance = products - np.outer(mean[:d], mean)
    return CodeRegression(
        mean[d:],
        (square - np.square(mean))[d:],
        covariance[:, :d],
        covariance[:, d:],
        evidence.posterior_noise * spread_products,
    )


def explained_shares(
    evidence: TrainedRows, code_map: CodeMap | None, rotation: FloatArray
) -> FloatArray:
    """Return the share of the rows' misfit that each component explains, (d,).

    ``R2(k) - R2(k - 1)`` with ``R2(k) = 1 - misfit_k / misfit_0``: misfit_k is that of decoding
    codes of which all but the first k components are 0, and misfit_0 that of the feature means,
    which no code is needed for; both less the likelihood's `least_misfit`. The sum over k
    components thus is R2(k), and a component may have a negative share.
    """
    model, d = evidence.model, len(rotation)
    most = PART_NUMBERS if evidence.is_part else DECODED_NUMBERS
    most = min(TRUNCATED_ROWS, max(1, most // (d * model.n_features)))
    indices = evidence.spaced(most)
    turn = torch.from_numpy(rotation).to(model.likelihood.location)
    total = torch.zeros(d + 2, dtype=torch.float64, device="cpu")
    with torch.no_grad():
        for rows, codes, _ in evidence.take_encoded(indices, CHUNK_ROWS):
            turned = apply_matrix(codes if code_map is None else code_map(codes), turn)
            total += torch.stack(
                [
                    add_up(model.likelihood.least_misfit(rows.x, rows.mask), rows),
                    mean_misfit(model, rows),
                    *truncated_misfits(model, rows, turned, turn, code_map),
                ]
            ).cpu()
    least, none, *truncated = evidence.mean(total / (evidence.weight_of(indices) or 1)).numpy()
    # Rows may not differ, or lie beyond single precision.
    if not (none > least and np.isfinite([least, none, *truncated]).all()):
        return np.zeros(d)
    explained = (none - np.array(truncated)) / (none - least)
    shares: FloatArray = np.diff(explained, prepend=0.0)
    return shares


def mean_misfit(model: Autoencoder, rows: Minibatch) -> Tensor:
    """Add up the misfits of rows from the feature means, (), float64 where possible."""
    likelihood = model.likelihood
    with uncalibrated(likelihood):
        output = likelihood.initial_bias().expand(len(rows), -1)
        parameter = likelihood.parameter(output, rows.log_size)
    return add_up(likelihood.misfit(rows.x, parameter, rows.mask), rows)


def add_up(values: Tensor, rows: Minibatch) -> Tensor:
    """Add up one value per row by the rows' weights, (), float64 where possible."""
    wide = in_double(values)
    return wide.sum() if rows.weight is None else wide @ rows.weight.to(wide)


def truncated_misfits(
    model: Autoencoder, rows: Minibatch, codes: Tensor, turn: Tensor, code_map: CodeMap | None
) -> list[Tensor]:
    """Add up the misfits of rows from their codes without the last components, d times ()."""
    misfits = []
    for k in range(1, codes.shape[1] + 1):
        z = codes[:, :k] @ turn[:, :k].T
        parameter = model.decode_rows(z if code_map is None else code_map.undo(z), rows)
        misfits.append(add_up(model.likelihood.misfit(rows.x, parameter, rows.mask), rows))
    return misfits
