"""Files are written completely or not at all, and what is damaged is not read."""

from __future__ import annotations

import errno
import os
import resource
import socket
import stat
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from safetensors import safe_open

from skhebae.files import documents, read_document, remove_leftovers, write_document, writing

DOCUMENT = {
    "number": 3,
    "texts": np.array(["a", 'b"digest": "'], dtype=object),
    "nested": {"digest": "0" * 64, "tuple": (1, [2.5, None])},
    "array": np.arange(6.0).reshape(2, 3),
    "scalar": np.array(2, dtype=np.int32),
}


@contextmanager
def folder(path):
    path.mkdir()
    yield


@contextmanager
def fifo(path):
    os.mkfifo(path)
    yield


@contextmanager
def unix_socket(path):
    with socket.socket(socket.AF_UNIX) as server:
        before = os.getcwd()
        os.chdir(path.parent)  # the name of a socket may only have a hundred characters
        try:
            server.bind(path.name)
        finally:
            os.chdir(before)
        yield


@contextmanager
def device(path):
    path.symlink_to("/dev/null")
    yield


KINDS = {"folder": folder, "FIFO": fifo, "socket": unix_socket, "device": device}


def seal(raw):
    """Put the right digest into the bytes of a file."""
    start = documents.find_digest(raw)
    digest = documents.compute_digest(documents.blank_digest(raw, start))
    return raw[:start] + digest + raw[start + len(digest) :]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_round_trip(tmp_path):
    path = tmp_path / "file"
    write_document(path, DOCUMENT)
    read = read_document(path)
    assert len(read.pop("digest")) == 64
    assert set(read) == set(DOCUMENT)
    assert read["number"] == 3
    assert read["nested"] == DOCUMENT["nested"]
    for name in ("texts", "array", "scalar"):
        assert_array_equal(read[name], DOCUMENT[name])
        assert read[name].dtype == DOCUMENT[name].dtype
        assert read[name].shape == DOCUMENT[name].shape
    # What was read may be written again, and the same document is the same bytes.
    raw = path.read_bytes()
    write_document(path, {**read, "digest": "another"})
    assert path.read_bytes() == raw


def test_large_files_have_the_same_digest(tmp_path, monkeypatch):
    """It is computed beside the writing; here, of what is also written without."""
    path = tmp_path / "file"
    document = {"array": np.random.default_rng(0).random(100_000)}
    write_document(path, document)
    raw = path.read_bytes()
    assert len(raw) > documents.BESIDE
    assert_array_equal(read_document(path)["array"], document["array"])
    for place in (0, 50, len(raw) // 2, len(raw) - 1):
        path.write_bytes(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :])
        with pytest.raises(ValueError, match=r"."):
            read_document(path)
    monkeypatch.setattr(documents, "BESIDE", 10**9)
    write_document(path, document)
    assert path.read_bytes() == raw == seal(raw)


def test_every_changed_byte_is_found(tmp_path):
    path = tmp_path / "file"
    write_document(path, DOCUMENT)
    raw = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in range(len(raw)):
        damaged = bytearray(raw)
        damaged[place] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        with suppress(ValueError):
            # One without a digest, which neither models nor checkpoints may be any more.
            assert "digest" not in read_document(path), place
    for damaged in (raw[:-1], raw + b"\0", raw[:100] + raw[101:], raw + raw, b"", raw[:7]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"."):
            read_document(path)


def test_a_long_file_with_a_short_header_is_not_read(tmp_path, monkeypatch):
    """A file with a hole takes no space, and as much memory as it seems long."""
    path = tmp_path / "file"
    write_document(path, DOCUMENT)
    with open(path, "r+b") as file:
        file.truncate(2**40)
    with pytest.raises(ValueError, match=f"it has {2**40} bytes, and its header says"):
        read_document(path)
    with open(path, "r+b") as file:
        file.write((2**39).to_bytes(8, "little"))
    with pytest.raises(ValueError, match=f"hold no header of {2**39}"):
        read_document(path)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_not_opened(tmp_path, kind):
    path = tmp_path / "file"
    with KINDS[kind](path), pytest.raises(ValueError, match=f"it is a .*{kind}|it is a {kind}"):
        read_document(path)


def test_modes(tmp_path):
    before = os.umask(0o027)
    try:
        write_document(tmp_path / "file", DOCUMENT)
        assert mode(tmp_path / "file") == 0o640
        os.chmod(tmp_path / "file", 0o604)
        write_document(tmp_path / "file", DOCUMENT, keep=".before")
        assert mode(tmp_path / "file") == mode(tmp_path / "file.before") == 0o604
    finally:
        os.umask(before)
    assert os.umask(before) == before


