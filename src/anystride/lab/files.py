"""Files that are never half written, and the leftovers of processes that were killed."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from anystride.lab.errors import UsageError

LEFTOVER = re.compile(r"\.(?P<name>.+)\.(?P<host>[^.]*)-(?P<process>\d+)\.part")
"""An unfinished file: hidden, with the host and the number of the process that writes it."""
LONGEST_NAME = 255
"""Bytes of a file's name on common file systems."""
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


def check_place(path: Path, ours: Callable[[Path], bool], overwrite: bool) -> None:
    """Refuse a place for a result that a command cannot write to, or that holds something else.

    Args:
        path: of the file that --out names.
        ours: whether an existing file is an earlier result of the same kind, which may be replaced.
        overwrite: whether any file may be replaced.

    Raises:
        UsageError: what is wrong with the place, and the remedy.
    """
    if len(os.fsencode(path.name)) > LONGEST_NAME or not is_folder(path.parent) or is_folder(path):
        raise UsageError(f"--out must be a file in a folder that exists, got {str(path)[:LONGEST_NAME]!r}")
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"--out must be in a folder that can be written to, got {str(path)!r}")
    if path.exists() and not overwrite and not (is_file(path) and ours(path)):
        raise UsageError(f"--out {str(path)!r} exists and holds something else; choose another, or add --overwrite")


def is_folder(path: Path) -> bool:
    """Whether there is a folder; False for names that none can have."""
    try:
        return path.is_dir()
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
