"""DiffStride (Algorithm 1) and spectral pooling (section 2.3) in N dimensions, as functions.

Both multiply every spatial axis by a small real matrix. No transform runs and no complex number appears.
"""

import contextlib
import math
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from anystride.resampling import (
    NORMS,
    AxisOperator,
    band_matrix,
    learned_axis,
    onto_samples,
    spectral_axis,
    spectral_matrix,
)
from anystride.window import RAMPS, band

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
    return downsample(x, stride, values, widths, ramp, norm)


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
    x: Tensor, output_size: Sequence[int], norm: str = "forward", lengths: Sequence[int] | None = None
) -> Tensor:
    """`spectral_pool` for arguments that were checked, to smaller or larger sizes; `lengths` as in `downsample`."""
    if x.is_meta:
        return x.new_empty(*x.shape[:2], *output_size)
    x = _autocast(x)
    matrices: list[Tensor | None] = []
    for samples, length, size in zip(x.shape[2:], lengths or x.shape[2:], output_size, strict=True):
        matrices.append(_spectral(length, size, norm, x, samples) if size != length or samples != length else None)
    return multiply_axes(x, matrices)


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


def _spectral(length: int, size: int, norm: str, like: Tensor, samples: int) -> Tensor:
    if torch.compiler.is_compiling():  # the tracer folds it; it must not meet the cache
        return onto_samples(spectral_matrix(length, size, norm, dtype=like.dtype, device=like.device), samples)
    return spectral_axis(length, size, norm, like.dtype, like.device, samples).matrix


def downsample(
    x: Tensor,
    stride: Tensor,
    values: Sequence[float],
    smoothness: Sequence[float],
    ramp: str,
    norm: str,
    lengths: Sequence[int] | None = None,
) -> Tensor:
    """`diffstride` for arguments that were checked, with the stride's values already on the host.

    `values` are clamped to what each axis can use; the gradient reaches `stride` as if they had not been, so a stride
    that stands at a bound, or beyond it, still learns. `lengths` are the samples that an axis counts, if other than
    those of `x`: missing ones repeat the last, and what exceeds them is ignored (`resampling.onto_samples`).
    """
    lengths = x.shape[2:] if lengths is None else lengths
    bands = [band(*at, ramp) for at in zip(lengths, values, smoothness, strict=True)]
    if x.is_meta:
        return x.new_empty(*x.shape[:2], *(at.output_length for at in bands))
    x = _autocast(x)
    axes = [
        None if at.length == samples == 1 else learned_axis(at, norm, x.dtype, x.device, samples)
        for at, samples in zip(bands, x.shape[2:], strict=True)
    ]
    if torch.is_grad_enabled() and stride.requires_grad:
        out: Tensor = _LearnedResample.apply(x, stride, axes)  # type: ignore[no-untyped-call]
        return out
    return multiply_axes(x, [None if axis is None else axis.matrix for axis in axes])


class _LearnedResample(torch.autograd.Function):
    """The product with one matrix per axis, and the gradient of the strides from its output alone.

    On the ramp the output's spectrum is window(k) times the input's, so dy / dS is the output's ramp bins scaled by
    window'(k) / window(k): the full-resolution input is never kept.
    """

    @staticmethod
    def forward(x: Tensor, stride: Tensor, axes: list[AxisOperator | None]) -> Tensor:
        y = multiply_axes(x, [None if axis is None else axis.matrix for axis in axes])
        # Not a view, which could not be changed in place; and no alias of the input, which must not be.
        return y.clone() if y.data_ptr() == x.data_ptr() else y.detach()

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, stride, axes = inputs
        ctx.axes, ctx.stride_shape, ctx.stride_dtype = axes, stride.shape, stride.dtype  # type: ignore[attr-defined]
        ctx.save_for_backward(output)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, None]:
        (y,) = ctx.saved_tensors
        with torch.autocast(grad.device.type, enabled=False) if _autocasts(grad) else contextlib.nullcontext():
            grad_x = None
            if ctx.needs_input_grad[0]:
                grad_x = multiply_axes(grad, [None if axis is None else axis.matrix.t() for axis in ctx.axes])
            grad_stride = torch.stack(_stride_gradients(y, grad, ctx.axes)).to(ctx.stride_dtype)
        if math.prod(ctx.stride_shape) == 1:
            grad_stride = grad_stride.sum()
        return grad_x, grad_stride.reshape(ctx.stride_shape), None


