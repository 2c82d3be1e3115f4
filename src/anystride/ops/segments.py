"""A program with numbers: which steps run together, and the matrices of its axes."""

from typing import NamedTuple

import torch
from torch import Tensor

from anystride.ops.fusion import Convolve, Kernel, Program, plan
from anystride.ops.matrix import Axis, LearnedAxis, Matrix, axis_operator
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


def segments_of(
    axes: tuple[Axis, ...],
    size: tuple[int, ...],
    channels: int,
    kernel: Kernel | None,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[Segment, ...]:
    """The segments that run on a map of `channels` and spatial `size`."""
    return bind(program_of(axes, size, channels, kernel, device), axes, dtype, device)


def program_of(
    axes: tuple[Axis, ...], size: tuple[int, ...], channels: int, kernel: Kernel | None, device: torch.device
) -> Program:
    """The program that runs on a map of `channels` and spatial `size`."""
    lengths, output_size = tuple([axis.length for axis in axes]), tuple([axis.output_length for axis in axes])
    return plan(lengths, output_size, isinstance(axes[0], LearnedAxis), size, channels, kernel, device)


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
        parts = []
        for axis, columns, taps in zip(step.product.axes, step.product.columns, step.taps, strict=True):
            samples = columns if taps is None else taps.output_length(columns)
            matrix, probes[axis] = axis_operator(axes[axis], dtype, device, samples, taps, step.fourier)
            parts.append(matrix)
        products.append(step.product)
        joint.append(joined(parts))
    if products:
        close()
    return tuple(segments)
