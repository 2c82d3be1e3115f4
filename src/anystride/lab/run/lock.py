"""Whose run it is: of all workers on all machines that share a folder, one at a time works on a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

LOCK = ".lock"


@contextmanager
def claim(folder: Path) -> Iterator[bool]:
    """Whether the run of `folder` is ours while the context lasts; False where another worker has it.

    The operating system holds the lock, so a worker that is killed gives its run back.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
