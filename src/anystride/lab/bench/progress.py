"""Progress of a measurement: a bar on a terminal, a line per case elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


@contextmanager
def showing_progress(console: Console) -> Iterator[Callable[[int, int, str], None]]:
    """A context with a function for `Setup.announce`, which shows the progress."""
    columns = (BarColumn(bar_width=20), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    shown = console.is_terminal
    with Progress(*columns, console=console, disable=not shown, transient=True) as progress:
        bar = progress.add_task("")

        def announce(done: int, total: int, what: str) -> None:
            progress.update(bar, completed=done, total=total, description=what)
            if not shown:
                console.print(f"{done + 1}/{total}  {what}", highlight=False, markup=False)

        yield announce
