"""The ways to downsample that the paper compares, and what their strides may be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from anystride import DiffStride2d, SpectralPool2d

Stride = tuple[float, float]
"""The vertical and the horizontal stride of one downsampler; for sound, along time and along frequency."""


@dataclass(frozen=True)
class PoolOptions:
    """What a pooling layer needs besides its stride; each kind takes what concerns it.

    ``smoothness`` is R in Eq. 3, ``shared`` asks for one stride for both axes: the learnable ones. ``norm`` is the gain
    of those that work on frequencies, as in `anystride.DiffStride2d`.
    """

    smoothness: float = 4.0
    shared: bool = False
    norm: str = "forward"


@dataclass(frozen=True)
class Downsampler:
    """One way to downsample: how to build the pooling layer, or None where the convolutions take the stride.

    ``learns`` says whether strides are parameters, ``whole`` whether they must be whole numbers.
    """

    title: str
    pool: Callable[[Stride, PoolOptions], nn.Module] | None
    learns: bool
    whole: bool = False


def _diffstride(ramp: str) -> Callable[[Stride, PoolOptions], nn.Module]:
    def build(stride: Stride, options: PoolOptions) -> nn.Module:
        start = stride[0] if options.shared else stride
        return DiffStride2d(start, options.smoothness, shared=options.shared, ramp=ramp, norm=options.norm)

    return build


def _spectral(stride: Stride, options: PoolOptions) -> nn.Module:
    return SpectralPool2d(stride, norm=options.norm)


def _average(stride: Stride, _: PoolOptions) -> nn.Module:
    # Without ceil_mode the samples that do not fill a window at the border are left out, as in DenseNet.
    return nn.AvgPool2d(whole(stride))


DOWNSAMPLERS: dict[str, Downsampler] = {
    "strided": Downsampler("strided convolution", None, learns=False, whole=True),
    "spectral": Downsampler("spectral pooling", _spectral, learns=False),
    "outer": Downsampler("DiffStride, outer", _diffstride("outer"), learns=True),
    "inner": Downsampler("DiffStride, inner", _diffstride("inner"), learns=True),
    "average": Downsampler("average pooling", _average, learns=False, whole=True),
}
"""Every method by its name. No network knows more about them than `place` tells."""

METHODS = ("strided", "spectral", "outer", "inner")
"""The methods that can replace a strided convolution; "average" stands in for them in DenseNet only."""


def place(downsampler: str, stride: Stride, options: PoolOptions) -> tuple[tuple[int, int], nn.Module]:
    """The stride of a convolution that downsamples, and the pooling layer that follows it: one of them does nothing."""
    build = DOWNSAMPLERS[downsampler].pool
    if build is None:
        return whole(stride), nn.Identity()
    return (1, 1), build(stride, options)


def pooled(pool: nn.Module, conv: nn.Module, x: Tensor) -> Tensor:
    """A convolution and the pooling layer that follows it, as one unit where the layer can."""
    plain = isinstance(pool, (nn.Identity, nn.AvgPool2d))
    y: Tensor = pool(conv(x)) if plain else pool(x, convolution=conv)
    return y


class ConvPool(nn.Module):
    """`pooled` as a module, for a network that is a sequence."""

    def __init__(self, conv: nn.Module, pool: nn.Module) -> None:
        super().__init__()
        self.conv, self.pool = conv, pool

    def forward(self, x: Tensor) -> Tensor:
        return pooled(self.pool, self.conv, x)


def check(
    downsampler: str,
    strides: Sequence[float | Sequence[float]],
    counts: Mapping[int, str],
    width: int,
    shared: bool,
    methods: Sequence[str] = METHODS,
) -> list[Stride]:
    """The strides as pairs, once everything fits together: what each builder of a network begins with.

    ``counts`` maps the possible numbers of strides to what they belong to.

    Raises ValueError for a downsampler that is not among ``methods``, a width below 1, a wrong number of strides, a
    stride below 1, a fractional one where they must be whole, and two different ones of a pair that is to be shared.
    """
    if downsampler not in methods:
        raise ValueError(f"downsampler must be one of {', '.join(methods)}, got {downsampler!r}")
    if width < 1:
        raise ValueError(f"width must be at least 1, got {width}")
    if len(strides) not in counts:
        possible = " or ".join(f"{count} entries ({what})" for count, what in counts.items())
        raise ValueError(f"strides must have {possible}, got {len(strides)}")
    pairs = [pair(stride) for stride in strides]
    kind = DOWNSAMPLERS[downsampler]
    if kind.whole and any(round(value) != value for each in pairs for value in each):
        fractional = next(each for each in pairs if any(round(value) != value for value in each))
        raise ValueError(f"strides of {kind.title} must be whole numbers, got {fractional}; use another downsampler")
    if shared and kind.learns and any(one != other for one, other in pairs):
        raise ValueError(f"strides must be equal along both axes when they are shared, got {pairs}")
    return pairs


def pair(stride: float | Sequence[float]) -> Stride:
    """A stride given by one number or by two; ValueError where it is neither, or below 1."""
    values = tuple(stride) if isinstance(stride, Sequence) else (stride, stride)
    if len(values) != 2:
        raise ValueError(f"a stride must be one number or a (vertical, horizontal) pair, got {stride!r}")
    if not all(1 <= value < float("inf") for value in values):
        raise ValueError(f"a stride must be a finite number of at least 1, got {stride!r}")
    return float(values[0]), float(values[1])


def whole(stride: Stride) -> tuple[int, int]:
    """A stride of whole numbers as integers; ValueError for any other."""
    vertical, horizontal = round(stride[0]), round(stride[1])
    if (vertical, horizontal) != stride:
        raise ValueError(f"the stride must be whole numbers here, got {stride}; use another downsampler")
    return vertical, horizontal
