"""One axis: the window as a real h x L matrix, and the few rows that its stride's gradient needs.

A window that is even in k turns "DFT, multiply, crop, inverse DFT" into

    A[i, j] = (1 / L) * sum over |k| <= h / 2 of window(k) * cos(2 pi k (i / h - j / L)),

where an even h keeps its unpaired bin k = h / 2 once, as cos(pi i) cos(pi h j / L). That is a product of two tables
that do not depend on the stride, with the window between them: a matrix costs one small product in float64, on whatever
device its maps are, and is kept while its stride stands still.
"""

import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from anystride.ops.window import Band

NORMS = ("forward", "ortho", "backward")

_CACHE_BYTES = 64 * 2**20

# Output length from which a transform beats a dense matrix: where `anystride bench crossover` sees it on a CPU; no GPU
# was at hand, where products are faster still beside transforms.
_LONG = {"cpu": 256}
_LONG_ELSEWHERE = 1024

K = TypeVar("K", bound=tuple[Any, ...])


class Taps(NamedTuple):
    """How a convolution of stride 1 walks over one axis.

    Attributes:
        size: entries of its kernel.
        dilation: samples between two of them.
        padding: zeros on either side.
    """

    size: int
    dilation: int
    padding: int

    def output_length(self, samples: int) -> int:
        """Samples that the convolution gives."""
        return samples + 2 * self.padding - (self.size - 1) * self.dilation


class Transform(NamedTuple):
    """What a matrix does to a long axis, by real Fourier transforms: `matrix` of an `AxisOperator` may be one.

    Attributes:
        gains: (h // 2 + 1,), window times gain, in float32 or float64.
        shape: (h, samples), as of a matrix.
        length: samples that the axis counts as (`onto_samples`).
        transposed: whether the transposed matrix is meant.
    """

    gains: Tensor
    shape: tuple[int, int]
    length: int
    transposed: bool = False

    def t(self) -> "Transform":
        """The transposed matrix."""
        return self._replace(shape=self.shape[::-1], transposed=not self.transposed)

    def apply(self, x: Tensor, axis: int) -> Tensor:
        """The product along one axis of `x`, in its dtype."""
        gains = self.gains.reshape(-1, *[1] * (x.dim() - 1 - axis % x.dim()))
        bins, precise = len(self.gains), x.to(self.gains.dtype)
        if not self.transposed:
            h, samples = self.shape
            precise = _fill(precise.narrow(axis, 0, min(samples, self.length)), self.length, axis)
            spectrum = torch.fft.rfft(precise, dim=axis, norm="forward").narrow(axis, 0, bins)
            low: Tensor = torch.fft.irfft(spectrum * gains, n=h, dim=axis, norm="forward")
            return low.to(x.dtype)
        samples, h = self.shape
        # A bin of the output stands for two of the input, but for the constant and for one that has no partner.
        spectrum = torch.fft.rfft(precise, dim=axis, norm="backward") * gains
        if h % 2 == 0 and h < self.length:
            spectrum.narrow(axis, bins - 1, 1).mul_(0.5)
        y = torch.fft.irfft(spectrum, n=self.length, dim=axis, norm="forward") / self.length
        return _unfill(y, samples, axis).to(x.dtype)


Matrix = Tensor | Transform


class AxisOperator(NamedTuple):
    """What a layer does to one axis.

    Attributes:
        matrix: (h, L), applied to the axis.
        probe: (r, h) or None. With it, dLoss/dS = -<probe g, probe y> for the output y and its gradient g: two rows
            (cosine, sine) per bin on the ramp, scaled by the root of -window'(k) / window(k).
    """

    matrix: Matrix
    probe: Tensor | None = None


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
        matrix = shorter.t() * (output_length / length * _gain(length, output_length, norm))
        return matrix.contiguous().to(dtype)
    table, h = _make_tables(length, output_length, torch.device(device)), output_length
    return (table[:, :h] @ table[:, h:-2]).mul_(_gain(length, h, norm)).to(dtype)


