"""What several commands share."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from anystride.lab.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

Commands = argparse._SubParsersAction  # argparse has no public name for it


def writable(folder: Path) -> Path:
    """Make a folder where it is absent; UsageError where that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out must be a folder that can be made, got {str(folder)!r} ({error.strerror})") from None
    return folder


def console() -> Console:
    """A terminal to print on; in a file or a log it is as wide as COLUMNS says, else 140 characters."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit() else Console(width=140)