def _stride_gradients(y: Tensor, grad: Tensor, axes: Sequence[AxisOperator | None]) -> list[Tensor]:
    y, first = _packed(y)
    grad = (grad if first == 2 else grad.movedim(1, -1)).contiguous()
    gradients = []
    for axis, operator in enumerate(axes):
        if operator is None or operator.probe is None or not operator.probe.numel():
            gradients.append(y.new_zeros((), dtype=torch.float32))
            continue
        precise = operator.probe.dtype
        a, b, probe = y.to(precise), grad.to(precise), operator.probe
        if 2 * len(probe) >= probe.shape[1]:  # one square product is less work than two projections
            a = _multiply(a, probe.t() @ probe, first + axis)
        else:
            a, b = (_project(t, probe, first + axis) for t in (a, b))
        gradients.append(-torch.dot(a.flatten(), b.flatten()))
    return gradients


def _project(x: Tensor, rows: Tensor, axis: int) -> Tensor:
    """`_multiply` up to the order of its entries, in the form that is fastest for a few rows."""
    if axis < x.dim() - 1:
        return _multiply(x, rows, axis)
    blocks = x.reshape(len(x), math.prod(x.shape[1:-1]), x.shape[-1]).transpose(1, 2)
    return torch.bmm(rows.expand(len(x), *rows.shape), blocks)


def multiply_axes(x: Tensor, matrices: Sequence[Tensor | None]) -> Tensor:
    """Apply one matrix (rows, length) per spatial axis of (N, C, *spatial); None leaves an axis as it is."""
    x, first = _packed(x)
    steps = [(first + axis, matrix) for axis, matrix in enumerate(matrices) if matrix is not None][::-1]
    if not torch.compiler.is_compiling():  # which may not know the sizes
        # The axis that shrinks most goes first (the one that grows most, last): least work for the others.
        steps.sort(key=lambda step: step[1].shape[0] / step[1].shape[1])
    for axis, matrix in steps:
        x = _multiply(x, matrix, axis)
    return x if first == 2 else x.movedim(-1, 1)


def _packed(x: Tensor) -> tuple[Tensor, int]:
    """The map as it lies in memory, and the first spatial axis there: channels first or channels last, no copy."""
    if not x.is_contiguous():
        last = x.movedim(1, -1)
        if last.is_contiguous():
            return last, 1
    return x.contiguous(), 2


def _multiply(x: Tensor, matrix: Tensor, axis: int) -> Tensor:
    before, after = x.shape[:axis], x.shape[axis + 1 :]
    rows, length = matrix.shape
    if after:
        outer, inner = math.prod(before), math.prod(after)
        product = torch.bmm(matrix.expand(outer, rows, length), x.reshape(outer, length, inner))
    else:
        batch, lines = before[0], math.prod(before[1:])
        product = torch.bmm(x.reshape(batch, lines, length), matrix.t().expand(batch, length, rows))
    return product.view(*before, rows, *after)


def _autocast(x: Tensor) -> Tensor:
    """Under autocast, the operator is a matrix product like any other: it runs in autocast's type."""
    if x.dtype == torch.float32 and _autocasts(x):
        return x.to(torch.get_autocast_dtype(x.device.type))
    return x


def _autocasts(x: Tensor) -> bool:
    return not x.is_meta and torch.is_autocast_enabled(x.device.type)


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
