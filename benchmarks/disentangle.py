"""Capacity annealing: how well a divergence is led, at what cost, and what comes apart.

``python -m benchmarks disentangle`` fits VAEs with a capacity C to digits, and beside each one
with a weight beta that has the same divergence; then both, HEBAE and principal components to images
of known factors. It writes ``results/disentangle.json``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from math import exp, log
from statistics import mean, pstdev
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from benchmarks.factors import dci, mutual_information_gap, sprites
from benchmarks.pages import average, group, spread_out, table
from benchmarks.results import Results, parser
from benchmarks.runner import Row, clock, limit_threads
from benchmarks.speed import unwarned
from skhebae import HEBAETransformer, VAETransformer

Array = NDArray[Any]
D = 10
LIKELIHOODS, CAPACITIES = ("gaussian", "bernoulli"), (5.0, 10.0, 15.0, 20.0, 25.0)
#: Weights beta on sprites; each has a twin with a capacity of the same divergence.
BETAS = (0.25, 0.5, 1.0, 2.0)
#: Share of the epochs in which C rises from 0.
RISE = 0.2

#: Fits in the search for the beta of a divergence, and the difference that needs no further one.
SEARCHES, CLOSE = 5, 0.01

#: What counts as reached, as no worse in reconstruction (nats per feature), and as no worse in MIG
#: and DCI.
REACHED, NO_WORSE, AS_GOOD = 0.05, 0.005, 0.01
MEASURES = ("mig", "disentanglement", "completeness")
OWN, ORDERED = "the encoder's", "ordered"


def divergence(model: Any, rows: Array) -> float:
    """Return the mean KL(q(z given x) || N(0, I)) of rows, nats."""
    mu, spread = (part.astype(np.float64) for part in model.fitted_.encode_with_spread(rows))
    return float((0.5 * (mu**2 + spread**2 - 1.0) - np.log(spread)).sum(axis=1).mean())


def fit(rows: Array, likelihood: str, seed: int, now: Callable[[], float], **how: Any) -> Any:
    """Fit a VAE; return it with its row of numbers."""
    start = now()
    model = VAETransformer(D, likelihood=likelihood, random_state=seed, **how).fit(rows)
    row: Row = {"fit_seconds": now() - start, "kl": divergence(model, rows)}
    row["reconstruction"] = -float(model.fitted_.expected_log_prob(rows).mean(dtype=np.float64))
    return model, row


def find_beta(wanted: float, measure: Callable[[float], Row], betas: Sequence[float]) -> Row:
    """Return the row of a fit whose divergence is the wanted one, by the secant in log beta.

    What is left of the difference is taken off along the tangent: at the optimum,
    ``d reconstruction / d KL = -beta``.
    """
    tried = [{"beta": beta, **measure(beta)} for beta in betas]
    while True:
        low, high = sorted(sorted(tried, key=lambda row: abs(row["kl"] - wanted))[:2], key=beta_of)
        nearest = min((low, high), key=lambda row: abs(row["kl"] - wanted))
        off = wanted - nearest["kl"]
        if abs(off) < CLOSE * wanted or len(tried) == SEARCHES:
            return nearest | {"reconstruction": nearest["reconstruction"] - nearest["beta"] * off}
        slope = (high["kl"] - low["kl"]) / log(high["beta"] / low["beta"])
        step = off / slope if slope < 0.0 else np.sign(-off) * 0.3
        beta = nearest["beta"] * exp(float(np.clip(step, -1.0, 1.0)))
        tried.append({"beta": beta, **measure(beta)})


def beta_of(row: Row) -> float:
    """Return the weight of a row."""
    return float(row["beta"])


def on_digits(likelihood: str, seed: int, results: Results, now: Callable[[], float]) -> None:
    """Fit with every capacity to digits, and with the beta of the same divergence."""
    rows = load_digits().data / 16.0
    known: dict[float, Row] = {}

    def measure(beta: float) -> Row:
        if beta not in known:
            known[beta] = fit(rows, likelihood, seed, now, beta=beta)[1]
        return known[beta]

    for target in CAPACITIES:
        cell = {"data": "digits", "likelihood": likelihood, "seed": seed, "target": target}
        if results.has(method="beta", **cell):
            continue
        led = fit(rows, likelihood, seed, now, capacity=(0.0, target, RISE))[1]
        results.add({**cell, "method": "capacity", "n_features": rows.shape[1], **led})
        near = sorted(known, key=lambda beta: abs(known[beta]["kl"] - led["kl"]))[:2]
        found = find_beta(
            led["kl"], measure, near if len(near) == 2 else (20.0 / target, 10.0 / target)
        )
        results.add({**cell, "method": "beta", **found})


def measured_codes(codes: Array, factors: Array) -> Row:
    """Return MIG and DCI of codes."""
    return {"mig": mutual_information_gap(codes, factors), **dci(codes, factors)}


def controls(factors: Array, seed: int) -> dict[str, Array]:
    """Return codes for which the measures are known to be high, and two for which they are low."""
    rng = np.random.default_rng(seed)
    own = (factors - factors.mean(axis=0)) / factors.std(axis=0)
    noise = rng.normal(size=(len(factors), D))
    known = np.hstack([own + 0.01 * noise[:, :5], noise[:, 5:]])
    turn = np.linalg.qr(rng.normal(size=(D, D)))[0]
    return {"the factors": known, "the factors, turned": known @ turn, "noise": noise}


def on_sprites(seed: int, results: Results, now: Callable[[], float]) -> None:
    """Fit everything to images of known factors, and measure both kinds of axes."""
    rows, factors = sprites()

    def add(method: str, setting: float | None, model: Any, row: Row) -> None:
        kinds = {ORDERED: model.transform(rows)}
        if method != "PCA":
            kinds[OWN] = model.fitted_.with_encoder_codes().encode(rows)
        cell = {"data": "sprites", "method": method, "setting": setting, "seed": seed}
        for axes, codes in kinds.items():
            more = {"axes": axes, "n_features": rows.shape[1]}
            results.add({**cell, **more, **row, **measured_codes(codes, factors)})

    for name, codes in controls(factors, seed).items():
        if not results.has(data="sprites", seed=seed, method=name):
            cell = {"data": "sprites", "method": name, "setting": None, "seed": seed, "axes": ""}
            results.add({**cell, **measured_codes(codes, factors)})
    for beta in BETAS:
        if results.has(data="sprites", seed=seed, method="capacity", setting=beta):
            continue
        model, row = fit(rows, "bernoulli", seed, now, beta=beta)
        add("beta", beta, model, row)
        target = row["kl"]
        model, row = fit(rows, "bernoulli", seed, now, capacity=(0.0, target, RISE))
        add("capacity", beta, model, {**row, "wanted": target})
    if not results.has(data="sprites", seed=seed, method="PCA"):
        start = now()
        model = HEBAETransformer(D, likelihood="bernoulli", random_state=seed).fit(rows)
        add("HEBAE", None, model, {"fit_seconds": now() - start})
        add("PCA", None, PCA(D, random_state=seed).fit(rows), {})


def worse(rows: list[Row]) -> list[tuple[Any, float]]:
    """Return, per pair of a beta and a capacity, how much worse the latter reconstructs.

    In nats per feature, mean over seeds.
    """
    key = "target" if rows[0]["data"] == "digits" else "setting"
    found = []
    own = [row for row in rows if row.get("axes", OWN) == OWN and row["method"] != "HEBAE"]
    for cell, of in group(own, *(["likelihood"] if key == "target" else []), key).items():
        mine, other = ([r for r in of if r["method"] == name] for name in ("capacity", "beta"))
        gap = average(mine, "reconstruction") - average(other, "reconstruction")
        if key == "setting":  # the twin's divergence is that of beta up to the error of C
            gap += cell[-1] * (average(mine, "kl") - average(other, "kl"))
        found.append((cell, gap / mine[0]["n_features"]))
    return found


def verdict(outcomes: Sequence[bool]) -> str:
    """Say whether all comparisons came out as claimed, some, or none."""
    return "holds" if all(outcomes) else "partly" if any(outcomes) else "does not"


def claims(rows: list[Row]) -> list[list[object]]:
    """Return each claim of the abstract, what was measured, and the verdict."""
    digits = [row for row in rows if row["data"] == "digits"]
    images = [row for row in rows if row["data"] == "sprites" and row["axes"] == OWN]
    lines: list[list[object]] = []
    led = group((row for row in digits if row["method"] == "capacity"), "likelihood", "target")
    off = [max(abs(row["kl"] / target - 1.0) for row in of) for (_, target), of in led.items()]
    said = f"final KL on digits at most {max(off):.1%} from C (rule: {REACHED:.0%})"
    lines.append(["the capacity increases as asked", said, verdict([x <= REACHED for x in off])])
    cells = group((r for r in images if r["method"] in ("beta", "capacity")), "setting", "method")
    better, steadier = [], []
    for beta, measure in product(BETAS, MEASURES[:2]):
        own, other = ([row[measure] for row in cells[beta, name]] for name in ("capacity", "beta"))
        better.append(mean(own) >= mean(other) - AS_GOOD)
        steadier.append(pstdev(own) <= pstdev(other) + AS_GOOD)
    said = f"MIG and disentanglement no lower than with beta at the same KL: {sum(better)} of"
    lines.append(["representations are disentangled", f"{said} {len(better)}"])
    lines[-1].append(verdict(better))
    said = f"spread over seeds no larger than with beta: {sum(steadier)} of {len(steadier)}"
    lines.append(["learning is robust", said, verdict(steadier)])
    gaps = [gap for part in (digits, images) for _, gap in worse(part)]
    said = f"at most {max(gaps):+.4f} nats per feature worse than beta"
    said += f", within {NO_WORSE:g} in {sum(gap <= NO_WORSE for gap in gaps)} of {len(gaps)}"
    lines.append(["reconstructions are accurate, at equal KL", said])
    lines[-1].append(verdict([gap <= NO_WORSE for gap in gaps]))
    best = max(BETAS, key=lambda beta: average(cells[beta, "beta"], "mig"))
    there = cells[best, "beta"]
    as_good = [
        beta
        for beta in BETAS
        if average(cells[beta, "capacity"], "mig") >= average(there, "mig") - AS_GOOD
    ]
    slack = NO_WORSE * there[0]["n_features"]
    limit = min(average(cells[beta, "beta"], "reconstruction") for beta in BETAS) + slack
    reached = [average(cells[beta, "capacity"], "reconstruction") <= limit for beta in as_good]
    which = ", ".join(f"{beta:g}" for beta in as_good) or "none"
    said = f"capacities with the MIG of the best beta ({best:g}): those at the KL of beta {which}; "
    said += f"with the reconstruction of the most accurate beta as well: {sum(reached)}"
    outcome = "does not" if not any(reached) else "holds"
    lines.append(["there is no trade-off with reconstruction", said, outcome])
    return lines


def summary(rows: list[Row]) -> list[str]:
    """Return the tables: claims, digits, images."""
    digits = [row for row in rows if row["data"] == "digits"]
    lines = []
    gaps = dict(worse(digits))
    for (likelihood, target), of in group(digits, "likelihood", "target").items():
        mine, other = ([r for r in of if r["method"] == name] for name in ("capacity", "beta"))
        line = [likelihood, f"{target:g}", spread_out([r["kl"] for r in mine], "{:.2f}")]
        line += [f"{average(other, 'beta'):.2f}", f"{average(other, 'kl'):.2f}"]
        line += [f"{average(part, 'reconstruction'):.2f}" for part in (mine, other)]
        lines.append([*line, f"{gaps[likelihood, target]:+.4f}"])
    headings = ["likelihood", "C", "KL", "beta", "KL of beta", "reconstruction"]
    led = table([*headings, "that of beta", "difference"], lines)
    lines = []
    images = [row for row in rows if row["data"] == "sprites"]
    for (method, setting, axes), of in group(images, "method", "setting", "axes").items():
        named = method if setting is None else f"{method} {setting:g}"
        named = named if method != "capacity" else f"capacity, KL of beta {setting:g}"
        line = [named, axes]
        for key, form in (("kl", "{:.1f}"), ("reconstruction", "{:.2f}")):
            line.append(form.format(average(of, key)) if key in of[0] else "-")
        numbers = (*MEASURES, "informativeness")
        line += [spread_out([row[key] for row in of], "{:.3f}") for key in numbers]
        lines.append(line)
    headings = ["method", "axes", "KL", "reconstruction", "MIG", *numbers[1:]]
    said = table(["claim", "measured", "verdict"], claims(rows))
    return [
        *said,
        "",
        "**Digits.** A row is a likelihood and a capacity C. *KL* is the divergence reached, and "
        "*beta* the weight whose fit has the same divergence. Reconstruction is in nats per row, "
        "lower is better. *Difference* is capacity minus beta, in nats per feature.",
        "",
        *led,
        "",
        "**Images of known factors.** A row is a method and the axes of its codes. Higher is "
        "better for the last four columns, lower for the reconstruction.",
        "",
        *table(headings, lines),
    ]


def main(argv: list[str] | None = None) -> None:
    """Measure what the command line asks for, and print the summary."""
    made = parser("disentangle", __doc__, threads=1, resumes=True)
    made.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = made.parse_args(argv)
    limit_threads(arguments.threads)
    output = arguments.output / "disentangle.json"
    keys = ("data", "likelihood", "target", "method", "setting", "axes", "seed")
    results = Results(output, keys, resume=arguments.resume, threads=arguments.threads)
    now = clock(arguments.threads)
    with unwarned():
        for seed in arguments.seeds:
            on_sprites(seed, results, now)
            for likelihood in LIKELIHOODS:
                on_digits(likelihood, seed, results, now)
    print(*summary(results.rows), sep="\n")
