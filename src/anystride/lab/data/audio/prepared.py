"""A folder that is computed once and found again: whole or not at all, by one process at a time."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from anystride.lab.data.locks import alone, sweep, unfinished
from anystride.lab.data.meter import notice
from anystride.lab.errors import UsageError


def _whole(folder: Path) -> str:
    return ""


def fill(folder: Path, write: Callable[[Path], None], damage: Callable[[Path], str] = _whole) -> None:
    """Make `folder` with what `write` puts into it, unless it is there: all of it or nothing.

    Processes that need the same folder wait for the one that makes it. What killed processes left beside it is removed.

    Args:
        folder: to be made.
        write: writes into the folder that it is given.
        damage: says what is wrong with a folder that is there, "" for nothing. A damaged one is made again, with a
            notice.

    Raises:
        UsageError: the folder cannot be written.
    """
    try:
        if folder.is_dir() and not damage(folder):
            return
        folder.parent.mkdir(parents=True, exist_ok=True)
        with alone(folder):
            sweep(folder)
            if folder.is_dir():
                reason = damage(folder)
                if not reason:
                    return
                notice(f"{str(folder)!r} is damaged ({reason}); it is made again")
                shutil.rmtree(folder)
            with tempfile.TemporaryDirectory(prefix=unfinished(folder), dir=folder.parent) as temporary:
                new = Path(temporary, "new")
                new.mkdir()
                write(new)
                new.rename(folder)
    except OSError as error:
        raise UsageError(
            f"--root must be a folder with room that can be written to, or set ANYSTRIDE_DATA to one: {error}"
        ) from error
