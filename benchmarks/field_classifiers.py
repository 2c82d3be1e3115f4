"""Classifiers without residual connections, and poolings of every kind."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from field_examples import Collection, conv_bn
from field_stems import head

CLASSIFIERS = Collection()
SMALL, OTHER = (2, 3, 32, 32), (2, 3, 48, 40)


class DenseLayer(nn.Module):
    """A bottleneck whose output joins its input."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, 4 * growth, 1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(4 * growth), nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(F.relu(self.bn1(x)))
        out = self.conv2(F.relu(self.bn2(out)))
        return torch.cat([out, x], 1)


class Transition(nn.Module):
    """Halves channels and map."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.bn, self.conv = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(self.conv(F.relu(self.bn(x))), 2)


@CLASSIFIERS.add("densenet_bc", "classifier", SMALL, (2, 3, 44, 44))
class DenseNet(nn.Module):
    """Three dense blocks; the root pools eight by eight samples."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.dense1, self.trans1 = nn.Sequential(DenseLayer(8, 4), DenseLayer(12, 4)), Transition(16, 8)
        self.dense2, self.trans2 = nn.Sequential(DenseLayer(8, 4), DenseLayer(12, 4)), Transition(16, 8)
        self.dense3 = nn.Sequential(DenseLayer(8, 4), DenseLayer(12, 4))
        self.bn, self.linear = nn.BatchNorm2d(16), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        out = self.trans1(self.dense1(self.conv1(x)))
        out = self.dense3(self.trans2(self.dense2(out)))
        out = torch.squeeze(F.avg_pool2d(F.relu(self.bn(out)), 8))
        return self.linear(out)


@CLASSIFIERS.add("vgg16", "classifier", SMALL, (2, 3, 48, 48))
class VGG(nn.Module):
    """Layers from a list of numbers and the letter M; an average pooling of one sample at the end."""

    cfg = (4, 4, "M", 8, 8, "M", 8, 8, 8, "M", 8, 8, 8, "M", 16, 16, 16, "M")

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for item in self.cfg:
            if isinstance(item, str):
                layers += [nn.MaxPool2d(kernel_size=2, stride=2)]
            else:
                layers += [nn.Conv2d(channels, item, 3, padding=1), nn.BatchNorm2d(item), nn.ReLU(inplace=True)]
                channels = item
        layers += [nn.AvgPool2d(kernel_size=1, stride=1)]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        out = self.features(x)
        out = out.view(out.size(0), -1)
        return self.classifier(out)


