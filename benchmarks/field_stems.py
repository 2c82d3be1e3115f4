"""Residual networks that downsample by other means than a plain strided convolution."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from field_examples import Collection, conv_bn

STEMS = Collection()
SMALL, OTHER = (2, 3, 32, 32), (2, 3, 48, 40)


def head(channels: int) -> nn.Sequential:
    """Ten classes from the mean of a map."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


class Bottleneck(nn.Module):
    """A block of a BagNet: kernels without padding, thus a shortcut that is cropped to the branch's size."""

    def __init__(self, inputs: int, outputs: int, stride: int, kernel: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, 4, 1, bias=False)
        self.conv2 = nn.Conv2d(4, 4, kernel, stride, padding=0, bias=False)
        self.conv3 = nn.Conv2d(4, outputs, 1, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.downsample = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.downsample(x)
        out = self.bn(self.conv3(F.relu(self.conv2(F.relu(self.conv1(x))))))
        if residual.size(-1) != out.size(-1):
            diff = residual.size(-1) - out.size(-1)
            residual = residual[:, :, :-diff, :-diff]
        out += residual
        return F.relu(out)


@STEMS.add("bagnet", "classifier", SMALL, (2, 3, 48, 48))
def bagnet() -> nn.Module:
    """Small receptive fields; shortcuts are cropped."""
    blocks = [Bottleneck(8, 8, 2, 3), Bottleneck(8, 16, 2, 3), Bottleneck(16, 16, 1, 1)]
    return nn.Sequential(nn.Conv2d(3, 8, 3), *blocks, head(16))


class StandardisedConv2d(nn.Conv2d):
    """A convolution whose weight is standardised at each call."""

    def forward(self, input: Tensor) -> Tensor:
        mean, std = self.weight.mean((1, 2, 3), keepdim=True), self.weight.std((1, 2, 3), keepdim=True)
        weight = (self.weight - mean) / (std + 1e-5)
        return F.conv2d(input, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class NormFreeBlock(nn.Module):
    """A block without norms; its shortcut is an average pooling and a 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int, beta: float) -> None:
        super().__init__()
        self.beta, self.stride = beta, stride
        self.conv1 = StandardisedConv2d(inputs, outputs, 3, stride=stride, padding=1)
        self.conv2 = StandardisedConv2d(outputs, outputs, 3, padding=1)
        self.projection = StandardisedConv2d(inputs, outputs, 1)
        self.gain = nn.Parameter(torch.tensor(0.2))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(x) * 1.7 / self.beta
        shortcut = self.projection(F.avg_pool2d(out, 2, self.stride) if self.stride > 1 else out)
        return self.conv2(F.relu(self.conv1(out)) * 1.7) * self.gain + shortcut


@STEMS.add("norm_free_resnet", "classifier", SMALL, OTHER)
def norm_free_resnet() -> nn.Module:
    """Weight standardisation instead of batch norm."""
    blocks = [NormFreeBlock(8, 8, 1, 1.0), NormFreeBlock(8, 16, 2, 1.1), NormFreeBlock(16, 16, 2, 1.2)]
    return nn.Sequential(StandardisedConv2d(3, 8, 3, padding=1), *blocks, head(16))


class BlurPool(nn.Module):
    """Binomial filter and decimation."""

    def __init__(self, channels: int, stride: int = 2) -> None:
        super().__init__()
        self.stride, self.channels = stride, channels
        a = torch.tensor([1.0, 2.0, 1.0])
        filt = a[:, None] * a[None, :]
        self.register_buffer("filt", (filt / filt.sum())[None, None].repeat(channels, 1, 1, 1))
        self.pad = nn.ReflectionPad2d(1)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(self.pad(x), self.filt, stride=self.stride, groups=x.shape[1])


class BlurBlock(nn.Module):
    """Blurs after the activation in the branch, and before the projection in the shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(conv_bn(inputs, outputs), BlurPool(outputs), nn.Conv2d(outputs, outputs, 3, 1, 1))
        self.shortcut = nn.Sequential(BlurPool(inputs), nn.Conv2d(inputs, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.branch(x) + self.shortcut(x))


@STEMS.add("blurpool_resnet", "classifier", SMALL, OTHER)
def blurpool_resnet() -> nn.Module:
    """Filters before each decimation, also after the max pooling of the stem."""
    stem = [conv_bn(3, 8), nn.MaxPool2d(2, stride=1), BlurPool(8)]
    return nn.Sequential(*stem, BlurBlock(8, 8), BlurBlock(8, 16), head(16))


class Focus(nn.Module):
    """Four slices as channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = conv_bn(4 * inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        parts = [x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]]
        return self.conv(torch.cat(parts, 1))


@STEMS.add("focus_stem", "classifier", SMALL, OTHER)
def focus_stem() -> nn.Module:
    """Slices at the start, strided convolutions after them."""
    return nn.Sequential(Focus(3, 8), conv_bn(8, 16, 2), conv_bn(16, 16, 2), head(16))


@STEMS.add("pixel_unshuffle_stem", "classifier", SMALL, OTHER)
def pixel_unshuffle_stem() -> nn.Module:
    """Space to depth by a module."""
    return nn.Sequential(nn.PixelUnshuffle(2), conv_bn(12, 8), conv_bn(8, 16, 2), nn.MaxPool2d(2), head(16))


class SpaceToDepth(nn.Module):
    """Blocks of samples become channels, by views and a permutation."""

    def __init__(self, block: int) -> None:
        super().__init__()
        self.bs = block

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.size()
        x = x.view(n, c, h // self.bs, self.bs, w // self.bs, self.bs)
        x = x.permute(0, 3, 5, 1, 2, 4).contiguous()
        return x.view(n, c * self.bs**2, h // self.bs, w // self.bs)


@STEMS.add("space_to_depth_stem", "classifier", SMALL, OTHER)
def space_to_depth_stem() -> nn.Module:
    """Space to depth at the start, and once more after a strided convolution, where it asks for even sizes."""
    return nn.Sequential(SpaceToDepth(2), conv_bn(12, 8, 2), SpaceToDepth(2), conv_bn(32, 16, 2), head(16))


class PatchMerging(nn.Module):
    """Four slices of a map with channels last, their norm, and a linear layer."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)
        self.norm = nn.LayerNorm(4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        _, h, w, _ = x.shape
        if h % 2 == 1 or w % 2 == 1:
            x = F.pad(x, (0, 0, 0, w % 2, 0, h % 2))
        x0, x1 = x[:, 0::2, 0::2, :], x[:, 1::2, 0::2, :]
        x2, x3 = x[:, 0::2, 1::2, :], x[:, 1::2, 1::2, :]
        return self.reduction(self.norm(torch.cat([x0, x1, x2, x3], -1)))


class WindowAttention(nn.Module):
    """Attention within windows; the map is padded to whole windows and cropped afterwards."""

    def __init__(self, dim: int, window: int = 4) -> None:
        super().__init__()
        self.window, self.heads = window, 2
        self.norm, self.qkv, self.proj = nn.LayerNorm(dim), nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.bias = nn.Parameter(torch.zeros(self.heads, window**2, window**2))

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, c = x.shape
        s = self.window
        y = F.pad(self.norm(x), (0, 0, 0, -w % s, 0, -h % s))
        rows, columns = y.shape[1] // s, y.shape[2] // s
        y = y.view(b, rows, s, columns, s, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, s * s, c)
        q, k, v = self.qkv(y).reshape(-1, s * s, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        y = ((q @ k.transpose(-2, -1)) / (c // self.heads) ** 0.5 + self.bias).softmax(-1) @ v
        y = self.proj(y.transpose(1, 2).reshape(-1, s * s, c))
        y = y.view(b, rows, columns, s, s, c).permute(0, 1, 3, 2, 4, 5).reshape(b, rows * s, columns * s, c)
        return x + y[:, :h, :w, :]


@STEMS.add("window_attention", "classifier", (2, 3, 64, 64), (2, 3, 96, 80))
class Windows(nn.Module):
    """A strided patch embedding, attention in windows, and merging by slices."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, 8, kernel_size=4, stride=4)
        self.stages = nn.ModuleList([WindowAttention(8), PatchMerging(8), WindowAttention(16), PatchMerging(16)])
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x).permute(0, 2, 3, 1)
        for stage in self.stages:
            x = stage(x)
        return self.head(x.flatten(1, 2).mean(1))


class DeformBlock(nn.Module):
    """A deformable convolution with stride; its offsets and mask come from a convolution with the same stride."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.offset = nn.Conv2d(inputs, 27, 3, stride=stride, padding=1)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3) * 0.1)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y, x_, mask = torch.chunk(self.offset(x), 3, dim=1)
        offset, mask = torch.cat((y, x_), 1), torch.sigmoid(mask)
        return deform_conv2d(x, offset, self.weight, self.bias, (self.stride, self.stride), (1, 1), mask=mask)


@STEMS.add("deformable_block", "classifier", SMALL, OTHER)
def deformable_block() -> nn.Module:
    """A strided stem, a strided deformable block, a strided convolution."""
    return nn.Sequential(conv_bn(3, 8, 2), DeformBlock(8, 8, 2), nn.ReLU(), conv_bn(8, 16, 2), head(16))
