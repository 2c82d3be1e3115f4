"""Files that are never half written, and the leftovers of processes that were killed."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LEFTOVER = re.compile(r"\.(?P<name>.+)\.(?P<host>[^.]*)-(?P<process>\d+)\.part")
"""An unfinished file: hidden, with the host and the number of the process that writes it."""
LONGEST = 100
"""Characters of a file's name that its unfinished file repeats: names have at most 255 bytes."""


def _host() -> str:
    return re.sub(r"[^\w-]", "", socket.gethostname().partition(".")[0])[:30]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new file that takes the place of `path` when the context ends well, and is removed otherwise.

    At any time `path` holds either what it held or the complete new file, also after a power cut.

    Raises:
        OSError: the folder cannot be written to, or the disk is full.
    """
    unfinished = path.with_name(f".{path.name[:LONGEST]}.{_host()}-{os.getpid()}.part")
    try:
        yield unfinished
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def is_file(path: Path) -> bool:
    """Whether there is a regular file; False for names that no file can have, such as very long ones."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def remove_leftovers(folder: Path, *, ours: bool = False) -> None:
    """Remove the unfinished files in a folder whose process on this machine has ended.

    Args:
        folder: it may be absent.
        ours: whether nobody else can be writing here, as under the lock of a run: then all of them are removed.
    """
    with suppress(OSError):
        for path in folder.iterdir():
            match = LEFTOVER.fullmatch(path.name)
            if match and (ours or (match["host"] == _host() and not _lives(int(match["process"])))):
                path.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
