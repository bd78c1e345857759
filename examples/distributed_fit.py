"""One HEBAE fitted by several processes, each on its own rows.

Run ``torchrun --nproc_per_node 2 examples/distributed_fit.py --output demo_output``. On several
machines, add torchrun's ``--nnodes`` and ``--rdzv_endpoint``. The script fits noisy copies of
handwritten digits, prints one line, and writes the model and a checkpoint. If a process is killed,
``--max-restarts 3`` makes torchrun restart all of them, and they resume from the checkpoint.

Run ``python examples/distributed_fit.py --compare`` for a table of what two processes gain. It
starts this script with one process, with two, and with one process of two threads, and measures
the fit as well as the whole command. Several processes gain only with large networks and
minibatches, as here, and on idle cores. ``--rows 4000 --hidden 128 --minibatch 128`` is too small.
On one machine, try more threads first. Processes also work on several machines.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from torch import distributed

from skhebae import HEBAETransformer

#: What `--compare` runs: name, processes, threads of each.
CONTENDERS = [("1 process", 1, 1), ("2 processes", 2, 1), ("1 process, 2 threads", 1, 2)]


def noisy_digits(n_rows: int, seed: int) -> NDArray[np.float32]:
    """Draw digits with replacement and add noise to their pixels."""
    rng = np.random.default_rng(seed)
    digits = load_digits().data / 16
    rows = digits[rng.integers(len(digits), size=n_rows)]
    return (rows + rng.normal(scale=0.05, size=rows.shape)).astype(np.float32)


def fit(arguments: argparse.Namespace) -> None:
    """Fit in all processes together; the first one prints the result."""
    # The process group must exist before `fit`: nccl for GPUs, gloo for CPUs.
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size > 1:
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    rank = distributed.get_rank() if size > 1 else 0
    arguments.output.mkdir(parents=True, exist_ok=True)

    # Each process needs its own rows only. `batch_size` is per process.
    X = noisy_digits(arguments.rows, seed=0)[rank::size]
    model = HEBAETransformer(
        10,
        hidden_layer_sizes=(arguments.hidden, arguments.hidden),
        batch_size=arguments.minibatch // size,
        max_iter=arguments.epochs,
        linear_path=False,
        random_state=0,
    )
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a few epochs show the speed
        # Every process makes the same call and ends with the same model.
        model.fit(X, checkpoint=arguments.output / f"digits-{size}.ckpt")
    seconds = time.perf_counter() - start

    if rank == 0:
        model.save(arguments.output / "digits.model")
        test = noisy_digits(2000, seed=1)
        error = np.mean((model.inverse_transform(model.transform(test)) - test) ** 2)
        result = {"processes": size, "fit_seconds": seconds, "error": float(error)}
        print(json.dumps({**result, "score": model.score(test)}))
    if size > 1:
        distributed.barrier()
        distributed.destroy_process_group()


def compare(arguments: argparse.Namespace) -> None:
    """Start this script once per contender and print a table."""
    sizes = ("rows", "hidden", "minibatch", "epochs")
    options = [f"--{name}={getattr(arguments, name)}" for name in sizes]
    columns = ("fit, s", "with start, s", "held-out error", "score, nats")
    print(f"{'':22}" + "".join(f"{name:>16}" for name in columns))
    for number, (name, n_processes, n_threads) in enumerate(CONTENDERS):
        launcher = [
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc_per_node={n_processes}",
        ]
        command = [sys.executable, *(launcher if n_processes > 1 else []), __file__, *options]
        command.append(f"--output={arguments.output / str(number)}")
        environment = {**os.environ, "OMP_NUM_THREADS": str(n_threads)}
        start = time.perf_counter()
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
        total = time.perf_counter() - start
        row = json.loads(done.stdout.splitlines()[-1])
        print(f"{name:22}{row['fit_seconds']:16.1f}{total:16.1f}", end="")
        print(f"{row['error']:16.4f}{row['score']:16.1f}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--compare", action="store_true", help="start one and two processes")
    parser.add_argument("--rows", type=int, default=81_920, help="of all processes together")
    parser.add_argument("--hidden", type=int, default=1024, help="units of each of two layers")
    parser.add_argument("--minibatch", type=int, default=8192, help="rows, over all processes")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("demo_output"))
    arguments = parser.parse_args()
    (compare if arguments.compare else fit)(arguments)
