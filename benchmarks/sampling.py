"""Which density of the codes to sample from, and what the decoder leaves it to win.

``python -m benchmarks.sampling [--data digits ...] [--seeds 3] [--quick]`` writes
``results/sampling.json``. Every model is fitted once and its codes are given to all
densities. Beside each density's samples stand two distances it cannot beat: `floor`, of
training rows from test rows, and `frechet_codes`, of those rows once encoded and decoded,
which is what a perfect density of the codes would get. Distances are of equally many rows.
Seconds are the processor's, which other work on the machine does not lengthen.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import BayesianGaussianMixture, GaussianMixture
from sklearn.neighbors import KernelDensity

from benchmarks import frechet
from benchmarks.common import RESULTS, write
from benchmarks.datasets import Table, load_table
from benchmarks.metrics import subsample
from skhebae import HEBAETransformer, VAETransformer, WAETransformer
from skhebae.estimators import latent

Array = NDArray[np.float64]

CACHE = RESULTS.parent / "cache"
STUDIED = ("digits", "patches", "pbmc3k", "fashion-mnist")
PRINTED = ("model", "n_components", "latent", "frechet", "floor", "log_density", "share_of_fit")
#: Seeds of the sets whose cells take minutes, at most.
MAX_SEEDS = {"patches": 1, "pbmc3k": 1, "fashion-mnist": 1}
#: Rows and samples compared, at most; the smaller of it and the held-out rows counts.
ROWS = 2000
#: Rows a mixture has for each component and dimension, at least.
ROWS_PER_DIMENSION = 5
#: EM that starts from k-means need not go far; codes are standardised.
FEW_STEPS = {"tol": latent.EM_TOL, "max_iter": latent.EM_STEPS}
#: The same, kept from overfitting by a fixed variance.
REGULARISED = {**FEW_STEPS, "reg_covar": 1e-2}
#: Other ways to fit the mixture of at most 50 components.
VARIANTS: dict[str, dict[str, Any]] = {
    "tol 1e-2": {"tol": 1e-2},
    "k-means++": {"init_params": "k-means++"},
    "reg_covar 1e-2": {"reg_covar": 1e-2},
    "reg_covar 3e-2": {"reg_covar": 3e-2},
}
#: Epochs of a flow, at most, and those without a better one after which it stops.
FLOW_EPOCHS, FLOW_PATIENCE = 60, 10
#: Largest share of an estimator's fit that its density may take.
SHARE = 0.1


class Model(NamedTuple):
    """An estimator to sample from."""

    name: str
    cls: type
    params: dict[str, Any]
    n_components: int = 10


class Density(NamedTuple):
    """How to make a density of codes, and the scale it sees them on."""

    name: str
    make: Callable[[], Any]
    scale: str = "standardised"


class Prior:
    """N(0, I), which ignores the codes."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def fit(self, codes: Array) -> Prior:
        """Remember the dimensions."""
        self.n_components = codes.shape[1]
        return self

    def score_samples(self, codes: Array) -> Array:
        """Log density in nats."""
        return -0.5 * (np.square(codes) + np.log(2 * np.pi)).sum(axis=1)

    def sample(self, n_samples: int) -> Array:
        """Draw codes."""
        return np.random.default_rng(self.seed).standard_normal((n_samples, self.n_components))


