"""The paper's ResNet-18 (section 2.4.1, Figure 2) for small images, with its downsampler chosen by one argument."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import relu

from anystride import DiffStride2d, SpectralPool2d

Stride = tuple[float, float]
"""The vertical and the horizontal stride of one shortcut block."""

STAGES = 4
BLOCKS_PER_STAGE = 2


@dataclass(frozen=True)
class PoolOptions:
    """What a learnable downsampler needs besides its stride; the fixed ones ignore it."""

    smoothness: float = 4.0
    shared: bool = False


@dataclass(frozen=True)
class Downsampler:
    """One way to downsample: how to build the pooling layer, or None where the convolutions take the stride."""

    title: str
    pool: Callable[[Stride, PoolOptions], nn.Module] | None
    learns: bool


def _diffstride(ramp: str) -> Callable[[Stride, PoolOptions], nn.Module]:
    def build(stride: Stride, options: PoolOptions) -> nn.Module:
        start = stride[0] if options.shared else stride
        return DiffStride2d(start, smoothness=options.smoothness, shared=options.shared, ramp=ramp)

    return build


DOWNSAMPLERS: dict[str, Downsampler] = {
    "strided": Downsampler("strided convolution", None, learns=False),
    "spectral": Downsampler("spectral pooling", lambda stride, _: SpectralPool2d(stride), learns=False),
    "outer": Downsampler("DiffStride, outer", _diffstride("outer"), learns=True),
    "inner": Downsampler("DiffStride, inner", _diffstride("inner"), learns=True),
}
"""The four methods of the comparison. Nothing else in this file knows which of them is used."""


class Block(nn.Module):
    """A residual block after He et al. (2016a): two 3x3 convolutions, each with batch normalisation, and a skip.

    Without ``stride`` it is an identity block. With one it is a shortcut block: Figure 2a for a strided convolution,
    Figure 2b for everything else, where *one* pooling layer serves both branches, so that they always agree in size
    and share their strides. On the shortcut the pooling comes before the 1x1 projection: both are linear and act on
    different axes, so they commute exactly, and this order needs S_h * S_w times fewer multiplications.

    Shapes: (N, channels_in, H, W) to (N, channels_out, h, w), with (h, w) decided by the downsampler.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        stride: Stride | None = None,
        downsampler: str = "outer",
        options: PoolOptions | None = None,
    ) -> None:
        super().__init__()
        self.downsamples = stride is not None
        self.pool: nn.Module = nn.Identity()
        self.project: nn.Module = nn.Identity()
        conv_stride = (1, 1)
        if stride is not None:
            build = DOWNSAMPLERS[downsampler].pool
            if build is None:
                conv_stride = _whole(stride)
            else:
                self.pool = build(stride, options or PoolOptions())
            self.project = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride=conv_stride, bias=False), nn.BatchNorm2d(channels_out)
            )
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride=conv_stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        y = relu(self.norm1(self.pool(self.conv1(x))))
        y = self.norm2(self.conv2(y))
        return relu(y + self.project(self.pool(x)))


class ResNet(nn.Module):
    """Stem, four stages of two blocks, global average, linear: (N, in_channels, H, W) to logits (N, num_classes)."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        width: int,
        downsampler: str,
        strides: Sequence[Stride],
        options: PoolOptions,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        stages = [nn.Sequential(*(Block(width, width) for _ in range(BLOCKS_PER_STAGE)))]
        for depth, stride in enumerate(strides):
            narrow, wide = width * 2**depth, width * 2 ** (depth + 1)
            rest = (Block(wide, wide) for _ in range(BLOCKS_PER_STAGE - 1))
            stages.append(nn.Sequential(Block(narrow, wide, stride, downsampler, options), *rest))
        self.stages = nn.Sequential(*stages)
        self.classify = nn.Linear(width * 2 ** len(strides), num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        features = self.stages(self.stem(x)).mean(dim=(2, 3))
        logits: Tensor = self.classify(features)
        return logits

    @property
    def shortcut_blocks(self) -> list[Block]:
        """The three blocks that downsample, from the input to the output."""
        return [module for module in self.modules() if isinstance(module, Block) and module.downsamples]


def resnet18(
    num_classes: int,
    in_channels: int = 3,
    width: int = 64,
    downsampler: str = "outer",
    strides: Sequence[float | Sequence[float]] = (2, 2, 2),
    smoothness: float = 4.0,
    shared: bool = False,
) -> ResNet:
    """Build a ResNet-18 with the stem for small images (3x3, stride 1) and three downsampling shortcut blocks.

    ``downsampler`` is one of `DOWNSAMPLERS`; it is the only difference between the four methods, whose convolutions
    have the same names and shapes, and the same initial values under the same seed. ``strides`` has one entry per
    shortcut block, a number or a (vertical, horizontal) pair; 64 is the paper's ``width``. ``smoothness`` (R in Eq. 3)
    and ``shared`` (one stride for both axes) concern the learnable downsamplers only.

    Raises ValueError for an unknown downsampler, a wrong number of strides, a stride below 1, a fractional stride of
    a strided convolution, and two different strides of an axis pair that is to be shared.

    >>> import torch
    >>> resnet18(10, in_channels=1, width=4, downsampler="strided", strides=(3, 2, 3))(torch.zeros(2, 1, 32, 32)).shape
    torch.Size([2, 10])
    """
    if downsampler not in DOWNSAMPLERS:
        raise ValueError(f"downsampler must be one of {', '.join(DOWNSAMPLERS)}, got {downsampler!r}")
    if width < 1:
        raise ValueError(f"width must be at least 1, got {width}")
    if len(strides) != STAGES - 1:
        raise ValueError(f"strides must have {STAGES - 1} entries, one per shortcut block, got {len(strides)}")
    pairs = [_pair(stride) for stride in strides]
    if shared and DOWNSAMPLERS[downsampler].learns and any(vertical != horizontal for vertical, horizontal in pairs):
        raise ValueError(f"strides must be equal along both axes when they are shared, got {pairs}")
    return ResNet(num_classes, in_channels, width, downsampler, pairs, PoolOptions(smoothness, shared))


def _pair(stride: float | Sequence[float]) -> Stride:
    values = tuple(stride) if isinstance(stride, Sequence) else (stride, stride)
    if len(values) != 2:
        raise ValueError(f"a stride must be one number or a (vertical, horizontal) pair, got {stride!r}")
    if not all(1 <= value < float("inf") for value in values):
        raise ValueError(f"a stride must be a finite number of at least 1, got {stride!r}")
    return float(values[0]), float(values[1])


def _whole(stride: Stride) -> tuple[int, int]:
    vertical, horizontal = round(stride[0]), round(stride[1])
    if (vertical, horizontal) != stride:
        raise ValueError(
            f"strides of a strided convolution must be whole numbers, got {stride}; use another downsampler"
        )
    return vertical, horizontal
