"""Table 2's conversion of a stride into the highest frequency that the layer keeps.

A stride S keeps frequencies up to rate / (2 S): the spectrogram has 100 frames per second and one cycle per mel band.
The published values are coarser. Each is the mean of three runs whose cut-off is a whole bin of a transform of L
samples, floor(L / (2 S)) / L x rate, with L = 64 bands and L = 160 frames. With these lengths there are, for every row,
three whole bins with the published mean and deviation (of the last row the population's, of all others the sample's);
with 80, 98 or 100 frames there are none for most. Why 160, when training takes windows of 1 s, the paper does not say.
"""

from __future__ import annotations

import math

RATES = (100.0, 1.0)
"""Samples per second along time, samples per mel band along frequency."""

LENGTHS = (160, 64)
"""Frames and bands of the transform behind the published values."""


def exact(stride: float, axis: int) -> float:
    """The cut-off frequency rate / (2 S), in Hz for axis 0 (time), in cycles per mel band for axis 1 (frequency).

    Example:
        >>> exact(2.0, axis=0)
        25.0
    """
    return RATES[axis] / (2 * stride)


def cutoff(stride: float, axis: int) -> float:
    """The same, rounded down to a bin as in Table 2.

    Example:
        >>> cutoff(1.97, axis=0)
        25.0
    """
    length = LENGTHS[axis]
    return math.floor(length / (2 * stride)) / length * RATES[axis]
