"""The paper's network for sound (section 3.1): convolutions along time and along frequency in turn."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from anystride.lab.models.downsample import Stride, checked_strides, conv_stride_and_pool, pooled
from anystride.lab.models.network import Network, linear_heads
from anystride.lab.models.spec import NetworkSpec

CHANNELS = (64, 128, 256, 256, 512, 512)
"""Of the six blocks, at the paper's width of 64."""
STRIDES: tuple[Stride, ...] = ((2, 2), (2, 2), (1, 1), (2, 2), (1, 1), (2, 2))


class AudioBlock(nn.Module):
    """A 3x1 convolution along time and a 1x3 convolution along frequency, each with ReLU and then batch normalisation.

    The convolutions take the stride of their own axis, or one pooling layer takes both strides. Where it sits is a
    reading: the paper speaks of one layer that downsamples "along frequency and time axes" (Table 2) and replaces a
    strided convolution by one without stride, followed by DiffStride (Figure 2b). Thus it follows the second
    convolution, before its ReLU. A stride of 1 is one to learn from, too.

    Shapes: (N, channels_in, time, frequency) to (N, channels_out, t, f), with (t, f) decided by the downsampler.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: Stride, spec: NetworkSpec) -> None:
        super().__init__()
        (along_time, along_frequency), self.pool = conv_stride_and_pool(spec, stride)
        self.conv_time = nn.Conv2d(channels_in, channels_out, (3, 1), stride=(along_time, 1), padding=(1, 0))
        self.norm_time = nn.BatchNorm2d(channels_out)
        self.conv_frequency = nn.Conv2d(channels_out, channels_out, (1, 3), stride=(1, along_frequency), padding=(0, 1))
        self.norm_frequency = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm_time(self.conv_time(x).relu())
        y: Tensor = self.norm_frequency(pooled(self.pool, self.conv_frequency, x).relu())
        return y


class AudioNet(Network):
    """Six blocks, the maximum over the map, a linear head per task: (N, in_channels, time, frequency) to logits."""

    def __init__(self, spec: NetworkSpec, strides: Sequence[Stride]) -> None:
        super().__init__()
        channels = [spec.in_channels, *(max(1, each * spec.width // 64) for each in CHANNELS)]
        blocks = zip(channels, channels[1:], strides, strict=False)
        self.stages = nn.Sequential(*(AudioBlock(before, after, stride, spec) for before, after, stride in blocks))
        self.classify = linear_heads(channels[-1], spec.heads)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classify(self.stages(x).amax(dim=(2, 3)))
        return logits


def audio(spec: NetworkSpec) -> AudioNet:
    """Build the network for log-mel spectrograms (N, in_channels, time, frequency) of any length.

    Args:
        spec: strides have one entry per block, a number or a (time, frequency) pair; 64 is the paper's width.

    Raises:
        ValueError: as `checked_strides`.

    Example:
        >>> import torch
        >>> spec = NetworkSpec([10, 2], in_channels=1, width=4, strides=(2, 2, 1, 2, 1, 2))
        >>> audio(spec)(torch.zeros(3, 1, 98, 64)).shape
        torch.Size([3, 12])
    """
    return AudioNet(spec, checked_strides(spec, {len(CHANNELS): "one per block"}, STRIDES))
