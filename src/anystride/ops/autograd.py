"""Running a program: the operator on a map, alone or with a convolution, and its gradients."""

import contextlib
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from anystride.ops.axes import Axis
from anystride.ops.cache import matrices
from anystride.ops.fourier import FourierMatrix
from anystride.ops.layout import as_laid_out, autocast, convolution_backward, convolve, quick_layout
from anystride.ops.matrix import Matrix
from anystride.ops.program import Convolve, Kernel
from anystride.ops.recompute import run_local
from anystride.ops.sealed import sealed
from anystride.ops.segments import LocalSegment, Segment, is_local, segments_of
from anystride.ops.separable import Product, multiply, multiply_transposed, stride_gradients


def resample(
    x: Tensor,
    axes: tuple[Axis, ...],
    stride: Tensor | None = None,
    kernel: Kernel | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """The operator, after a convolution if one is given.

    Args:
        x: (N, C, *spatial).
        axes: what is done to each spatial axis.
        stride: what receives the gradient of the strides: one value, or one per axis.
        kernel, weight, bias: of the convolution.

    Returns:
        (N, C, *sizes), or (N, kernel.channels, *sizes).
    """
    if x.is_meta:
        if weight is not None and kernel is not None and x.shape[1] != weight.shape[1] * kernel.groups:
            wanted = weight.shape[1] * kernel.groups
            raise RuntimeError(f"the convolution takes maps of {wanted} channels, got {x.shape[1]}: {tuple(x.shape)}")
        return x.new_empty(len(x), x.shape[1] if kernel is None else kernel.channels, *[a.output_length for a in axes])
    x = autocast(x)
    size = tuple(x.shape[2:])
    if torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]  # there they are tensors
        size = tuple(map(int, size))
    key = axes, size, x.shape[1], kernel, x.dtype, x.device, not torch.is_grad_enabled() and is_local(axes)
    segments = segments_of(*key) if torch.compiler.is_compiling() else matrices.get(key, segments_of, *key)
    return run(x, segments, stride, weight, bias)


def run(
    x: Tensor,
    segments: "Sequence[Segment | LocalSegment]",
    stride: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Run a program; `stride` receives the gradient of what its segments resample."""
    # A trace cannot hold the function, and holds strides as constants anyway.
    graph = torch.is_grad_enabled() and not torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
    learns = graph and stride is not None and stride.requires_grad
    given = x
    for segment in segments:
        if isinstance(segment, LocalSegment):
            x = run_local(x, segment, stride if learns else None, weight, bias)
        elif segment.convolve is not None and not segment.convolve.interleaved:
            assert weight is not None
            x = autocast(convolve(x, weight, bias, segment.convolve))
        elif segment.convolve is None and not learns:
            x = multiply(x, segment.products, segment.matrices)
        elif graph:
            x = _apply(x, stride if learns else None, weight, bias, segment)
        else:
            x = _run_segment(x, segment, weight, bias)
    return x.clone() if x is given else x  # never the input itself, which an operation in place would change


def _run_segment(x: Tensor, segment: Segment, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    if segment.convolve is None:
        return multiply(x, segment.products, segment.matrices)
    assert weight is not None
    weight, bias = autocast(weight), None if bias is None else autocast(bias)
    z = multiply(quick_layout(x), segment.products, segment.matrices)
    return as_laid_out(x, convolve(z, weight, bias, segment.convolve))


def _apply(x: Tensor, stride: Tensor | None, weight: Tensor | None, bias: Tensor | None, segment: Segment) -> Tensor:
    if segment.convolve is None:
        weight = bias = None
    else:
        assert weight is not None
        weight, bias = autocast(weight), None if bias is None else autocast(bias)
    out: Tensor = _Run.apply(  # type: ignore[no-untyped-call]
        x, stride, weight, bias, segment.products, segment.convolve, *segment.matrices, *segment.probes
    )
    return out


class _Run(torch.autograd.Function):
    """One segment; the gradient of the strides follows from the output.

    On the ramp the output's spectrum is window(k) times the input's, so dy / dS is the output's ramp bins scaled by
    window'(k) / window(k): the full-resolution input is not kept for it. Of an interleaved map, which is larger than
    the input, only the input is kept, and it is made again. Where no stride learns, the backward pass can itself be
    differentiated: it consists of operations that can.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor,
        stride: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        products: tuple[Product, ...],
        how: Convolve | None,
        *parts: Any,
    ) -> Tensor:
        joint = parts[: len(products)]
        if how is None:
            return multiply(x, products, joint).detach()  # not a view, which could not be changed in place
        assert weight is not None
        return as_laid_out(x, convolve(multiply(quick_layout(x), products, joint), weight, bias, how))

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, stride, weight, bias, products, how, *parts = inputs
        kept: Any = ctx
        kept.products, kept.how, kept.has_bias = products, how, bias is not None
        kept.stride = None if stride is None else (stride.shape, stride.dtype)
        long = any(isinstance(part, FourierMatrix) for part in parts[: len(products)])
        kept.parts = [part if isinstance(part, FourierMatrix) else None for part in parts] if long else None
        tensors = [None if isinstance(part, FourierMatrix) else part for part in parts] if long else parts
        kept.save_for_backward(None if stride is None else output, None if how is None else x, weight, *tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # once: a checkpoint gives them once
        gradients = sealed(lambda: _gradients(ctx, grad, saved), saved[:1], grad, ctx.stride is not None)
        return *gradients, None, None, *[None] * (len(saved) - 3)


def _gradients(ctx: Any, grad: Tensor, saved: Sequence[Any]) -> tuple[Tensor | None, ...]:
    """The gradients of the first four arguments of `_Run`."""
    y, x, weight, *tensors = saved
    parts = [a if b is None else b for a, b in zip(tensors, ctx.parts or [None] * len(tensors), strict=True)]
    joint, probes = parts[: len(ctx.products)], parts[len(ctx.products) :]
    needs = ctx.needs_input_grad
    grad_x = grad_stride = grad_weight = grad_bias = None
    if needs[1]:
        shape, dtype = ctx.stride
        # A compiler traces the backward pass under the autocast of the forward pass; sums of strides stay in float32.
        with contextlib.nullcontext() if y.is_meta else torch.autocast(y.device.type, enabled=False):
            grad_stride = torch.stack(stride_gradients(y, grad, probes)).to(dtype)
        grad_stride = (grad_stride.sum() if math.prod(shape) == 1 else grad_stride).reshape(shape)
    inner: Tensor | None = grad
    if ctx.how is not None:
        inner, grad_weight, grad_bias = _convolution_backward(ctx, grad, x, weight, joint)
    if needs[0]:
        assert inner is not None
        grad_x = multiply_transposed(inner, ctx.products, joint)
        grad_x = grad_x if x is None else as_laid_out(x, grad_x)
    return grad_x, grad_stride, grad_weight, grad_bias


def _convolution_backward(
    ctx: Any, grad: Tensor, x: Tensor, weight: Tensor, joint: Sequence[Matrix]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    needs = ctx.needs_input_grad
    z = multiply(quick_layout(x), ctx.products, joint)
    return convolution_backward(quick_layout(grad), z, weight, ctx.how, [needs[0], needs[2], needs[3] and ctx.has_bias])
