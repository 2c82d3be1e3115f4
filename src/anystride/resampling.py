"""One axis: the window as a real h x L matrix, and the few rows that its stride's gradient needs.

A window that is even in k turns "DFT, multiply, crop, inverse DFT" into

    A[i, j] = (1 / L) * sum over |k| <= h / 2 of window(k) * cos(2 pi k (i / h - j / L)),

where an even h keeps its unpaired bin k = h / 2 once, as cos(pi i) cos(pi h j / L). The sum over the pass-band has a
closed form (Dirichlet's kernel), so a matrix costs a few elementwise operations. Matrices are made on the host in
float64, rounded once, and kept while strides stand still.
"""

import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from anystride.window import Band

NORMS = ("forward", "ortho", "backward")

_CACHE_BYTES = 64 * 2**20


class AxisOperator(NamedTuple):
    """What a layer does to one axis.

    Attributes:
        matrix: (h, L), applied to the axis.
        probe: (r, h) or None. With it, dLoss/dS = -<probe g, probe y> for the output y and its gradient g: two rows
            (cosine, sine) per bin on the ramp, scaled by the root of -window'(k) / window(k).
    """

    matrix: Tensor
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
        shorter = spectral_matrix(output_length, length, dtype=torch.float64)
        matrix = shorter.t() * (output_length / length * _gain(length, output_length, norm))
        return matrix.contiguous().to(device, dtype)
    passed = (output_length - 1) // 2
    unpaired = 1.0 if output_length % 2 == 0 else 0.0
    matrix = _cosine_sum(length, output_length, passed, {}, unpaired)
    return matrix.mul_(_gain(length, output_length, norm)).to(device, dtype)


def learned_axis(
    at: Band, norm: str, dtype: torch.dtype, device: torch.device, samples: int | None = None
) -> AxisOperator:
    """Matrix and probe of a learned axis of which `samples` are there, from the cache if its stride stood still."""
    samples = at.length if samples is None else samples
    return _cache.get(
        ("learned", at, norm, dtype, device, samples), lambda: _make_learned(at, norm, dtype, device, samples)
    )


def spectral_axis(
    length: int, output_length: int, norm: str, dtype: torch.dtype, device: torch.device, samples: int
) -> AxisOperator:
    """Matrix of a fixed axis of which `samples` are there, from the cache if it was asked for before."""

    def make() -> AxisOperator:
        matrix = spectral_matrix(length, output_length, norm, dtype=torch.float64)
        return AxisOperator(onto_samples(matrix, samples).to(device, dtype))

    return _cache.get(("spectral", length, output_length, norm, dtype, device, samples), make)


def onto_samples(matrix: Tensor, samples: int) -> Tensor:
    """(h, L) for an axis on which only the first `samples` are there and the last one repeats up to L.

    Where there are more than L, the rest is ignored. A map that is short of its partner's by a sample (a pooling
    window that found no room, say) so meets the same grid without a padded copy.
    """
    length = matrix.shape[1]
    if samples >= length:
        return torch.nn.functional.pad(matrix, (0, samples - length))
    kept = matrix[:, :samples].clone()
    kept[:, -1] += matrix[:, samples:].sum(dim=1)
    return kept


def _make_learned(at: Band, norm: str, dtype: torch.dtype, device: torch.device, samples: int) -> AxisOperator:
    # The probe meets rounded outputs: it works in float32 even for half-precision maps.
    precise = torch.float64 if dtype == torch.float64 else torch.float32
    probe = _probe(at, floor=quotient_floor(dtype))
    matrix = onto_samples(band_matrix(at, norm), samples)
    return AxisOperator(matrix.to(device, dtype), probe.to(device, precise))


def quotient_floor(dtype: torch.dtype) -> float:
    """Smallest window that window' / window is divided by.

    An output rounded to `dtype` carries relative noise eps in every bin; dividing by a window below it would let noise
    through as if it were signal. Noise averages out over maps, a bound does not, so the bound is kept as low as that.
    """
    return torch.finfo(dtype).eps


