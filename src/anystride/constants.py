"""What a learned layer did to one size, as constant matrices, and how they are applied in any graph."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from anystride.checks import spatial_size
from anystride.compiling import exporting
from anystride.geometry import Size
from anystride.ops.axes import Axis, SpectralAxis, Taps
from anystride.ops.blocks import BlockMatrix
from anystride.ops.layout import autocast
from anystride.ops.matrix import axis_operator, interleaved
from anystride.ops.program import Apply, Convolve, Kernel, Local, Program, convolved, widened
from anystride.ops.segments import local_of
from anystride.ops.separable import Product, joined, multiply

# Spatial size of a map, the lengths that its layer was given where they differ from it, and how the convolution that
# runs with it moves, if one does.
Key = tuple[Size, Size | None, Any]


@dataclass(frozen=True)
class Call:
    """What a learned layer did to one size: everything that its matrices follow from.

    Attributes:
        size: spatial size of the map that it was given.
        channels: of that map.
        axes: what it did to each axis, counted from the first sample that is not skipped.
        skipped: samples per axis before that.
        output: spatial size of the result.
        kernel: of the convolution that ran with it, if one did.
    """

    size: Size
    channels: int
    axes: tuple[Axis, ...]
    skipped: Size
    output: Size
    kernel: Kernel | None = None

    @property
    def extents(self) -> tuple[Size, Size, bool]:
        """The first arguments of `fusion.programs`."""
        lengths = tuple([axis.length for axis in self.axes])
        return lengths, self.output, any(not isinstance(axis, SpectralAxis) for axis in self.axes)


class Part(NamedTuple):
    """A product with its matrices.

    Attributes:
        product: its axes and sizes.
        matrices: in float64, one per axis; of a long axis with a local window, one per block of rows.
        starts: of each block, the first sample that it needs; nothing where the matrices are whole.
    """

    product: Product
    matrices: tuple[Tensor, ...]
    starts: Size = ()


class Constant(NamedTuple):
    """What a frozen layer does to one size.

    Attributes:
        before, after: products before and after a convolution; without one, all are in `before`.
        convolution: how it runs; None where there is none.
        output: spatial size of the result.
    """

    before: tuple[Part, ...]
    convolution: Convolve | None
    after: tuple[Part, ...]
    output: Size


# The same as plain numbers, for any tracer: axes, rows, columns of each product, the numbers of its buffers, starts.
Steps = tuple[tuple[Size, Size, Size, Size, Size], ...]


def constant_of(call: Call, program: Program) -> Constant:
    """A program with its matrices, in float64."""
    local = local_of(call.axes, call.kernel)
    kernel = None if call.kernel is None else widened(call.kernel, local)
    met = call.size if kernel is None else convolved(kernel, call.size)
    parts: list[list[Part]] = [[], []]
    how: Convolve | None = None
    for step in program:
        if isinstance(step, Convolve):
            how = step
            continue
        assert isinstance(step, Apply)
        place = parts[0 if how is None else 1]
        if step.blocks:
            (axis,) = step.product.axes
            banded = _blocks(call.axes[axis], met[axis], call.skipped[axis], local[axis])
            if banded is not None:
                place.append(Part(step.product, *banded))
                continue
        matrices = [
            _matrix(call.axes[axis], met[axis], call.skipped[axis], taps, local[axis] if local else None)
            for axis, taps in zip(step.product.axes, step.taps, strict=True)
        ]
        same = [taps is None and _is_identity(m) for m, taps in zip(matrices, step.taps, strict=True)]
        if not all(same):
            place.append(Part(step.product, tuple(matrices)))
    return Constant(tuple(parts[0]), how, tuple(parts[1]), call.output)


def _matrix(axis: Axis, samples: int, skipped: int, taps: Taps | None, local: Local | None) -> Tensor:
    margin = None if local is None else local.margin
    matrix = axis_operator(axis, torch.float64, torch.device("cpu"), samples - skipped, margin=margin).matrix
    assert isinstance(matrix, Tensor)
    matrix = F.pad(matrix, (skipped, 0))
    return matrix if taps is None else interleaved(matrix, taps)


def _blocks(
    axis: Axis, samples: int, skipped: int, local: Local | None
) -> tuple[tuple[Tensor, ...], tuple[int, ...]] | None:
    """Blocks of rows and their starts; None where a block wraps around the border."""
    margin = None if local is None else local.margin
    where = torch.device("cpu")
    operator = axis_operator(axis, torch.float64, where, samples - skipped, long=True, margin=margin)
    assert isinstance(operator.matrix, BlockMatrix)
    if any(len(pieces) != 1 for pieces in operator.matrix.forward):
        return None
    pieces = [pieces[0] for pieces in operator.matrix.forward]
    return tuple([matrix for _, matrix in pieces]), tuple([start + skipped for start, _ in pieces])


def _is_identity(matrix: Tensor) -> bool:
    return matrix.shape[0] == matrix.shape[1] and torch.allclose(matrix, torch.eye(len(matrix)).double(), 0, 1e-9)


def key_of(size: Size, lengths: Iterable[int] | None, kernel: Kernel | None) -> Key:
    """What the constants of a call are found by; channels are no part of it, so a pruned network keeps them."""
    other = None if lengths is None or tuple(lengths) == size else tuple(lengths)
    return size, other, None if kernel is None else kernel.taps


def run_constants(x: Tensor, name: str, table: tuple[tuple[Size, Steps], ...], buffers: list[Tensor]) -> Tensor:
    """The steps for a map's size: one operation to a tracer. A quantised map keeps its scale, as in torch's poolings.

    Args:
        x: (N, C, *spatial) or (C, *spatial).
        name: of the layer, for messages.
        table: by spatial size, the steps.
        buffers: the matrices.
    """
    if x.is_quantized:
        y = run_constants(x.dequantize(), name, table, buffers)
        return torch.quantize_per_tensor(y, x.q_scale(), x.q_zero_point(), x.dtype)
    axes = len(table[0][0]) if table else x.dim() - 2
    if x.dim() == axes + 1:
        return run_constants(x.unsqueeze(0), name, table, buffers).squeeze(0)
    size = spatial_size(x)
    steps = next((steps for known, steps in table if known == size), None)
    if steps is None:
        raise ValueError(refusal(name, (size, None, None), [(known, None, None) for known, _ in table]))
    if not steps:
        return x
    x = autocast(x)
    wide = x.dtype == torch.float16 and x.is_cpu  # where products run in float32
    parts = [[buffers[n].to(torch.float32 if wide else x.dtype) for n in step[3]] for step in steps]
    for (*sizes, _, starts), matrices in zip(steps, parts, strict=True):
        x = _banded(x, sizes[0][0], matrices, starts, wide) if starts else _multiply(x, Product(*sizes), matrices, wide)
    return x


def _banded(x: Tensor, axis: int, matrices: list[Tensor], starts: Size, wide: bool) -> Tensor:
    """The blocks of a banded matrix, each on the slice that it needs."""
    found = []
    for matrix, start in zip(matrices, starts, strict=True):
        rows, columns = matrix.shape
        product = Product((axis,), (rows,), (columns,))
        found.append(_multiply(x.narrow(2 + axis, start, columns), product, [matrix], wide))
    return torch.cat(found, dim=2 + axis)


def _multiply(x: Tensor, product: Product, matrices: list[Tensor], wide: bool) -> Tensor:
    if exporting() and not wide:
        return _matmul(x, [product], [matrices])
    return multiply(x, [product], [joined(matrices)])


def enlarge(
    x: Tensor, name: str, sizes: tuple[tuple[Size, Size], ...], mode: str, align_corners: bool | None
) -> Tensor:
    """Interpolation to the size that belongs to the map's: one operation to a tracer."""
    if sizes and x.dim() == len(sizes[0][0]) + 1:  # a map without a batch
        return enlarge(x.unsqueeze(0), name, sizes, mode, align_corners).squeeze(0)
    size = spatial_size(x)
    output = next((output for known, output in sizes if known == size), None)
    if output is None:
        raise ValueError(refusal(name, (size, None, None), [(known, None, None) for known, _ in sizes]))
    return F.interpolate(x, output, mode=mode, align_corners=align_corners)


