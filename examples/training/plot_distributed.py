"""
Fit one model in several processes
==================================

Where ``torch.distributed`` has a process group, ``fit`` trains one model on the rows of all
processes. All of them end with the same model. This example writes a script, starts it with one
process and with two, and shows what the second one gains and what it costs.
"""

# %%
# Write a script
# --------------
# Each process makes the process group, calls ``fit`` with its own rows, and waits for the others.
# ``batch_size`` is the number of rows per process, so half of it keeps the size of a step.
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

folder = Path(tempfile.mkdtemp())
script = folder / "fit.py"
n_characters = script.write_text("""
import json, os, sys, time, warnings
import numpy as np
from sklearn.datasets import load_digits
from torch import distributed
from skhebae import HEBAETransformer

size, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
if size > 1:
    distributed.init_process_group("gloo")  # "nccl" for GPUs

rng = np.random.default_rng(0)
X = np.tile(load_digits().data / 16, (22, 1))
X += rng.normal(scale=0.05, size=X.shape)

warnings.simplefilter("ignore")  # two epochs show the speed, not the best fit
model = HEBAETransformer(
    10, hidden_layer_sizes=(1024, 1024), batch_size=8192 // size, max_iter=2, random_state=0,
    linear_path=False,
)
start = time.perf_counter()
model.fit(X[rank::size])  # only these rows; all processes end with the same model
seconds = time.perf_counter() - start

np.save(os.path.join(sys.argv[1], f"codes-{size}-{rank}.npy"), model.transform(X[:500]))
if rank == 0:
    print(json.dumps({"fit": seconds, "score": model.score(X[:500])}))
if size > 1:
    distributed.barrier()
    distributed.destroy_process_group()
""")

# %%
# Start it
# --------
# ``python -m torch.distributed.run`` is ``torchrun``. On several machines, add ``--nnodes`` and
# ``--rdzv_endpoint``. Each process computes with one thread here.
torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
environment = {**os.environ, "OMP_NUM_THREADS": "1"}
results = {}
for name, launcher in {"1 process": [], "2 processes": torchrun}.items():
    command = [sys.executable, *launcher, str(script), str(folder)]
    start = time.perf_counter()
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    total = time.perf_counter() - start
    result = json.loads(done.stdout.splitlines()[-1])
    start_up = total - result["fit"]
    results[name] = {"fit, s": result["fit"], "start, s": start_up, "score": result["score"]}
table = pd.DataFrame(results).T
table.round(1)

# %%
# The result is the same
# ----------------------
# Both processes hold the same model, to the last bit. One process puts other rows into each
# minibatch, so its model differs a little.
codes = [np.load(folder / f"codes-2-{rank}.npy") for rank in (0, 1)]
print(f"codes of both processes identical: {np.array_equal(*codes)}")

# %%
# Gain and cost
# -------------
# The arithmetic of a step is shared, but all processes exchange codes and gradients in each step,
# and every one has to import PyTorch first. Long fits of large networks in large minibatches gain.
# Small ones, and processes that wait for a core, take longer than one process. On one machine, try
# more threads first. Processes also work on several machines.
figure, ax = plt.subplots(figsize=(8, 3), layout="constrained")
names = list(results)[::-1]
ax.barh(names, table.loc[names, "fit, s"], color="#0072B2", label="fit")
ax.barh(
    names,
    table.loc[names, "start, s"],
    left=table.loc[names, "fit, s"],
    color="#CCCCCC",
    label="start of the processes, data, codes",
)
for number, name in enumerate(names):
    seconds = table.loc[name, "fit, s"]
    ax.text(seconds / 2, number, f"{seconds:.1f} s", ha="center", va="center", color="white")
ax.set(xlabel="seconds", title="Two epochs of 39,534 rows, two layers of 1,024 units")
figure.legend(loc="outside lower center", ncols=2)
plt.show()
