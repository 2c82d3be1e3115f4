"""A convolution and the operator as a program: which products run, in which order, and where the convolution stands.

Resampling an axis and convolving commute where the kernel has one entry along that axis. Where it has more, the
operator can still come first, as shifted copies of itself (`matrix.interleaved`). All orders are exact; in most of them
the convolution runs at the output's resolution. Which one costs least follows from the sizes, so a program is a tuple
of steps that is made once per size: `autograd` runs it, `counting` counts it, and `freeze_` makes it constant.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from anystride.ops.axes import Taps
from anystride.ops.blocks import block_entries
from anystride.ops.cache import remembered
from anystride.ops.costs import COSTS, is_long
from anystride.ops.program import Apply, Convolve, Filter, Kernel, Local, Program, convolved, cost, widened
from anystride.ops.separable import Product, schedule


@remembered
def plan(
    lengths: tuple[int, ...],
    output_size: tuple[int, ...],
    learned: bool,
    size: tuple[int, ...],
    channels: int = 1,
    kernel: Kernel | None = None,
    device: torch.device = torch.device("cpu"),  # noqa: B008 - it is immutable
    local: tuple[Local | None, ...] = (),
    infers: bool = False,
) -> Program:
    """The cheapest program.

    Args:
        lengths: samples that the operator counts per axis.
        output_size: samples that come out.
        learned: whether the operator is a learned layer's: where sizes agree, its window is still a low-pass.
        size: spatial size of the map before all steps.
        channels: of that map.
        kernel: of the convolution that runs with the operator, if one does.
        device: where it runs.
        local: per axis, what must be known of a local window.
        infers: whether no gradient is wanted: then filters may have strides, whose gradients torch makes slowly.
    """
    options = programs(lengths, output_size, learned, size, kernel, device, local, infers)
    costs = [cost(option, size, channels, kernel, infers) for option in options]
    return options[costs.index(min(costs))]


def programs(
    lengths: Sequence[int],
    output_size: Sequence[int],
    learned: bool,
    size: tuple[int, ...],
    kernel: Kernel | None,
    device: torch.device,
    local: Sequence[Local | None] = (),
    infers: bool = False,
) -> list[Program]:
    """All orders of a convolution and the operator: after it, before it where one entry commutes, or interleaved.

    Where the window is local and its step whole, also as short filters, after the convolution or before it.
    """
    windows: Sequence[Local | None] = local or [None] * len(size)
    narrow = kernel
    kernel = None if kernel is None else widened(kernel, windows)
    met = size if kernel is None else convolved(kernel, size)
    axes = []
    for n, length, h, own in zip(met, lengths, output_size, windows, strict=True):
        rests = (length == n == 1) if learned else (h == length == n and (own is None or own.keeps))
        whole = h <= length or n == length  # a transform enlarges only whole axes
        axes.append(_Extent(h, rests, whole and is_long(min(h, length), device), own))
    if kernel is None:
        return [
            tuple(_products(axes, size)),
            *([tuple(_filters(axes, size))] if infers and _filtered(axes, size) else []),
        ]
    assert narrow is not None
    found = _products_and_convolution(axes, size, kernel, output_size, device)
    return found + (_filters_and_convolution(axes, size, kernel, narrow, infers) if _filtered(axes, met) else [])


def _products_and_convolution(
    axes: "Sequence[_Extent]",
    size: tuple[int, ...],
    kernel: Kernel,
    output_size: Sequence[int],
    device: torch.device,
) -> list[Program]:
    single = [tap.size == 1 and tap.padding == 0 for tap in kernel.taps]
    orders = [[False] * len(size), single] if any(single) else [single]
    options = [_in_turn(axes, size, kernel, early) for early in orders]
    if all(single) or any(is_long(h, device) for h in output_size):
        return options
    for early in orders:
        program = _interleaved(axes, size, kernel, early)
        if max([step.entries for step in program if isinstance(step, Apply)]) <= COSTS.interleaved:
            options.append(program)
    return options


def _filters_and_convolution(
    axes: "Sequence[_Extent]", size: tuple[int, ...], kernel: Kernel, narrow: Kernel, infers: bool
) -> list[Program]:
    """Short filters on the map of the convolution; or before it, where all of them commute."""
    strides, ones = tuple([_window(axis).step for axis in axes]), (1,) * len(size)
    dilations, output = tuple([tap.dilation for tap in kernel.taps]), tuple([axis.output_length for axis in axes])
    found: list[Program] = []
    if infers:
        paddings, after = tuple([tap.padding for tap in kernel.taps]), convolved(kernel, size)
        first = Convolve(ones, paddings, dilations, kernel.groups, after)
        found.append((first, *_filters(axes, after)))
        if all(tap.size == 1 and tap.padding == 0 for tap in kernel.taps):
            found.append((*_filters(axes, size), Convolve(ones, (0,) * len(size), ones, kernel.groups, output)))
    if all(_window(axis).margin is not None for axis in axes):
        # Low-pass filter and convolution commute: here the filter runs on the convolution's input and keeps its size.
        filters, between = [], list(size)
        for axis, (extent, tap) in enumerate(zip(axes, narrow.taps, strict=True)):
            own = _window(extent)
            rows = size[axis] + 2 * tap.padding
            if extent.rests or not own.radius:
                filters.append(Filter(axis, rows, size[axis], 1, 1, tap.padding))
            else:
                filters.append(Filter(axis, rows, size[axis], own.size, 1, own.radius + tap.padding))
            between[axis] = rows
        last = Convolve(strides, (0,) * len(size), dilations, kernel.groups, output)
        found.append((*filters, last))
    return found


def _filtered(axes: "Sequence[_Extent]", size: Sequence[int]) -> bool:
    """Whether short filters do what the products of some axes of `size` do."""
    for axis, n in zip(axes, size, strict=True):
        own = axis.local
        if own is None or not own.step:
            return False
        # An axis may count as longer than it is: by less than a step, or a filter would give too few samples.
        if -(-(n - 2 * (own.margin or 0)) // own.step) != axis.output_length:
            return False
        if own.border == "reflect" and own.radius >= n:  # torch reflects once
            return False
        if own.border == "circular" and (own.radius > n or own.step * axis.output_length != n):
            return False
    return True


def _window(extent: "_Extent") -> Local:
    assert extent.local is not None
    return extent.local


def _filters(axes: "Sequence[_Extent]", size: Sequence[int]) -> list[Filter]:
    """The operator as filters on a map, of `size` with its margins, the axis that shrinks most first."""
    order = sorted(range(len(axes)), key=lambda axis: -_window(axes[axis]).step)
    steps = []
    for axis in order:
        own, extent = _window(axes[axis]), axes[axis]
        if not extent.rests and (own.step > 1 or own.radius):
            padding = own.radius - (own.margin or 0)
            steps.append(Filter(axis, extent.output_length, size[axis], own.size, own.step, padding, own.border))
    return steps


class _Extent(NamedTuple):
    """What a program must know of one axis: samples that come out, whether it stays as it is, whether it is long."""

    output_length: int
    rests: bool
    long: bool
    local: Local | None = None


def _in_turn(extents: Sequence[_Extent], size: Sequence[int], kernel: Kernel, early: Sequence[bool]) -> Program:
    """The early axes, the convolution as it is, the other axes."""
    before = _products([e if first else None for e, first in zip(extents, early, strict=True)], size)
    between = [e.output_length if first else n for e, n, first in zip(extents, size, early, strict=True)]
    after_size = tuple([tap.output_length(n) for tap, n in zip(kernel.taps, between, strict=True)])
    strides, paddings, dilations = (1,) * len(size), [t.padding for t in kernel.taps], [t.dilation for t in kernel.taps]
    step = Convolve(strides, tuple(paddings), tuple(dilations), kernel.groups, after_size)
    after = _products([None if first else e for e, first in zip(extents, early, strict=True)], after_size)
    return (*before, step, *after)


def _interleaved(extents: Sequence[_Extent], size: Sequence[int], kernel: Kernel, early: Sequence[bool]) -> Program:
    """All axes, those that are not early as shifted copies, then the convolution with its kernel as the stride."""
    shapes: list[tuple[int, int] | None] = []
    taps: list[Taps | None] = []
    for extent, n, tap, first in zip(extents, size, kernel.taps, early, strict=True):
        rows = extent.output_length * (1 if first else tap.size)
        shapes.append(None if first and extent.rests else (rows, n))
        taps.append(None if first else tap)
    ones = (1,) * len(size)
    output = tuple([extent.output_length for extent in extents])
    stride = tuple([1 if first else tap.size for tap, first in zip(kernel.taps, early, strict=True)])
    return (
        *_scheduled(shapes, taps, [False] * len(size), [0] * len(size)),
        Convolve(stride, (0,) * len(size), ones, kernel.groups, output, True),
    )


def _products(extents: Sequence[_Extent | None], size: Sequence[int]) -> list[Apply]:
    shapes = [None if e is None or e.rests else (e.output_length, n) for e, n in zip(extents, size, strict=True)]
    blocks = [
        0 if e is None or e.rests or e.local is None else block_entries(e.output_length, n, e.local.size)
        for e, n in zip(extents, size, strict=True)
    ]
    return _scheduled(shapes, [None] * len(shapes), [e is not None and e.long for e in extents], blocks)


def _scheduled(
    shapes: Sequence[tuple[int, int] | None],
    taps: Sequence[Taps | None],
    long: Sequence[bool],
    blocks: Sequence[int],
) -> list[Apply]:
    steps = []
    for axes, _ in schedule(shapes):
        pairs = [shapes[axis] or (0, 0) for axis in axes]  # schedule leaves out those without a shape
        rows, columns = tuple([pair[0] for pair in pairs]), tuple([pair[1] for pair in pairs])
        own = blocks[axes[0]] if long[axes[0]] else 0
        product = Product(axes, rows, columns)
        steps.append(Apply(product, tuple([taps[axis] for axis in axes]), long[axes[0]], own))
    return steps