def _matmul(x: Tensor, products: list[Product], parts: list[list[Tensor]]) -> Tensor:
    """`multiply` for a graph that leaves PyTorch: broadcasting products alone, for any batch and layout."""
    for product, matrices in zip(products, parts, strict=True):
        for axis, matrix in zip(product.axes, matrices, strict=True):
            before, after = x.shape[1 : 2 + axis], x.shape[3 + axis :]
            if not after:
                x = x @ matrix.t()
            elif len(after) == 1:
                x = matrix @ x
            else:
                lines = x.reshape(-1, *before, x.shape[2 + axis], math.prod(after))
                x = (matrix @ lines).reshape(-1, *before, matrix.shape[0], *after)
    return x


def numbered(steps: Iterable[Part], made: list[Tensor]) -> Steps:
    """Steps with the numbers of their matrices in `made`, where each is put, axis by axis, unless it is there."""
    parts = list(steps)
    by_axis: dict[int, tuple[Tensor, ...]] = {}
    for product, matrices, starts in parts:
        if starts:
            by_axis[product.axes[0]] = matrices
        else:
            by_axis.update({axis: (m,) for axis, m in zip(product.axes, matrices, strict=True)})
    numbers = {axis: tuple([_number(m, made) for m in by_axis[axis]]) for axis in sorted(by_axis)}
    return tuple(
        [(*product, tuple([n for axis in product.axes for n in numbers[axis]]), starts) for product, _, starts in parts]
    )


def _number(matrix: Tensor, made: list[Tensor]) -> int:
    for number, other in enumerate(made):
        if torch.equal(other, matrix):
            return number
    made.append(matrix)
    return len(made) - 1


def refusal(name: str, key: Key, known: Iterable[Key]) -> str:
    # Where only the lengths differ, the size alone would say nothing.
    known = list(known)
    alike = any(other[0] == key[0] for other in known)
    words = [_words(other) if alike else f"{other[0]}" for other in (key, *known)]
    sizes = f"maps of size {', '.join(words[1:])}" if known else "no map, as no example input reached it"
    return (
        f"layer {name!r} was frozen for {sizes}; got size {words[0]}: freeze the learned model with one more "
        "example input, which leads to this size here"
    )


def _words(key: Key) -> str:
    size, lengths, taps = key
    words = f"{size}" if lengths is None else f"{size} (lengths {lengths})"
    return words if taps is None else f"{words} after a convolution"
