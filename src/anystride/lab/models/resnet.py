"""The paper's ResNet-18 (section 2.4.1, Figure 2) for small and for large images, its downsampler one argument."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import relu

from anystride.lab.models.downsample import SHRINKING, Stride, checked_strides, conv_stride_and_pool, pooled
from anystride.lab.models.network import Network, linear_heads
from anystride.lab.models.spec import NetworkSpec

STAGES = 4
BLOCKS_PER_STAGE = 2
FIRST = "the first block, then those that shrink the map, as in 1,2,2,2"


class Block(nn.Module):
    """A residual block after He et al. (2016a): two 3x3 convolutions, each with batch normalisation, and a skip.

    Without `stride` it is an identity block. With one and more channels than before it is a shortcut block: Figure 2a
    for a strided convolution, Figure 2b for everything else, where *one* pooling layer serves both branches: they
    always agree in size and share their strides. On the shortcut the pooling comes before the 1x1 projection: both
    are linear and act on different axes. Thus they commute exactly, and this order needs S_h * S_w times fewer
    multiplications.

    With a stride and as many channels as before (section 3.2: ImageNet's first identity block) there is nothing to
    project. The skip is the pooled input, and for a strided convolution every S-th sample of it: He et al. project only
    where channels are added, and otherwise run the identity with the stride. Thus the methods keep the same weights.

    Shapes: (N, channels_in, H, W) to (N, channels_out, h, w), with (h, w) decided by the downsampler.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: Stride | None, spec: NetworkSpec) -> None:
        super().__init__()
        self.downsamples = stride is not None
        self.pool: nn.Module = nn.Identity()
        self.project: nn.Module = nn.Identity()
        conv_stride = (1, 1)
        if stride is not None:
            conv_stride, self.pool = conv_stride_and_pool(spec, stride)
            if channels_in != channels_out:
                self.project = nn.Sequential(
                    nn.Conv2d(channels_in, channels_out, 1, stride=conv_stride, bias=False),
                    nn.BatchNorm2d(channels_out),
                )
            elif conv_stride != (1, 1):
                self.project = nn.AvgPool2d(1, stride=conv_stride)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride=conv_stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        y = relu(self.norm1(pooled(self.pool, self.conv1, x)))
        y = self.norm2(self.conv2(y))
        return relu(y + self.project(self.pool(x)))


class ResNet(Network):
    """Stem, four stages of two blocks, global average, linear: (N, in_channels, H, W) to logits (N, sum of heads).

    `strides` has an entry for each stage's first block but the first stage's, or for that one, too.
    """

    def __init__(self, stem: nn.Module, spec: NetworkSpec, strides: Sequence[Stride]) -> None:
        super().__init__()
        self.stem = stem
        channels = [spec.width, *(spec.width * 2**depth for depth in range(STAGES))]
        starts = [*[None] * (STAGES - len(strides)), *strides]
        stages = []
        for narrow, wide, stride in zip(channels, channels[1:], starts, strict=False):
            first = Block(narrow, wide, stride, spec)
            stages.append(nn.Sequential(first, *(Block(wide, wide, None, spec) for _ in range(BLOCKS_PER_STAGE - 1))))
        self.stages = nn.Sequential(*stages)
        self.classify = linear_heads(channels[-1], spec.heads)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        features = self.stages(self.stem(x)).mean(dim=(2, 3))
        logits: Tensor = self.classify(features)
        return logits

    @property
    def shortcut_blocks(self) -> list[Block]:
        """The blocks that downsample, from the input to the output."""
        return [module for module in self.modules() if isinstance(module, Block) and module.downsamples]


def resnet18(spec: NetworkSpec) -> ResNet:
    """Build a ResNet-18 with the stem for small images (3x3, stride 1) and three downsampling shortcut blocks.

    Args:
        spec: strides have one entry per shortcut block; a fourth one in front is that of the first identity block.

    Raises:
        ValueError: as `checked_strides`.

    Example:
        >>> import torch
        >>> spec = NetworkSpec(10, in_channels=1, width=4, method="strided", strides=(3, 2, 3))
        >>> resnet18(spec)(torch.zeros(2, 1, 32, 32)).shape
        torch.Size([2, 10])
    """
    pairs = checked_strides(spec, {STAGES - 1: SHRINKING, STAGES: FIRST}, (2, 2, 2))
    conv = nn.Conv2d(spec.in_channels, spec.width, 3, padding=1, bias=False)
    stem = nn.Sequential(conv, nn.BatchNorm2d(spec.width), nn.ReLU())
    return ResNet(stem, spec, pairs)


def resnet18_imagenet(spec: NetworkSpec) -> ResNet:
    """Build the ResNet-18 of section 3.2 for ImageNet, whose stem is a 7x7 convolution and max pooling at stride 2.

    Args:
        spec: strides have four entries: that of the first identity block, then one per shortcut block.

    Raises:
        ValueError: as `checked_strides`.

    Example:
        >>> import torch
        >>> resnet18_imagenet(NetworkSpec(10, width=4, method="strided"))(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 10])
    """
    pairs = checked_strides(spec, {STAGES: FIRST}, (1, 2, 2, 2))
    stem = nn.Sequential(
        nn.Conv2d(spec.in_channels, spec.width, 7, stride=2, padding=3, bias=False),
        nn.BatchNorm2d(spec.width),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2, padding=1),
    )
    return ResNet(stem, spec, pairs)
