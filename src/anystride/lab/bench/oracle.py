"""DiffStride as the paper writes it, with torch.fft in any number of dimensions, for comparison."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from anystride.ops.window import band


def diffstride_fft(x: Tensor, stride: Tensor, smoothness: float = 4.0) -> Tensor:
    """Algorithm 1: rfftn, window, crop, irfftn. Differentiable in `x` and in the stride.

    Equal to `anystride.functional.diffstride` for odd output sizes; for even ones its unpaired bins mix the axes. Types
    of half precision are transformed in float32: torch has no transform of theirs for all sizes and devices.

    Args:
        x: (N, C, *spatial).
        stride: one value per spatial axis.
        smoothness: R.
    """
    axes = tuple(range(2, x.dim()))
    precise = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    bands = [band(n, value, smoothness) for n, value in zip(x.shape[2:], stride.tolist(), strict=True)]
    spectrum = torch.fft.rfftn(precise, dim=axes, norm="forward")
    gains = torch.ones((), device=x.device, dtype=precise.dtype)
    for axis, at in zip(axes, bands, strict=True):
        # The value in use is within the bounds; the gradient passes as if it had not been moved there.
        used = stride[axis - 2] + (at.stride - stride[axis - 2].detach())
        k = torch.fft.fftfreq(at.length, 1 / at.length, device=x.device)[: spectrum.shape[axis]]
        gain = ((smoothness + at.length / (2 * used) - k.abs()) / smoothness).clamp(0, 1)
        gains = gains * gain.to(precise.dtype).reshape(-1, *[1] * (x.dim() - 1 - axis))
    spectrum = spectrum * gains
    for axis, at in zip(axes[:-1], bands[:-1], strict=True):
        h = at.output_length
        low, high = spectrum.narrow(axis, 0, (h + 1) // 2), spectrum.narrow(axis, at.length - h // 2, h // 2)
        spectrum = torch.cat([low, high], dim=axis)
    last = bands[-1].output_length
    kept = spectrum.narrow(-1, 0, last // 2 + 1)
    y: Tensor = torch.fft.irfftn(kept, s=[at.output_length for at in bands], dim=axes, norm="forward")
    return y.to(x.dtype)


class FourierStride(nn.Module):
    """`diffstride_fft` as a layer with a learned stride, one value per axis: (N, C, *spatial) to a smaller map.

    It takes a convolution as `anystride.DiffStride2d` does, and always runs it first.
    """

    ramp = "outer"

    def __init__(self, stride: Tensor, smoothness: float = 4.0) -> None:
        super().__init__()
        self.stride = nn.Parameter(stride.detach().clone())
        self.smoothness = smoothness

    def forward(self, x: Tensor, convolution: nn.Module | None = None) -> Tensor:
        return diffstride_fft(x if convolution is None else convolution(x), self.stride, self.smoothness)


def transform_macs(sizes: list[int]) -> float:
    """Multiply-accumulates of a real transform: two operations each, and 2.5 n log2 n operations for n samples."""
    n = math.prod(sizes)
    return 1.25 * n * math.log2(max(n, 2))
