"""Residual networks in the ways in which people write them."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from field_examples import Collection, conv_bn

RESIDUAL = Collection()
SMALL, OTHER = (2, 3, 32, 32), (2, 3, 48, 40)


class Lambda(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class CifarBlock(nn.Module):
    """Two convolutions; the shortcut is a slice with padded channels (option A) or a 1x1 convolution (option B)."""

    def __init__(self, inputs: int, planes: int, stride: int, option: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride=1, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut: nn.Module = nn.Sequential()
        if stride != 1 or inputs != planes:
            if option == "A":
                more = (planes - inputs) // 2
                self.shortcut = Lambda(lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, more, more), "constant", 0))
            else:
                projection = nn.Conv2d(inputs, planes, 1, stride=stride, bias=False)
                self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(planes))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return F.relu(out)


class CifarResNet(nn.Module):
    """Three or four groups of blocks; the root calls the last pooling as a function."""

    def __init__(self, planes: tuple[int, ...], option: str) -> None:
        super().__init__()
        self.in_planes = planes[0]
        self.option = option
        self.conv1 = nn.Conv2d(3, planes[0], 3, stride=1, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes[0])
        for number, width in enumerate(planes, 1):
            setattr(self, f"layer{number}", self._make_layer(width, 2, 1 if number == 1 else 2))
        self.depth = len(planes)
        self.linear = nn.Linear(planes[-1], 10)

    def _make_layer(self, planes: int, blocks: int, stride: int) -> nn.Sequential:
        layers = []
        for step in [stride] + [1] * (blocks - 1):
            layers.append(CifarBlock(self.in_planes, planes, step, self.option))
            self.in_planes = planes
        return nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        for number in range(1, self.depth + 1):
            out = getattr(self, f"layer{number}")(out)
        out = F.avg_pool2d(out, out.size()[3] if self.option == "A" else 4)
        out = out.view(out.size(0), -1)
        return self.linear(out)


@RESIDUAL.add("cifar_resnet_slices", "classifier", SMALL, (2, 3, 48, 48))
def cifar_resnet_slices() -> nn.Module:
    """Option A, as in the paper's experiments on CIFAR."""
    return CifarResNet((4, 8, 16), "A")


@RESIDUAL.add("cifar_resnet_projections", "classifier", SMALL, (2, 3, 40, 40))
def cifar_resnet_projections() -> nn.Module:
    """Option B with four groups and a pooling of four by four samples at the end."""
    return CifarResNet((4, 8, 8, 16), "B")


class PreActBlock(nn.Module):
    """The norm comes first; only a block that changes its shape has an attribute `shortcut`."""

    def __init__(self, inputs: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(planes)
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        if stride != 1 or inputs != planes:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, planes, 1, stride, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(x))
        shortcut = self.shortcut(out) if hasattr(self, "shortcut") else x
        out = self.conv1(out)
        out = self.conv2(F.relu(self.bn2(out)))
        return out + shortcut


@RESIDUAL.add("preact_resnet", "classifier", SMALL, OTHER)
def preact_resnet() -> nn.Module:
    """A stack of pre-activation blocks."""
    blocks = [PreActBlock(4, 4), PreActBlock(4, 8, 2), PreActBlock(8, 8), PreActBlock(8, 16, 2)]
    stem = nn.Conv2d(3, 4, 3, 1, 1, bias=False)
    head = [nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)]
    return nn.Sequential(stem, *blocks, *head)


class WideBlock(nn.Module):
    """A block that overwrites its input where the channels change; the shortcut may be None."""

    def __init__(self, inputs: int, outputs: int, stride: int, drop_rate: float) -> None:
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.relu1, self.relu2 = nn.ReLU(inplace=True), nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, stride=1, padding=1, bias=False)
        self.drop_rate = drop_rate
        self.equal = inputs == outputs
        self.conv_shortcut = (not self.equal and nn.Conv2d(inputs, outputs, 1, stride, bias=False)) or None

    def forward(self, x: Tensor) -> Tensor:
        if not self.equal:
            x = self.relu1(self.bn1(x))
        else:
            out = self.relu1(self.bn1(x))
        out = self.relu2(self.bn2(self.conv1(out if self.equal else x)))
        if self.drop_rate > 0:
            out = F.dropout(out, p=self.drop_rate, training=self.training)
        out = self.conv2(out)
        return torch.add(x if self.conv_shortcut is None else self.conv_shortcut(x), out)


