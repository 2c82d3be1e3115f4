"""What several commands share."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from anystride.lab.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

Commands = argparse._SubParsersAction  # argparse has no public name for it


def writable(folder: Path) -> Path:
    """The folder, made where it is absent; UsageError where it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out must be a folder that can be made, got {str(folder)!r} ({error.strerror})") from None
    return folder


def console() -> Console:
    """A terminal to print on; a table needs its width where nobody sees one: in a file or a log."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=140)