def learned_axis(
    at: Band,
    norm: str,
    dtype: torch.dtype,
    device: torch.device,
    samples: int | None = None,
    taps: Taps | None = None,
    learns: bool = True,
) -> AxisOperator:
    """Matrix and probe of a learned axis of which `samples` are there, from the cache if its stride stood still.

    With `taps`, the matrix is `interleaved` for that convolution, and `samples` are those of the convolution's result.
    Where nothing `learns` there is no probe.
    """
    samples = at.length if samples is None else samples

    def make() -> AxisOperator:
        # The probe meets rounded outputs: it works in float32 even for half-precision maps.
        precise = torch.float64 if dtype == torch.float64 else torch.float32
        if taps is None and is_long(at.output_length, device):
            return _long_axis(at, norm, precise, device, samples, learns)
        table = tables(at.length, at.output_length, str(_has_doubles(device)))
        probe = _probe(at, table, floor=quotient_floor(dtype)).to(device, precise) if learns else None
        matrix = onto_samples(band_matrix(at, norm, _has_doubles(device)), samples)
        return AxisOperator((matrix if taps is None else interleaved(matrix, taps)).to(device, dtype), probe)

    if torch.compiler.is_compiling():
        return make()
    return _cache.get(("learned", at, norm, dtype, device, samples, taps, learns), make)


