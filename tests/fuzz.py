"""Damage model files and checkpoints in many ways, and count what comes of it.

::

    python -m tests.fuzz --files 2000 --checkpoints 500 --seconds 300

A damaged file is to be refused by an error of ours that names it, or to do no harm: another
result without an error, an error of another library, more than a gigabyte of memory or an endless
wait are faults. Half of the damage is to bytes. The rest changes the document or its arrays and
then makes the digest right again, as a version of ours with a fault might, so that it reaches the
checks behind the digest; then another result is none of the reader's faults, and only the other
three are counted. The exit status says whether there are faults.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import collections
import copy
import faulthandler
import json
import multiprocessing
import pickle
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save

from skhebae import HEBAETransformer, VAETransformer, WAETransformer
from skhebae.exceptions import CheckpointError, ModelFileError, NonFiniteLossError
from skhebae.files import documents
from skhebae.training import checkpoint

OUTCOMES = ("harmless", "named", "another model", "different", "unnamed", "memory", "hang")
FAULTS = OUTCOMES[3:]

#: Most memory that a damaged file may cost, and seconds after which a wait counts as endless.
MOST_BYTES, LONGEST = 2**30, 60.0

#: What a model says that has absurd numbers, but no more than that, in the places of others.
ABSURD = (
    "lam value too large",
    "contains NaN",
    "contains infinity",
    "p_in <= 1",
    "size_factor is inf",
    "standard deviations from",
)

N_ROWS = 48
SMALL: dict[str, Any] = {"n_components": 2, "hidden_layer_sizes": (4,), "random_state": 0}


class Case(NamedTuple):
    """A fit: of which class, with which parameters, to which rows and with what of them."""

    cls: type
    params: dict[str, Any]
    X: np.ndarray
    side: dict[str, Any]


class Job(NamedTuple):
    """A damaged file, and what it was before."""

    kind: str
    case: str
    content: bytes
    sealed: bool
    before: bytes | None = None


def make_cases() -> dict[str, Case]:
    """Fits of all kinds of documents."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N_ROWS, 2)) @ rng.normal(size=(2, 5)) + 0.1 * rng.normal(size=(N_ROWS, 5))
    counts = rng.poisson(np.exp(0.3 * X + 1.0)).astype(float)
    batch = np.array(["a", "b", "c"])[np.arange(N_ROWS) % 3]
    sizes = np.linspace(1.0, 2.0, N_ROWS)
    zinb = {"likelihood": "zero_inflated_negative_binomial", "encode_batch": True}
    return {
        "hebae": Case(HEBAETransformer, SMALL, X, {}),
        "vae": Case(VAETransformer, {**SMALL, "early_stopping": True}, X, {}),
        "wae": Case(WAETransformer, {**SMALL, "likelihood": "bernoulli"}, 1.0 / (1.0 + X**2), {}),
        "counts": Case(
            HEBAETransformer, {**SMALL, **zinb}, counts, {"batch": batch, "size_factor": sizes}
        ),
    }


def fit(case: Case, path: Path | None = None) -> Any:
    """Fit as a case says, in 3 epochs of 3 minibatches."""
    model = case.cls(**{"max_iter": 3, "batch_size": 16, **case.params})
    return model.fit(case.X, **case.side, checkpoint=path)


def results(model: Any, case: Case) -> list[np.ndarray]:
    """What users get of a model."""
    encoded = {"batch": case.side["batch"]} if model.fitted_.encodes_batch else {}
    one = {"batch": case.side["batch"][0]} if "batch" in case.side else {}
    codes = model.transform(case.X, **encoded)
    return [
        codes,
        model.inverse_transform(codes, **one),
        model.score_samples(case.X, **case.side),
        model.sample(5, random_state=0, noise=True, **one),
        model.latent_covariance_,
        np.array(model.history_["loss"]),
    ]


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    """Whether two models give the same results, to the last bit."""
    pairs = zip(one, other, strict=True)
    return all(np.array_equal(a, b, equal_nan=True) for a, b in pairs)


# What is done with a damaged file, in a process of its own


