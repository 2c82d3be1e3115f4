"""How far something is that takes long, and notices, both on the error stream."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Advance = Callable[[int], None]

Meter = Callable[[str, "int | None"], AbstractContextManager[Advance]]
"""`progress` or what replaces it: called with a description and a total, gives a context that counts."""


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Advance]:
    """Shows on a terminal's error stream how far something is that takes long; elsewhere it is silent."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=30), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as shown:
        task = shown.add_task(what, total=total)
        yield lambda amount: shown.advance(task, amount)


def notice(text: str) -> None:
    """Print a line for people."""
    print(text, file=sys.stderr, flush=True)