class Flow:
    """Neural spline flow (Durkan et al. 2019) of zuko, stopped early or when time is up."""

    def __init__(self, seed: int, seconds: float) -> None:
        self.seed, self.seconds = seed, seconds

    def fit(self, codes: Array) -> Flow:
        """Keep the weights that are best on a tenth of the rows."""
        import zuko

        rows = torch.from_numpy(codes).float()
        # zuko takes its first weights from the global random state.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.flow = zuko.flows.NSF(codes.shape[1], transforms=3, hidden_features=(64, 64))
            shuffled = rows[torch.randperm(len(rows))]
            held_out, training = shuffled.tensor_split([max(1, len(rows) // 10)])
            self._train(training, held_out, time.process_time() + self.seconds)
        return self

    def _train(self, training: torch.Tensor, held_out: torch.Tensor, end: float) -> None:
        optimizer = torch.optim.Adam(self.flow.parameters(), lr=2e-3)
        best, weights, waited = np.inf, deepcopy(self.flow.state_dict()), 0
        for _ in range(FLOW_EPOCHS):
            for part in training[torch.randperm(len(training))].split(256):
                optimizer.zero_grad()
                (-self.flow().log_prob(part).mean()).backward()
                optimizer.step()
                if time.process_time() > end:
                    break
            with torch.inference_mode():
                loss = -float(self.flow().log_prob(held_out).mean())
            if loss < best:
                best, weights, waited = loss, deepcopy(self.flow.state_dict()), -1
            waited += 1
            if waited == FLOW_PATIENCE or time.process_time() > end:
                break
        self.flow.load_state_dict(weights)

    def score_samples(self, codes: Array) -> Array:
        """Log density in nats."""
        with torch.inference_mode():
            return self.flow().log_prob(torch.from_numpy(codes).float()).double().numpy()

    def sample(self, n_samples: int) -> Array:
        """Draw codes."""
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            torch.manual_seed(self.seed)
            return self.flow().sample((n_samples,)).double().numpy()


@dataclass(frozen=True)
class Affine:
    """Codes as ``shift + z @ matrix``, of z that a density is fitted to."""

    shift: Array
    matrix: Array

    @classmethod
    def of(cls, codes: Array, scale: str) -> Affine:
        """Make each dimension, or each principal component, of unit variance."""
        n_components = codes.shape[1]
        if scale == "none":
            return cls(np.zeros(n_components), np.eye(n_components))
        mean, unit = codes.mean(axis=0), codes.std(axis=0)
        unit[unit == 0.0] = 1.0
        if scale == "standardised":
            return cls(mean, np.diag(unit))
        variance, axes = np.linalg.eigh(np.atleast_2d(np.cov(codes.T)))
        return cls(mean, np.sqrt(np.maximum(variance, 1e-12))[:, None] * axes.T)

    def inverse(self, codes: Array) -> Array:
        """Return z of codes."""
        return np.linalg.solve(self.matrix.T, (codes - self.shift).T).T

    def log_volume(self) -> float:
        """Nats that a log density of z is above that of codes."""
        return float(np.linalg.slogdet(self.matrix)[1])


def at_most(limit: int, *sizes: int) -> list[int]:
    """Sizes, the largest allowed one once in the place of all beyond it."""
    return list(dict.fromkeys(min(size, limit) for size in sizes))


def densities(n_rows: int, n_components: int, seed: int) -> Iterator[Density]:
    """Yield the candidates for so many codes that every model is sampled with."""
    most = max(1, n_rows // (ROWS_PER_DIMENSION * n_components))
    mixture = partial(GaussianMixture, random_state=seed)
    yield Density("prior", partial(Prior, seed), "none")
    for size in at_most(most, 1, 10):
        yield Density(f"full {size}", partial(mixture, size))
    yield Density("sized", partial(sized, n_rows, n_components, seed))
    for target in ("sphere", "pooled"):
        make = partial(sized, n_rows, n_components, seed, target)
        yield Density(f"sized, {target}", make)
    for size in at_most(most, 50, 100):
        yield Density(f"full {size}, regularised", partial(mixture, size, **REGULARISED))
    for kind in ("tied", "diag"):
        yield Density(f"{kind} 50", partial(mixture, min(50, n_rows // 2), covariance_type=kind))
    for bandwidth in (0.2, "scott"):
        yield Density(f"KDE {bandwidth}", partial(KernelDensity, bandwidth=bandwidth))


def more_densities(
    n_rows: int, n_components: int, seed: int, fit_seconds: float
) -> Iterator[Density]:
    """Yield those that one model is sampled with: other sizes, settings, scales, and flows."""
    most = max(1, n_rows // (ROWS_PER_DIMENSION * n_components))
    few, half = min(50, most), n_rows // 2
    mixture = partial(GaussianMixture, random_state=seed)
    for size in at_most(most, 10, 20, 50, 100, 200)[1:]:
        yield Density(f"full {size}", partial(mixture, size))
    for size in at_most(most, 10, 20, 50, 100, 200):
        if size not in at_most(most, 50, 100):
            yield Density(f"full {size}, regularised", partial(mixture, size, **REGULARISED))
    for name, options in VARIANTS.items():
        yield Density(f"full {few}, {name}", partial(mixture, few, **options))
    bayesian = partial(BayesianGaussianMixture, n_components=few, random_state=seed)
    yield Density(f"Bayesian {few}", bayesian)
    for kind in ("tied", "diag"):
        yield Density(f"{kind} 200", partial(mixture, min(200, half), covariance_type=kind))
    for bandwidth in (0.1, 0.3, 0.5):
        yield Density(f"KDE {bandwidth}", partial(KernelDensity, bandwidth=bandwidth))
    diagonal = partial(mixture, min(50, half), covariance_type="diag")
    yield Density(f"full {few}, whitened", partial(mixture, few), "whitened")
    yield Density("diag 50, whitened", diagonal, "whitened")
    yield Density("KDE 0.2, whitened", partial(KernelDensity, bandwidth=0.2), "whitened")
    if find_spec("zuko") is None:
        print("flows skipped: pip install zuko")
        return
    yield Density("flow, a tenth of the fit", partial(Flow, seed, SHARE * fit_seconds))
    yield Density("flow, to the end", partial(Flow, seed, np.inf))


@dataclass
class Shrunk:
    """A mixture whose covariances are shrunk after EM, towards one of three targets.

    The estimators' is each covariance's own diagonal. A variance added to all, as by
    `reg_covar`, would blur the components that are small.
    """

    mixture: GaussianMixture
    pseudo_rows: float
    target: str = "diagonal"

    def fit(self, codes: Array) -> GaussianMixture:
        """Fit, shrink, and return scikit-learn's mixture."""
        mixture = self.mixture.fit(codes)
        covariances, weights, n_components = mixture.covariances_, mixture.weights_, codes.shape[1]
        if self.target == "diagonal":
            shrunk = latent.shrunk_covariances(covariances, weights, len(codes), self.pseudo_rows)
        else:
            rows = (len(codes) * weights)[:, None, None]
            target = np.tensordot(weights, covariances, axes=1)
            if self.target == "sphere":
                variance = np.trace(covariances, axis1=1, axis2=2) / n_components
                target = variance[:, None, None] * np.eye(n_components)
            shrunk = (rows * covariances + self.pseudo_rows * target) / (rows + self.pseudo_rows)
        mixture.covariances_ = shrunk
        inverse = np.linalg.inv(np.linalg.cholesky(shrunk))
        mixture.precisions_cholesky_ = inverse.swapaxes(1, 2)
        return mixture


def sized(n_rows: int, n_components: int, seed: int, target: str = "diagonal") -> Shrunk:
    """Return the mixture of the estimators, which follows the rows and dimensions."""
    rows = latent.component_rows(n_components)
    most = min(latent.MIXTURE_COMPONENTS, latent.MIXTURE_MEANS // n_components)
    mixture = GaussianMixture(max(1, min(most, n_rows // rows)), random_state=seed, **FEW_STEPS)
    return Shrunk(mixture, latent.SHRUNK_ROWS * rows, target)


def n_bytes(density: Any, codes: Array) -> int:
    """Bytes of what a density keeps: float64 as the model file's mixture, codes float32."""
    if isinstance(density, KernelDensity):
        return 4 * codes.size
    if isinstance(density, Flow):
        return sum(p.nbytes for p in density.flow.parameters())
    names = ("weights_", "means_", "covariances_")
    return int(sum(np.asarray(getattr(density, name, ())).nbytes for name in names))


def fit_density(candidate: Density, codes: Array) -> tuple[Any, Affine, float]:
    """Fit to codes; the density, the scale it is on, and processor seconds."""
    start = time.process_time()
    scale = Affine.of(codes, candidate.scale)
    with warnings.catch_warnings():
        # As in the estimators, whether EM took its last step does not matter.
        warnings.simplefilter("ignore", ConvergenceWarning)
        density = candidate.make().fit(scale.inverse(codes))
    return density, scale, time.process_time() - start


def draw(density: Any, scale: Affine, n_samples: int, seed: int) -> Array:
    """Codes from a fitted density, in random order: mixtures sort them by component."""
    is_kernel = isinstance(density, KernelDensity)
    z = density.sample(n_samples, seed) if is_kernel else density.sample(n_samples)
    z = z[0] if isinstance(z, tuple) else z  # mixtures return the components, too
    return scale.shift + np.random.default_rng(seed).permutation(z) @ scale.matrix


def mean_log_density(density: Any, scale: Affine, codes: Array) -> float:
    """Mean log density of codes, nats a row."""
    return float(density.score_samples(scale.inverse(codes)).mean()) - scale.log_volume()


def quality(real: Array, draws: Sequence[Array]) -> dict[str, float]:
    """Fréchet distance and shares of neighbours between features, means over draws.

    One draw of a few hundred samples is off by a fifth of a distance.
    """
    numbers = []
    for drawn in draws:
        distance = frechet.frechet_of_features(real, drawn)
        numbers.append({"frechet": distance, **frechet.neighbour_shares(real, drawn, 5)})
    return {name: float(np.mean([each[name] for each in numbers])) for name in numbers[0]}


def measure(
    table: Table, model: Model, net: frechet.FeatureNet, seed: int, whole: bool
) -> Iterator[dict[str, Any]]:
    """Fit a model once; yield a row for its decoded codes and for each density of them."""
    start = time.process_time()
    estimator = model.cls(
        model.n_components, likelihood=table.likelihood, random_state=seed, **model.params
    ).fit(table.train)
    fit_seconds = time.process_time() - start
    size = min(ROWS, len(table.test))
    n_draws = max(1, ROWS // size)
    (test,) = subsample(size, seed, table.test)
    real = frechet.features(net, test)

    def features_of(codes: Array) -> Array:
        return frechet.features(net, estimator.inverse_transform(codes.astype(np.float32)))

    codes, held_out = (estimator.transform(part).astype(float) for part in (table.train, test))
    parts = [subsample(size, seed + draw, table.train, codes) for draw in range(n_draws)]
    floor = quality(real, [frechet.features(net, rows) for rows, _ in parts])
    ceiling = quality(real, [features_of(part) for _, part in parts])
    controls = frechet.sample_quality(net, test, test, reference_rows=parts[0][0], seed=seed)
    shared = {
        "model": model.name,
        "seed": seed,
        "n_components": model.n_components,
        "n_train": len(table.train),
        "n_compared": size,
        "n_draws": n_draws,
        "classifier_accuracy": net.accuracy,
        "controls_valid": [name for name, control in controls.items() if control.valid],
        "fit_seconds": fit_seconds,
        "floor": floor["frechet"],
        "frechet_codes": ceiling["frechet"],
    }
    yield {**shared, "latent": "training rows", **floor}
    yield {**shared, "latent": "training codes", **ceiling}
    (codes,) = subsample(latent.MIXTURE_ROWS, seed, codes)
    candidates = [*densities(*codes.shape, seed)]
    if whole:
        candidates += more_densities(*codes.shape, seed, fit_seconds)
    for candidate in candidates:
        density, scale, seconds = fit_density(candidate, codes)
        drawn = draw(density, scale, size * n_draws, seed)
        yield {
            **shared,
            "latent": candidate.name,
            **quality(real, [features_of(part) for part in np.split(drawn, n_draws)]),
            "log_density": mean_log_density(density, scale, held_out),
            "density_seconds": seconds,
            "share_of_fit": seconds / fit_seconds,
            "bytes": n_bytes(density, codes),
        }


def models(data: str, seed: int, *, quick: bool, few: bool) -> Iterator[Model]:
    """Yield what to sample from on one data set: HEBAE at its default first."""
    yield Model("HEBAE", HEBAETransformer, {})
    if quick:
        return
    yield Model("VAE", VAETransformer, {})
    if data == "pbmc3k":  # a minute a fit
        return
    yield Model("WAE", WAETransformer, {})
    for share in (0.1, 1.0) if data == "digits" else (1.0,):
        yield Model(f"HEBAE row_share={share:g}", HEBAETransformer, {"row_share": share})
    if seed > 0 or data == "patches":
        return
    for n_components in (2, 50):
        yield Model("HEBAE", HEBAETransformer, {}, n_components)
    if data == "fashion-mnist" and not few:
        # Does a larger network close the gap that a density cannot?
        for n_components in (10, 50):
            wide = {"hidden_layer_sizes": (512, 512)}
            yield Model("HEBAE 512 x 512", HEBAETransformer, wide, n_components)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure every data set asked for, writing after each cell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", choices=STUDIED, default=STUDIED)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--few", action="store_true", help="no variants, flows and wide networks")
    parser.add_argument("--quick", action="store_true", help="HEBAE with a few densities, one seed")
    arguments = parser.parse_args(argv)
    # What is committed is never the quick run's.
    output = ("sampling-quick", CACHE) if arguments.quick else ("sampling", RESULTS)
    rows: list[dict[str, Any]] = []
    for name in arguments.data:
        seeds = 1 if arguments.quick else min(arguments.seeds, MAX_SEEDS.get(name, arguments.seeds))
        for seed in range(seeds):
            table = load_table(name, seed)
            if table is None:
                break
            parts = (table.train, table.y_train, table.test, table.y_test)
            cache = frechet.cache_path(CACHE, name, seed)
            net = frechet.train_feature_net(*parts, table.image_shape, seed, cache)
            how = {"quick": arguments.quick, "few": arguments.few}
            for number, model in enumerate(models(name, seed, **how)):
                whole = number == seed == 0 and not (arguments.quick or arguments.few)
                for row in measure(table, model, net, seed, whole):
                    rows.append({"data": name, **row})
                    print({key: row[key] for key in PRINTED if key in row}, flush=True)
                write(output[0], rows, folder=output[1])


if __name__ == "__main__":
    main()
