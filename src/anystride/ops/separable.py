"""Matrices along the axes of a map, as it lies in memory: in which order they go, and as which products they run."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from anystride.ops.matrix import AxisOperator, Matrix, Transform

# Neighbouring axes with no more samples than this are one axis, with the Kronecker product of their matrices: a few
# more multiplications, but in few large products instead of many tiny ones.
_TINY = 64
# Up to this length a sum over all outer products beats projections onto the ramp.
_SHORT = 16

# Axes that are multiplied together, and the shape (rows, columns) of their matrix.
Step = tuple[tuple[int, ...], tuple[int, int]]


def schedule(shapes: Sequence[tuple[int, int] | None]) -> list[Step]:
    """The products that bring all axes to their sizes, in order.

    The axis that shrinks most goes first (the one that grows most, last): least work for the others. Of those that
    shrink alike the shorter goes first, and of equals the last one, whose product is the slowest, sees the smaller map.

    Args:
        shapes: per spatial axis, (rows, columns) of its matrix; None leaves it as it is.
    """
    merged: list[Step] = []
    for axis, shape in enumerate(shapes):
        if shape is None:
            continue
        if merged and merged[-1][0][-1] == axis - 1:
            axes, (rows, columns) = merged[-1]
            both = rows * shape[0], columns * shape[1]
            if max(both) <= _TINY:
                merged[-1] = (*axes, axis), both
                continue
        merged.append(((axis,), shape))

    ordered: list[Step] = []  # by insertion: a compiler that does not know the sizes can compare, not sort
    for step in merged:
        place = 0
        while place < len(ordered) and not _goes_first(step, ordered[place]):
            place += 1
        ordered.insert(place, step)
    return ordered


def _goes_first(step: Step, other: Step) -> bool:
    """Whether a step goes before one of an earlier axis."""
    (rows, columns), (other_rows, other_columns) = step[1], other[1]
    if rows * other_columns != other_rows * columns:
        return rows * other_columns < other_rows * columns
    return rows < other_rows if rows < columns else rows >= other_rows


def multiply_accumulates(sizes: Sequence[int], shapes: Sequence[tuple[int, int] | None]) -> int:
    """Multiply-accumulates of `multiply_axes` per channel of a map of `sizes`."""
    left, work = list(sizes), 0
    for axes, (rows, _) in schedule(shapes):
        work += rows * math.prod(left)
        for axis in axes:
            shape = shapes[axis]
            assert shape is not None
            left[axis] = shape[0]
    return work


def multiply_axes(x: Tensor, matrices: Sequence[Matrix | None]) -> Tensor:
    """Apply one matrix (rows, length) per spatial axis of (N, C, *spatial); None leaves an axis as it is."""
    if (
        x.dtype == torch.float16 and x.device.type == "cpu"
    ):  # few CPUs can multiply in it: torch takes ten times as long
        wide = [m.float() if isinstance(m, Tensor) else m for m in matrices]
        return multiply_axes(x.float(), wide).to(x.dtype)
    x, first = packed(x)
    for axes, _ in schedule([None if m is None else (m.shape[0], m.shape[1]) for m in matrices]):
        parts = [matrices[axis] for axis in axes]
        matrix = parts[0]
        if isinstance(matrix, Transform):
            x = matrix.apply(x, first + axes[0])
            continue
        assert isinstance(matrix, Tensor)
        for other in parts[1:]:
            assert isinstance(other, Tensor)
            matrix = _kronecker(matrix, other)
        start, stop = first + axes[0], first + axes[-1] + 1
        rows = [part.shape[0] for part in parts if part is not None]
        x = _multiply(x, matrix, start, stop).reshape(*x.shape[:start], *rows, *x.shape[stop:])
    return x if first == 2 else x.movedim(-1, 1)


def stride_gradients(y: Tensor, grad: Tensor, axes: Sequence[AxisOperator | None]) -> list[Tensor]:
    """dLoss/dS per axis from an operator's output and its gradient (`AxisOperator.probe`)."""
    y, first = packed(y)
    grad = (grad if first == 2 else grad.movedim(1, -1)).contiguous()
    probes = [None if axis is None or axis.probe is None or not axis.probe.numel() else axis.probe for axis in axes]
    gradients: list[Tensor | None] = [
        y.new_zeros((), dtype=torch.float32) if probe is None else None for probe in probes
    ]
    precise = next((probe.dtype for probe in probes if probe is not None), y.dtype)
    y, grad = y.to(precise), grad.to(precise)
    for group in _together(y, first, probes):
        outer = _outer(y, grad, first, group)
        sizes = [y.shape[first + axis] for axis in group]
        for place, axis in enumerate(group):
            probe = probes[axis]
            if probe is not None:
                own = _marginal(outer, sizes, place)
                gradients[axis] = -torch.dot((probe.t() @ probe).flatten(), own.flatten())
    for axis, probe in enumerate(probes):
        if gradients[axis] is None:
            assert probe is not None
            a, b = y, grad
            at = first + axis
            if 2 * len(probe) >= probe.shape[1]:  # one square product is less work than two projections
                a = _multiply(a, probe.t() @ probe, at, at + 1)
            else:
                a, b = (_project(t, probe, at) for t in (a, b))
            gradients[axis] = -torch.dot(a.flatten(), b.flatten())
    return [gradient for gradient in gradients if gradient is not None]


