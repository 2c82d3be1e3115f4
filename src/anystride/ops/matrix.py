"""One axis: the window as a real h x L matrix, and the few rows that its stride's gradient needs.

A window that is even in k turns "DFT, multiply, crop, inverse DFT" into

    A[i, j] = (1 / L) * sum over |k| <= h / 2 of window(k) * cos(2 pi k (i / h - j / L)),

where an even h keeps its unpaired bin k = h / 2 once, as cos(pi i) cos(pi h j / L). That is a product of two tables
that do not depend on the stride, with the window between them: a matrix costs one small product in float64, on whatever
device its maps are, and is kept while its stride stands still.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from anystride.ops.axes import Axis, LearnedAxis, Taps, TransposedAxis, gain
from anystride.ops.blocks import BlockMatrix
from anystride.ops.cache import matrices
from anystride.ops.cosine import CosineBand
from anystride.ops.fourier import FourierMatrix, learned_gains, ramp_probe
from anystride.ops.tables import make_tables, tables
from anystride.ops.window import Band

Matrix = Tensor | FourierMatrix | BlockMatrix


class AxisOperator(NamedTuple):
    """What a layer does to one axis, in numbers.

    Attributes:
        matrix: (h, L), applied to the axis.
        probe: (r, h) or None. With it, dLoss/dS = -<probe g, probe y> for the output y and its gradient g: two rows
            (cosine, sine) per bin on the ramp, scaled by the root of -window'(k) / window(k).
        slope: like the matrix, or None. With it, dLoss/dS = <g, slope x> for the input x: bins of a raised cosine fold
            onto each other, so the output does not tell them apart. Transposed windows have it, too.
    """

    matrix: Matrix
    probe: Tensor | None = None
    slope: Matrix | None = None


def axis_operator(
    axis: Axis,
    dtype: torch.dtype,
    device: torch.device,
    samples: int | None = None,
    taps: Taps | None = None,
    long: bool = False,
    margin: int | None = None,
) -> AxisOperator:
    """Matrix and probe of an axis of which `samples` are there, from the cache if its stride has not moved.

    Args:
        axis: what is done to it.
        dtype, device: of the map.
        samples: of the map, those after the convolution with `taps`; as many as the axis counts if None.
        taps: of a convolution that is still to run: the matrix is `interleaved` for it.
        long: whether to run without a dense matrix, by real Fourier transforms, or in blocks where the window is local.
        margin: as in `CosineBand.matrix`.
    """
    if samples is None:
        samples = axis.length
    if torch.compiler.is_compiling():
        return _make_operator(axis, dtype, device, samples, taps, long, margin)
    key = (axis, dtype, device, samples, taps, long, margin)
    return matrices.get(key, _make_operator, *key)


def _make_operator(
    axis: Axis,
    dtype: torch.dtype,
    device: torch.device,
    samples: int,
    taps: Taps | None,
    long: bool,
    margin: int | None,
) -> AxisOperator:
    # The probe meets rounded outputs: it works in float32 even for half-precision maps.
    precise = torch.float64 if dtype == torch.float64 else torch.float32
    # Few CPUs can multiply in float16: torch takes ten times as long there.
    working = precise if dtype == torch.float16 and device.type == "cpu" else dtype
    where = _has_doubles(device)
    probe = None
    if isinstance(axis, TransposedAxis):
        return _transposed_operator(axis, working, device, samples, long)
    if isinstance(axis, LearnedAxis) and isinstance(axis.band, CosineBand):
        return _local_operator(axis, axis.band, working, device, samples, taps, long, margin)
    if isinstance(axis, LearnedAxis):
        at, norm = axis.band, axis.norm
        assert isinstance(at, Band)
        if long:
            gains = learned_gains(at, where) * gain(at.length, at.output_length, norm)
            if axis.learns:
                probe = ramp_probe(at, precise, quotient_floor(dtype), where).to(device, precise)
            shape = at.output_length, samples
            return AxisOperator(FourierMatrix(gains.to(device, precise), shape, at.length), probe)
        if axis.learns:
            table = tables(at.length, at.output_length, str(where))
            probe = probe_rows(at, table, quotient_floor(dtype)).to(device, precise)
        matrix = band_matrix(at, norm, where)
    else:
        if long:
            grows = axis.output_length > axis.length
            few, many = sorted((axis.length, axis.output_length))
            factor = gain(axis.length, axis.output_length, axis.norm) * (many / few if grows else 1)
            gains = torch.full((few // 2 + 1,), factor, dtype=precise, device=device)
            across = FourierMatrix(gains, (few, many if grows else samples), many)
            return AxisOperator(across.t() if grows else across)
        matrix = spectral_matrix(axis.length, axis.output_length, axis.norm, dtype=torch.float64, device=where)
    matrix = onto_samples(matrix, samples)
    return AxisOperator((matrix if taps is None else interleaved(matrix, taps)).to(device, working), probe)


def _local_operator(
    axis: LearnedAxis,
    at: CosineBand,
    dtype: torch.dtype,
    device: torch.device,
    samples: int,
    taps: Taps | None,
    long: bool,
    margin: int | None,
) -> AxisOperator:
    factor = gain(at.length, at.output_length, axis.norm)
    if long:
        index, *entries = at.rows(samples, margin)
        value, slope = (BlockMatrix.of(index, v * factor, samples, dtype, device) for v in entries)
        return AxisOperator(value, None, slope if axis.learns else None)
    both = [m * factor for m in at.matrix(samples, margin, _has_doubles(device))]
    if taps is not None:
        both = [interleaved(m, taps) for m in both]
    matrix, along = (m.to(device, dtype) for m in both)
    return AxisOperator(matrix, None, along if axis.learns else None)


def _transposed_operator(
    axis: TransposedAxis, dtype: torch.dtype, device: torch.device, samples: int, long: bool
) -> AxisOperator:
    """The transposed matrix with the gain that its norm asks for, and its slope."""
    at, h, length, where = axis.band, axis.length, axis.output_length, _has_doubles(device)
    factor = length / h * gain(h, length, axis.norm)
    found: list[Matrix]
    if isinstance(at, CosineBand):
        index, *both = at.rows(length, None, where)
        both = (
            _evened(index, both[0], both[1], length)
            if axis.norm == "forward"
            else [entries * factor for entries in both]
        )
        if long:
            found = [BlockMatrix.of(index, entries, length, dtype, device).t() for entries in both]
        else:
            empty = torch.zeros(h, length, dtype=torch.float64, device=where)
            found = [onto_samples(empty.scatter_add(1, index, entries).t(), samples) for entries in both]
    elif long:
        precise = torch.float64 if dtype == torch.float64 else torch.float32
        k = torch.arange(h // 2 + 1, device=where, dtype=torch.float64)
        each = [gains.to(device, precise) * factor for gains in (at.gains(k), at.on_ramp(k) * at.slope)]
        found = [FourierMatrix(gains, (h, length), length).t() for gains in each]
    else:
        table = tables(length, h, str(where))
        synthesis, analysis, k = table[:, :h], table[:, h:-2], table[:, -2:-1]
        both = [synthesis @ (analysis * (gains * factor)) for gains in (at.gains(k), at.on_ramp(k) * at.slope)]
        found = [onto_samples(matrix.t(), samples) for matrix in both]
    value, slope = [part.to(device, dtype) if isinstance(part, Tensor) else part for part in found]
    return AxisOperator(value, None, slope if axis.learns else None)


def _evened(index: Tensor, value: Tensor, slope: Tensor, length: int) -> list[Tensor]:
    """Entries and slopes of a matrix, by their columns, of which each then sums to 1: transposed, constants stay."""
    empty = value.new_zeros(length)
    whole, along = (empty.scatter_add(0, index.flatten(), part.flatten())[index] for part in (value, slope))
    value = value / whole
    return [value, (slope - value * along) / whole]


def spectral_matrix(
    length: int,
    output_length: int,
    norm: str = "forward",
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """The matrix of spectral pooling on one axis (section 2.3): gain 1 on all frequencies that the output can hold.

    Where the output is the longer one, all frequencies of the input pass and the rest is zero.

    Returns:
        (output_length, length).
    """
    if output_length > length:  # the same sum with the two grids' parts exchanged
        shorter = spectral_matrix(output_length, length, dtype=torch.float64, device=device)
        matrix = shorter.t() * (output_length / length * gain(length, output_length, norm))
        return matrix.contiguous().to(dtype)
    table, h = make_tables(length, output_length, torch.device(device)), output_length
    return (table[:, :h] @ table[:, h:-2]).mul_(gain(length, h, norm)).to(dtype)


def onto_samples(matrix: Tensor, samples: int) -> Tensor:
    """(h, L) for an axis on which only the first `samples` are there and the last one repeats up to L.

    Where there are more than L, the rest is ignored. A map that is short of its partner's by a sample (a pooling
    window that found no room, say) so meets the same grid without a padded copy.
    """
    length = matrix.shape[1]
    if samples >= length:
        return torch.nn.functional.pad(matrix, (0, samples - length))
    last = matrix[:, samples - 1 :].sum(dim=1, keepdim=True)
    return torch.cat([matrix[:, : samples - 1], last], dim=1)


def interleaved(matrix: Tensor, taps: Taps) -> Tensor:
    """(h * k, samples): the matrix for an axis that is still to be convolved.

    A convolution of stride 1 followed by a matrix A sums, over the entries d of its kernel, A on the input shifted by
    d. These k shifted copies of A, their rows interleaved, give a map on which the same weights act as a convolution of
    stride k without padding: the convolution then runs at the output's resolution.
    """
    samples = matrix.shape[1] + (taps.size - 1) * taps.dilation - 2 * taps.padding
    around = (taps.size - 1) * taps.dilation - taps.padding
    shifted = torch.nn.functional.pad(matrix, (around, around)).unfold(1, samples, taps.dilation)
    return shifted.flip(1).reshape(-1, samples)


def quotient_floor(dtype: torch.dtype) -> float:
    """Smallest window that window' / window is divided by.

    An output rounded to `dtype` carries relative noise eps in every bin; dividing by a window below it would let noise
    through as if it were signal. Noise averages out over maps, a bound does not, so the bound is kept as low as that.
    """
    return torch.finfo(dtype).eps


def band_matrix(at: Band | CosineBand, norm: str, device: torch.device | str = "cpu") -> Tensor:
    """The (h, L) matrix of one axis in float64: Algorithm 1 on that axis."""
    if isinstance(at, CosineBand):
        return at.matrix(at.length, None, device)[0] * gain(at.length, at.output_length, norm)
    table, h = tables(at.length, at.output_length, str(device)), at.output_length
    gains = at.gains(table[:, -2:-1])
    return table[:, :h] @ (table[:, h:-2] * (gains if norm == "forward" else gains * gain(at.length, h, norm)))


def probe_rows(at: Band, table: Tensor, floor: float) -> Tensor:
    """(r, h): see `AxisOperator`. Where the band's stride is a tensor, r does not follow from its value."""
    h = at.output_length
    gains = at.gains(table[:, -2])
    on_ramp = at.on_ramp(table[:, -2])
    scale = (gains.clamp_min(floor).reciprocal() * -at.slope).where(on_ramp, 0.0).sqrt() * table[:, -1]
    rows = table[:, :h].t() * scale.unsqueeze(1)
    cosines, sines = rows.split([h // 2 + 1, (h - 1) // 2])
    first: Any = at.edge - at.ramp_width
    if not isinstance(first, Tensor):
        first, last = max(math.floor(first), 0), math.ceil(at.edge)
        return torch.cat([cosines[first:last], sines[max(first - 1, 0) : last - 1]])
    k = first.floor().long() + torch.arange(math.ceil(at.ramp_width) + 1, device=table.device)
    return torch.cat([_rows(cosines, k), _rows(sines, k - 1)])


def _rows(of: Tensor, k: Tensor) -> Tensor:
    """Rows by number, zero where there is no such row."""
    there = (k >= 0) & (k < len(of))
    return of[k.clamp(0, max(len(of) - 1, 0))] * there.unsqueeze(1) if len(of) else of


def _has_doubles(device: torch.device) -> torch.device:
    """Where float64 can be had for the maps of a device: there, but for Apple's GPUs."""
    return torch.device("cpu") if device.type == "mps" else device