def band_matrix(at: Band, norm: str) -> Tensor:
    """The (h, L) matrix of one axis in float64: Algorithm 1 on that axis."""
    h = at.output_length
    paired = (h - 1) // 2
    passed = next((k for k in range(paired, 0, -1) if at.gain(k) >= 1), 0)
    gains = {k: at.gain(k) for k in at.ramp() if k <= paired}
    unpaired = at.gain(h // 2) if h % 2 == 0 else 0.0
    return _cosine_sum(at.length, h, passed, gains, unpaired).mul_(_gain(at.length, h, norm))


def _cosine_sum(length: int, h: int, passed: int, gains: dict[int, float], unpaired: float) -> Tensor:
    """A of the module's head: bins up to `passed` at gain 1, `gains` by bin, and bin h / 2 at gain `unpaired`."""
    i = torch.arange(h, device="cpu").unsqueeze(1)
    j = torch.arange(length, device="cpu").unsqueeze(0)
    turn = h * length
    step = i * length - j * h  # the angle in units of 2 pi / (h L): an integer, so that it can be reduced exactly
    half_angle = (step % (2 * turn)).double().mul_(math.pi / turn)
    denominator = half_angle.sin()
    numerator = ((step * (2 * passed + 1)) % (2 * turn)).double().mul_(math.pi / turn).sin_()
    aligned = step % turn == 0
    matrix = numerator.div_(denominator.masked_fill_(aligned, 1.0)).masked_fill_(aligned, 2 * passed + 1)
    for k, gain in gains.items():
        matrix.add_(torch.cos(half_angle * (2 * k)), alpha=2 * gain)
    if unpaired:
        sign = 1.0 - 2.0 * (i % 2)
        matrix.add_(sign * torch.cos((j * h % (2 * length)).double() * (math.pi / length)), alpha=unpaired)
    return matrix.div_(length)


def _probe(at: Band, floor: float) -> Tensor:
    """(r, h): see `AxisOperator`."""
    h, ramp = at.output_length, at.ramp()
    k = torch.tensor(ramp, dtype=torch.int64, device="cpu").unsqueeze(1)
    angle = (k * torch.arange(h, device="cpu") % h).double() * (2 * math.pi / h)
    quotient = [-at.slope / max(at.gain(k), floor) for k in ramp]
    multiplicity = [1 if 2 * k == h else 2 for k in ramp]
    weight = torch.tensor(
        [m * q / h for m, q in zip(multiplicity, quotient, strict=True)], dtype=torch.float64, device="cpu"
    )
    rows = torch.stack([angle.cos(), angle.sin()], dim=1) * weight.sqrt().reshape(-1, 1, 1)
    return rows.reshape(-1, h)


def _gain(length: int, h: int, norm: str) -> float:
    return {"forward": 1.0, "ortho": math.sqrt(length / h), "backward": length / h}[norm]


class _Cache:
    """Axis operators by key; the least recently used are dropped beyond a number of bytes."""

    def __init__(self, limit: int) -> None:
        self._limit, self._bytes = limit, 0
        self._entries: OrderedDict[object, AxisOperator] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: object, make: Callable[[], AxisOperator]) -> AxisOperator:
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key]
        # A tensor born in inference mode could not be used for training later.
        with torch.inference_mode(False), torch.no_grad():
            made = make()
        # A tensor of a tracer (fake, functional) must not outlive it.
        if all(type(t) is Tensor for t in made if t is not None):
            with self._lock:
                self._entries[key] = made
                self._bytes += _size(made)
                while self._bytes > self._limit:
                    self._bytes -= _size(self._entries.popitem(last=False)[1])
        return made


def _size(operator: AxisOperator) -> int:
    return sum(t.nbytes for t in operator if t is not None)


_cache = _Cache(_CACHE_BYTES)