def packed(x: Tensor) -> tuple[Tensor, int]:
    """The map as it lies in memory, and the first spatial axis there: channels first or channels last, no copy."""
    if not x.is_contiguous():
        last = x.movedim(1, -1)
        if last.is_contiguous():
            return last, 1
    return x.contiguous(), 2


def _together(y: Tensor, first: int, probes: Sequence[Tensor | None]) -> list[tuple[int, ...]]:
    """Short axes beside the channels in memory, whose gradients come from one sum of outer products."""
    axes = list(range(len(probes)))
    group: list[int] = []
    for axis in axes if first == 1 else axes[::-1]:
        limit = _SHORT if not group else _TINY
        if math.prod([y.shape[first + a] for a in [*group, axis]]) > limit:
            break
        group.append(axis)
    return [tuple(sorted(group))] if any(probes[axis] is not None for axis in group) else []


def _outer(y: Tensor, grad: Tensor, first: int, group: tuple[int, ...]) -> Tensor:
    """(n, n): the sum over everything else of y's samples on the group's axes times those of grad."""
    n = math.prod([y.shape[first + axis] for axis in group])
    rest = math.prod(y.shape[1:]) // n
    if first == 1:
        a, b = (t.reshape(len(t), n, rest) for t in (y, grad))
        return torch.bmm(a, b.transpose(1, 2)).sum(0)
    a, b = (t.reshape(len(t), rest, n) for t in (y, grad))
    return torch.bmm(a.transpose(1, 2), b).sum(0)


def _marginal(outer: Tensor, sizes: Sequence[int], place: int) -> Tensor:
    """The sum of products along one of several axes, wherever the others agree."""
    before, n, after = math.prod(sizes[:place]), sizes[place], math.prod(sizes[place + 1 :])
    parts = outer.reshape(before, n, after, before, n, after)
    return parts.diagonal(dim1=0, dim2=3).diagonal(dim1=1, dim2=3).sum((2, 3))


def _project(x: Tensor, rows: Tensor, axis: int) -> Tensor:
    """`_multiply` up to the order of its entries, in the form that is fastest for a few rows."""
    if axis < x.dim() - 1:
        return _multiply(x, rows, axis, axis + 1)
    blocks = x.reshape(len(x), math.prod(x.shape[1:-1]), x.shape[-1]).transpose(1, 2)
    return torch.bmm(rows.expand(len(x), *rows.shape), blocks)


def _kronecker(a: Tensor, b: Tensor) -> Tensor:
    # torch.kron refuses some transposed matrices.
    return (a[:, None, :, None] * b[None, :, None, :]).reshape(len(a) * len(b), a.shape[1] * b.shape[1])


def _multiply(x: Tensor, matrix: Tensor, start: int, stop: int) -> Tensor:
    """The product along axes start to stop of `x`, which count as one; they come out as one in a block of memory."""
    before, after = x.shape[:start], x.shape[stop:]
    rows, length = matrix.shape
    if after:
        outer, inner = math.prod(before), math.prod(after)
        return torch.bmm(matrix.expand(outer, rows, length), x.reshape(outer, length, inner))
    batch, lines = before[0], math.prod(before[1:])
    return torch.bmm(x.reshape(batch, lines, length), matrix.t().expand(batch, length, rows))
