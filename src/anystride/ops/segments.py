"""A program with numbers: which steps run together, and the matrices of its axes."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from anystride.ops.axes import Axis, LearnedAxis, SpectralAxis, TransposedAxis
from anystride.ops.cosine import CosineBand
from anystride.ops.fusion import plan
from anystride.ops.matrix import AxisOperator, Matrix, axis_operator
from anystride.ops.program import Apply, Convolve, Filter, Kernel, Local, Program
from anystride.ops.separable import Product, joined


class Segment(NamedTuple):
    """Steps of a program that run together, with numbers.

    Attributes:
        products: run first, in this order.
        convolve: what follows them; alone, or on the interleaved map that the products give.
        matrices: of the products.
        probes: per axis, for the gradient of its stride, where this segment resamples the axis.
    """

    products: tuple[Product, ...]
    convolve: Convolve | None
    matrices: tuple[Matrix, ...]
    probes: tuple[Tensor | None, ...]


class LocalSegment(NamedTuple):
    """All steps of a program whose windows are local, with numbers.

    Attributes:
        steps: in their order.
        matrices: of each step: that of a product, the taps of a filter, None for the convolution.
        slopes: of each step, per axis: like its matrix, for the gradient of the axis' stride; none where none learns.
    """

    steps: tuple[Product | Filter | Convolve, ...]
    matrices: tuple[Matrix | None, ...]
    slopes: tuple[tuple[Matrix, ...], ...]

    @property
    def convolves_last(self) -> bool:
        """Whether nothing follows the convolution, which then adds its bias itself."""
        return isinstance(self.steps[-1], Convolve) if self.steps else True


def segments_of(
    axes: tuple[Axis, ...],
    size: tuple[int, ...],
    channels: int,
    kernel: Kernel | None,
    dtype: torch.dtype,
    device: torch.device,
    infers: bool = False,
) -> "tuple[Segment | LocalSegment, ...]":
    """The segments that run on a map of `channels` and spatial `size`."""
    program = program_of(axes, size, channels, kernel, device, infers)
    local = local_of(axes, kernel)
    by_slope = local or any(isinstance(axis, TransposedAxis) for axis in axes)
    return (bind_local(program, axes, local, dtype, device),) if by_slope else bind(program, axes, dtype, device)


def program_of(
    axes: tuple[Axis, ...],
    size: tuple[int, ...],
    channels: int,
    kernel: Kernel | None,
    device: torch.device,
    infers: bool = False,
) -> Program:
    """The program that runs on a map of `channels` and spatial `size`; `infers` as in `fusion.plan`."""
    lengths, output_size = tuple([axis.length for axis in axes]), tuple([axis.output_length for axis in axes])
    learned = isinstance(axes[0], LearnedAxis | TransposedAxis) and (axes[0].learns or not is_local(axes))
    return plan(lengths, output_size, learned, size, channels, kernel, device, local_of(axes, kernel), infers)


def is_local(axes: Sequence[Axis]) -> bool:
    """Whether the windows of the axes are local."""
    return any(not isinstance(axis, SpectralAxis) and isinstance(axis.band, CosineBand) for axis in axes)


def local_of(axes: Sequence[Axis], kernel: Kernel | None) -> tuple[Local | None, ...]:
    """What a program must know of the axes if their windows are local; nothing if they are not."""
    found: list[Local | None] = []
    for number, axis in enumerate(axes):
        at = None if isinstance(axis, SpectralAxis) else axis.band
        if not isinstance(at, CosineBand):
            found.append(None)
            continue
        if isinstance(axis, TransposedAxis):  # in blocks, whose rows are those of the other way
            radius = -(-at.radius * axis.length // axis.output_length)
            found.append(Local(radius, 0, None, "replicate", at.stride == 1))
            continue
        margin = None
        if kernel is not None and at.cosine.border == "auto":
            tap = kernel.taps[number]
            margin = max(0, min(at.radius, (tap.size - 1) * tap.dilation - tap.padding))
        border = "replicate" if at.cosine.border == "auto" else at.cosine.border
        found.append(Local(at.radius, at.step, margin, border if margin is None else "zeros", at.stride == 1))
    return tuple(found) if any(found) else ()


def bind(program: Program, axes: tuple[Axis, ...], dtype: torch.dtype, device: torch.device) -> tuple[Segment, ...]:
    """A program with the matrices of its axes, for maps of a type on a device."""
    segments: list[Segment] = []
    products: list[Product] = []
    joint: list[Matrix] = []
    probes: list[Tensor | None] = [None] * len(axes)

    def close(convolve: Convolve | None = None) -> None:
        segments.append(Segment(tuple(products), convolve, tuple(joint), tuple(probes)))
        products.clear()
        joint.clear()
        probes[:] = [None] * len(axes)

    for step in program:
        if isinstance(step, Convolve):
            if products and not step.interleaved:
                close()
            close(step)
            continue
        assert isinstance(step, Apply)
        parts = operators_of(step, axes, (), dtype, device)
        for axis, part in zip(step.product.axes, parts, strict=True):
            probes[axis] = part.probe
        products.append(step.product)
        joint.append(joined([part.matrix for part in parts]))
    if products:
        close()
    return tuple(segments)


def bind_local(
    program: Program,
    axes: tuple[Axis, ...],
    local: tuple[Local | None, ...],
    dtype: torch.dtype,
    device: torch.device,
) -> LocalSegment:
    """As `bind`, of axes with local windows."""
    steps: list[Product | Filter | Convolve] = []
    matrices: list[Matrix | None] = []
    slopes: list[tuple[Matrix, ...]] = []
    for step in program:
        if isinstance(step, Convolve):
            steps.append(step)
            matrices.append(None)
            slopes.append(())
        elif isinstance(step, Filter):
            value, along = taps_of(axes[step.axis], step, dtype, device)
            steps.append(step)
            matrices.append(value)
            slopes.append(() if along is None else (along,))
        else:
            parts = operators_of(step, axes, local, dtype, device)
            own = [part.matrix for part in parts]
            steps.append(step.product)
            matrices.append(joined(own))
            along_each = [
                joined([*own[:n], part.slope, *own[n + 1 :]]) for n, part in enumerate(parts) if part.slope is not None
            ]
            slopes.append(tuple(along_each))
    return LocalSegment(tuple(steps), tuple(matrices), tuple(slopes))


def operators_of(
    step: Apply, axes: Sequence[Axis], local: Sequence[Local | None], dtype: torch.dtype, device: torch.device
) -> list[AxisOperator]:
    """The operators of a product's axes."""
    found = []
    for axis, columns, taps in zip(step.product.axes, step.product.columns, step.taps, strict=True):
        samples = columns if taps is None else taps.output_length(columns)
        own = local[axis] if local else None
        margin = None if own is None else own.margin
        found.append(axis_operator(axes[axis], dtype, device, samples, taps, step.long, margin))
    return found


def taps_of(axis: Axis, step: Filter, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """(taps,) twice: a filter, and its slope along the stride if that learns."""
    assert isinstance(axis, LearnedAxis)
    assert isinstance(axis.band, CosineBand)
    if step.taps == 1:
        return torch.ones(1, dtype=dtype, device=device), None
    value, slope = (part.to(device, dtype) for part in axis.band.taps())
    return value, slope if axis.learns else None
