"""The ResNet-18 that the authors released beside the paper: pre-activation blocks, and a stem that downsamples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn
from torch.nn.functional import relu

from anystride.lab.models.downsample import METHODS as ORDINARY
from anystride.lab.models.downsample import RELEASE, ConvPool, Stride, checked_strides, conv_stride_and_pool, pooled
from anystride.lab.models.network import Network, linear_heads
from anystride.lab.models.release import SamePadding
from anystride.lab.models.spec import NetworkSpec

METHODS = (*ORDINARY, *RELEASE)

STAGES = 4
BLOCKS_PER_STAGE = 2
CUT = 0.87962566103423978
"""Deviation of a standard normal distribution that is cut at two deviations."""
DOWNSAMPLED = "the stem, then those that shrink the map, as in 1,2,2,2"


def convolution(channels_in: int, channels_out: int, size: int, stride: tuple[int, int] = (1, 1)) -> nn.Conv2d:
    """A convolution without a bias that keeps the size at stride 1; a strided one pads as in Keras."""
    if max(stride) > 1:
        return SamePadding(channels_in, channels_out, size, stride=stride, bias=False)
    return nn.Conv2d(channels_in, channels_out, size, padding=size // 2, bias=False)


def initialise(weight: Tensor) -> None:
    """He et al.'s normal distribution as Keras draws it: cut at two deviations, and wider to have the same variance."""
    deviation = math.sqrt(2 / weight[0].numel()) / CUT
    nn.init.trunc_normal_(weight, std=deviation, a=-2 * deviation, b=2 * deviation)


class PreActBlock(nn.Module):
    """A residual block after He et al. (2016b): batch normalisation and ReLU come before each 3x3 convolution.

    With `stride` both branches share one pooling layer, and the skip has a 1x1 projection of the block's input, not
    normalised. Pooling and projection commute: the pooling comes first here, which is cheaper.

    Shapes: (N, channels_in, H, W) to (N, channels_out, h, w), with (h, w) decided by the downsampler.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: Stride | None, spec: NetworkSpec) -> None:
        super().__init__()
        self.pool: nn.Module = nn.Identity()
        self.project: nn.Module = nn.Identity()
        conv_stride = (1, 1)
        if stride is not None:
            conv_stride, self.pool = conv_stride_and_pool(spec, stride)
            self.project = convolution(channels_in, channels_out, 1, conv_stride)
        self.norm1 = nn.BatchNorm2d(channels_in)
        self.conv1 = convolution(channels_in, channels_out, 3, conv_stride)
        self.norm2 = nn.BatchNorm2d(channels_out)
        self.conv2 = convolution(channels_out, channels_out, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = pooled(self.pool, self.conv1, relu(self.norm1(x)))
        y = self.conv2(relu(self.norm2(y)))
        total: Tensor = y + self.project(self.pool(x))
        return total


class PreActResNet(Network):
    """Stem with a downsampler, four stages of two blocks, norm, ReLU, global average, linear: as `ResNet`."""

    def __init__(self, spec: NetworkSpec, strides: Sequence[Stride]) -> None:
        super().__init__()
        conv_stride, pool = conv_stride_and_pool(spec, strides[0])
        conv = convolution(spec.in_channels, spec.width, 3, conv_stride)
        self.stem = ConvPool(conv, pool)
        channels = [spec.width, *(spec.width * 2**depth for depth in range(STAGES))]
        stages = []
        for narrow, wide, stride in zip(channels, channels[1:], [None, *strides[1:]], strict=False):
            first = PreActBlock(narrow, wide, stride, spec)
            rest = (PreActBlock(wide, wide, None, spec) for _ in range(BLOCKS_PER_STAGE - 1))
            stages.append(nn.Sequential(first, *rest))
        self.stages = nn.Sequential(*stages)
        self.norm = nn.BatchNorm2d(channels[-1])
        self.classify = linear_heads(channels[-1], spec.heads)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                initialise(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        features = relu(self.norm(self.stages(self.stem(x)))).mean(dim=(2, 3))
        logits: Tensor = self.classify(features)
        return logits


def resnet18_release(spec: NetworkSpec) -> PreActResNet:
    """Build the ResNet-18 of the authors' release (google-research/diffstride) for small images.

    The release lists five strides, (1, 1, 2, 2, 2) by default, but does nothing with its second, for the stage of
    identity blocks. As there, transforms are left unscaled (`norm="backward"`): a map grows with its stride, which
    weighs the skips, since nothing normalises those. The methods "release" and "release-spectral" are its layers.

    Args:
        spec: strides have four entries: one for the stem, whose 3x3 convolution a pooling layer follows, then one per
            shortcut block.

    Raises:
        ValueError: as `checked_strides`.

    Example:
        >>> import torch
        >>> resnet18_release(NetworkSpec(10, width=4, method="inner"))(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """
    pairs = checked_strides(spec, {STAGES: DOWNSAMPLED}, (1, 2, 2, 2), METHODS)
    return PreActResNet(replace(spec, norm="backward"), pairs)
