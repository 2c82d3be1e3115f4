"""One axis: the learnable window of Eq. 3, its output length and the range in which its stride can learn.

Pure functions of numbers. `length` is the number of samples L of the axis, `stride` is S, `smoothness` is R,
and frequencies are signed indices k (cycles per axis), so that Eq. 3 and Eq. 4 are the same rule.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from anystride.ops.cosine import Cosine, CosineBand

LINEAR_RAMPS = ("outer", "inner")
RAMPS = (*LINEAR_RAMPS, "cosine")

# Strides live in float32: 32 / 3.2f is 9.9999998. Output lengths forgive that much, relatively.
_ROUNDING = 1e-6
# The height of a ramp's upper end, with the same patience.
_TOP = 1 + _ROUNDING


@dataclass(frozen=True)
class Band:
    """What one axis keeps at one stride, with a linear ramp.

    Attributes:
        length: samples L of the axis before downsampling.
        stride: S, already inside `stride_bounds`.
        ramp_width: bins over which the window falls from 1 to 0.
        edge: half-band T, the frequency index from which the window is zero.
        output_length: samples h of the axis after downsampling.

    Where `band` was given a tensor, `stride` and `edge` are tensors of no dimension.
    """

    length: int
    stride: float
    ramp_width: float
    edge: float
    output_length: int

    def gain(self, frequency: float) -> float:
        """Eq. 3 at one signed frequency index."""
        return min(max((self.edge - abs(frequency)) / self.ramp_width, 0.0), 1.0)

    def gains(self, frequency: Tensor) -> Tensor:
        """Eq. 3 at signed frequency indices."""
        return ((self.edge - frequency.abs()) / self.ramp_width).clamp(0, 1)

    @property
    def slope(self) -> float:
        """d gain / d stride on the ramp; elsewhere the gain does not move.

        A gain has a kink where the ramp begins and where it ends, and a bin stands exactly there when L / (2 S) and R
        are whole numbers, as from (2, 2, 2) at all layers. The derivative is then that towards larger strides: the bin
        with a gain of exactly 1 begins to fall, that with 0 stays. So the output alone decides the gradient, as
        everywhere. Clamping in torch or TensorFlow counts both bins, which is the derivative to neither side.
        """
        return -self.length / (2 * self.ramp_width * self.stride**2)

    def ramp(self) -> tuple[int, ...]:
        """The positive frequency indices on the ramp, its upper end included, that the output can hold."""
        first = max(math.floor(self.edge - self.ramp_width), 1)
        last = min(math.ceil(self.edge), self.output_length // 2)
        return tuple(k for k in range(first, last + 1) if 0 < (self.edge - k) / self.ramp_width <= _TOP)

    def on_ramp(self, frequency: Tensor) -> Tensor:
        """Which signed frequency indices are on the ramp, its upper end included."""
        height = (self.edge - frequency.abs()) / self.ramp_width
        return (height > 0) & (height <= _TOP)


def band(
    length: int,
    stride: float | Tensor,
    smoothness: float = 4.0,
    ramp: str | Cosine = "outer",
    output_length: int | None = None,
) -> Band | CosineBand:
    """The band of an axis at a stride, which is first moved into `stride_bounds`.

    With `ramp="outer"` (the paper) the ramp lies beyond the pass-band L / (2 S): T = L / (2 S) + R and
    h = min(L, floor(L / S + 2 R)). With `ramp="inner"` it ends at T = L / (2 S), and h = ceil(L / S) is what a strided
    convolution gives. Small maps need care: the ramp is at most a third of the output length wide, so that the constant
    stays and a bin lies on the ramp (a quarter would leave none at h = 4, T = 2), and for h = 2 it ends half a bin
    later, or the constant would be all that is left and the stride could not learn.

    A given `output_length` h does not follow the stride: what of the window it cannot hold is cropped, and what it has
    room for beyond the window is zero. Then a stride may be a tensor of no dimension, whose value nobody needs to know.
    With "inner", strides above 1.5 L / h act as that: the ramp would reach the constant.

    With a `Cosine`, T = L / (2 S) is where the window is one half, and h = ceil(L / S). Strides that are given a length
    act as at most 1.5 L / h here, too, so that a row has a bounded number of entries.
    """
    ramp = _ramp(ramp)
    low, high = stride_bounds(length, smoothness, ramp)
    if ramp != "outer" and output_length is not None and (output_length > 2 or ramp != "inner"):
        high = max(low, min(high, 1.5 * length / output_length))
    used: Any = stride.clamp(low, high) if isinstance(stride, Tensor) else min(max(stride, low), high)
    half = length / (2 * used)
    if output_length is not None:
        kept = output_length
    elif ramp == "outer":
        kept = max(1, min(length, math.floor(2 * half * (1 + _ROUNDING) + 2 * smoothness)))
    else:
        kept = max(1, math.ceil(2 * half * (1 - _ROUNDING)))
    if isinstance(ramp, Cosine):
        reach = ramp.reach * (high if isinstance(stride, Tensor) else used)
        return CosineBand(length, used, kept, ramp, reach)
    if ramp == "outer":
        return Band(length, used, smoothness, half + smoothness, kept)
    return Band(length, used, min(smoothness, kept / 3), half + 0.5 if kept == 2 else half, kept)


def output_length(length: int, stride: float, smoothness: float = 4.0, ramp: str | Cosine = "outer") -> int:
    """Samples that remain of an axis of `length` samples at `stride`."""
    return band(length, stride, smoothness, ramp).output_length


def stride_bounds(length: int, smoothness: float = 4.0, ramp: str | Cosine = "outer") -> tuple[float, float]:
    """The closed range of strides that an axis of `length` samples can use.

    From above, strides stay below L, for `inner` by enough to keep two samples where there were three or more: a map
    of one sample has no frequency to learn from. From below, `inner` reaches down to 1, where it keeps the size and
    still low-passes the last bins (below 1 a stride would not be one). `outer` stops at L / (L - min(R, L / 2)):
    there half of the ramp is still inside the spectrum, while at S = 1 all of it has left and the gradient is gone.
    (An axis of odd length has no bin at L / 2; for R <= 1 its ramp needs one more bin to reach the last one.)
    A `Cosine` is the identity at 1 and can learn there; its upper bound keeps the first bin within the roll-off.
    """
    ramp = _ramp(ramp)
    highest = length * (1 - 2.0**-23)
    if isinstance(ramp, Cosine):
        return 1.0, max(1.0, highest if length < 3 else length * (1 + ramp.rolloff / 2) / 2)
    if ramp == "inner":
        return 1.0, max(1.0, highest if length < 3 else length * (1 - 4 * _ROUNDING))
    reach = smoothness + 1 if length % 2 and smoothness <= 1 else smoothness
    lowest = length / (length - min(reach, length / 2))
    return (lowest, max(lowest, highest)) if length > 1 else (1.0, 1.0)


def clamp_stride(stride: float, length: int, smoothness: float = 4.0, ramp: str | Cosine = "outer") -> float:
    """The stride nearest to `stride` within `stride_bounds`."""
    lowest, highest = stride_bounds(length, smoothness, ramp)
    return min(max(stride, lowest), highest)


def window(
    frequency: Tensor, length: int, stride: float, smoothness: float = 4.0, ramp: str | Cosine = "outer"
) -> Tensor:
    """The window of Eq. 3, or the raised cosine, at signed frequency indices.

    Args:
        frequency: indices k in cycles per axis, any shape; only their magnitude counts.
        length: samples L of the axis.
        stride: stride S, moved into `stride_bounds`.
        smoothness: R, the ramp's width in bins.
        ramp: "outer" (the paper), "inner", or "cosine": a `Cosine`, whose kernel is not cut here.

    Returns:
        Gains in [0, 1], of the shape of `frequency`, in its dtype if that is a floating-point one.

    Example:
        >>> window(torch.arange(0.0, 17.0, 4.0), length=32, stride=2.0)
        tensor([1., 1., 1., 0., 0.])
        >>> window(torch.tensor([-9, 9]), length=32, stride=2.0)
        tensor([0.7500, 0.7500])
    """
    k = frequency if frequency.is_floating_point() else frequency.to(torch.get_default_dtype())
    return band(length, stride, smoothness, ramp).gains(k)


def _ramp(ramp: str | Cosine) -> str | Cosine:
    return Cosine.of() if ramp == "cosine" else ramp
