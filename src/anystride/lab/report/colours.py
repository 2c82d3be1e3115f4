"""The colours of methods and strides: Okabe and Ito's palette, for every common kind of colour vision."""

from __future__ import annotations

METHOD_COLOURS = {
    "strided": "#777777",
    "average": "#CC79A7",
    "spectral": "#E69F00",
    "outer": "#0072B2",
    "inner": "#009E73",
    "cosine": "#D55E00",
    "release": "#56B4E9",
    "release-spectral": "#F0E442",
    "fitted": "#CC79A7",  # strides by their costs alone, in the Pareto recipe
}
METHOD_MARKERS = {
    "strided": "s",
    "average": "P",
    "spectral": "D",
    "outer": "o",
    "inner": "^",
    "cosine": "v",
    "release": "X",
    "release-spectral": "*",
    "fitted": "P",
}
STRIDE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#888888")


def stride_colour(number: int) -> str:
    """The colour of a stride, which counts from 0."""
    return STRIDE_COLOURS[number % len(STRIDE_COLOURS)]
