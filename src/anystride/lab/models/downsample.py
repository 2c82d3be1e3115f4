"""The downsamplers that the paper compares, and the strides that each allows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, overload

from torch import Tensor, nn

from anystride import DiffStride1d, DiffStride2d, SpectralPool1d, SpectralPool2d
from anystride.lab.models.release import LAYERS, ReleaseDiffStride2d, ReleaseSpectralPool2d
from anystride.lab.models.spec import NetworkSpec

Stride = tuple[float, float]
"""The vertical and the horizontal stride of one downsampler; for sound, along time and along frequency."""
Stride1d = tuple[float]
"""The stride of one downsampler of series."""


@dataclass(frozen=True)
class Downsampler:
    """One way to downsample.

    Args:
        title: its name for people.
        pool: makes the pooling layer of a stride, as a specification says; None where the convolutions take the stride.
            A stride has one entry per spatial axis: their number decides whether the layer is one for images or for
            series.
        learns: whether strides are parameters.
        whole: whether strides must be whole numbers.
    """

    title: str
    pool: Callable[[Stride | Stride1d, NetworkSpec], nn.Module] | None
    learns: bool
    whole: bool = False


def _diffstride(ramp: Literal["outer", "inner", "cosine"]) -> Callable[[Stride | Stride1d, NetworkSpec], nn.Module]:
    def build(stride: Stride | Stride1d, spec: NetworkSpec) -> nn.Module:
        start = stride[0] if spec.shared else stride
        layer = DiffStride1d if len(stride) == 1 else DiffStride2d
        return layer(start, spec.smoothness, shared=spec.shared, ramp=ramp, norm=spec.norm, grid=cast(Any, spec.grid))

    return build


def _spectral(stride: Stride | Stride1d, spec: NetworkSpec) -> nn.Module:
    layer = SpectralPool1d if len(stride) == 1 else SpectralPool2d
    return layer(stride, norm=spec.norm)


def _release(stride: Stride | Stride1d, spec: NetworkSpec) -> nn.Module:
    return ReleaseDiffStride2d(stride[0] if spec.shared else stride, spec.smoothness, spec.shared)


def _release_spectral(stride: Stride | Stride1d, _: NetworkSpec) -> nn.Module:
    return ReleaseSpectralPool2d(stride)


def _average(stride: Stride | Stride1d, _: NetworkSpec) -> nn.Module:
    # Without ceil_mode the samples that do not fill a window at the border are left out, as in DenseNet.
    return nn.AvgPool1d(whole(stride)) if len(stride) == 1 else nn.AvgPool2d(whole(stride))


DOWNSAMPLERS: dict[str, Downsampler] = {
    "strided": Downsampler("strided convolution", None, learns=False, whole=True),
    "spectral": Downsampler("spectral pooling", _spectral, learns=False),
    "outer": Downsampler("DiffStride, outer", _diffstride("outer"), learns=True),
    "inner": Downsampler("DiffStride, inner", _diffstride("inner"), learns=True),
    "cosine": Downsampler("DiffStride, raised cosine", _diffstride("cosine"), learns=True),
    "average": Downsampler("average pooling", _average, learns=False, whole=True),
    "release": Downsampler("the release's DiffStride", _release, learns=True),
    "release-spectral": Downsampler("the release's spectral pooling", _release_spectral, learns=False),
}
"""Every method by its name. A network knows them by `conv_stride_and_pool` alone."""

METHODS = ("strided", "spectral", "outer", "inner", "cosine")
"""The methods that can replace a strided convolution; "average" stands in for them in DenseNet, and joins them in the
network for series."""

RELEASE = ("release", "release-spectral")
"""Those of the authors' release, for the network of the release."""


@overload
def conv_stride_and_pool(spec: NetworkSpec, stride: Stride) -> tuple[tuple[int, int], nn.Module]: ...


@overload
def conv_stride_and_pool(spec: NetworkSpec, stride: Stride1d) -> tuple[tuple[int], nn.Module]: ...


def conv_stride_and_pool(spec: NetworkSpec, stride: Stride | Stride1d) -> tuple[Any, nn.Module]:
    """Share the work between a convolution and the pooling layer that follows it: only one of them downsamples.

    Args:
        spec: has the method.
        stride: one entry per spatial axis.

    Returns:
        The stride of the convolution, with as many entries, and the pooling layer. Either the first is all ones or the
        second is an identity.
    """
    build = DOWNSAMPLERS[spec.method].pool
    if build is None:
        return whole(stride), nn.Identity()
    return (1,) * len(stride), build(stride, spec)


PLAIN = (nn.Identity, nn.AvgPool1d, nn.AvgPool2d, *LAYERS)
"""Layers that take no convolution."""


def pooled(pool: nn.Module, conv: nn.Module, x: Tensor) -> Tensor:
    """Run a convolution and the pooling layer that follows it, as one operation where the layer offers that."""
    y: Tensor = pool(conv(x)) if isinstance(pool, PLAIN) else pool(x, convolution=conv)
    return y


class ConvPool(nn.Module):
    """`pooled` as a module, for a network that is a sequence."""

    def __init__(self, conv: nn.Module, pool: nn.Module) -> None:
        super().__init__()
        self.conv, self.pool = conv, pool

    def forward(self, x: Tensor) -> Tensor:
        return pooled(self.pool, self.conv, x)


SHRINKING = "one for each block that shrinks the map, as in 2,2,2"
"""What strides belong to, for a message."""


def checked_strides(
    spec: NetworkSpec,
    counts: Mapping[int, str],
    usual: Sequence[float | Sequence[float]],
    methods: Sequence[str] = METHODS,
) -> list[Stride]:
    """Check a specification. Every builder begins with this.

    Args:
        spec: what the network is to be.
        counts: the possible numbers of strides, and what they belong to.
        usual: the strides of a specification without any.
        methods: the methods that the network offers.

    Returns:
        The strides as (vertical, horizontal) pairs.

    Raises:
        ValueError: the method is not among `methods`, the width is below 1, the number of strides is wrong, a stride is
            below 1, it is fractional where the method needs whole numbers, or a pair that is to be shared has two
            different strides.
    """
    strides = usual if spec.strides is None else spec.strides
    if spec.method not in methods:
        raise ValueError(f"method must be one of {', '.join(methods)}, got {spec.method!r}")
    if spec.width < 1:
        raise ValueError(f"width must be at least 1, got {spec.width}")
    if len(strides) not in counts:
        possible = " or ".join(f"{count} entries ({what})" for count, what in counts.items())
        raise ValueError(f"strides must have {possible}, got {len(strides)}")
    pairs = [pair(stride) for stride in strides]
    kind = DOWNSAMPLERS[spec.method]
    if kind.whole and any(round(value) != value for each in pairs for value in each):
        fractional = next(each for each in pairs if any(round(value) != value for value in each))
        raise ValueError(f"strides of {kind.title} must be whole numbers, got {fractional}; use another method")
    if spec.shared and kind.learns and any(one != other for one, other in pairs):
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


def whole(stride: Stride | Stride1d) -> Any:
    """A stride of whole numbers as integers, as many; ValueError for any other."""
    rounded = tuple(round(value) for value in stride)
    if rounded != stride:
        raise ValueError(f"the stride must be whole numbers here, got {stride}; use another method")
    return rounded
