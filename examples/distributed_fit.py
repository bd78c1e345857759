"""One HEBAE fitted by several processes, each on its own rows, beside a fit by one.

Run ``torchrun --nproc_per_node 2 examples/distributed_fit.py --output demo_output``, on several
machines with torchrun's ``--nnodes`` and ``--rdzv_endpoint``. It fits handwritten digits, prints
a table, and leaves the model and a checkpoint: a process that is killed costs, with
``--max-restarts 3``, the epoch it was in.
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

#: Rows of a minibatch in all processes together.
MINIBATCH = 128


def own_rows(rank: int, n_processes: int) -> NDArray[np.float64]:
    """Every n-th training row; of a table in a file, read no others."""
    train, _ = train_test_split(load_digits().data / 16, test_size=0.25, random_state=0)
    return train[rank::n_processes]


def held_out() -> NDArray[np.float64]:
    """Digits that no process is fitted to."""
    return train_test_split(load_digits().data / 16, test_size=0.25, random_state=0)[1]


def line(name: str, model: HEBAETransformer, seconds: float) -> str:
    """Say how good a model is on held-out rows."""
    test = held_out()
    error = np.mean((model.inverse_transform(model.transform(test)) - test) ** 2)
    return f"{name:14} {error:15.4f} {model.score(test):12.1f} {seconds:9.1f}"


def fitted(
    model: HEBAETransformer, X: NDArray[np.float64], checkpoint: Path | None = None
) -> tuple[HEBAETransformer, float]:
    """Fit, and take the time."""
    start = time.perf_counter()
    model.fit(X, checkpoint=checkpoint)
    return model, time.perf_counter() - start


def main(output: Path) -> None:
    """Fit together, then alone, and compare."""
    # gloo for CPUs, nccl for GPUs; a process needs one or the other before it fits.
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backend)
    rank, size = distributed.get_rank(), distributed.get_world_size()
    output.mkdir(parents=True, exist_ok=True)

    # The same call in every process, which gives the same model in every process.
    together = HEBAETransformer(10, batch_size=MINIBATCH // size, random_state=0)
    together, seconds = fitted(together, own_rows(rank, size), output / "digits.ckpt")
    if rank == 0:
        together.save(output / "digits.model")
        print(f"{'':14} {'held-out error':>15} {'score, nats':>12} {'seconds':>9}")
        print(line(f"{size} processes", together, seconds))
        # What concerns one process alone must say so: others would be waited for.
        alone = HEBAETransformer(10, batch_size=MINIBATCH, random_state=0, distributed=False)
        print(line("1 process", *fitted(alone, own_rows(0, 1))))
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("demo_output"))
    main(parser.parse_args().output)
