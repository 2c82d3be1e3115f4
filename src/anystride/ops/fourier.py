"""Long axes: what a matrix does to them, by real Fourier transforms."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from anystride.ops.window import Band


class FourierMatrix(NamedTuple):
    """What a matrix does to a long axis, by real Fourier transforms: `matrix` of an `AxisOperator` may be one.

    Attributes:
        gains: (h // 2 + 1,), window times gain, in float32 or float64.
        shape: (h, samples), as of a matrix.
        length: samples that the axis counts as (`matrix.onto_samples`).
        transposed: whether the transposed matrix is meant.
    """

    gains: Tensor
    shape: tuple[int, int]
    length: int
    transposed: bool = False

    def t(self) -> "FourierMatrix":
        """The transposed matrix."""
        return self._replace(shape=self.shape[::-1], transposed=not self.transposed)

    def apply(self, x: Tensor, axis: int) -> Tensor:
        """The product along one axis of `x`, in its dtype."""
        if not x.numel():  # no library transforms a map without examples
            sizes = list(x.shape)
            sizes[axis] = self.shape[0]
            return x.narrow(axis, 0, 1).expand(sizes)
        gains = self.gains.reshape(-1, *[1] * (x.dim() - 1 - axis % x.dim()))
        bins, precise = len(self.gains), x.to(self.gains.dtype)
        if not self.transposed:
            h, samples = self.shape
            # Scaled before it is summed, so that finite maps stay finite.
            precise = _fill(precise.narrow(axis, 0, min(samples, self.length)) / self.length, self.length, axis)
            spectrum = torch.fft.rfft(precise, dim=axis, norm="backward").narrow(axis, 0, bins)
            low: Tensor = torch.fft.irfft(spectrum * gains, n=h, dim=axis, norm="forward")
            return low.to(x.dtype)
        samples, h = self.shape
        # A bin of the output stands for two of the input, but for the constant and for one that has no partner.
        spectrum = torch.fft.rfft(precise / self.length, dim=axis, norm="backward") * gains
        if h % 2 == 0 and h < self.length:
            spectrum.narrow(axis, bins - 1, 1).mul_(0.5)
        y = torch.fft.irfft(spectrum, n=self.length, dim=axis, norm="forward")
        return _unfill(y, samples, axis).to(x.dtype)


def learned_gains(at: Band, device: torch.device) -> Tensor:
    """(h // 2 + 1,) in float64: the window at the frequencies that the output can hold."""
    return at.gains(torch.arange(at.output_length // 2 + 1, device=device, dtype=torch.float64))


def ramp_probe(at: Band, dtype: torch.dtype, floor: float, device: torch.device) -> Tensor:
    """The probe of `matrix.AxisOperator` from the ramp's bins alone, where tables would be too large."""
    h, ramp = at.output_length, at.ramp() or (0, -1)
    k = torch.arange(ramp[0], ramp[-1] + 1, device=device).unsqueeze(1)
    angle = ((k * torch.arange(h, device=device)).double() / h).frac_().to(dtype).mul_(2 * math.pi)
    multiplicity = torch.where(2 * k == h, 1.0, 2.0).double()
    scale = (multiplicity / h * -at.slope / at.gains(k.double()).clamp_min(floor)).sqrt()
    return torch.cat([angle.cos() * scale, angle.sin() * scale])


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