def test_links_are_written_through(tmp_path):
    target, link = tmp_path / "there" / "target", tmp_path / "link"
    target.parent.mkdir()
    link.symlink_to(target)
    for i in range(3):  # at first it points to nothing
        write_document(link, {"i": i}, keep=".before")
        assert link.is_symlink()
        assert read_document(target)["i"] == i
    assert names(tmp_path) == ["link", "there"]
    assert names(target.parent) == ["target", "target.before"]
    assert read_document(f"{target}.before")["i"] == 1


def test_the_file_before_is_kept_also_without_hard_links(tmp_path, monkeypatch):
    path = tmp_path / "file"
    for i in range(3):
        write_document(path, {"i": i}, keep=".before")
    assert [read_document(p)["i"] for p in (path, f"{path}.before")] == [2, 1]

    def none(*arguments):
        raise PermissionError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", none)
    write_document(path, {"i": 3}, keep=".before")
    assert [read_document(p)["i"] for p in (path, f"{path}.before")] == [3, 2]
    assert names(tmp_path) == ["file", "file.before"]


def test_two_names_of_one_file(tmp_path):
    """After a kill between the two renamings; renaming one to the other does nothing then."""
    path = tmp_path / "file"
    write_document(path, {"i": 0})
    os.link(path, tmp_path / "file.before")
    write_document(path, {"i": 1}, keep=".before")
    assert [read_document(p)["i"] for p in (path, f"{path}.before")] == [1, 0]
    assert names(tmp_path) == ["file", "file.before"]


@pytest.mark.parametrize("call", ["fsync", "replace", "chmod"])
def test_what_fails_names_the_path_and_leaves_all_as_it_was(tmp_path, monkeypatch, call):
    path = tmp_path / "file"
    write_document(path, DOCUMENT)
    before = path.read_bytes()

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        write_document(path, {"i": 1})
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    assert path.read_bytes() == before
    assert names(tmp_path) == ["file"]


