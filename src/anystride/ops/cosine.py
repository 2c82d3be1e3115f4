"""One axis with a local window: the raised cosine, how far its kernel reaches, and what stands in each row.

The window falls from 1 to 0 as half a cosine, from (1 - b) T to (1 + b) T around the output's highest frequency
T = L / (2 S), for a roll-off b. Its kernel is known in closed form,

    g(u) = sinc(u) cos(pi b u) / (1 - (2 b u)^2),    A[i, j] = g((i L / h - j) / S) / S,

and falls so fast that a few samples hold all but a small share of it: the operator is a short filter, whatever the
size of the map. At S = 1 it is the identity, since g is zero at all whole numbers but 0.
"""

import functools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

ROLLOFF, TOLERANCE = 0.75, 0.01
BORDERS = ("auto", "zeros", "replicate", "reflect", "circular")


class Cosine(NamedTuple):
    """A ramp: the raised cosine.

    Attributes:
        rolloff: b in (0, 1], share of T over which the window falls on either side of T.
        tolerance: share of the kernel (root of energy) that may be cut off.
        border: what lies beyond the map: one of torch's padding modes; or "auto": the map of a convolution goes on
            where its input is zero, as it does under a stride, and any other map repeats its last sample.
        reach: samples on either side that a row takes in, in units of the stride.
    """

    rolloff: float
    tolerance: float
    border: str
    reach: float

    @classmethod
    def of(cls, rolloff: float = ROLLOFF, tolerance: float = TOLERANCE, border: str = "auto") -> "Cosine":
        """The ramp with these attributes."""
        return cls(rolloff, tolerance, border, reach_of(rolloff, tolerance))