@RESIDUAL.add("wide_resnet", "classifier", SMALL, (2, 3, 44, 44))
class WideResNet(nn.Module):
    """Pools eight by eight samples and flattens by `view(-1, channels)`, which mixes images if a map stays larger."""

    def __init__(self) -> None:
        super().__init__()
        self.channels = 16
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.block1 = nn.Sequential(WideBlock(4, 8, 1, 0.0), WideBlock(8, 8, 1, 0.3))
        self.block2 = nn.Sequential(WideBlock(8, 12, 2, 0.0), WideBlock(12, 12, 1, 0.3))
        self.block3 = nn.Sequential(WideBlock(12, 16, 2, 0.0), WideBlock(16, 16, 1, 0.3))
        self.bn1, self.relu = nn.BatchNorm2d(16), nn.ReLU(inplace=True)
        self.fc = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        out = self.block3(self.block2(self.block1(self.conv1(x))))
        out = self.relu(self.bn1(out))
        out = F.avg_pool2d(out, 8)
        return self.fc(out.view(-1, self.channels))


class Residual(nn.Module):
    """The block of the following networks: a residual branch and a projection."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_bn(inputs, outputs, stride), nn.Conv2d(outputs, outputs, 3, padding=1))
        self.downsample = None if stride == 1 else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        return F.relu(self.body(x) + identity, inplace=True)


class Stages(nn.Module):
    """A stem, two groups that halve their maps, and a linear head on the mean."""

    block: Any = Residual

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8, 2)
        self.layer1 = nn.Sequential(self.block(8, 16, 2), self.block(16, 16, 1))
        self.layer2 = nn.Sequential(self.block(16, 16, 2), self.block(16, 16, 1))
        self.fc = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layer2(self.layer1(self.stem(x))).mean((2, 3)))


class DroppedResidual(Residual):
    """Stochastic depth: in training, the residual branch is sometimes not run at all."""

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        if self.training and torch.rand(1).item() < 0.5:
            return F.relu(identity)
        return F.relu(identity + self.body(x) * (1.0 if self.training else 0.5))


@RESIDUAL.add("stochastic_depth_resnet", "classifier", SMALL, OTHER)
class StochasticDepth(Stages):
    """Whole branches are skipped at random."""

    block = DroppedResidual


class SqueezeExcite(nn.Module):
    """One weight per channel from the mean of the map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Sequential(nn.Linear(channels, 4), nn.ReLU(inplace=True), nn.Linear(4, channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        b, c, _, _ = x.size()
        y = self.avg_pool(x).view(b, c)
        y = self.fc(y).view(b, c, 1, 1)
        return x * y.expand_as(x)


class SEResidual(Residual):
    """Squeeze and excitation before the addition."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(inputs, outputs, stride)
        self.body.append(SqueezeExcite(outputs))


@RESIDUAL.add("se_resnet", "classifier", SMALL, OTHER)
class SEResNet(Stages):
    """Squeeze and excitation in each block."""

    block = SEResidual


@RESIDUAL.add("checkpointed_resnet", "classifier", SMALL, OTHER)
class Checkpointed(Stages):
    """Recomputes its groups in the backward pass."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in (self.layer1, self.layer2):
            x = checkpoint(layer, x, use_reentrant=False) if self.training and x.requires_grad else layer(x)
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, (1, 1)), 1))


@RESIDUAL.add("early_exit_resnet", "classifier", SMALL, OTHER)
class EarlyExit(Stages):
    """A head after each stage; in evaluation the first that is sure of its answer ends the call."""

    def __init__(self) -> None:
        super().__init__()
        self.exit = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Any:
        x = self.layer1(self.stem(x))
        first = self.exit(x.mean((2, 3)))
        if not self.training and F.softmax(first, 1).max(1).values.min().item() > 0.9:
            return first
        last = self.fc(self.layer2(x).mean((2, 3)))
        return [first, last] if self.training else last
