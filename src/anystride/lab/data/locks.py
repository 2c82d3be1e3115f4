"""Work on a folder that one process does at a time, and what a killed process left behind."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from anystride.lab.data.meter import notice

UNFINISHED = "[a-z0-9_]{8}"
"""What Python's temporary folders have behind the beginning of their names."""


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`, a file beside it; where another process holds it, say so and wait.

    Raises:
        OSError: the lock cannot be written.
    """
    lock = FileLock(_lock(folder))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        notice(f"waiting for another process that works on {str(folder)!r}")
        lock.acquire()
    except NotImplementedError as error:
        raise OSError(str(error)) from error
    try:
        yield
    finally:
        lock.release()


def unfinished(folder: Path) -> str:
    """How the names of unfinished copies of `folder`, which lie beside it, begin."""
    return f".{folder.name}-"


def sweep(folder: Path) -> None:
    """Remove the unfinished copies of `folder`, whose lock is held, and of other folders that nobody works on."""
    _remove(folder)
    for lock in folder.parent.glob(".*.lock"):
        other = folder.with_name(lock.name[1 : -len(".lock")])
        if lock == _lock(folder) or not _copies(other):
            continue
        try:
            with FileLock(lock, timeout=0):
                _remove(other)
        except (Timeout, OSError, NotImplementedError):
            continue  # somebody works on it


def _lock(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


def _copies(folder: Path) -> list[Path]:
    name = re.compile(re.escape(unfinished(folder)) + UNFINISHED)
    return [path for path in folder.parent.iterdir() if name.fullmatch(path.name) and path.is_dir()]


def _remove(folder: Path) -> None:
    for copy in _copies(folder):
        shutil.rmtree(copy, ignore_errors=True)
