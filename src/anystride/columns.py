"""Tables of text for a terminal of 80 columns."""

import textwrap
from collections.abc import Sequence

WIDTH = 80


class Columns:
    """Rows of a head line: a label, a name, and further columns.

    A name is as long as it is: where it does not fit beside the other columns, it gets a line of its own.

    Args:
        head: of all columns but the label.
        rows: what the columns must hold.
        label: columns of the label before the name; 0 for none.
    """

    def __init__(self, head: Sequence[str], rows: Sequence[Sequence[str]], label: int = 0) -> None:
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        self.label = label + 2 if label else 0
        widths[0] = min(widths[0], max(WIDTH - self.label - sum(widths[1:]) - 2 * len(widths[1:]), 8))
        self.widths = widths
        rules = ["-" * each for each in ([label] if label else []) + widths]
        self.head = [self.row(head), "  ".join(rules)]

    def row(self, row: Sequence[str], label: str = "") -> str:
        """One row, of one line or of two."""
        name, *others = row
        start = f"{label:>{self.label - 2}}  " if self.label else ""
        start += f"{name:{self.widths[0]}}"
        if len(name) > self.widths[0]:
            start += "\n" + " " * (self.label + self.widths[0])
        return "  ".join(
            [start, *(f"{each:{width}}" for each, width in zip(others, self.widths[1:], strict=True))]
        ).rstrip()


def wrapped(words: str, first: str = "", other: str = "  ") -> str:
    """Words on lines of at most `WIDTH` columns, which only a longer word exceeds."""
    return textwrap.fill(
        words, WIDTH, initial_indent=first, subsequent_indent=other, break_long_words=False, break_on_hyphens=False
    )


def shortly(value: float) -> str:
    """A number of operations."""
    return f"{value / 1e6:,.1f} M" if value >= 1e6 else f"{value:,.0f}"


def size_of(size: Sequence[int]) -> str:
    return "x".join(map(str, size))
