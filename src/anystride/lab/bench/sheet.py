"""A table of texts, for a terminal and for a page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Sheet:
    """A table of texts.

    Args:
        title: what stands above it.
        columns: heads of the columns.
        rows: cells, one tuple per row.
        names: how many columns, from the left, hold words; the others hold numbers.
        notes: sentences that say how to read it.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    names: int = 1
    notes: tuple[str, ...] = ()

    def table(self) -> Table:
        """For a terminal; without the notes."""
        from rich.table import Table

        table = Table(title=self.title, title_justify="left", title_style="bold")
        for number, column in enumerate(self.columns):
            table.add_column(column, justify="left" if number < self.names else "right")
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """For a page: the title, the table and the notes, as paragraphs."""
        rule = ["---" if number < self.names else "---:" for number in range(len(self.columns))]
        lines = ["| " + " | ".join(cells) + " |" for cells in (self.columns, rule, *self.rows)]
        return "\n\n".join([f"**{self.title}**", "\n".join(lines), *self.notes])


def factor(value: float | None) -> str:
    """A ratio with three digits; a dash where there is none."""
    return "-" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def milliseconds(seconds: float | None) -> str:
    """Seconds in milliseconds with three digits; a dash where there are none."""
    return "-" if seconds is None else factor(1e3 * seconds)


def millions(value: float) -> str:
    """A number in millions."""
    return f"{value / 1e6:,.1f}"
