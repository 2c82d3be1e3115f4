"""The paper's network for sound (section 3.1): convolutions along time and along frequency in turn."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from anystride.lab.models.downsample import PoolOptions, Stride, check, place, pooled
from anystride.lab.models.network import Network, linear_heads

CHANNELS = (64, 128, 256, 256, 512, 512)
"""Of the six blocks, at the paper's width of 64."""
STRIDES: tuple[Stride, ...] = ((2, 2), (2, 2), (1, 1), (2, 2), (1, 1), (2, 2))


class AudioBlock(nn.Module):
    """A 3x1 convolution along time and a 1x3 convolution along frequency, each with ReLU and then batch normalisation.

    The convolutions take the stride of their own axis, or one pooling layer takes both strides. Where it sits is a
    reading: the paper speaks of one layer that downsamples "along frequency and time axes" (Table 2) and replaces a
    strided convolution by one without stride, followed by DiffStride (Figure 2b). So it follows the second
    convolution, before its ReLU. A stride of 1 is one to learn from, too.

    Shapes: (N, channels_in, time, frequency) to (N, channels_out, t, f), with (t, f) decided by the downsampler.
    """

    def __init__(
        self, channels_in: int, channels_out: int, stride: Stride, downsampler: str, options: PoolOptions
    ) -> None:
        super().__init__()
        (along_time, along_frequency), self.pool = place(downsampler, stride, options)
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

    def __init__(
        self,
        heads: int | Sequence[int],
        in_channels: int,
        width: int,
        downsampler: str,
        strides: Sequence[Stride],
        options: PoolOptions,
    ) -> None:
        super().__init__()
        channels = [in_channels, *(max(1, each * width // 64) for each in CHANNELS)]
        blocks = zip(channels, channels[1:], strides, strict=False)
        self.stages = nn.Sequential(
            *(AudioBlock(before, after, stride, downsampler, options) for before, after, stride in blocks)
        )
        self.classify = linear_heads(channels[-1], heads)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classify(self.stages(x).amax(dim=(2, 3)))
        return logits


def audio(
    heads: int | Sequence[int],
    in_channels: int = 1,
    width: int = 64,
    downsampler: str = "outer",
    strides: Sequence[float | Sequence[float]] = STRIDES,
    smoothness: float = 4.0,
    shared: bool = False,
) -> AudioNet:
    """Build the network for log-mel spectrograms (N, in_channels, time, frequency) of any length.

    ``heads`` is the number of classes of each task. ``strides`` has one entry per block, a number or a (time,
    frequency) pair; 64 is the paper's ``width``. The other arguments and the errors are those of `resnet18`.

    >>> import torch
    >>> audio([10, 2], width=4, strides=(2, 2, 1, 2, 1, 2))(torch.zeros(3, 1, 98, 64)).shape
    torch.Size([3, 12])
    """
    pairs = check(downsampler, strides, {len(CHANNELS): "one per block"}, width, shared)
    return AudioNet(heads, in_channels, width, downsampler, pairs, PoolOptions(smoothness, shared))
