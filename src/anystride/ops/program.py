"""A program: the steps in which a convolution and the operator run, what they cost, and what they cost together."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from anystride.ops.axes import Taps
from anystride.ops.cache import remembered
from anystride.ops.costs import COSTS
from anystride.ops.separable import Product


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


class Local(NamedTuple):
    """What a program must know of an axis with a local window (`cosine.CosineBand`).

    Attributes:
        radius: samples on either side that a row takes in.
        step: samples from one output to the next if that is a whole number, else 0.
        margin: samples by which the convolution goes on beyond the border; None where the map has a border of its own.
        border: what lies beyond the map, or its margin, in torch's words.
        keeps: whether it is the identity. A stride a little above 1 may leave the size as it is, and still smooths.
    """

    radius: int
    step: int
    margin: int | None
    border: str
    keeps: bool = False

    @property
    def size(self) -> int:
        """Entries of a row."""
        return 2 * self.radius + 1


class Apply(NamedTuple):
    """A product along one axis, or along neighbouring short axes together.

    Attributes:
        product: its axes and sizes.
        taps: per axis, of the convolution that its matrix is interleaved for; None for the operator's own matrix.
        long: whether it runs without a dense matrix: as real Fourier transforms, or in blocks.
        blocks: entries of all blocks, where it runs in blocks.
    """

    product: Product
    taps: tuple[Taps | None, ...]
    long: bool = False
    blocks: int = 0

    @property
    def fourier(self) -> bool:
        """Whether it runs as real Fourier transforms."""
        return self.long and not self.blocks

    @property
    def entries(self) -> int:
        """Numbers that its matrix holds; transforms hold one per frequency."""
        if self.fourier:
            return self.product.rows[0] // 2 + 1
        return self.blocks or math.prod(self.product.rows + self.product.columns)

    @property
    def multiplications(self) -> int:
        """Multiply-accumulates per line; those of a matrix where it runs as transforms."""
        return self.blocks or math.prod(self.product.rows + self.product.columns)


class Filter(NamedTuple):
    """A short filter along one axis, the same for all channels.

    Attributes:
        axis: the axis.
        rows, columns: samples after and before.
        taps: entries of the filter.
        stride: samples from one output to the next.
        padding: samples added on either side.
        border: what these are, in torch's words.
    """

    axis: int
    rows: int
    columns: int
    taps: int
    stride: int
    padding: int
    border: str = "zeros"


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


Step = Apply | Filter | Convolve
Program = tuple[Step, ...]


@remembered
def convolved(kernel: Kernel, size: tuple[int, ...]) -> tuple[int, ...]:
    """Spatial size of a map of `size` after a convolution."""
    return tuple([tap.output_length(n) for tap, n in zip(kernel.taps, size, strict=True)])


def widened(kernel: Kernel, local: Sequence[Local | None]) -> Kernel:
    """The kernel with paddings that give the margins, too."""
    margins = [0 if own is None else own.margin or 0 for own in local] or [0] * len(kernel.taps)
    taps = [tap._replace(padding=tap.padding + more) for tap, more in zip(kernel.taps, margins, strict=True)]
    return kernel._replace(taps=tuple(taps))


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
            lines = math.prod(left) // math.prod(step.product.columns)
            macs = step.multiplications * lines * channels
            for axis, rows in zip(step.product.axes, step.product.rows, strict=True):
                left[axis] = rows
        elif isinstance(step, Filter):
            left[step.axis] = step.rows
            macs = step.taps * math.prod(left) * channels
        else:
            assert kernel is not None
            left = list(step.size)
            macs = math.prod(left) * kernel.size * channels // step.groups * kernel.channels
            channels = kernel.channels
        found.append(Work(step, macs, tuple(left), channels))
    return found


def cost(program: Program, size: Sequence[int], channels: int, kernel: Kernel | None, infers: bool = False) -> float:
    """What the choice of a program goes by: work, numbers that are written and read, matrices (`costs.Costs`).

    Each map between two filters is made again for gradients, unless none are wanted (`infers`).
    """
    total, interleaved = 0.0, any(isinstance(step, Convolve) and step.interleaved for step in program)
    again = COSTS.again if interleaved else 1.0
    products = 0.0
    steps = work(program, size, channels, kernel)
    for number, (step, macs, after, left) in enumerate(steps):
        if isinstance(step, Convolve):
            total += macs + COSTS.traffic * math.prod(after) * left
            continue
        products += macs * (COSTS.tap if isinstance(step, Filter) and kernel is None else 1)
        if isinstance(step, Apply):
            total += COSTS.traffic * COSTS.matrix * max(0, step.entries - COSTS.light)
        last = number + 1 == len(steps) or isinstance(steps[number + 1].step, Convolve)
        written = last or (isinstance(step, Filter) and not infers)
        products += COSTS.traffic * math.prod(after) * left if written else 0
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
    filters = tuple([isinstance(step, Filter) for step in program])
    return frozenset(before), filters, tuple([step.stride for step in program if isinstance(step, Convolve)])
