"""A lock for each run: of all workers that share a folder, on any machine, one at a time works on a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

LOCK = ".lock"


@contextmanager
def claim(folder: Path) -> Iterator[bool]:
    """Lock the run of `folder` while the context lasts. Yields False where another worker has it.

    The operating system holds the lock: when a worker is killed, its run is free again.
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
