"""Writing a file completely or not at all, whatever happens meanwhile.

The bytes go to a temporary file beside the target, which is then renamed. Its writer holds a lock
on it, so that a later one can tell what a killed process left behind from what is being written.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from errno import EIO
from pathlib import Path
from typing import Any, BinaryIO

#: Age in seconds from which a temporary file counts as left behind where there are no locks.
STALE = 3600.0

#: What a path may be in place of a file.
KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO (a named pipe)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def file_kind(path: str | os.PathLike[str]) -> str | None:
    """Say what a path is that is not a file; None for a file, or where there is nothing.

    Whoever opens a FIFO waits for its other end, perhaps for ever, so this asks without opening.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return None
    return next((name for matches, name in KINDS if matches(mode)), None)


def write_file(
    path: str | os.PathLike[str],
    parts: Sequence[Any],
    *,
    keep: str | None = None,
    late: tuple[int, Callable[[], bytes]] | None = None,
) -> None:
    """Write a file, completely or not at all, and see to it that it is on the disk.

    There is a complete file at any time, also where several processes write to one path. An
    existing file keeps its mode, and a link keeps pointing to the file, which is replaced.

    Parameters
    ----------
    path : path-like
    parts : sequence of bytes or contiguous arrays
        One after the other.
    keep : str, optional
        Suffix to append to the name of an existing file to keep it.
    late : tuple of int and callable, optional
        A place in the file, and what returns the bytes to put there after the rest is written.

    Raises
    ------
    FileNotFoundError
        If the folder of `path` does not exist.
    OSError
        If the file cannot be written; names `path`.
    """
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"No folder {str(target.parent)!r} to save {target.name!r} in. Create it first."
        )
    try:
        with _temporary_beside(target) as (file, temporary):
            for part in parts:
                file.write(part)
            if late is not None:
                file.seek(late[0])
                file.write(late[1]())
            _flush(file)
            if keep is not None:
                _keep(target, Path(os.path.realpath(f"{target}{keep}")))
            _move(file, temporary, target)
    except OSError as error:
        text = error.strerror or str(error)
        raise OSError(error.errno or EIO, text, os.fspath(path)) from error


def remove_leftovers(path: str | os.PathLike[str]) -> None:
    """Remove temporary files of `path` whose writers were killed, but none that is in use."""
    target = Path(os.path.realpath(path))
    ours = re.compile(re.escape(f".{target.name}.") + r"[0-9a-f]{16}\.tmp")
    names: list[str] = []
    with suppress(OSError):
        names = os.listdir(target.parent)
    for name in filter(ours.fullmatch, names):
        with suppress(OSError):  # that of another user, or just removed by somebody else
            _remove_if_left(target.with_name(name))


def _remove_if_left(temporary: Path) -> None:
    found = temporary.lstat()
    if not stat.S_ISREG(found.st_mode):
        return
    with open(temporary, "r+b") as file:
        locked = _lock(file)
        if locked:
            temporary.unlink(missing_ok=True)
    if locked is None and time.time() - found.st_mtime > STALE:
        temporary.unlink(missing_ok=True)


@contextmanager
def _temporary_beside(target: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """Yield a new, locked file in the folder of the target, with the mode that is to have."""
    while True:
        temporary = _temporary_name(target)
        with open(temporary, "xb") as file:  # its mode is that of the umask
            try:
                _lock(file, wait=True)
                if os.fstat(file.fileno()).st_nlink == 0:
                    continue  # taken for a leftover before it was locked
                with suppress(FileNotFoundError):
                    os.chmod(temporary, stat.S_IMODE(target.stat().st_mode))
                yield file, temporary
            finally:
                temporary.unlink(missing_ok=True)
            return


def _temporary_name(target: Path) -> Path:
    return target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _move(file: BinaryIO, temporary: Path, target: Path) -> None:
    """Rename a temporary file, and see to it that the folder's new entry is on the disk."""
    if os.name == "nt":
        file.close()  # Windows does not rename files that are open
    os.replace(temporary, target)
    with suppress(OSError):  # not every system syncs folders
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _keep(target: Path, before: Path) -> None:
    """Put the target's present file at `before`, too; do nothing if there is none."""
    with suppress(FileNotFoundError), open(target, "rb") as file:
        second = _temporary_name(before)
        _lock(file, shared=True)  # nobody is to take the second name for a leftover
        try:
            os.link(target, second)
            os.replace(second, before)
        except FileNotFoundError:
            raise
        except OSError:  # no hard links here
            with _temporary_beside(before) as (copy, temporary):
                shutil.copyfileobj(file, copy)
                _flush(copy)
                _move(copy, temporary, before)
        finally:
            # Renaming a file to another name of itself does nothing.
            second.unlink(missing_ok=True)


def _lock(file: BinaryIO, *, shared: bool = False, wait: bool = False) -> bool | None:
    """Lock a file until it is closed; return whether it worked, None where there are no locks."""
    try:
        import fcntl
    except ImportError:
        return None
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(file, kind | (0 if wait else fcntl.LOCK_NB))
    except OSError:  # in use, or a file system without locks: then nothing is removed
        return False
    return True
