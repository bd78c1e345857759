"""Kill fits at random moments and start them again, until they are done.

::

    python -m tests.kill --rounds 8 --kills 40

Each round is another fit with ``checkpoint=``. Its processes are killed so many times, some of
them while they write; the result is to be that of a fit that nobody killed, to the last bit, and
after the next start there is to be nothing beside the checkpoint and the one before it. The exit
status says whether that was so.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import sparse

from skhebae import HEBAETransformer, VAETransformer, WAETransformer
from skhebae.training import checkpoint

N_ROWS, N_FEATURES = 400, 12


class Fit(NamedTuple):
    """A fit: of which class, with which parameters, to which rows and with what of them."""

    cls: type
    params: dict[str, Any]
    X: Any
    side: dict[str, Any]

    def __call__(self, path: Path | None = None) -> list[np.ndarray]:
        """Return the weights, codes and losses of the fit."""
        params = {"n_components": 2, "batch_size": 32, "max_iter": 6, "random_state": 0}
        model = self.cls(**{**params, "n_iter_no_change": 99, **self.params})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(self.X, **self.side, checkpoint=path)
        encoded = {"batch": self.side["batch"]} if model.encode_batch else {}
        weights = model.fitted_.model.state_dict().values()
        return [
            model.transform(self.X, **encoded),
            np.array(model.history_["loss"]),
            *(tensor.numpy() for tensor in weights),
        ]


def make_fits() -> list[Fit]:
    """Fits that have something different in their files."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N_ROWS, 3)) @ rng.normal(size=(3, N_FEATURES))
    counts = rng.poisson(np.exp(0.3 * X)).astype(np.float32)
    batch = np.array(["a", "b"])[np.arange(N_ROWS) % 2]
    sizes = np.linspace(1.0, 2.0, N_ROWS)
    labelled = {"batch": batch, "size_factor": sizes}
    nb = {"likelihood": "negative_binomial", "encode_batch": True}
    return [
        Fit(HEBAETransformer, {}, X, {}),
        Fit(VAETransformer, {"early_stopping": True}, X, {}),
        Fit(HEBAETransformer, nb, counts, labelled),
        Fit(WAETransformer, {}, sparse.csr_matrix(np.maximum(X, 0.0)), {}),
    ]


def start(function: Callable[[], object]) -> int:
    """Start a process that calls a function; return its number.

    It is a fork: imports would take longer than the fit. This process has no other threads.
    """
    child = os.fork()
    if child > 0:
        return child
    status = 1
    try:
        function()
        status = 0
    finally:
        os._exit(status)


def run_round(fit: Fit, expected: Sequence[np.ndarray], n_kills: int, seed: int) -> list[str]:
    """Kill a fit so many times; return what is wrong with its result and its folder."""
    rng, found = np.random.default_rng(seed), []
    with tempfile.TemporaryDirectory() as name:
        folder, results = Path(name) / "fit", Path(name) / "results.npz"
        folder.mkdir()

        def work() -> None:
            np.savez(results, *fit(folder / "fit"))

        begin = time.monotonic()
        check(os.waitpid(start(work), 0)[1], results, folder, expected, found)
        whole = time.monotonic() - begin
        kills, done = 0, True
        while not done or kills < n_kills:
            if done:  # sooner than the kills: once more from the start
                for file in folder.iterdir():
                    file.unlink()
            child = start(work)
            if kills < n_kills:
                time.sleep(rng.uniform(0.0, 0.5 * whole))
                os.kill(child, signal.SIGKILL)
            status = os.waitpid(child, 0)[1]
            done = os.waitstatus_to_exitcode(status) != -signal.SIGKILL
            kills += not done
            if done:
                check(status, results, folder, expected, found)
    return found


def check(
    status: int, results: Path, folder: Path, expected: Sequence[np.ndarray], found: list[str]
) -> None:
    """Add to `found` what is wrong after a process that was not killed."""
    if status != 0:
        found.append(f"a process that ended with status {os.waitstatus_to_exitcode(status)}")
        return
    with np.load(results) as arrays:
        pairs = zip(arrays.values(), expected, strict=True)
        if not all(np.array_equal(one, other, equal_nan=True) for one, other in pairs):
            found.append("another result than that of a fit that was not killed")
    if names := sorted({path.name for path in folder.iterdir()} - {"fit", "fit.before"}):
        found.append(f"left behind: {', '.join(names)}")


def run(n_rounds: int, n_kills: int, seed: int) -> dict[str, int]:
    """Run so many rounds; count what is wrong."""
    torch.set_num_threads(1)
    checkpoint.COST, checkpoint.WITHIN_EPOCH = 0.0, 0.0  # a file after every step
    counts: dict[str, int] = {}
    for i in range(n_rounds):
        fits = make_fits()
        fit = fits[i % len(fits)]
        for problem in run_round(fit, fit(), n_kills, seed + i):
            counts[problem] = counts.get(problem, 0) + 1
    return counts


def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.kill", description=__doc__)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=None, help="by default another each time")
    parsed = parser.parse_args(arguments)
    seed = parsed.seed
    if seed is None:
        seed = int(np.random.SeedSequence().generate_state(1)[0])
    print(f"seed {seed}")
    counts = run(parsed.rounds, parsed.kills, seed)
    print(f"{parsed.rounds} rounds of {parsed.kills} kills")
    for problem, count in counts.items():
        print(f"  {count} times {problem}")
    if not counts:
        print("  all results bit-identical, nothing left behind")
    return int(bool(counts))


if __name__ == "__main__":
    sys.exit(main())
