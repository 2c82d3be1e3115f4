"""DiffStride (Algorithm 1) and spectral pooling (section 2.3) in N dimensions, as functions.

Both multiply every spatial axis by a small real matrix. No transform runs and no complex number appears, but on axes
of many hundred samples.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from anystride.checks import (
    check_choice,
    check_input,
    check_output_size,
    check_smoothness,
    check_stride,
    cosine_ramp,
    per_axis,
)
from anystride.ops.autograd import resample
from anystride.ops.axes import NORMS, LearnedAxis, SpectralAxis
from anystride.ops.cosine import ROLLOFF, TOLERANCE
from anystride.ops.matrix import band_matrix
from anystride.ops.window import band

__all__ = ["diffstride", "resampling_matrix", "spectral_pool", "spectral_resize"]

Ramp = Literal["outer", "inner", "cosine"]
PaddingMode = Literal["auto", "zeros", "replicate", "reflect", "circular"]
Norm = Literal["forward", "ortho", "backward"]


def diffstride(
    x: Tensor,
    stride: float | Sequence[float] | Tensor,
    smoothness: float | Sequence[float] = 4.0,
    ramp: Ramp = "outer",
    norm: Norm = "forward",
    *,
    rolloff: float = ROLLOFF,
    tolerance: float = TOLERANCE,
    padding_mode: PaddingMode | None = None,
) -> Tensor:
    """Low-pass and downsample every spatial axis at a stride that can be learned (Algorithm 1, Eq. 3 to 5).

    Args:
        x: (N, C, *spatial), floating point, one spatial axis or more.
        stride: S in [1, L) for an axis of length L: a number, or one per spatial axis; as a tensor of one or of
            n values it receives a gradient. Values below `window.stride_bounds` act, and learn, as its lower end.
        smoothness: R > 0, width of the window's ramp in frequency bins, one value or one per spatial axis.
        ramp: "outer" (the paper: the ramp lies beyond the pass-band, so maps are up to 2 R larger than L / S) or
            "inner" (the ramp ends at the pass-band's edge: the shapes of a strided convolution), or "cosine" (half a
            cosine around the output's highest frequency: the same shapes by a short filter; R does not count).
        norm: "forward" keeps constants, "ortho" is Eq. 1 to the letter, "backward" is the authors' release.
        rolloff: for "cosine", b in (0, 1]: the window falls from 1 at (1 - b) L / (2 S) to 0 at (1 + b) L / (2 S).
        tolerance: for "cosine", the share of its kernel (root of energy) that is cut off, from 1e-4 to 0.2: the rest
            is a filter of about 3.5 S + 1 samples at the defaults.
        padding_mode: for "cosine", what lies beyond the border: "zeros", "replicate" (the default), "reflect" or
            "circular". The other ramps are circular.

    Returns:
        (N, C, *sizes), with min(L, floor(L / S + 2 R)) samples per axis for "outer", else ceil(L / S).

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
    kind = cosine_ramp(ramp, rolloff, tolerance, padding_mode)
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
    learns = torch.is_grad_enabled() and stride.requires_grad
    bands = [band(*axis, kind) for axis in zip(x.shape[2:], values, widths, strict=True)]
    return resample(x, tuple([LearnedAxis.of(each, norm, learns) for each in bands]), stride)


def spectral_pool(x: Tensor, output_size: int | Sequence[int], norm: Norm = "forward") -> Tensor:
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
    return _resized(x, output_size, norm, upwards=False)


def spectral_resize(x: Tensor, output_size: int | Sequence[int], norm: Norm = "forward") -> Tensor:
    """Bring a map to any size, up or down, with all frequencies that both sizes can hold (section 2.3).

    Down, this is `spectral_pool`. Up, the frequencies that only the larger map can hold are zero: a map of band-limited
    samples meets its own samples again. Up is the adjoint of down, times the ratio of the sizes with `norm="forward"`
    and exactly with "ortho". Up and down again is the identity where the smaller size is odd; the highest frequency of
    an even one, which has no partner, comes back at half its height.

    Args:
        x: (N, C, *spatial), floating point, one spatial axis or more.
        output_size: samples per axis, one number or one per spatial axis, at least 1.
        norm: gain; "forward" keeps constants, "ortho" is Eq. 1 to the letter, "backward" leaves transforms unscaled.

    Returns:
        (N, C, *output_size).

    Raises:
        TypeError: `x` is not a floating-point tensor.
        ValueError: `x` has no spatial axis, or an argument is out of range; the message names it.

    Example:
        >>> spectral_resize(torch.randn(8, 16, 32, 32), (48, 16)).shape
        torch.Size([8, 16, 48, 16])
    """
    return _resized(x, output_size, norm, upwards=True)


def _resized(x: Tensor, output_size: int | Sequence[int], norm: Norm, upwards: bool) -> Tensor:
    check_input(x)
    check_choice("norm", norm, NORMS)
    each_axis = zip(x.shape[2:], per_axis("output_size", output_size, x.dim() - 2), strict=True)
    sizes = [(n, check_output_size(h, None if upwards else n)) for n, h in each_axis]
    return resample(x, tuple([SpectralAxis(n, h, norm) for n, h in sizes]))


def resampling_matrix(
    length: int,
    stride: float,
    smoothness: float = 4.0,
    ramp: Ramp = "outer",
    norm: Norm = "forward",
    *,
    rolloff: float = ROLLOFF,
    tolerance: float = TOLERANCE,
    padding_mode: PaddingMode | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """The real matrix that DiffStride applies to one axis (Algorithm 1 on that axis).

    Args:
        length: samples L of the axis, at least 1.
        stride: stride S in [1, L); values below `stride_bounds` act as its lower end.
        smoothness: R > 0, the ramp's width in bins.
        ramp: "outer" (the paper), "inner" or "cosine".
        norm: gain; "forward" keeps constants, "ortho" is Eq. 1 to the letter
            (never adds energy), "backward" is the authors' release.
        rolloff, tolerance, padding_mode: for "cosine", as in `diffstride`.
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
    kind = cosine_ramp(ramp, rolloff, tolerance, padding_mode)
    check_choice("norm", norm, NORMS)
    check_smoothness((smoothness,))
    if not isinstance(length, int):
        raise ValueError(f"length must be a whole number of at least 1, got {length!r}")
    check_stride(stride, length)
    return band_matrix(band(length, stride, smoothness, kind), norm).to(device, dtype)
