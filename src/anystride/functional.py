"""DiffStride (Algorithm 1) and spectral pooling (section 2.3) in N dimensions, as functions.

Both multiply every spatial axis by a small real matrix. No transform runs and no complex number appears, but on axes
of many hundred samples.
"""

import math
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from anystride.ops.fusion import autocast, convolved_shape, resample
from anystride.ops.matrix import NORMS, AxisOperator, Taps, band_matrix, learned_axis, spectral_axis
from anystride.ops.window import RAMPS, Band, band

__all__ = ["diffstride", "resampling_matrix", "spectral_pool"]

T = TypeVar("T")


def diffstride(
    x: Tensor,
    stride: float | Sequence[float] | Tensor,
    smoothness: float | Sequence[float] = 4.0,
    ramp: str = "outer",
    norm: str = "forward",
) -> Tensor:
    """Low-pass and downsample every spatial axis at a stride that can be learned (Algorithm 1, Eq. 3 to 5).

    Args:
        x: (N, C, *spatial), floating point, one spatial axis or more.
        stride: S in [1, L) for an axis of length L: a number, or one per spatial axis; as a tensor of one or of
            n values it receives a gradient. Values below `window.stride_bounds` act, and learn, as its lower end.
        smoothness: R > 0, width of the window's ramp in frequency bins, one value or one per spatial axis.
        ramp: "outer" (the paper: the ramp lies beyond the pass-band, so maps are up to 2 R larger than L / S) or
            "inner" (the ramp ends at the pass-band's edge: the shapes of a strided convolution).
        norm: "forward" keeps constants, "ortho" is Eq. 1 to the letter, "backward" is the authors' release.

    Returns:
        (N, C, *sizes), with min(L, floor(L / S + 2 R)) samples per axis for "outer" and ceil(L / S) for "inner".

    Raises:
        TypeError: `x` is not a floating-point tensor.
        ValueError: `x` has no spatial axis, or another argument is out of range; the message names it.

    Example:
        >>> stride = torch.tensor([2.0, 3.0], requires_grad=True)
        >>> y = diffstride(torch.randn(8, 16, 32, 32), stride)
        >>> y.shape
        torch.Size([8, 16, 24, 18])
        >>> y.square().mean().backward()
        >>> stride.grad.shape
        torch.Size([2])
    """
    check_input(x)
    check_choice("ramp", ramp, RAMPS)
    check_choice("norm", norm, NORMS)
    axes = x.dim() - 2
    widths = per_axis("smoothness", smoothness, axes)
    check_smoothness(widths)
    if not isinstance(stride, Tensor):
        stride = torch.tensor(per_axis("stride", stride, axes), dtype=torch.float64)
    host: list[float] = stride.detach().flatten().tolist()
    values: tuple[float, ...] = per_axis("stride", host, axes)
    for value, length in zip(values, x.shape[2:], strict=True):
        check_stride(value, length)
    return downsample(x, stride, [band(*at, ramp) for at in zip(x.shape[2:], values, widths, strict=True)], norm)


def spectral_pool(x: Tensor, output_size: int | Sequence[int], norm: str = "forward") -> Tensor:
    """Keep the lowest frequencies that a smaller map can hold (Rippel et al., 2015; section 2.3).

    Args:
        x: (N, C, *spatial), floating point, one spatial axis or more.
        output_size: samples to keep, one number or one per spatial axis, between 1 and the axis' length.
        norm: "forward" keeps constants, "ortho" is Eq. 1 to the letter, "backward" leaves the transforms unscaled.

    Returns:
        (N, C, *output_size).

    Raises:
        TypeError: `x` is not a floating-point tensor.
        ValueError: `x` has no spatial axis, or an argument is out of range; the message names it.

    Example:
        >>> spectral_pool(torch.randn(8, 16, 32, 32), (20, 16)).shape
        torch.Size([8, 16, 20, 16])
    """
    check_input(x)
    check_choice("norm", norm, NORMS)
    sizes = per_axis("output_size", output_size, x.dim() - 2)
    for length, size in zip(x.shape[2:], sizes, strict=True):
        if not (size == int(size) and 1 <= size <= length):
            raise ValueError(f"output_size must be a whole number from 1 to {length} for that axis, got {size}")
    return resize(x, [int(size) for size in sizes], norm)