def judge(job: Job, cases: dict[str, Case], expected: dict[str, list[np.ndarray]]) -> str:
    """Read a damaged file and say what came of it."""
    case = cases[job.case]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(job.content)
        if job.before is not None:
            path.with_name("file.before").write_bytes(job.before)
        model = None
        try:
            model = case.cls.load(path) if job.kind == "file" else fit(case, path)
            found = results(model, case)
        except (ModelFileError, CheckpointError, NonFiniteLossError) as error:
            named = str(path) in str(error) or isinstance(error, NonFiniteLossError)
            return "memory" if lacks_memory(error) else "named" if named else "unnamed"
        except Exception as error:
            if lacks_memory(error):
                return "memory"
            if job.sealed and model is not None and any(sign in str(error) for sign in ABSURD):
                return "another model"
            # A file that names a function of the user's is refused by that name.
            named = type(error) is ValueError and str(path) in str(error)
            return "named" if named else f"unnamed {error!r:.200}"
    if same(found, expected[job.case]):
        return "harmless"
    return "another model" if job.sealed else "different"


def lacks_memory(error: BaseException | None) -> bool:
    """Whether an error comes of too little memory."""
    while error is not None:
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def serve(pipe: Any, cases: dict[str, Case], expected: dict[str, list[np.ndarray]]) -> None:
    """Judge one job after another."""
    warnings.simplefilter("ignore")
    checkpoint.COST = 0.0
    # So much on top of what imports have taken, then there is an error instead of a dead machine.
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + 2 * MOST_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    while (job := pipe.recv()) is not None:
        before = peak()
        outcome = judge(job, cases, expected)
        pipe.send("memory" if peak() - before > MOST_BYTES else outcome)


def peak() -> int:
    """Return the most memory that this process has had, in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class Judge:
    """A process that judges jobs, and is replaced when one kills it or holds it up."""

    def __init__(self, cases: dict[str, Case], expected: dict[str, list[np.ndarray]]) -> None:
        self._arguments = cases, expected
        self._context = multiprocessing.get_context("spawn")
        self._start()

    def _start(self) -> None:
        self._pipe, other = self._context.Pipe()
        self._process = self._context.Process(target=serve, args=(other, *self._arguments))
        self._process.start()
        other.close()

    def __call__(self, job: Job) -> str:
        """Return the outcome of a job."""
        self._pipe.send(job)
        try:
            outcome = self._pipe.recv() if self._pipe.poll(LONGEST) else "hang"
        except EOFError:  # the process is dead
            outcome = f"unnamed end of the process {self._process.exitcode}"
        if outcome in ("hang", "memory") or "end of the process" in outcome:
            self.close()
            self._start()
        return str(outcome)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()


# Damage


def damage_bytes(raw: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Damage the bytes of a file in one of many ways."""
    one, two = np.sort(rng.integers(0, len(raw), 2))
    length = int(rng.integers(1, 200))
    flipped = bytearray(raw)
    for place in rng.integers(0, len(raw), rng.integers(1, 6)):
        flipped[place] ^= 1 << int(rng.integers(8))
    header = bytearray(raw)
    header[8 + int(rng.integers(int.from_bytes(raw[:8], "little")))] = int(rng.integers(256))
    size = int(rng.choice([0, 1, len(raw), 2**31, 2**40, 2**63]))
    ways = (
        *(4 * [lambda: bytes(flipped)]),
        lambda: bytes(header),
        lambda: raw[:two],
        lambda: raw + bytes(length),
        lambda: raw + rng.bytes(length),
        lambda: raw[:one] + raw[two:],
        lambda: raw[:two] + raw[one:],
        lambda: raw[:one] + bytes(length) + raw[one + length :],
        lambda: raw[:one] + rng.bytes(length) + raw[one + length :],
        lambda: raw[:one] + other[one : one + length] + raw[one + length :],
        lambda: raw[:one] + other[one:],
        lambda: raw[:one] + raw[two : two + length] + raw[one + length :],
        lambda: size.to_bytes(8, "little") + raw[8:],
        lambda: b"" if rng.random() < 0.1 else rng.bytes(length),
    )
    return ways[int(rng.integers(len(ways)))]()


#: In place of a value of a document; "deep" becomes a list in a list in a list...
ODD = (
    *(None, True, False, 0, -1, 1, 2, 3, 5, 0.5, -1.5, 1e308, float("nan"), float("inf")),
    *(2**31, 2**63, 2**64, 10**30, 10**400, 10**9, 30_000, "", "a", "gaussian", "x" * 1000),
    *([], [1], ["a"], [[1]], {}, {"a": 1}, {"$array": "a"}, {"$array": []}, {"$array": None}),
    *({"$strings": 3}, {"$strings": [1]}, {"$strings": []}, {"$tuple": 1}, {"$tuple": [-1]}),
    *({"$tuple": [30_000, 30_000]}, {"$tuple": [10**12]}, "deep", "very deep"),
)
DEPTHS = {"deep": 400, "very deep": 20_000}