@CLASSIFIERS.add("lenet5", "classifier", (2, 1, 28, 28))
class LeNet(nn.Module):
    """Poolings as functions; `view(-1, n)` before the first linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(16 * 5 * 5, 120), nn.Linear(120, 84), nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), (2, 2))
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = x.view(-1, self.num_flat_features(x))
        return F.log_softmax(self.fc3(F.relu(self.fc2(F.relu(self.fc1(x))))), dim=1)

    def num_flat_features(self, x: Tensor) -> int:
        """The number of values of one image."""
        count = 1
        for size in x.size()[1:]:
            count *= size
        return count


@CLASSIFIERS.add("alexnet", "classifier", (2, 3, 127, 127))
class AlexNet(nn.Module):
    """A first stride of four, overlapping max poolings, local response norms, three linear layers."""

    def __init__(self) -> None:
        super().__init__()
        first = [nn.Conv2d(3, 8, 11, stride=4, padding=2), nn.ReLU(True), nn.LocalResponseNorm(5), nn.MaxPool2d(3, 2)]
        second = [nn.Conv2d(8, 16, 5, padding=2, groups=2), nn.ReLU(True), nn.LocalResponseNorm(5), nn.MaxPool2d(3, 2)]
        third = [nn.Conv2d(16, 8, 3, padding=1), nn.ReLU(True), nn.MaxPool2d(kernel_size=3, stride=2)]
        self.features = nn.Sequential(*first, *second, *third)
        self.classifier = nn.Sequential(nn.Dropout(), nn.Linear(8 * 3 * 3, 32), nn.ReLU(True), nn.Linear(32, 10))

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        return self.classifier(x.view(x.size(0), 8 * 3 * 3))


@CLASSIFIERS.add("network_in_network", "classifier", SMALL, (2, 3, 36, 36))
class NiN(nn.Module):
    """1x1 convolutions, poolings of two kinds with ceil_mode, and as many maps as classes at the end."""

    def __init__(self) -> None:
        super().__init__()
        first = [nn.Conv2d(3, 8, 5, padding=2), nn.ReLU(True), nn.Conv2d(8, 8, 1), nn.ReLU(True)]
        first += [nn.MaxPool2d(3, stride=2, ceil_mode=True), nn.Dropout(inplace=True)]
        second = [nn.Conv2d(8, 8, 5, padding=2), nn.ReLU(True), nn.Conv2d(8, 8, 1), nn.ReLU(True)]
        second += [nn.AvgPool2d(3, stride=2, ceil_mode=True), nn.Dropout(inplace=True)]
        third = [nn.Conv2d(8, 10, 3, padding=1), nn.ReLU(True), nn.AvgPool2d(8, stride=1)]
        self.classifier = nn.Sequential(*first, *second, *third)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(x).mean((2, 3)) if x.shape[-1] != 32 else self.classifier(x).view(x.size(0), 10)


class Fire(nn.Module):
    """Squeeze, then expand by two kernels."""

    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze, self.squeeze_activation = nn.Conv2d(inputs, squeeze, 1), nn.ReLU(inplace=True)
        self.expand1x1, self.expand3x3 = nn.Conv2d(squeeze, expand, 1), nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze_activation(self.squeeze(x))
        return torch.cat([F.relu(self.expand1x1(x)), F.relu(self.expand3x3(x))], 1)


@CLASSIFIERS.add("squeezenet", "classifier", (2, 3, 64, 64), (2, 3, 97, 80))
def squeezenet() -> nn.Module:
    """Fire modules between max poolings with ceil_mode."""
    pools = [nn.MaxPool2d(kernel_size=3, stride=2, ceil_mode=True) for _ in range(3)]
    layers = [nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(inplace=True), pools[0], Fire(8, 4, 8), pools[1], Fire(16, 4, 8)]
    classes = [nn.Dropout(0.5), nn.Conv2d(16, 10, 1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten()]
    return nn.Sequential(*layers, pools[2], *classes)


def depthwise(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """A depthwise and a pointwise convolution."""
    depth = [nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False), nn.BatchNorm2d(inputs), nn.ReLU(True)]
    return nn.Sequential(*depth, nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(True))


@CLASSIFIERS.add("mobilenet_v1", "classifier", (2, 3, 64, 64))
class MobileNetV1(nn.Module):
    """Depthwise separable layers and an average pooling of a fixed size."""

    def __init__(self) -> None:
        super().__init__()
        layers = [depthwise(8, 8, 1), depthwise(8, 16, 2), depthwise(16, 16, 2), depthwise(16, 16, 1)]
        self.model = nn.Sequential(conv_bn(3, 8, 2), *layers, nn.AvgPool2d(8))
        self.fc = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.model(x)
        x = x.view(-1, 16)
        return self.fc(x)


class InvertedResidual(nn.Module):
    """Expands, filters, projects; adds its input if the stride is one."""

    def __init__(self, inputs: int, outputs: int, stride: int, expand: int) -> None:
        super().__init__()
        self.use_res_connect = stride == 1 and inputs == outputs
        hidden = inputs * expand
        filters = nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False)
        middle = [filters, nn.BatchNorm2d(hidden), nn.ReLU6(inplace=True)]
        last = [nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.conv = nn.Sequential(nn.Conv2d(inputs, hidden, 1, bias=False), nn.BatchNorm2d(hidden), *middle, *last)

    def forward(self, x: Tensor) -> Tensor:
        if self.use_res_connect:
            return x + self.conv(x)
        return self.conv(x)


@CLASSIFIERS.add("mobilenet_v2", "classifier", SMALL, OTHER)
def mobilenet_v2() -> nn.Module:
    """Inverted residuals from a table."""
    layers: list[nn.Module] = [conv_bn(3, 8, 2)]
    channels = 8
    for t, c, n, s in [(1, 8, 1, 1), (4, 8, 2, 2), (4, 16, 2, 2)]:
        for i in range(n):
            layers.append(InvertedResidual(channels, c, s if i == 0 else 1, t))
            channels = c
    return nn.Sequential(*layers, conv_bn(channels, 32, kernel=1), head(32))


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Interleave the channels of groups."""
    b, c, h, w = x.size()
    x = x.view(b, groups, c // groups, h, w)
    x = torch.transpose(x, 1, 2).contiguous()
    return x.view(b, -1, h, w)


class ShuffleBlock(nn.Module):
    """Two branches with a stride, or half of the channels passed on."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        half = channels if stride > 1 else channels // 2
        self.branch1 = depthwise(channels, half, stride) if stride > 1 else nn.Sequential()
        self.branch2 = nn.Sequential(conv_bn(half, half, kernel=1), *depthwise(half, half, stride))

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            x1, x2 = x.chunk(2, dim=1)
            out = torch.cat((x1, self.branch2(x2)), dim=1)
        else:
            out = torch.cat((self.branch1(x), self.branch2(x)), dim=1)
        return channel_shuffle(out, 2)


@CLASSIFIERS.add("shufflenet_v2", "classifier", (2, 3, 64, 64), (2, 3, 80, 96))
def shufflenet_v2() -> nn.Module:
    """Channel splits and shuffles."""
    stages = [ShuffleBlock(8, 2), ShuffleBlock(16, 1), ShuffleBlock(16, 2), ShuffleBlock(32, 1)]
    return nn.Sequential(conv_bn(3, 8, 2), nn.MaxPool2d(3, 2, 1), *stages, head(32))


class Inception(nn.Module):
    """Four branches of one resolution."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.b1, self.b2 = conv_bn(inputs, 4, kernel=1), nn.Sequential(conv_bn(inputs, 4, kernel=1), conv_bn(4, 4))
        self.b3 = nn.Sequential(conv_bn(inputs, 4, kernel=1), conv_bn(4, 4, kernel=5))
        self.b4 = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1, ceil_mode=True), conv_bn(inputs, 4, kernel=1))

    def forward(self, x: Tensor) -> Tensor:
        outputs: list[Any] = [self.b1(x), self.b2(x), self.b3(x), self.b4(x)]
        return torch.cat(outputs, 1)


@CLASSIFIERS.add("googlenet", "classifier", (2, 3, 64, 64), (2, 3, 90, 75))
def googlenet() -> nn.Module:
    """Max poolings with ceil_mode between Inception blocks."""
    stem = [conv_bn(3, 8, 2, 7), nn.MaxPool2d(3, stride=2, ceil_mode=True), conv_bn(8, 16)]
    middle = [nn.MaxPool2d(3, stride=2, ceil_mode=True), Inception(16)]
    return nn.Sequential(*stem, *middle, nn.MaxPool2d(2, stride=2, ceil_mode=True), Inception(16), head(16))