def resize(
    x: Tensor,
    output_size: Sequence[int],
    norm: str = "forward",
    lengths: Sequence[int] | None = None,
    convolution: nn.Module | None = None,
) -> Tensor:
    """`spectral_pool` for arguments that were checked, to smaller or larger sizes, as `downsample` does it."""
    counted = convolved_shape(x, convolution)[2:] if lengths is None else tuple(lengths)

    def make(axis: int, like: Tensor, samples: int, taps: Taps | None) -> AxisOperator | None:
        length, size = counted[axis], output_size[axis]
        if taps is None and size == length == samples:
            return None
        return spectral_axis(length, size, norm, like.dtype, like.device, samples, taps)

    if x.is_meta:
        return x.new_empty(*convolved_shape(x, convolution)[:2], *output_size)
    return resample(autocast(x), make, output_size, norm, convolution=convolution)


def resampling_matrix(
    length: int,
    stride: float,
    smoothness: float = 4.0,
    ramp: str = "outer",
    norm: str = "forward",
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """The real matrix that DiffStride applies to one axis (Algorithm 1 on that axis).

    Args:
        length: samples L of the axis, at least 1.
        stride: stride S in [1, L); values below `stride_bounds` act as its lower end.
        smoothness: R > 0, the ramp's width in bins.
        ramp: "outer" (the paper) or "inner".
        norm: gain; "forward" keeps constants, "ortho" is Eq. 1 to the letter
            (never adds energy), "backward" is the authors' release.
        dtype: floating-point type of the result; it is computed in float64 and rounded once.
        device: where the result lies.

    Returns:
        (h, L), with h = `output_length(length, stride, smoothness, ramp)`.

    Raises:
        ValueError: an argument is out of range; the message names it.

    Example:
        >>> resampling_matrix(32, 2.0).shape
        torch.Size([24, 32])
        >>> bool(torch.allclose(resampling_matrix(32, 2.0).sum(dim=1), torch.ones(24)))
        True
    """
    check_choice("ramp", ramp, RAMPS)
    check_choice("norm", norm, NORMS)
    check_smoothness((smoothness,))
    check_stride(stride, length)
    return band_matrix(band(length, stride, smoothness, ramp), norm).to(device, dtype)


def downsample(
    x: Tensor, stride: Tensor, bands: Sequence[Band], norm: str, convolution: nn.Module | None = None
) -> Tensor:
    """`diffstride` for arguments that were checked, with what each axis keeps; after a `convolution` that `unit` knows.

    Strides of the bands are clamped to what each axis can use; the gradient reaches `stride` as if they had not been,
    so a stride that stands at a bound, or beyond it, still learns. Where a band counts other samples than are there,
    missing ones repeat the last, and what exceeds them is ignored (`resampling.onto_samples`).
    """

    learns = torch.is_grad_enabled() and stride.requires_grad

    def make(axis: int, like: Tensor, samples: int, taps: Taps | None) -> AxisOperator | None:
        at = bands[axis]
        if taps is None and at.length == samples == 1:
            return None
        return learned_axis(at, norm, like.dtype, like.device, samples, taps, learns)

    output_size = [at.output_length for at in bands]
    if x.is_meta:
        return x.new_empty(*convolved_shape(x, convolution)[:2], *output_size)
    return resample(autocast(x), make, output_size, norm, stride, convolution)


def check_input(x: Tensor, axes: int | None = None) -> None:
    """Raise unless `x` is a floating-point (N, C, *spatial) with `axes` spatial axes, or with any number of them."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"x must be a floating-point tensor, got {got}; convert it, for example with x.float()")
    if axes is None and x.dim() < 3:
        raise ValueError(f"x must be (N, C, *spatial) with at least one spatial axis, got shape {tuple(x.shape)}")
    if axes is not None and x.dim() != axes + 2:
        spatial = "1 spatial axis" if axes == 1 else f"{axes} spatial axes"
        raise ValueError(f"x must be (N, C, *spatial) with {spatial}, got shape {tuple(x.shape)}")


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def check_stride(stride: float, length: int) -> None:
    """Raise unless an axis of `length` samples can be downsampled by `stride` (section 2.4); one sample can stay."""
    if not (1 <= stride < length or stride == length == 1):
        raise ValueError(f"stride must be in [1, {length}) for an axis of length {length}, got {stride}")


def check_smoothness(smoothness: Sequence[float]) -> None:
    """Raise unless every R is positive and finite."""
    for value in smoothness:
        if not 0 < value < math.inf:
            raise ValueError(
                f"smoothness must be positive and finite, got {value}; for a hard edge use spectral pooling"
            )


def per_axis(name: str, value: T | Sequence[T], axes: int) -> tuple[T, ...]:
    """One value per spatial axis, from a value for all of them or a sequence."""
    values = tuple(value) if isinstance(value, Sequence) else (value,)
    if len(values) not in (1, axes):
        raise ValueError(f"{name} must be one value or one per spatial axis ({axes}), got {len(values)}: {values}")
    return values if len(values) == axes else values * axes
