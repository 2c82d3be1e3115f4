"""The operators that are compared, as layers. Each halves a map."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import anystride
from anystride.lab.bench.oracle import FourierStride

TITLES = {
    "outer": "DiffStride outer",
    "inner": "DiffStride inner",
    "spectral": "spectral pooling",
    "fft": "DiffStride outer by FFT",
    "average": "average pooling",
    "blur": "blur pooling",
    "strided": "strided convolution",
    "adaptive": "adaptive average pooling",
}

SHORT = {**{name: name for name in TITLES}, "fft": "FFT"}
"""Titles for the heads of columns."""

STRIDE = 2.0
_DIFFSTRIDE = (anystride.DiffStride1d, anystride.DiffStride2d, anystride.DiffStride3d)
_SPECTRAL = (anystride.SpectralPool1d, anystride.SpectralPool2d, anystride.SpectralPool3d)
_AVERAGE = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
_ADAPTIVE = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
_CONVOLUTION = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_CONVOLVE = (F.conv1d, F.conv2d, F.conv3d)


class BlurPool(nn.Module):
    """Binomial smoothing (1, 2, 1) / 4 along each axis at stride 2, on a reflected border (Zhang, 2019).

    (N, channels, *spatial) to (N, channels, *ceil(spatial / 2)).
    """

    kernel: Tensor

    def __init__(self, channels: int, axes: int) -> None:
        super().__init__()
        taps = torch.tensor([0.25, 0.5, 0.25])
        kernel = reduce(lambda grown, new: grown.unsqueeze(-1) * new, [taps] * axes)
        self.register_buffer("kernel", kernel.expand(channels, 1, *kernel.shape).contiguous())
        self.axes, self.channels = axes, channels

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x, [1, 1] * self.axes, mode="reflect")
        return _CONVOLVE[self.axes - 1](padded, self.kernel, stride=2, groups=self.channels)


def contestants(channels: int, spatial: Sequence[int]) -> dict[str, nn.Module]:
    """All of `TITLES` at stride 2, for maps (N, channels, *spatial)."""
    axes = len(spatial)
    kind = axes - 1
    inner = _DIFFSTRIDE[kind](STRIDE, ramp="inner")
    return {
        "outer": _DIFFSTRIDE[kind](STRIDE),
        "inner": inner,
        "spectral": _SPECTRAL[kind](STRIDE),
        "fft": FourierStride(torch.full((axes,), STRIDE)),
        "average": _AVERAGE[kind](2),
        "blur": BlurPool(channels, axes),
        "strided": _CONVOLUTION[kind](channels, channels, 3, stride=2, padding=1, bias=False),
        "adaptive": _ADAPTIVE[kind](inner.output_size(spatial)),
    }
