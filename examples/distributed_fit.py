"""One HEBAE fitted by several processes, each on its own rows, compared with a fit by one.

Run ``torchrun --nproc_per_node 2 examples/distributed_fit.py --output demo_output``. On several
machines, add torchrun's ``--nnodes`` and ``--rdzv_endpoint``. The script fits handwritten digits,
prints a table, and writes the model and a checkpoint. If a process is killed,
``--max-restarts 3`` makes torchrun restart all of them, and they resume from the checkpoint.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import distributed

from skhebae import HEBAETransformer

#: Rows per minibatch, summed over all processes.
MINIBATCH = 128


def own_rows(rank: int, n_processes: int) -> NDArray[np.float64]:
    """Return every n-th training row; a process never needs the rows of the others."""
    train, _ = train_test_split(load_digits().data / 16, test_size=0.25, random_state=0)
    return train[rank::n_processes]


def held_out() -> NDArray[np.float64]:
    """Return the digits that no process is fitted to."""
    return train_test_split(load_digits().data / 16, test_size=0.25, random_state=0)[1]


def result_line(name: str, model: HEBAETransformer, seconds: float) -> str:
    """Format the results of a model on held-out rows."""
    test = held_out()
    error = np.mean((model.inverse_transform(model.transform(test)) - test) ** 2)
    return f"{name:14} {error:15.4f} {model.score(test):12.1f} {seconds:9.1f}"


def fit_timed(
    model: HEBAETransformer, X: NDArray[np.float64], checkpoint: Path | None = None
) -> tuple[HEBAETransformer, float]:
    """Fit a model and measure the seconds it takes."""
    start = time.perf_counter()
    model.fit(X, checkpoint=checkpoint)
    return model, time.perf_counter() - start


def main(output: Path) -> None:
    """Fit in all processes together, then in one process, and compare the results."""
    # The process group must exist before `fit`: nccl for GPUs, gloo for CPUs.
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backend)
    rank, size = distributed.get_rank(), distributed.get_world_size()
    output.mkdir(parents=True, exist_ok=True)

    # Every process makes the same call and ends with the same model.
    together = HEBAETransformer(10, batch_size=MINIBATCH // size, random_state=0)
    together, seconds = fit_timed(together, own_rows(rank, size), output / "digits.ckpt")
    if rank == 0:
        together.save(output / "digits.model")
        print(f"{'':14} {'held-out error':>15} {'score, nats':>12} {'seconds':>9}")
        print(result_line(f"{size} processes", together, seconds))
        # Without distributed=False, this fit would wait for the other processes.
        alone = HEBAETransformer(10, batch_size=MINIBATCH, random_state=0, distributed=False)
        print(result_line("1 process", *fit_timed(alone, own_rows(0, 1))))
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("demo_output"))
    main(parser.parse_args().output)
