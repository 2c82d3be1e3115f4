"""The layers of the authors' release (google-research/diffstride), restated from what they compute.

They are here for comparisons with its published numbers: `anystride.DiffStride2d` follows the paper. The differences:

- Columns have a window that is one bin wider than Eq. 3, and row -k has that of row k - 1; for odd heights row k - 1
  has that of row k.
- Output sizes follow from the bins that are kept: DiffStride's widths and the heights of spectral pooling are even.
- Transforms are not scaled: a constant grows by (H W) / (h w).
- The stride is moved to at least L / (L - R) in each call, also in evaluation; for L = R that is infinite.
- Its gradient counts the bins at the very ends of the ramp.

Both transform with torch.fft, in float32 or float64, and a convolution before them runs at full resolution.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

LEAST = 2
"""Samples of an output's axis at least, "to avoid collapse of the feature map"."""


class ReleaseSpectralPool2d(nn.Module):
    """The release's `FixedSpectralPooling`.

    Args:
        stride: one number per axis, at least 1.

    Shape:
        (N, C, H, W) to (N, C, h, w): h is the largest even number up to H / S, w the largest whole one up to W / S,
        both at least 2.
    """

    def __init__(self, stride: Sequence[float]) -> None:
        super().__init__()
        self.stride = tuple(stride)

    def forward(self, x: Tensor) -> Tensor:
        height, width = (int(length // stride) for length, stride in zip(x.shape[2:], self.stride, strict=True))
        height, width = max(LEAST, height // 2 * 2), max(LEAST, width)
        half = height // 2
        spectrum = torch.fft.rfft2(_wide(x))[..., : width // 2 + 1]
        kept = torch.cat([spectrum[..., :half, :], spectrum[..., x.shape[2] - half :, :]], dim=2)
        pooled: Tensor = torch.fft.irfft2(kept, s=(height, width))
        return pooled.to(x.dtype)

    def extra_repr(self) -> str:
        return f"stride={self.stride}"


class ReleaseDiffStride2d(nn.Module):
    """The release's `DiffStride`, cropping, with its own limits.

    Args:
        stride: where it starts, one number per axis, or one for both if `shared`.
        smoothness: R, in bins.
        shared: one stride for both axes.

    Shape:
        (N, C, H, W) to (N, C, h, w): for even H, h = 2 min(H / 2, ceil(R + H / (2 S))); for odd H,
        h = 2 min((H + 1) / 2, ceil(R + H / (2 S))) - 1; w = 2 min(floor(W / 2), ceil(R + W / (2 S))).
    """

    def __init__(self, stride: float | Sequence[float] = 2.0, smoothness: float = 4.0, shared: bool = False) -> None:
        super().__init__()
        start = [stride] if isinstance(stride, float | int) else list(stride)
        self.smoothness = smoothness
        self.stride = nn.Parameter(torch.tensor(start[:1] if shared else (start * 2)[:2], dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        self._move((height, width))
        vertical, horizontal = self.stride.expand(2).unbind()
        half = height // 2 + height % 2
        rows = torch.arange(half, device=x.device)
        # As the rows of a transform lie, but shifted by one: its negative frequencies, or for odd heights the others.
        rows = torch.cat([rows[height % 2 :], rows.flip(0)])
        columns = torch.arange(width // 2 + 1, device=x.device)
        along_rows = self._window(rows, height / vertical, 0.0)
        along_columns = self._window(columns, width / horizontal, 1.0)
        spectrum = torch.fft.rfft2(_wide(x)) * along_rows[:, None] * along_columns
        pooled: Tensor = torch.fft.irfft2(spectrum[..., along_rows > 0, :][..., along_columns > 0])
        return pooled.to(x.dtype)

    def _window(self, frequency: Tensor, kept: Tensor, wider: float) -> Tensor:
        edge = kept.clamp_min(float(LEAST)) / 2 + wider
        return ((self.smoothness + edge - frequency) / self.smoothness).clamp(0, 1)

    @torch.no_grad()
    def _move(self, lengths: Sequence[int]) -> None:
        """What the release does to the parameter before it uses it."""
        lows = [n / (n - self.smoothness) if n != self.smoothness else float("inf") for n in lengths]
        if self.stride.numel() == 1:
            lows = [max(lows)]
        self.stride.copy_(torch.maximum(self.stride, self.stride.new_tensor(lows)).clamp_min(1.0))

    def extra_repr(self) -> str:
        return f"stride={tuple(self.stride.tolist())}, smoothness={self.smoothness:g}"


LAYERS = (ReleaseSpectralPool2d, ReleaseDiffStride2d)


def _wide(x: Tensor) -> Tensor:
    """A map in a type that every transform takes."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


class SamePadding(nn.Conv2d):
    """A strided convolution that pads as Keras' "same" does: where it is odd, one sample more at the far side."""

    def forward(self, x: Tensor) -> Tensor:
        pads: list[int] = []
        for length, kernel, stride in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
            pads += [total // 2, total - total // 2]
        return nn.functional.conv2d(nn.functional.pad(x, pads), self.weight, self.bias, self.stride)


def learned_strides(model: nn.Module) -> dict[str, Tensor]:
    """As `anystride.learned_strides`, of the release's layers."""
    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, ReleaseDiffStride2d)]
    return {f"{name}.stride": layer.stride.detach() for name, layer in layers}
