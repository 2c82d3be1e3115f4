"""Long axes with a local window: the few entries around the diagonal of a matrix, as small dense blocks."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

# Rows of a block: many enough for a product at full speed, few enough that little of it is zero.
ROWS = 64

# A block by its first row or column: the slices of the input that it needs, by their first sample, each with a matrix.
Pieces = tuple[tuple[int, Tensor], ...]


class BlockMatrix(NamedTuple):
    """A banded matrix: `matrix` of an `AxisOperator` may be one.

    Attributes:
        forward: per `ROWS` rows, the pieces that they consist of.
        backward: the same of the transposed matrix.
        shape: (rows, columns).
    """

    forward: tuple[Pieces, ...]
    backward: tuple[Pieces, ...]
    shape: tuple[int, int]

    @classmethod
    def of(cls, index: Tensor, value: Tensor, columns: int, dtype: torch.dtype, device: torch.device) -> "BlockMatrix":
        """From (h, k) columns of the entries of each row, and the entries."""
        index, value = index.cpu(), value.cpu()
        row = torch.arange(len(index)).unsqueeze(1).expand_as(index).flatten()
        there = value.flatten() != 0
        row, column, value = row[there], index.flatten()[there], value.flatten()[there]
        shape = len(index), columns
        both = _pieces(row, column, value, shape[0]), _pieces(column, row, value, columns)
        placed = [
            tuple([tuple([(first, m.to(device, dtype)) for first, m in pieces]) for pieces in blocks])
            for blocks in both
        ]
        return cls(placed[0], placed[1], shape)

    def t(self) -> "BlockMatrix":
        """The transposed matrix."""
        return BlockMatrix(self.backward, self.forward, self.shape[::-1])

    def apply(self, x: Tensor, axis: int) -> Tensor:
        """The product along one axis of `x`; slices of it are views, not copies."""
        parts = []
        for pieces in self.forward:
            found = [multiply_axes(x.narrow(axis, first, m.shape[1]), m, axis, axis + 1) for first, m in pieces]
            parts.append(found[0] if len(found) == 1 else torch.stack(found).sum(0))
        return torch.cat(parts, dim=axis)


def block_entries(rows: int, columns: int, taps: int) -> int:
    """Entries of all blocks, to within rounding, where a row has `taps` of its own."""
    return min(rows * columns, rows * (math.ceil((min(ROWS, rows) - 1) * columns / rows) + taps))


def multiply_axes(x: Tensor, matrix: Tensor, start: int, stop: int) -> Tensor:
    """The product along axes start to stop of `x`, which count as one and come out as one."""
    before, after = x.shape[:start], x.shape[stop:]
    rows, length = matrix.shape
    if after:
        outer, inner = math.prod(before), math.prod(after)
        y = torch.bmm(matrix.expand(outer, rows, length), x.reshape(outer, length, inner))
    else:
        batch, lines = before[0], math.prod(before[1:])
        y = torch.bmm(x.reshape(batch, lines, length), matrix.t().expand(batch, length, rows))
    return y.view(*before, rows, *after)


def _pieces(row: Tensor, column: Tensor, value: Tensor, rows: int) -> tuple[Pieces, ...]:
    blocks = []
    for first in range(0, rows, ROWS):
        here = (row >= first) & (row < first + ROWS)
        r, c, v = row[here] - first, column[here], value[here]
        met = c.unique()
        if not len(met):
            met = torch.zeros(1, dtype=torch.long)
        # Periodic rows reach both ends: far apart, they are pieces of their own.
        gaps = (met.diff() > ROWS).nonzero().flatten().tolist()
        pieces = []
        for low, high in zip([0, *(g + 1 for g in gaps)], [*gaps, len(met) - 1], strict=True):
            start, stop = int(met[low]), int(met[high]) + 1
            inside = (c >= start) & (c < stop)
            matrix = torch.zeros(min(ROWS, rows - first), stop - start, dtype=value.dtype)
            matrix.index_put_((r[inside], c[inside] - start), v[inside], accumulate=True)
            pieces.append((start, matrix))
        blocks.append(tuple(pieces))
    return tuple(blocks)
