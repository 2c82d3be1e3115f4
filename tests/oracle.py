"""What the operator should compute, written with torch.fft as the paper does: the reference of tests and benchmarks."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def window(length: int, stride: Tensor | float, smoothness: float = 4.0) -> Tensor:
    """Eq. 3 in the order of torch.fft.fftfreq: bin 0 first, negative bins at the end."""
    k = torch.fft.fftfreq(length, 1 / length, dtype=torch.float64)
    return ((smoothness + length / (2 * stride) - k.abs()) / smoothness).clamp(0, 1)


def inner_window(length: int, stride: Tensor | float, smoothness: float = 4.0) -> Tensor:
    """The ramp that ends at L / (2 S), at most a third of the output length wide; for two samples, half a bin later."""
    k = torch.fft.fftfreq(length, 1 / length, dtype=torch.float64)
    size = inner_size(length, float(torch.as_tensor(stride).detach()))
    late = 0.5 if size == 2 else 0.0
    return ((length / (2 * stride) + late - k.abs()) / min(smoothness, size / 3)).clamp(0, 1)


def outer_size(length: int, stride: float, smoothness: float = 4.0) -> int:
    return min(length, math.floor(length / stride + 2 * smoothness))


def inner_size(length: int, stride: float, _smoothness: float = 4.0) -> int:
    return math.ceil(length / stride - 1e-9)


def resample_axis(x: Tensor, gains: Tensor, size: int, axis: int) -> Tensor:
    """DFT along one axis, multiply by real even gains, keep the `size` lowest bins, inverse DFT; constants are kept.

    An even size has one bin that stands for k = size / 2 and k = -size / 2: it gets half of each.
    """
    length = x.shape[axis]
    spectrum = torch.fft.fft(x, dim=axis, norm="forward").movedim(axis, -1) * gains
    positive, negative = spectrum[..., : (size + 1) // 2], spectrum[..., length - (size - 1) // 2 :]
    middle = spectrum[..., :0]
    if size % 2 == 0:
        middle = (spectrum[..., [size // 2]] + spectrum[..., [length - size // 2]]) / 2
    kept = torch.cat([positive, middle, negative], dim=-1)
    return torch.fft.ifft(kept, dim=-1, norm="forward").real.movedim(-1, axis)


def diffstride(x: Tensor, strides: Sequence[Tensor], smoothness: float = 4.0, ramp: str = "outer") -> Tensor:
    """Algorithm 1 axis by axis, exact for every size, differentiable in `x` and in each of `strides` (one per axis)."""
    make, size_of = (window, outer_size) if ramp == "outer" else (inner_window, inner_size)
    for axis, stride in enumerate(strides, start=2):
        length = x.shape[axis]
        size = size_of(length, float(stride.detach()), smoothness)
        x = resample_axis(x, make(length, stride, smoothness).to(x.dtype), size, axis)
    return x


def cosine(
    x: Tensor, strides: Sequence[Tensor], rolloff: float = 0.75, reach: float = 1.765, border: str = "replicate"
) -> Tensor:
    """The raised cosine, axis by axis: its kernel as an integral over the window, on a map that torch pads.

    `reach` is how many strides a row takes in on either side.
    """
    for axis, stride in enumerate(strides, start=2):
        length, size = x.shape[axis], inner_size(x.shape[axis], float(stride.detach()))
        radius = math.floor(reach * float(stride.detach()) + 1e-6)
        centre = torch.arange(size, dtype=torch.float64).unsqueeze(1) * length / size
        distance = centre - torch.arange(-radius - 1, length + radius + 1)
        inside = distance.abs() <= reach * stride + 1e-6
        rows = cosine_kernel((distance / stride).clamp(-reach, reach), rolloff, 40) * inside
        rows = (rows / rows.sum(1, keepdim=True)).to(x.dtype)
        padded = _padded(x.movedim(axis, -1), radius + 1, border)
        x = (padded @ rows.t()).movedim(-1, axis)
    return x


def cosine_kernel(u: Tensor, rolloff: float, order: int = 120) -> Tensor:
    """Twice the integral of window(f) cos(2 pi f u) over the frequencies f, in cycles per output sample."""
    nodes, weights = (torch.from_numpy(each) for each in np.polynomial.legendre.leggauss(order))
    low, high = (1 - rolloff) / 2, (1 + rolloff) / 2
    total = torch.zeros_like(u)
    for first, last in ((0.0, low), (low, high)):
        f = (first + last) / 2 + nodes * (last - first) / 2
        gain = (1 + torch.cos(math.pi * ((f - low) / (high - low)).clamp(0, 1))) / 2
        waves = torch.cos(2 * math.pi * f * u.unsqueeze(-1))
        total = total + (waves * (gain * weights * (last - first) / 2)).sum(-1) * 2
    return total


def _padded(x: Tensor, n: int, border: str) -> Tensor:
    lines = x.reshape(-1, 1, x.shape[-1])
    if border == "zeros":
        lines = F.pad(lines, (n, n))
    elif border == "circular":  # torch wraps around at most once
        lines = lines[..., torch.arange(-n, x.shape[-1] + n) % x.shape[-1]]
    else:
        lines = F.pad(lines, (n, n), mode=border)
    return lines.reshape(*x.shape[:-1], -1)
