"""A lock for each run: of all workers that share a folder, on any machine, one at a time works on a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from anystride.lab.errors import UsageError

LOCK = ".lock"


@contextmanager
def claim(folder: Path) -> Iterator[bool]:
    """Lock the run of `folder` while the context lasts. Yields False where another worker has it.

    The operating system holds the lock: when a worker is killed, its run is free again. A folder that holds nothing
    else at the end is removed.

    Raises:
        UsageError: the folder or the lock cannot be made.
    """
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    lock = _acquired(folder)
    if lock is None:
        yield False
        return
    try:
        yield True
    finally:
        # Under the lock: whoever opens the same file now finds out that it is gone, see `_acquired`.
        with suppress(OSError):
            if made and [entry.name for entry in folder.iterdir()] == [LOCK]:
                (folder / LOCK).unlink()
                for empty in made:
                    empty.rmdir()
        lock.release()


def _acquired(folder: Path) -> FileLock | None:
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        while True:
            lock.acquire(timeout=0)
            # A worker that ends may have removed the file that was locked here. A second lock shows it.
            probe = FileLock(path)
            try:
                probe.acquire(timeout=0)
            except Timeout:
                return lock
            lock.release()
            probe.release()
            folder.mkdir(parents=True, exist_ok=True)
    except Timeout:
        return None
    except OSError as error:
        raise UsageError(
            f"the run's folder {str(folder)!r} cannot be locked ({error.strerror or error}); it must be a folder that "
            f"can be written to, and {LOCK} in it a file"
        ) from None