def places(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """List every container of a document with each of its keys."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        found.append((value, key))
        if isinstance(item, dict | list):
            places(item, found)
    return found


def damage_document(document: dict[str, Any], rng: np.random.Generator) -> None:
    """Replace, remove, add or exchange values of a JSON document."""
    # Wherever it is, not as often as there are values in it: a history has many.
    found = [place for place in places(document, []) if place[1] != "digest"]
    by_key = collections.defaultdict(list)
    for container, key in found:
        by_key[str(key)].append((container, key))
    keys = sorted(by_key)

    def any_place() -> tuple[Any, Any]:
        choice = by_key[keys[int(rng.integers(len(keys)))]]
        return choice[int(rng.integers(len(choice)))]

    container, key = any_place()
    other, other_key = any_place()
    way = rng.integers(10)
    if way < 6:
        container[key] = copy.deepcopy(ODD[int(rng.integers(len(ODD)))])
    elif way == 6:
        del container[key]
    elif way == 7 and isinstance(container, dict):
        container[f"{key}_more"] = copy.deepcopy(container[key])
    elif way == 8 and isinstance(container, dict):
        container[other_key if isinstance(other_key, str) else "a"] = container.pop(key)
    else:
        # Copies: a container must not come to be in itself.
        one, two = copy.deepcopy(container[key]), copy.deepcopy(other[other_key])
        container[key], other[other_key] = two, one


def damage_arrays(arrays: dict[str, np.ndarray], rng: np.random.Generator) -> None:
    """Change values, shapes, data types or names of the arrays of a file."""
    names = sorted(arrays)
    name, other = (names[int(i)] for i in rng.integers(0, len(names), 2))
    array = arrays[name]
    odd = float(rng.choice([np.nan, np.inf, -np.inf, -1.0, 0.0, 1e3]))

    def with_odd() -> np.ndarray:
        changed = array.copy()
        with np.errstate(all="ignore"):
            if changed.size:
                changed.flat[int(rng.integers(changed.size))] = np.array(odd).astype(changed.dtype)
        return changed

    dtypes = (np.float16, np.float32, np.float64, np.int64, np.uint8, np.bool_)
    ways: tuple[Callable[[], Any], ...] = (
        with_odd,
        with_odd,
        lambda: np.full_like(array, 0),
        lambda: array.astype(dtypes[int(rng.integers(len(dtypes)))]),
        lambda: array.reshape(-1),
        lambda: array.T.copy(),
        lambda: array[None],
        lambda: array[..., :-1].copy() if array.ndim else array,
        lambda: array[:0].copy() if array.ndim else array,
        lambda: np.concatenate([array, array]) if array.ndim else array,
        lambda: arrays[other],
        lambda: None,
    )
    with np.errstate(all="ignore"):
        changed = ways[int(rng.integers(len(ways)))]()
    if changed is None:
        del arrays[name]
    else:
        arrays[name] = changed


def damage_header(raw: bytes, rng: np.random.Generator) -> bytes:
    """Change what safetensors says of an array."""
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    names = sorted(name for name in header if name != "__metadata__")
    entry = header[names[int(rng.integers(len(names)))]]
    key = ("dtype", "shape", "data_offsets")[int(rng.integers(3))]
    odd = (*ODD, "F64", "I8", "BF16", "F8_E4M3", [0, 8], [8, 0], [2**62, 4], [0, 2**40])
    entry[key] = copy.deepcopy(odd[int(rng.integers(len(odd)))])
    text = deepen(json.dumps(header, separators=(",", ":"), ensure_ascii=False)).encode()
    return len(text).to_bytes(8, "little") + text + raw[8 + length :]


def deepen(text: str) -> str:
    """Put the deep lists into a JSON text."""
    for name, depth in DEPTHS.items():
        text = text.replace(f'"{name}"', "[" * depth + "]" * depth)
    return text


def damage_and_seal(raw: bytes, rng: np.random.Generator) -> bytes:
    """Damage what a file says, and give it the digest that it then has, or make it one of 0.1."""
    way = rng.integers(8)
    if way == 0:
        return seal(damage_header(raw, rng))
    length = int.from_bytes(raw[:8], "little")
    document = json.loads(json.loads(raw[8 : 8 + length])["__metadata__"][documents.KEY])
    arrays = documents.load(raw)
    for _ in range(int(rng.integers(1, 3))):
        if way < 5:
            damage_document(document, rng)
        else:
            damage_arrays(arrays, rng)
    if rng.random() < 0.1:
        document.pop("digest")
        document["version"] = 1
    text = deepen(json.dumps(document))
    return seal(save(arrays, metadata={documents.KEY: text}))


def seal(raw: bytes) -> bytes:
    """Make the digest of a file right, if it has one."""
    start = documents.find_digest(raw)
    if start is None:
        return raw
    digest = documents.compute_digest(documents.blank_digest(raw, start))
    return raw[:start] + digest + raw[start + len(digest) :]


# The command


def make_files(cases: dict[str, Case]) -> dict[tuple[str, str], list[bytes]]:
    """Make intact files of each kind and case; of checkpoints, pairs of one and that before."""
    made: dict[tuple[str, str], list[bytes]] = {}
    write = checkpoint.write_document
    for name, case in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "file"
            fit(case).save(path)
            made["file", name] = [path.read_bytes()]
            path.unlink()
            written: list[bytes] = []

            def keeping(*arguments: Any, _path: Path = path, _to: list[bytes] = written, **o: Any):
                write(*arguments, **o)
                _to.append(_path.read_bytes())

            checkpoint.write_document, checkpoint.COST, checkpoint.WITHIN_EPOCH = keeping, 0.0, 0.0
            try:
                fit(case, path)
            finally:
                checkpoint.write_document = write
            made["checkpoint", name] = written
    return made


def make_job(kind: str, made: dict[tuple[str, str], list[bytes]], rng: np.random.Generator) -> Job:
    """Damage one of the files."""
    names = sorted(name for of, name in made if of == kind)
    name, other = (names[int(i)] for i in rng.integers(0, len(names), 2))
    contents = made[kind, name]
    number = int(rng.integers(len(contents)))
    before = contents[number - 1] if number > 0 and rng.random() < 0.5 else None
    sealed = bool(rng.random() < 0.5)
    raw = contents[number]
    content = damage_and_seal(raw, rng) if sealed else damage_bytes(raw, made[kind, other][0], rng)
    return Job(kind, name, content, sealed, before)


def run(
    n_files: int,
    n_checkpoints: int,
    seconds: float,
    seed: int,
    keep: Path | None = None,
) -> dict[str, collections.Counter[str]]:
    """Damage so many files and checkpoints, or as many as there is time for; count outcomes.

    Those that show faults are written to the folder `keep`.
    """
    cases = make_cases()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = make_files(cases)
        expected = {name: results(fit(case), case) for name, case in cases.items()}
    counts: dict[str, collections.Counter[str]] = {}
    start, ask = time.monotonic(), Judge(cases, expected)
    wanted = {"file": n_files, "checkpoint": n_checkpoints}
    try:
        for kind, n in wanted.items():
            counts[kind] = collections.Counter()
            rng = np.random.default_rng([seed, len(counts)])
            share = (len(counts) / len(wanted)) * seconds
            while counts[kind].total() < n and time.monotonic() - start < share:
                job = make_job(kind, made, rng)
                outcome = ask(job)
                name = next(of for of in OUTCOMES if outcome.startswith(of))
                counts[kind][name] += 1
                if name in FAULTS and keep is not None:
                    stem = f"{kind} {counts[kind].total()} {name}"
                    (keep / f"{stem}.pickle").write_bytes(pickle.dumps(job))
                    (keep / f"{stem}.txt").write_text(outcome)
    finally:
        ask.close()
    return counts


def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--checkpoints", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--seed", type=int, default=None, help="by default another each time")
    parser.add_argument("--keep", type=Path, help="folder for the files that show faults")
    parsed = parser.parse_args(arguments)
    seed = parsed.seed
    if seed is None:
        seed = int(np.random.SeedSequence().generate_state(1)[0])
    print(f"seed {seed}")
    if parsed.keep is not None:
        parsed.keep.mkdir(parents=True, exist_ok=True)
    counts = run(parsed.files, parsed.checkpoints, parsed.seconds, seed, parsed.keep)
    titles = {
        "another model": "another model (digest made right)",
        "different": "silently different",
        "named": "named error",
        "unnamed": "unnamed error",
        "memory": "over 1 GB",
    }
    for kind, outcomes in counts.items():
        print(f"{kind}s: {outcomes.total()}")
        for name in OUTCOMES:
            print(f"  {titles.get(name, name):34}{outcomes[name]:6}")
    return int(any(outcomes[name] for outcomes in counts.values() for name in FAULTS))


if __name__ == "__main__":
    faulthandler.enable()
    sys.exit(main())
