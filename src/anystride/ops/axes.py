"""What is done to one axis, in words: which samples it has, what remains of them, and how a convolution moves along it.

`matrix` has the numbers.
"""

import math
from typing import NamedTuple

from anystride.ops.cosine import CosineBand
from anystride.ops.window import Band

NORMS = ("forward", "ortho", "backward")


class Taps(NamedTuple):
    """How a convolution of stride 1 moves along one axis.

    Attributes:
        size: entries of its kernel.
        dilation: samples between two of them.
        padding: zeros on either side.
    """

    size: int
    dilation: int
    padding: int

    def output_length(self, samples: int) -> int:
        """Samples that the convolution gives."""
        return samples + 2 * self.padding - (self.size - 1) * self.dilation


class LearnedAxis(NamedTuple):
    """What a learned layer does to one axis (Algorithm 1).

    Attributes:
        length: samples L that the axis counts.
        output_length: samples h that remain.
        norm: the gain.
        band: what the axis keeps.
        learns: whether the stride will need a gradient, and so a probe.
    """

    length: int
    output_length: int
    norm: str
    band: Band | CosineBand
    learns: bool = True

    @classmethod
    def of(cls, band: Band | CosineBand, norm: str, learns: bool = True) -> "LearnedAxis":
        """The axis of a band."""
        return cls(band.length, band.output_length, norm, band, learns)


class SpectralAxis(NamedTuple):
    """What spectral pooling (section 2.3), or a place that follows a size, does to one axis.

    Attributes:
        length: samples that the axis counts.
        output_length: samples that remain, or that it gets.
        norm: the gain.
    """

    length: int
    output_length: int
    norm: str = "forward"


class TransposedAxis(NamedTuple):
    """The way back through the window of a learned layer: the transposed matrix.

    Attributes:
        down: what the learned layer does.
    """

    down: LearnedAxis

    @property
    def length(self) -> int:
        """Samples h that the axis counts."""
        return self.down.output_length

    @property
    def output_length(self) -> int:
        """Samples L that it gets."""
        return self.down.length

    @property
    def norm(self) -> str:
        """The gain."""
        return self.down.norm

    @property
    def band(self) -> Band | CosineBand:
        """What the axis keeps."""
        return self.down.band

    @property
    def learns(self) -> bool:
        """Whether the stride will need a gradient."""
        return self.down.learns


Axis = LearnedAxis | SpectralAxis | TransposedAxis


def gain(length: int, h: int, norm: str) -> float:
    """What a norm multiplies a matrix by that keeps constants."""
    return {"forward": 1.0, "ortho": math.sqrt(length / h), "backward": length / h}[norm]
