"""DenseNet-BC for small images (appendix, Tables A.3 and A.4): its two transitions downsample."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import relu

from anystride.lab.models.downsample import Stride, checked_strides, conv_stride_and_pool, pooled
from anystride.lab.models.network import Network, linear_heads
from anystride.lab.models.spec import NetworkSpec

DEPTH = 121
DENSE_BLOCKS = 3
LAYERS = (DEPTH - 4) // (2 * DENSE_BLOCKS)
"""In each dense block: a layer has two convolutions, and four more layers with weights are outside of the blocks."""
METHODS = ("average", "spectral", "outer", "inner", "cosine")


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

    def __init__(self, spec: NetworkSpec, strides: Sequence[Stride], layers: int = LAYERS) -> None:
        super().__init__()
        from torchvision.models import DenseNet as Torchvision

        channels = 2 * spec.width
        parts = Torchvision(spec.width, (layers,) * DENSE_BLOCKS, channels).features
        # Theirs is ImageNet's, with 7x7 convolution and pooling; here nothing comes between convolution and first norm.
        self.stem = nn.Conv2d(spec.in_channels, channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(self.stem.weight)
        stages = [nn.Sequential(parts.get_submodule("denseblock1"))]
        for number, stride in enumerate(strides, start=1):
            _, pool = conv_stride_and_pool(spec, stride)
            transition = Transition(parts.get_submodule(f"transition{number}"), pool)
            stages.append(nn.Sequential(transition, parts.get_submodule(f"denseblock{number + 1}")))
        self.stages = nn.Sequential(*stages)
        self.norm = parts.get_submodule("norm5")  # torchvision's name of the last norm, however many blocks there are
        assert isinstance(self.norm, nn.BatchNorm2d)
        self.classify = linear_heads(self.norm.num_features, spec.heads)

    def forward(self, x: Tensor) -> Tensor:
        features = relu(self.norm(self.stages(self.stem(x)))).mean(dim=(2, 3))
        logits: Tensor = self.classify(features)
        return logits


def densenet_bc(spec: NetworkSpec) -> DenseNet:
    """Build a DenseNet-BC of depth 121 for small images.

    "A depth of 121" with two downsampling steps is read as Huang et al. build theirs for CIFAR: three equal blocks.
    That makes 19.5 layers each; 19 are taken, rounded down as implementations do. Then 118 layers have weights.

    Args:
        spec: strides have one entry per transition. The width is the growth rate; the paper's is 32. The method is
            "average", "spectral", "outer", "inner" or "cosine"; the window of average pooling is as large as its
            stride.

    Raises:
        ValueError: as `checked_strides`.

    Example:
        >>> import torch
        >>> densenet_bc(NetworkSpec(10, width=2, method="average"))(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 10])
    """
    counts = {DENSE_BLOCKS - 1: "one per transition"}
    return DenseNet(spec, checked_strides(spec, counts, (2, 2), METHODS))
