"""Strides, map sizes, durations and names, written for people."""

from __future__ import annotations

from collections.abc import Sequence

MINUTE, HOUR, DAY, YEAR = 60.0, 3600.0, 86400.0, 365.25 * 86400.0


def strides_text(strides: Sequence[Sequence[float]], digits: int = 2) -> str:
    """Strides for people: `2.35x1.98, 2, 3.1`, where an axis pair of equal strides is written once."""
    return ", ".join("x".join(dict.fromkeys(_stride_text(value, digits) for value in pair)) for pair in strides)


def _stride_text(value: float, digits: int) -> str:
    """A stride that is a little off a whole number, and makes maps of another size than that, keeps its digits."""
    nearest = round(value, digits)
    return f"{nearest:.{digits}f}" if nearest.is_integer() and nearest != value else f"{nearest:g}"


def counted(count: int, noun: str) -> str:
    """A number of things for people: `1 run`, `1,200 runs`."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def sizes_text(sizes: list[list[int]]) -> str:
    """Map sizes for people: `32, 13x12, 8`, where a square is written once."""
    return ", ".join("x".join(dict.fromkeys(map(str, size))) for size in sizes)


def duration_text(seconds: float) -> str:
    """A duration for people: two digits of seconds, minutes, hours, days or years.

    Example:
        >>> duration_text(75), duration_text(5000), duration_text(5e9)
        ('75 s', '83 minutes', 'about 160 years')
    """
    if seconds < 1.5 * MINUTE:
        return f"{seconds:.0f} s"
    if seconds < 1.5 * HOUR:
        return f"{seconds / MINUTE:.0f} minutes"
    if seconds < 2 * DAY:
        return f"about {_rounded(seconds / HOUR)} hours"
    if seconds < 2 * YEAR:
        return f"about {_rounded(seconds / DAY)} days"
    return f"about {_rounded(seconds / YEAR)} years"


def _rounded(value: float) -> str:
    """A number with two digits that count: 58,000 for 58,335."""
    return f"{float(f'{value:.2g}'):,.10g}"


def shortened(text: str, room: int) -> str:
    """A text that fits into `room` characters: its middle is left out where it is too long.

    Example:
        >>> shortened("outer-2x2x2-seed0", 9)
        'oute…eed0'
    """
    if len(text) <= room:
        return text
    end = (room - 1) // 2
    return f"{text[: room - 1 - end]}…{text[len(text) - end :]}"


def printable(text: str) -> str:
    """A text that any file and terminal takes: what is no letter is replaced."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(letter if letter.isprintable() else "?" for letter in text)
