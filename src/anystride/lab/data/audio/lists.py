"""The lists and tables that come with data sets: text that may be damaged, or another page in its place."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from anystride.lab.errors import UsageError


def read_lines(path: Path, task: str) -> list[str]:
    """The lines of a text file that are not empty.

    Raises:
        UsageError: it cannot be read, is no text in UTF-8, or has no line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise damaged(path, task, f"cannot be read ({reason})") from error
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise damaged(path, task, "is empty")
    return lines


def require_names(names: Iterable[str], path: Path, task: str) -> None:
    """UsageError for a name in the list `path` that is no relative path of a file below a folder."""
    for name in names:
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts or not name.isprintable() or len(name) > 255:
            raise damaged(path, task, f"names {name[:80]!r}, which is no file of the data set")


def damaged(path: Path, task: str, fault: str) -> UsageError:
    """The error about a list that is not what its publishers offer."""
    return UsageError(f"--data {task}: {str(path)!r} {fault}; remove it and unpack or download the data set again")
