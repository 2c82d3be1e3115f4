"""Running a program of local windows. Its gradients need the input of each step: all but the first are made again.

The bins of a raised cosine fold onto each other, so the output does not tell what the stride moved, as it does where
windows end within the output's band (`autograd`). What is kept is the program's input, which a strided convolution
keeps, too: the full-resolution map between a convolution and its operator lives no longer than it takes to make it.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.nn import functional as F

from anystride.ops.blocks import BlockMatrix
from anystride.ops.layout import as_laid_out, autocast, convolution_backward, convolve, quick_layout
from anystride.ops.matrix import Matrix
from anystride.ops.program import Convolve, Filter
from anystride.ops.sealed import sealed
from anystride.ops.segments import LocalSegment
from anystride.ops.separable import Product, multiply, multiply_transposed

LocalStep = Product | Filter | Convolve


def run_local(
    x: Tensor, segment: LocalSegment, stride: Tensor | None, weight: Tensor | None, bias: Tensor | None
) -> Tensor:
    """Run a program of local windows; `stride` receives its gradient if it is given."""
    if weight is not None:
        weight, bias = autocast(weight), None if bias is None else autocast(bias)
    # Beyond the border of its map, a convolution gives its bias alone, which the operator keeps.
    own, late = (bias, None) if segment.convolves_last else (None, bias)
    steps, matrices = segment.steps, segment.matrices
    if stride is None:
        y = _run(x, steps, matrices, weight, own)[-1]
    elif all(isinstance(step, Product) for step in steps[1:]) and not _interleaves(steps):
        y = _run_kept(x, segment, stride, weight, own)
    else:
        slopes = [slope for each in segment.slopes for slope in each]
        counts = tuple([len(each) for each in segment.slopes])
        y = _Recomputed.apply(x, stride, weight, own, steps, counts, *matrices, *slopes)  # type: ignore
    return y if late is None else y + late.reshape(-1, *[1] * (y.dim() - 2))


def _run(
    x: Tensor, steps: Sequence[LocalStep], matrices: Sequence[Matrix | None], weight: Tensor | None, bias: Tensor | None
) -> list[Tensor]:
    """The map before each step, and the last one."""
    given, quick = x, _wants_quick(steps)
    maps = [quick_layout(x) if quick else x]
    for step, matrix in zip(steps, matrices, strict=True):
        maps.append(_step(maps[-1], step, matrix, weight, bias))
    if quick:
        maps[-1] = as_laid_out(given, maps[-1])
    return maps


def _step(x: Tensor, step: LocalStep, matrix: Matrix | None, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    if isinstance(step, Convolve):
        assert weight is not None
        return convolve(x, weight, bias, step)
    assert matrix is not None
    if isinstance(step, Product):
        return multiply(x, [step], [matrix])
    assert isinstance(matrix, Tensor)
    return _filter(x, matrix, step, step.padding)


def _filter(x: Tensor, taps: Tensor, step: Filter, padding: int) -> Tensor:
    if padding < 0 or len(taps) == 1 or step.border != "zeros":  # F.pad crops where its argument is below zero
        sides = [0] * (2 * (x.dim() - 2))
        sides[-1 - 2 * step.axis] = sides[-2 - 2 * step.axis] = padding
        x, padding = F.pad(x, sides, mode="constant" if step.border == "zeros" else step.border), 0
    if len(taps) == 1 and step.stride == 1:
        return x
    if x.dtype == torch.float16 and x.device.type == "cpu":
        return _filter(x.float(), taps.float(), step, padding).half()
    ones, axes = [1] * (x.dim() - 2), x.dim() - 2
    shape, strides, paddings = list(ones), list(ones), [0] * axes
    shape[step.axis], strides[step.axis], paddings[step.axis] = len(taps), step.stride, padding
    weight = taps.reshape(1, 1, *shape).expand(x.shape[1], 1, *shape)
    how = Convolve(tuple(strides), tuple(paddings), tuple(ones), x.shape[1], ())
    return convolve(x, weight, None, how)


def _run_kept(x: Tensor, segment: LocalSegment, stride: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Products, after a convolution if there is one, which keeps its input by itself."""
    steps, matrices, each_slopes, given = segment.steps, segment.matrices, segment.slopes, x
    if steps and isinstance(steps[0], Convolve):
        assert weight is not None
        x = convolve(quick_layout(x) if steps[0].groups > 1 else x, weight, bias, steps[0])
        steps, matrices, each_slopes = steps[1:], matrices[1:], each_slopes[1:]
    if not steps:
        return x.clone() if x is given else x
    slopes = [slope for each in each_slopes for slope in each]
    counts = tuple([len(each) for each in each_slopes])
    y = _Kept.apply(x, stride, steps, counts, *matrices, *slopes)[0]  # type: ignore[no-untyped-call]
    return y if given is x else as_laid_out(given, y)


def _interleaves(steps: Sequence[LocalStep]) -> bool:
    return any(isinstance(step, Convolve) and step.interleaved for step in steps)


