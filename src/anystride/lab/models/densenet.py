"""DenseNet-BC for small images (appendix, Tables A.3 and A.4): its two transitions downsample."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import relu

from anystride.lab.models.downsample import PoolOptions, Stride, check, place, pooled
from anystride.lab.models.network import Network, linear_heads

DEPTH = 121
DENSE_BLOCKS = 3
LAYERS = (DEPTH - 4) // (2 * DENSE_BLOCKS)
"""In each dense block: a layer has two convolutions, and four more layers with weights are outside of the blocks."""
METHODS = ("average", "spectral", "outer", "inner")


class Transition(nn.Module):
    """Torchvision's transition with another pooling layer: norm, ReLU, 1x1 convolution, pooling."""

    def __init__(self, theirs: nn.Module, pool: nn.Module) -> None:
        super().__init__()
        self.norm, self.conv, self.pool = theirs.get_submodule("norm"), theirs.get_submodule("conv"), pool

    def forward(self, x: Tensor) -> Tensor:
        return pooled(self.pool, self.conv, relu(self.norm(x)))


class DenseNet(Network):
    """Stem, three dense blocks with transitions between them, norm, ReLU, global average, linear.

    The blocks are torchvision's: layers of a 1x1 convolution to 4k channels and a 3x3 convolution to k, the growth
    rate; transitions halve the channels. (N, in_channels, H, W) to logits (N, sum of heads).
    """

    def __init__(
        self,
        heads: int | Sequence[int],
        in_channels: int,
        growth_rate: int,
        downsampler: str,
        strides: Sequence[Stride],
        options: PoolOptions,
        layers: int = LAYERS,
    ) -> None:
        super().__init__()
        from torchvision.models import DenseNet as Torchvision

        channels = 2 * growth_rate
        parts = Torchvision(growth_rate, (layers,) * DENSE_BLOCKS, channels).features
        # Theirs is ImageNet's, with 7x7 convolution and pooling; here nothing comes between convolution and first norm.
        self.stem = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(self.stem.weight)
        stages = [nn.Sequential(parts.get_submodule("denseblock1"))]
        for number, stride in enumerate(strides, start=1):
            transition = Transition(parts.get_submodule(f"transition{number}"), place(downsampler, stride, options)[1])
            stages.append(nn.Sequential(transition, parts.get_submodule(f"denseblock{number + 1}")))
        self.stages = nn.Sequential(*stages)
        self.norm = parts.get_submodule("norm5")  # so they call the last norm, however many blocks there are
        assert isinstance(self.norm, nn.BatchNorm2d)
        self.classify = linear_heads(self.norm.num_features, heads)

    def forward(self, x: Tensor) -> Tensor:
        features = relu(self.norm(self.stages(self.stem(x)))).mean(dim=(2, 3))
        logits: Tensor = self.classify(features)
        return logits


def densenet_bc(
    heads: int | Sequence[int],
    in_channels: int = 3,
    width: int = 32,
    downsampler: str = "outer",
    strides: Sequence[float | Sequence[float]] = (2, 2),
    smoothness: float = 4.0,
    shared: bool = False,
) -> DenseNet:
    """Build a DenseNet-BC of depth 121 for small images; ``width`` is its growth rate, the paper's is 32.

    "A depth of 121" with two downsampling steps is read as Huang et al. build theirs for CIFAR: three equal blocks.
    That makes 19.5 layers each; 19 are taken, rounding down as implementations do, so that 118 layers have weights.
    ``strides`` has one entry per transition. ``downsampler`` is "average", "spectral", "outer" or "inner"; average
    pooling has a window as large as its stride. The other arguments and the errors are those of `resnet18`.

    >>> import torch
    >>> densenet_bc(10, width=2, downsampler="average")(torch.zeros(1, 3, 32, 32)).shape
    torch.Size([1, 10])
    """
    pairs = check(downsampler, strides, {DENSE_BLOCKS - 1: "one per transition"}, width, shared, METHODS)
    return DenseNet(heads, in_channels, width, downsampler, pairs, PoolOptions(smoothness, shared))
