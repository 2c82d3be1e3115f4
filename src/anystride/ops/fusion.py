"""A convolution and the operator as a program: which products run, in which order, and where the convolution stands.

Resampling an axis and convolving commute where the kernel has one entry along that axis. Where it has more, the
operator can still come first, as shifted copies of itself (`matrix.interleaved`). All orders are exact; in most of them
the convolution runs at the output's resolution. Which one costs least follows from the sizes, so a program is a tuple
of steps that is made once per size: `autograd` runs it, `counting` counts it, and `freeze_` makes it constant.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from anystride.ops.cache import remembered
from anystride.ops.costs import COSTS, is_long
from anystride.ops.matrix import Taps
from anystride.ops.separable import Product, schedule


class Kernel(NamedTuple):
    """A convolution of stride 1 that pads with zeros.

    Attributes:
        taps: how it moves along each axis.
        channels: of its output.
        groups: of its channels.
    """

    taps: tuple[Taps, ...]
    channels: int
    groups: int = 1

    @property
    def size(self) -> int:
        """Entries of the kernel."""
        return math.prod([tap.size for tap in self.taps])


class Apply(NamedTuple):
    """A product along one axis, or along neighbouring short axes together.

    Attributes:
        product: its axes and sizes.
        taps: per axis, of the convolution that its matrix is interleaved for; None for the operator's own matrix.
        fourier: whether it runs as real Fourier transforms.
    """

    product: Product
    taps: tuple[Taps | None, ...]
    fourier: bool = False

    @property
    def entries(self) -> int:
        """Numbers that its matrix holds; transforms hold one per frequency."""
        if self.fourier:
            return self.product.rows[0] // 2 + 1
        return math.prod(self.product.rows + self.product.columns)


class Convolve(NamedTuple):
    """The convolution.

    Attributes:
        stride, padding, dilation: with which it runs; on an interleaved map the kernel is the stride.
        groups: of its channels.
        size: spatial size of what it gives.
        interleaved: whether its input is an interleaved map, which is larger than the map itself.
    """

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    size: tuple[int, ...]
    interleaved: bool = False


Step = Apply | Convolve
Program = tuple[Step, ...]


@remembered
def convolved(kernel: Kernel, size: tuple[int, ...]) -> tuple[int, ...]:
    """Spatial size of a map of `size` after a convolution."""
    return tuple([tap.output_length(n) for tap, n in zip(kernel.taps, size, strict=True)])


@remembered
def plan(
    lengths: tuple[int, ...],
    output_size: tuple[int, ...],
    learned: bool,
    size: tuple[int, ...],
    channels: int = 1,
    kernel: Kernel | None = None,
    device: torch.device = torch.device("cpu"),  # noqa: B008 - it is immutable
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
    """
    options = programs(lengths, output_size, learned, size, kernel, device)
    costs = [cost(option, size, channels, kernel) for option in options]
    return options[costs.index(min(costs))]


def programs(
    lengths: Sequence[int],
    output_size: Sequence[int],
    learned: bool,
    size: tuple[int, ...],
    kernel: Kernel | None,
    device: torch.device,
) -> list[Program]:
    """All orders of a convolution and the operator: after it, before it where one entry commutes, or interleaved."""
    met = size if kernel is None else convolved(kernel, size)
    axes = []
    for n, length, h in zip(met, lengths, output_size, strict=True):
        rests = (length == n == 1) if learned else (h == length == n)
        axes.append(_Extent(h, rests, h <= length and is_long(h, device)))
    if kernel is None:
        return [tuple(_products(axes, size))]
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


class _Extent(NamedTuple):
    """What a program must know of one axis: samples that come out, whether it stays as it is, whether it is long."""

    output_length: int
    rests: bool
    fourier: bool


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
        *_scheduled(shapes, taps, [False] * len(size)),
        Convolve(stride, (0,) * len(size), ones, kernel.groups, output, True),
    )


