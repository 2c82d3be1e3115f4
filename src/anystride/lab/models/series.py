"""A residual network for series (N, C, T), which the paper has none of: its ResNet-18 in one dimension, with a block
per stage."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import relu

from anystride.lab.models import downsample
from anystride.lab.models.downsample import SHRINKING, Stride1d, checked_strides, conv_stride_and_pool, pooled
from anystride.lab.models.network import Network, linear_heads
from anystride.lab.models.spec import NetworkSpec

METHODS = (*downsample.METHODS, "average")
KERNEL = 7
"""Samples under each convolution. The usual ResNet for series (Wang et al., 2017) has 8, 5 and 3 in turn."""
SHORTCUTS = 3


class SeriesBlock(nn.Module):
    """A residual block as in `resnet.Block`, of two convolutions along time.

    Without `stride` it is an identity block. With one, a pooling layer serves both branches, or both convolve with the
    stride.

    Shapes: (N, channels_in, T) to (N, channels_out, t), with t decided by the downsampler.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: Stride1d | None, spec: NetworkSpec) -> None:
        super().__init__()
        self.pool: nn.Module = nn.Identity()
        self.project: nn.Module = nn.Identity()
        conv_stride = (1,)
        if stride is not None:
            conv_stride, self.pool = conv_stride_and_pool(spec, stride)
            self.project = nn.Sequential(
                nn.Conv1d(channels_in, channels_out, 1, stride=conv_stride, bias=False), nn.BatchNorm1d(channels_out)
            )
        self.conv1 = nn.Conv1d(channels_in, channels_out, KERNEL, conv_stride, padding=KERNEL // 2, bias=False)
        self.norm1 = nn.BatchNorm1d(channels_out)
        self.conv2 = nn.Conv1d(channels_out, channels_out, KERNEL, padding=KERNEL // 2, bias=False)
        self.norm2 = nn.BatchNorm1d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        y = relu(self.norm1(pooled(self.pool, self.conv1, x)))
        y = self.norm2(self.conv2(y))
        return relu(y + self.project(self.pool(x)))


class SeriesNet(Network):
    """Stem, an identity block, three shortcut blocks that downsample, mean over time, linear: (N, C, T) to logits."""

    def __init__(self, spec: NetworkSpec, strides: Sequence[Stride1d]) -> None:
        super().__init__()
        conv = nn.Conv1d(spec.in_channels, spec.width, KERNEL, padding=KERNEL // 2, bias=False)
        self.stem = nn.Sequential(conv, nn.BatchNorm1d(spec.width), nn.ReLU())
        channels = [spec.width, *(spec.width * 2**depth for depth in range(SHORTCUTS + 1))]
        blocks = zip(channels, channels[1:], [None, *strides], strict=False)
        self.stages = nn.Sequential(*(SeriesBlock(narrow, wide, stride, spec) for narrow, wide, stride in blocks))
        self.classify = linear_heads(channels[-1], spec.heads)
        for module in self.modules():
            if isinstance(module, nn.Conv1d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classify(self.stages(self.stem(x)).mean(dim=2))
        return logits


def series(spec: NetworkSpec) -> SeriesNet:
    """Build the network for series of any length.

    Args:
        spec: strides have one entry per shortcut block, a number or a pair of two equal numbers. The method may also be
            "average".

    Raises:
        ValueError: as `checked_strides`, or a pair has two different strides.

    Example:
        >>> import torch
        >>> series(NetworkSpec(5, in_channels=2, width=4, method="inner"))(torch.zeros(3, 2, 100)).shape
        torch.Size([3, 5])
    """
    pairs = checked_strides(spec, {SHORTCUTS: SHRINKING}, (2,) * SHORTCUTS, METHODS)
    for along, other in pairs:
        if along != other:
            raise ValueError(
                f"--strides of the model 'series' must be single numbers, since time is the only axis, "
                f"got {along:g}x{other:g}"
            )
    return SeriesNet(spec, [(along,) for along, _ in pairs])
