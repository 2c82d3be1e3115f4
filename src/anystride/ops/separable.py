"""Matrices along the axes of a map, as it lies in memory: in which order they go, and as which products they run."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from anystride.ops.blocks import multiply_axes
from anystride.ops.costs import COSTS
from anystride.ops.matrix import Matrix

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
            if max(both) <= COSTS.tiny:
                merged[-1] = (*axes, axis), both
                continue
        merged.append(((axis,), shape))

    return [merged[n] for n in _in_order([shape for _, shape in merged])]


def _in_order(shapes: Sequence[tuple[int, int]]) -> list[int]:
    """Numbers of the products of some shapes, in the order in which they run."""
    ordered: list[int] = []  # by insertion: a compiler that does not know the sizes can compare, not sort
    for number, shape in enumerate(shapes):
        place = 0
        while place < len(ordered) and not _goes_first(shape, shapes[ordered[place]]):
            place += 1
        ordered.insert(place, number)
    return ordered


def _goes_first(shape: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether a product goes before one of an earlier axis."""
    (rows, columns), (other_rows, other_columns) = shape, other
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


class Product(NamedTuple):
    """A matrix along neighbouring spatial axes, which count as one.

    Attributes:
        axes: numbers of the axes.
        rows, columns: samples that each of them has after and before.
    """

    axes: tuple[int, ...]
    rows: tuple[int, ...]
    columns: tuple[int, ...]


def joined(parts: Sequence[Matrix]) -> Matrix:
    """The matrix of neighbouring axes together, from that of each."""
    whole = parts[0]
    for part in parts[1:]:
        assert isinstance(whole, Tensor)
        assert isinstance(part, Tensor)
        whole = _kronecker(whole, part)
    return whole


def multiply(x: Tensor, steps: Sequence[Product], matrices: Sequence[Matrix]) -> Tensor:
    """Apply products, in their order, to (N, C, *spatial)."""
    if x.dtype == torch.float16 and x.device.type == "cpu":
        return multiply(x.float(), steps, matrices).half()
    x, offset = packed(x)
    for (axes, rows, _), matrix in zip(steps, matrices, strict=True):
        start, stop = offset + axes[0], offset + axes[-1] + 1
        if not isinstance(matrix, Tensor):
            x = matrix.apply(x, start)
        elif len(axes) == 1:
            x = multiply_axes(x, matrix, start, stop)
        else:
            x = multiply_axes(x, matrix, start, stop).reshape(*x.shape[:start], *rows, *x.shape[stop:])
    return x if offset == 2 else x.movedim(x.dim() - 1, 1)


def multiply_transposed(x: Tensor, steps: Sequence[Product], matrices: Sequence[Matrix]) -> Tensor:
    """The transpose of `multiply`."""
    by_axis = sorted(zip(steps, matrices, strict=True), key=_first_axis)
    order = _in_order([(math.prod(columns), math.prod(rows)) for (_, rows, columns), _ in by_axis])
    backwards = [Product(axes, columns, rows) for (axes, rows, columns), _ in [by_axis[n] for n in order]]
    return multiply(x, backwards, [by_axis[n][1].t() for n in order])


def _first_axis(step: tuple[Product, Matrix]) -> int:
    return step[0].axes[0]


def stride_gradients(y: Tensor, grad: Tensor, probes: Sequence[Tensor | None]) -> list[Tensor]:
    """dLoss/dS per axis from an operator's output and its gradient (`AxisOperator.probe`); 0 without a probe."""
    y, first = packed(y)
    grad = (grad if first == 2 else grad.movedim(1, -1)).contiguous()
    probes = [None if probe is None or not probe.numel() else probe for probe in probes]
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
                a = multiply_axes(a, probe.t() @ probe, at, at + 1)
            else:
                a, b = (_project(t, probe, at) for t in (a, b))
            gradients[axis] = -torch.dot(a.flatten(), b.flatten())
    return [gradient for gradient in gradients if gradient is not None]


def packed(x: Tensor) -> tuple[Tensor, int]:
    """The map as it lies in memory, and the first spatial axis there: channels first or channels last, no copy."""
    if not x.is_contiguous():
        last = x.movedim(1, x.dim() - 1)
        if last.is_contiguous():
            return last, 1
    return x.contiguous(), 2


def _together(y: Tensor, first: int, probes: Sequence[Tensor | None]) -> list[tuple[int, ...]]:
    """Short axes beside the channels in memory, whose gradients come from one sum of outer products."""
    axes = list(range(len(probes)))
    group: list[int] = []
    for axis in axes if first == 1 else axes[::-1]:
        limit = COSTS.short if not group else COSTS.tiny
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
    """`multiply_axes` up to the order of its entries, in the form that is fastest for a few rows."""
    if axis < x.dim() - 1:
        return multiply_axes(x, rows, axis, axis + 1)
    blocks = x.reshape(len(x), math.prod(x.shape[1:-1]), x.shape[-1]).transpose(1, 2)
    return torch.bmm(rows.expand(len(x), *rows.shape), blocks)


def _kronecker(a: Tensor, b: Tensor) -> Tensor:
    # torch.kron refuses some transposed matrices.
    return (a[:, None, :, None] * b[None, :, None, :]).reshape(len(a) * len(b), a.shape[1] * b.shape[1])