def test_a_file_that_gets_too_large(tmp_path):
    path, (soft, hard) = tmp_path / "file", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(OSError, match="too large") as caught:
            write_document(path, {"array": np.zeros(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.filename == str(path)
    assert names(tmp_path) == []


def test_arrays_of_any_kind(tmp_path):
    """Also those that lie in memory in another order, and what safetensors has no name for."""
    arrays = {
        f"{dtype} {order}": np.arange(6).reshape(2, 3).astype(dtype, order=order)
        for dtype in ("?", "u1", "<i2", ">i4", "<u8", ">f8", "f4", "f2")
        for order in "CF"
    }
    arrays |= {
        "empty": np.empty((0, 3)),
        "a number": np.array(1.5),
        "every other": np.arange(9)[::2],
    }
    write_document(tmp_path / "file", arrays)
    read = read_document(tmp_path / "file")
    with safe_open(tmp_path / "file", framework="numpy") as file:  # whatever reads such files
        for name, array in arrays.items():
            assert_array_equal(read[name], array)
            assert read[name].dtype == array.dtype.newbyteorder("=")
            assert read[name].shape == array.shape
            assert_array_equal(file.get_tensor(name), array)
    for dtype in (np.longdouble, np.complex64, "<U3", "M8[s]"):
        with pytest.raises(TypeError, match=r"array\.0 has dtype .* which a file cannot hold"):
            write_document(tmp_path / "other", {"array": [np.zeros(2).astype(dtype)]})
    assert names(tmp_path) == ["file"]


def test_without_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No folder .*nowhere"):
        write_document(tmp_path / "nowhere" / "file", DOCUMENT)


def temporary(path, i=0):
    return path.with_name(f".{path.name}.{i:016x}.tmp")


def test_leftovers_go_and_what_is_in_use_stays(tmp_path):
    path = tmp_path / "file"
    left, used, other = temporary(path, 1), temporary(path, 2), temporary(tmp_path / "other")
    own = tmp_path / ".file.mine.tmp"
    for name in (left, used, other, own):
        name.write_bytes(b"")
    os.mkfifo(temporary(path, 3))
    with open(used, "r+b") as file:
        assert writing._lock(file)
        remove_leftovers(path)
        assert set(names(tmp_path)) == {p.name for p in (used, other, own, temporary(path, 3))}
    remove_leftovers(path)
    assert not used.exists()
    remove_leftovers(tmp_path / "nowhere" / "file")


def test_leftovers_where_there_are_no_locks(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    path = tmp_path / "file"
    write_document(path, DOCUMENT, keep=".before")
    old, new = temporary(path, 1), temporary(path, 2)
    for name in (old, new):
        name.write_bytes(b"")
    os.utime(old, (0, 0))
    remove_leftovers(path)
    assert names(tmp_path) == [new.name, "file"]


def test_one_taken_for_a_leftover_before_it_was_locked(tmp_path, monkeypatch):
    """Between its creation and its lock, another process may remove a temporary file."""
    lock, removed = writing._lock, []

    def late(file, **options):
        if not removed:
            removed.append(file.name)
            remove_leftovers(tmp_path / "file")
            assert names(tmp_path) == []
        return lock(file, **options)

    monkeypatch.setattr(writing, "_lock", late)
    monkeypatch.setattr(writing, "_remove_if_left", lambda path: path.unlink())
    write_document(tmp_path / "file", DOCUMENT)
    assert removed
    assert read_document(tmp_path / "file")["number"] == 3
    assert names(tmp_path) == ["file"]


def test_many_write_one_path(tmp_path):
    """All succeed, and whoever reads meanwhile finds complete files."""
    path, failures = tmp_path / "file", []
    write_document(path, {"i": 0, "array": np.zeros(3000)})
    write_document(path, {"i": 0, "array": np.zeros(3000)}, keep=".before")
    done = threading.Event()

    def write(i):
        try:
            for _ in range(40):
                write_document(path, {"i": i, "array": np.full(3000, i)}, keep=".before")
                remove_leftovers(path)
                remove_leftovers(f"{path}.before")
        except BaseException as error:
            failures.append(error)

    def read():
        try:
            while not done.is_set():
                for name in (path, f"{path}.before"):
                    document = read_document(name)
                    assert_array_equal(document["array"], np.full(3000, document["i"]))
        except BaseException as error:
            failures.append(error)

    writers = [threading.Thread(target=write, args=(i,)) for i in (1, 2, 3)]
    reader = threading.Thread(target=read)
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    assert failures == []
    assert names(tmp_path) == ["file", "file.before"]


WRITER = """
import sys
import numpy as np
from skhebae.files import remove_leftovers, write_document
path, i = sys.argv[1], int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
for _ in range(100):
    write_document(path, {"i": i, "array": np.full(3000, i)}, keep=".before")
    remove_leftovers(path)
    remove_leftovers(f"{path}.before")
"""


@pytest.mark.slow
def test_two_processes_write_one_path(tmp_path):
    path = tmp_path / "file"
    for _ in range(2):
        write_document(path, {"i": 0, "array": np.zeros(3000)}, keep=".before")
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(i)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for i in (1, 2)
    ]
    for writer in writers:
        writer.stdout.readline()
    for writer in writers:
        writer.stdin.write(b"\n")
        writer.stdin.flush()
    seen = set()
    while any(writer.poll() is None for writer in writers):
        for name in (path, f"{path}.before"):
            document = read_document(name)
            assert_array_equal(document["array"], np.full(3000, document["i"]))
            seen.add(document["i"])
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    assert seen >= {1, 2}
    assert names(tmp_path) == ["file", "file.before"]


@pytest.mark.parametrize(
    "text",
    [
        b'{"a": ' * 100_000,
        b'{"__metadata__": {"skhebae": "' + b"[" * 100_000 + b'"}}',
        b'{"__metadata__": {"skhebae": "' + b"9" * 10_000 + b'"}}',
        b'{"__metadata__": {"skhebae": "{\\"a\\": {\\"$array\\": []}}"}}',
        b'{"__metadata__": {"skhebae": "{\\"a\\": {\\"$array\\": \\"a\\"}}"}}',
        b'{"__metadata__": {"skhebae": "{\\"a\\": {\\"$tuple\\": 1}}"}}',
        b'{"__metadata__": {"skhebae": "{\\"a\\": {\\"$strings\\": [1]}}"}}',
        b'{"__metadata__": {"skhebae": 3}}',
        b'{"__metadata__": {"skhebae": "\xff"}}',
        b'{"a": {"dtype": "F64", "shape": [1], "data_offsets": [0, 9]}}',
        b'{"__metadata__": {"skhebae": "{\\"a\\": {\\"$array\\": \\"a\\"}}"}, '
        b'"a": {"dtype": "F64", "shape": [4611686018427387904, 4], "data_offsets": [0, 0]}}',
        b'{"a": 3}',
        b"[]",
        b"",
    ],
)
def test_whatever_a_file_holds_is_a_value_error(tmp_path, text):
    path = tmp_path / "file"
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(ValueError, match=r".") as caught:
        read_document(path)
    assert len(str(caught.value)) <= documents.SHOWN
