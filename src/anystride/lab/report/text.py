"""Strides and map sizes, written for people."""

from __future__ import annotations


def strides_text(strides: list[list[float]], digits: int = 2) -> str:
    """Strides for people: `2.35x1.98, 2, 3.1`, where an axis pair of equal strides is written once."""
    stages = [[f"{round(value, digits):g}" for value in pair] for pair in strides]
    return ", ".join("x".join(dict.fromkeys(pair)) for pair in stages)


def sizes_text(sizes: list[list[int]]) -> str:
    """Map sizes for people: `32, 13x12, 8`, where a square is written once."""
    return ", ".join("x".join(dict.fromkeys(map(str, size))) for size in sizes)