@dataclass(frozen=True)
class CosineBand:
    """What one axis keeps at one stride, as `window.Band` for the other ramps.

    Attributes:
        length: samples L that the axis counts.
        stride: S, inside its bounds.
        output_length: samples h that remain.
        cosine: the ramp.
        reach: samples on either side that a row can take in, at any stride that `stride` can be.

    Where `window.band` was given a tensor, `stride` is a tensor of no dimension.
    """

    length: int
    stride: float
    output_length: int
    cosine: Cosine
    reach: float

    @property
    def edge(self) -> float:
        """Half-band (1 + b) T, from which the window is zero."""
        return (1 + self.cosine.rolloff) * self.length / (2 * self.stride)

    @property
    def ramp_width(self) -> float:
        """Bins 2 b T over which the window falls from 1 to 0."""
        return self.cosine.rolloff * self.length / self.stride

    @property
    def step(self) -> int:
        """Samples from one output to the next if that is a whole number, else 0."""
        return self.length // self.output_length if self.length % self.output_length == 0 else 0

    def gain(self, frequency: float) -> float:
        """The window, before its kernel is cut, at one signed frequency index."""
        return float(self.gains(torch.tensor(float(frequency), dtype=torch.float64)))

    def gains(self, frequency: Tensor) -> Tensor:
        """The window, before its kernel is cut, at signed frequency indices."""
        fallen = (1 - (self.edge - frequency.abs()) / self.ramp_width).clamp(0, 1)
        return (1 + torch.cos(math.pi * fallen)) / 2

    @property
    def radius(self) -> int:
        """Whole samples on either side that a row can take in."""
        return math.floor(self.reach + _ROUNDING)

    def taps(self) -> tuple[Tensor, Tensor]:
        """(2 r + 1,) twice in float64: the row of a whole step, around its sample, and its slope along the stride."""
        radius = self.radius
        value, slope = self._entries(torch.arange(radius, -radius - 1, -1, dtype=torch.float64).unsqueeze(0))
        return value.squeeze(0), slope.squeeze(0)

    def matrix(
        self, samples: int, margin: int | None = None, device: torch.device | str = "cpu"
    ) -> tuple[Tensor, Tensor]:
        """(h, samples) twice in float64: the operator, and its slope along the stride.

        Args:
            samples: that are there, those of both margins included.
            margin: of them, those before the first one that counts, and after the last one; beyond them all is zero.
                None for a map alone, whose border says what lies beyond.
            device: where it is made.
        """
        index, value, slope = self.rows(samples, margin, device)
        empty = torch.zeros(self.output_length, samples, dtype=torch.float64, device=device)
        return empty.scatter_add(1, index, value), empty.scatter_add(1, index, slope)

    def rows(
        self, samples: int, margin: int | None = None, device: torch.device | str = "cpu"
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(h, k) three times: columns of the entries of each row, the entries, and their slopes along the stride."""
        centre = torch.arange(self.output_length, device=device, dtype=torch.float64) * (
            self.length / self.output_length
        )
        first = (centre - self.reach - _ROUNDING).ceil()
        columns = first.unsqueeze(1) + torch.arange(math.floor(2 * self.reach + 4 * _ROUNDING) + 1, device=device)
        value, slope = self._entries(centre.unsqueeze(1) - columns)
        index, there = self._within(columns.long(), samples, margin)
        return index, value * there, slope * there

    def _entries(self, distance: Tensor) -> tuple[Tensor, Tensor]:
        """Rows and their slopes, at distances in samples; each row sums to 1, however its kernel was cut."""
        stride: Any = self.stride
        inside = distance.abs() <= self.cosine.reach * stride + _ROUNDING
        u = distance / stride
        value, along = _kernel(u, self.cosine.rolloff)
        value, slope = value * inside, -(value + u * along) * inside / stride
        whole = value.sum(1, keepdim=True)
        value = value / whole
        return value, (slope - value * slope.sum(1, keepdim=True)) / whole

    def _within(self, columns: Tensor, samples: int, margin: int | None) -> tuple[Tensor, Tensor]:
        """Where entries beyond the border go, and which do not count."""
        border = self.cosine.border
        if margin is not None or border == "zeros":
            columns = columns + (margin or 0)
            there = (columns >= 0) & (columns < samples)
            return columns.clamp(0, samples - 1), there
        if border == "circular":
            columns = columns.remainder(self.length)
        elif border == "reflect" and samples > 1:
            columns = columns.remainder(2 * samples - 2)
            columns = torch.minimum(columns, 2 * samples - 2 - columns)
        return columns.clamp(0, samples - 1), torch.ones_like(columns, dtype=torch.bool)


# Strides are float32, positions are sums of them: distances in samples forgive this much.
_ROUNDING = 1e-5


@functools.cache
def reach_of(rolloff: float, tolerance: float) -> float:
    """Samples, in units of the stride, on either side that hold all but `tolerance` of the kernel (root of energy)."""
    fine = 1000
    u = torch.arange(0, 100 * fine, dtype=torch.float64, device="cpu") / fine  # whatever the default device is
    energy = _kernel(u, rolloff)[0].square()
    left = (energy.flip(0).cumsum(0).flip(0) / energy.sum()).sqrt()
    return float(u[left > tolerance][-1])


def _kernel(u: Tensor, b: float) -> tuple[Tensor, Tensor]:
    """g(u) and its derivative. Where 2 b u = 1 both factors of its quotient vanish: it is written as one sinc."""
    v = 2 * b * u.abs()
    first, second = torch.special.sinc(u), torch.special.sinc((1 - v) / 2)
    fall = math.pi / 2 * second / (1 + v)
    along = -math.pi / 2 * (_sinc_slope((1 - v) / 2) / 2 / (1 + v) + second / (1 + v) ** 2) * 2 * b * u.sign()
    return first * fall, _sinc_slope(u) * fall + first * along


def _sinc_slope(x: Tensor) -> Tensor:
    small = x.abs() < 1e-3
    safe = torch.where(small, torch.ones_like(x), x)
    series = -(math.pi**2) / 3 * x + math.pi**4 / 30 * x**3
    return torch.where(small, series, (torch.cos(math.pi * safe) - torch.special.sinc(safe)) / safe)