def _products(extents: Sequence[_Extent | None], size: Sequence[int]) -> list[Apply]:
    shapes = [None if e is None or e.rests else (e.output_length, n) for e, n in zip(extents, size, strict=True)]
    return _scheduled(shapes, [None] * len(shapes), [e is not None and e.fourier for e in extents])


def _scheduled(
    shapes: Sequence[tuple[int, int] | None], taps: Sequence[Taps | None], fourier: Sequence[bool]
) -> list[Apply]:
    steps = []
    for axes, _ in schedule(shapes):
        pairs = [shapes[axis] or (0, 0) for axis in axes]  # schedule leaves out those without a shape
        rows, columns = tuple([pair[0] for pair in pairs]), tuple([pair[1] for pair in pairs])
        steps.append(Apply(Product(axes, rows, columns), tuple([taps[axis] for axis in axes]), fourier[axes[0]]))
    return steps


class Work(NamedTuple):
    """What one step costs per sample.

    Attributes:
        step: the step.
        macs: multiply-accumulates, as a matrix also where it runs as transforms.
        size: spatial size of what it gives.
        channels: of what it gives.
    """

    step: Step
    macs: int
    size: tuple[int, ...]
    channels: int


def work(program: Program, size: Sequence[int], channels: int, kernel: Kernel | None) -> list[Work]:
    """The steps of a program with their costs for one map of `channels` and spatial `size`."""
    left, found = list(size), []
    for step in program:
        if isinstance(step, Apply):
            macs = math.prod(step.product.rows) * math.prod(left) * channels
            for axis, rows in zip(step.product.axes, step.product.rows, strict=True):
                left[axis] = rows
        else:
            assert kernel is not None
            left = list(step.size)
            macs = math.prod(left) * kernel.size * channels // step.groups * kernel.channels
            channels = kernel.channels
        found.append(Work(step, macs, tuple(left), channels))
    return found


def cost(program: Program, size: Sequence[int], channels: int, kernel: Kernel | None) -> float:
    """What the choice of a program goes by: work, numbers that are written and read, matrices (`costs.Costs`)."""
    total, interleaved = 0.0, any(isinstance(step, Convolve) and step.interleaved for step in program)
    again = COSTS.again if interleaved else 1.0
    products = 0.0
    steps = work(program, size, channels, kernel)
    for number, (step, macs, after, left) in enumerate(steps):
        if isinstance(step, Convolve):
            total += macs + COSTS.traffic * math.prod(after) * left
            continue
        products += macs
        total += COSTS.traffic * COSTS.matrix * max(0, step.entries - COSTS.light)
        last = number + 1 == len(steps) or isinstance(steps[number + 1].step, Convolve)
        products += COSTS.traffic * math.prod(after) * left if last else 0
    return total + again * products


def in_one_order(options: Sequence[Sequence[Program]], costs: Sequence[Sequence[float]]) -> list[Program]:
    """One program per size, all in the order that costs least together, among those that every size allows.

    Args:
        options: by size, what `programs` gives.
        costs: of each of them.
    """
    totals: dict[object, float] = {}
    by_order = [{_order(program): program for program in found} for found in options]
    for found, prices in zip(options, costs, strict=True):
        for program, price in zip(found, prices, strict=True):
            totals[_order(program)] = totals.get(_order(program), 0.0) + price
    shared = [order for order in totals if all(order in each for each in by_order)]
    best = min(shared, key=totals.__getitem__) if shared else None
    return [each.get(best) or next(iter(each.values())) for each in by_order]


def _order(program: Program) -> object:
    """What programs of one order have in common at any size: the axes before the convolution, and its stride."""
    place = next((n for n, step in enumerate(program) if isinstance(step, Convolve)), 0)
    before = {axis for step in program[:place] if isinstance(step, Apply) for axis in step.product.axes}
    return frozenset(before), tuple([step.stride for step in program if isinstance(step, Convolve)])