def spectral_axis(
    length: int,
    output_length: int,
    norm: str,
    dtype: torch.dtype,
    device: torch.device,
    samples: int,
    taps: Taps | None = None,
) -> AxisOperator:
    """`learned_axis` for a fixed axis, without a probe."""

    def make() -> AxisOperator:
        if taps is None and output_length <= length and is_long(output_length, device):
            precise = torch.float64 if dtype == torch.float64 else torch.float32
            gains = torch.full((output_length // 2 + 1,), _gain(length, output_length, norm), device=device)
            return AxisOperator(Transform(gains.to(precise), (output_length, samples), length))
        matrix = spectral_matrix(length, output_length, norm, dtype=torch.float64, device=_has_doubles(device))
        matrix = onto_samples(matrix, samples)
        return AxisOperator((matrix if taps is None else interleaved(matrix, taps)).to(device, dtype))

    if torch.compiler.is_compiling():
        return make()
    return _cache.get(("spectral", length, output_length, norm, dtype, device, samples, taps), make)


def is_long(output_length: int, device: torch.device) -> bool:
    """Whether an axis is so long that transforms beat a matrix.

    A matrix costs h multiplications per sample of the input, a transform about the logarithm of its length, but slower
    ones. (Two dense factors, through the kept bins, would cost h more than the matrix: all h bins are kept.)
    """
    return output_length > _LONG.get(device.type, _LONG_ELSEWHERE)


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


def band_matrix(at: Band, norm: str, device: torch.device | str = "cpu") -> Tensor:
    """The (h, L) matrix of one axis in float64: Algorithm 1 on that axis."""
    table, h = tables(at.length, at.output_length, str(device)), at.output_length
    gains = at.gains(table[:, -2:-1])
    return table[:, :h] @ (table[:, h:-2] * (gains if norm == "forward" else gains * _gain(at.length, h, norm)))


def tables(length: int, h: int, device: str) -> Tensor:
    """(h, h + L + 2) in float64: all that matrices of one grid (L, h) have in common, side by side.

    Synthesis (h, h) has a cosine or sine of the output's grid per column, analysis (h, L) one of the input's per row,
    with multiplicities m and 1 / L; then come the frequency of each, and sqrt(m / h). From the cache; to a compiler the
    table is a constant (`layers.leave_graphs`).
    """
    where = torch.device(device)
    return _cache.get(("tables", length, h, where), lambda: (_make_tables(length, h, where),))[0]


def _make_tables(length: int, h: int, device: torch.device) -> Tensor:
    paired, unpaired = (h - 1) // 2, 1 - h % 2
    k = torch.arange(paired + 1 + unpaired, device=device)
    cosines, sines = slice(None), slice(1, paired + 1)

    def waves(samples: int) -> tuple[Tensor, Tensor]:
        # The angle in turns of 1 / samples is an integer, which is reduced exactly.
        turns = torch.outer(torch.arange(samples, device=device), k) % samples
        angle = turns.double().mul_(2 * math.pi / samples)
        return angle.cos()[:, cosines], angle.sin()[:, sines]

    synthesis = torch.cat(waves(h), dim=1)
    analysis = torch.cat(waves(length), dim=1).t()
    bins = torch.cat([k[cosines], k[sines]]).unsqueeze(1)
    multiplicity = torch.where((bins == 0) | (2 * bins == h), 1.0, 2.0).double()
    analysis = analysis * (multiplicity / length)
    return torch.cat([synthesis, analysis, bins.double(), (multiplicity / h).sqrt()], dim=1)


def _probe(at: Band, table: Tensor, floor: float) -> Tensor:
    """(r, h): see `AxisOperator`. Where the band's stride is a tensor, r does not follow from its value."""
    h = at.output_length
    gains = at.gains(table[:, -2])
    on_ramp = (gains > 0) & (gains < 1)
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


def _long_axis(
    at: Band, norm: str, dtype: torch.dtype, device: torch.device, samples: int, learns: bool
) -> AxisOperator:
    """The operator of an axis whose tables would be too large: gains by bin, and a probe of the ramp's bins alone."""
    h, where = at.output_length, _has_doubles(device)
    bins = torch.arange(h // 2 + 1, device=where, dtype=torch.float64)
    gains = (at.gains(bins) * _gain(at.length, h, norm)).to(device, dtype)
    transform = Transform(gains, (h, samples), at.length)
    if not learns:
        return AxisOperator(transform)
    ramp = at.ramp() or (0, -1)
    k = torch.arange(ramp[0], ramp[-1] + 1, device=where).unsqueeze(1)
    angle = ((k * torch.arange(h, device=where)).double() / h).frac_().to(dtype).mul_(2 * math.pi)
    multiplicity = torch.where(2 * k == h, 1.0, 2.0).double()
    scale = (multiplicity / h * -at.slope / at.gains(k.double()).clamp_min(quotient_floor(dtype))).sqrt()
    probe = torch.cat([angle.cos() * scale, angle.sin() * scale]).to(device, dtype)
    return AxisOperator(transform, probe)


def _fill(x: Tensor, length: int, axis: int) -> Tensor:
    missing = length - x.shape[axis]
    if not missing:
        return x
    last = x.narrow(axis, -1, 1)
    shape = list(x.shape)
    shape[axis] = missing
    return torch.cat([x, last.expand(shape)], dim=axis)


def _unfill(y: Tensor, samples: int, axis: int) -> Tensor:
    """The transpose of narrowing to L samples and `_fill`."""
    length = y.shape[axis]
    if samples > length:
        shape = list(y.shape)
        shape[axis] = samples - length
        return torch.cat([y, y.new_zeros(shape)], dim=axis)
    if samples < length:
        rest = y.narrow(axis, samples - 1, length - samples + 1).sum(dim=axis, keepdim=True)
        return torch.cat([y.narrow(axis, 0, samples - 1), rest], dim=axis)
    return y


def _has_doubles(device: torch.device) -> torch.device:
    """Where float64 can be had for the maps of a device: there, but for Apple's GPUs."""
    return torch.device("cpu") if device.type == "mps" else device


def _gain(length: int, h: int, norm: str) -> float:
    return {"forward": 1.0, "ortho": math.sqrt(length / h), "backward": length / h}[norm]


class _Cache:
    """Tuples of tensors by key; the least recently used are dropped beyond a number of bytes."""

    def __init__(self, limit: int) -> None:
        self._limit, self._bytes = limit, 0
        self._entries: OrderedDict[object, Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: object, make: Callable[[], K]) -> K:
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key]  # type: ignore[no-any-return]  # what `make` gave for this key
        # A tensor born in inference mode could not be used for training later.
        with torch.inference_mode(False), torch.no_grad():
            made = make()
        # A tensor of a tracer (fake, functional) must not outlive it.
        if all(type(t) is Tensor for t in _tensors(made)):
            with self._lock:
                self._entries[key] = made
                self._bytes += _size(made)
                while self._bytes > self._limit:
                    self._bytes -= _size(self._entries.popitem(last=False)[1])
        return made


def _tensors(entry: tuple[Any, ...]) -> list[Tensor]:
    parts = [_tensors(part) if isinstance(part, tuple) else [part] for part in entry]
    return [t for part in parts for t in part if isinstance(t, Tensor)]


def _size(entry: tuple[Any, ...]) -> int:
    return sum(t.nbytes for t in _tensors(entry))


_cache = _Cache(_CACHE_BYTES)
