"""EfficientNet-B0 (appendix, Tables A.5 and A.6): each of its seven stages begins with a downsampler."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from anystride.lab.models.downsample import ConvPool, Stride, checked_strides, conv_stride_and_pool
from anystride.lab.models.network import Network, linear_heads
from anystride.lab.models.spec import NetworkSpec

STAGES = (
    (1, 3, 32, 16, 1),
    (6, 3, 16, 24, 2),
    (6, 5, 24, 40, 2),
    (6, 3, 40, 80, 3),
    (6, 5, 80, 112, 3),
    (6, 5, 112, 192, 4),
    (6, 3, 192, 320, 1),
)
"""Expansion, kernel, channels before and after, blocks: Table 1 of Tan & Le (2019)."""
STRIDES = (1, 2, 2, 2, 1, 2, 1)
PAPER_WIDTH = 64
DROPOUT = 0.2
STOCHASTIC_DEPTH = 0.2


class EfficientNet(Network):
    """Stem at stride 2, seven stages, 1x1 convolution, global average, dropout, linear; torchvision's blocks.

    The stride of a stage is that of the depthwise convolution in its first block, or of the pooling layer that follows
    it, before the norm. (N, in_channels, H, W) to logits (N, sum of heads).
    """

    def __init__(self, spec: NetworkSpec, strides: Sequence[Stride]) -> None:
        super().__init__()
        from torchvision.models import EfficientNet as Torchvision
        from torchvision.models.efficientnet import MBConvConfig

        # `convert_` would do this for strides 1 and 2, but here they may also be larger or fractional from the start.
        plan = [
            MBConvConfig(expansion, kernel, 1, before, after, blocks, width_mult=spec.width / PAPER_WIDTH)
            for expansion, kernel, before, after, blocks in STAGES
        ]
        stem, *stages, head = Torchvision(plan, DROPOUT, STOCHASTIC_DEPTH).features
        channels, features = stem[0].out_channels, head[0].out_channels
        stem[0] = nn.Conv2d(spec.in_channels, channels, 3, stride=2, padding=1, bias=False)  # torchvision's has three
        nn.init.kaiming_normal_(stem[0].weight, mode="fan_out")
        for stage, stride in zip(stages, strides, strict=True):
            _downsample(stage[0], stride, spec)
        self.stem, self.stages, self.head = stem, nn.Sequential(*stages), head
        self.dropout = nn.Dropout(DROPOUT)
        self.classify = linear_heads(features, spec.heads)
        for module in self.classify.modules():
            if isinstance(module, nn.Linear):  # as torchvision does, after Tan & Le
                bound = 1 / math.sqrt(module.out_features)
                nn.init.uniform_(module.weight, -bound, bound)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        features = self.head(self.stages(self.stem(x))).mean(dim=(2, 3))
        logits: Tensor = self.classify(self.dropout(features))
        return logits


def _downsample(block: Any, stride: Stride, spec: NetworkSpec) -> None:
    """Let torchvision's MBConv downsample at its depthwise convolution, whose weights keep one name in all methods."""
    # A stage's first block has other channels than before and no skip; in narrow networks rounding makes them equal.
    block.use_res_connect = False
    depthwise = block.block[-3]  # before squeeze-and-excitation and projection
    conv = depthwise[0]
    conv.stride, pool = conv_stride_and_pool(spec, stride)
    depthwise[0] = ConvPool(conv, pool)


def efficientnet_b0(spec: NetworkSpec) -> EfficientNet:
    """Build an EfficientNet-B0 with random weights; the paper trains it on CIFAR images enlarged to 128x128.

    The stride of 2 of the stem stays. Dropout and stochastic depth are 0.2, as in Tan & Le (2019).

    Args:
        spec: strides have one entry per stage. Channels are those of B0 times width / 64, rounded to multiples of 8.

    Raises:
        ValueError: as `checked_strides`.

    Example:
        >>> import torch
        >>> efficientnet_b0(NetworkSpec(10, width=8, method="strided"))(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 10])
    """
    return EfficientNet(spec, checked_strides(spec, {len(STAGES): "one per stage"}, STRIDES))