class _Kept(torch.autograd.Function):
    """Products of local windows; what each stride moves in the output is kept, and not the input, which is larger."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, stride: Tensor, steps: tuple[Product, ...], counts: tuple[int, ...], *parts: Any
    ) -> tuple[Tensor, ...]:
        matrices, slopes = parts[: len(steps)], list(parts[len(steps) :])
        moved: list[Tensor] = []
        for step, matrix, count in zip(steps, matrices, counts, strict=True):
            own = [multiply(x, [step], [slopes.pop(0)]) for _ in range(count)]
            moved = [multiply(each, [step], [matrix]) for each in moved] + own
            x = multiply(x, [step], [matrix])
        return x.detach(), *moved

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _, stride, steps, counts, *parts = inputs
        ctx.steps, ctx.counts, ctx.stride = steps, counts, (stride.shape, stride.dtype)
        matrices = parts[: len(steps)]
        ctx.blocks = [None if isinstance(part, Tensor) else part for part in matrices]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*[p if isinstance(p, Tensor) else None for p in matrices], *output[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: Any) -> Any:
        if grad is None:
            return (None,) * (4 + len(ctx.steps) + sum(ctx.counts))
        saved = ctx.saved_tensors  # once: a checkpoint gives them once
        moved = saved[len(ctx.steps) :]
        found = sealed(lambda: _kept_gradients(ctx, grad, saved, moved), moved, grad, True)
        return *found, None, None, *[None] * (len(ctx.steps) + len(moved))


def _kept_gradients(ctx: Any, grad: Tensor, saved: Sequence[Any], moved: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    matrices = [a if b is None else b for a, b in zip(saved[: len(ctx.steps)], ctx.blocks, strict=True)]
    grad_x = grad_stride = None
    if ctx.needs_input_grad[1]:
        axes = [axis for step, count in zip(ctx.steps, ctx.counts, strict=True) for axis in step.axes[:count]]
        by_axis = {axis: _dot(grad, each) for axis, each in zip(axes, moved, strict=True)}
        grad_stride = _stacked(by_axis, grad, ctx.stride)
    if ctx.needs_input_grad[0]:
        grad_x = multiply_transposed(grad, ctx.steps, matrices)
    return grad_x, grad_stride


def _stacked(by_axis: dict[int, Tensor], like: Tensor, stride: tuple[torch.Size, torch.dtype]) -> Tensor:
    shape, dtype = stride
    zero = torch.zeros((), device=like.device)
    found = torch.stack([by_axis.get(axis, zero).to(dtype) for axis in range(like.dim() - 2)])
    return (found.sum() if math.prod(shape) == 1 else found).reshape(shape)


class _Recomputed(torch.autograd.Function):
    """A program of local windows; only its input is kept."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor,
        stride: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        steps: tuple[LocalStep, ...],
        counts: tuple[int, ...],
        *parts: Any,
    ) -> Tensor:
        y = _run(x, steps, parts[: len(steps)], weight, bias)[-1]
        return y.clone() if y is x else y.detach()

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, stride, weight, bias, steps, counts, *parts = inputs
        kept: Any = ctx
        kept.steps, kept.counts, kept.has_bias = steps, counts, bias is not None
        kept.stride = stride.shape, stride.dtype
        blocks = any(isinstance(part, BlockMatrix) for part in parts)
        kept.parts = [part if isinstance(part, BlockMatrix) else None for part in parts] if blocks else None
        kept.save_for_backward(x, weight, stride, *([None if isinstance(p, BlockMatrix) else p for p in parts]))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # once: a checkpoint gives them once
        found = sealed(lambda: _gradients(ctx, grad, saved), saved[:3], grad, True)
        return *found, None, None, *[None] * (len(saved) - 3)


def _gradients(ctx: Any, grad: Tensor, saved: Sequence[Any]) -> tuple[Tensor | None, ...]:
    """The gradients of the first four arguments of `_Recomputed`."""
    x, weight, _, *tensors = saved
    parts = [a if b is None else b for a, b in zip(tensors, ctx.parts or [None] * len(tensors), strict=True)]
    steps: Sequence[LocalStep] = ctx.steps
    matrices, slopes = parts[: len(steps)], parts[len(steps) :]
    needs = ctx.needs_input_grad
    maps = _run(x, steps[:-1], matrices[:-1], weight, None) if steps else [x]
    interleaved = _wants_quick(steps)
    g = quick_layout(grad) if interleaved else grad
    by_axis: dict[int, Tensor] = {}
    grad_weight = grad_bias = None
    end = len(slopes)
    for number in reversed(range(len(steps))):
        step, matrix, u = steps[number], matrices[number], maps[number]
        end, own = end - ctx.counts[number], slopes[end - ctx.counts[number] : end]
        first = number == 0 and not needs[0]
        if isinstance(step, Convolve):
            wanted = [not first, needs[2], needs[3] and ctx.has_bias]
            g, grad_weight, grad_bias = convolution_backward(g, u, weight, step, wanted)
            continue
        if needs[1]:
            axes = step.axes if isinstance(step, Product) else (step.axis,)
            for axis, slope in zip(axes, own, strict=False):
                by_axis[axis] = _dot(g, _step(u, step, slope, None, None))
        if not first:
            g = _transposed(g, step, matrix)
    grad_stride = None
    if needs[1]:
        grad_stride = _stacked(by_axis, x, ctx.stride)
    return as_laid_out(x, g) if needs[0] else None, grad_stride, grad_weight, grad_bias


def _dot(a: Tensor, b: Tensor) -> Tensor:
    precise = torch.float64 if a.dtype == torch.float64 else torch.float32
    if not (a.is_contiguous() and b.is_contiguous()):  # in the order in which both lie
        a, b = (t.movedim(1, -1).contiguous() for t in (a, b))
    return torch.dot(a.flatten().to(precise), b.flatten().to(precise))


def _transposed(g: Tensor, step: Product | Filter, matrix: Any) -> Tensor:
    if isinstance(step, Product):
        return multiply_transposed(g, [step], [matrix])
    assert step.stride == 1, "a filter with a stride runs where no gradient is wanted"
    return _filter(g, matrix.flip(0), step, step.taps - 1 - step.padding)


def _wants_quick(steps: Sequence[LocalStep]) -> bool:
    return any(isinstance(step, Filter) or (isinstance(step, Convolve) and step.interleaved) for step in steps)
