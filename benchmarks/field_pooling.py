"""Small classifiers and agents, each with an unusual way to pool, to reduce or to flatten."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from field_examples import Collection, conv_bn
from field_stems import head

POOLING = Collection()
SMALL, OTHER = (2, 3, 32, 32), (2, 3, 48, 40)


class Reduction(nn.Module):
    """Strided convolutions beside a max pooling, without padding."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3 = nn.Conv2d(inputs, 8, kernel_size=3, stride=2)
        self.branch_double = nn.Sequential(conv_bn(inputs, 8, kernel=1), conv_bn(8, 8), nn.Conv2d(8, 8, 3, stride=2))

    def forward(self, x: Tensor) -> Tensor:
        branches = [self.branch3x3(x), self.branch_double(x), F.max_pool2d(x, kernel_size=3, stride=2)]
        return F.relu(torch.cat(branches, 1))


@POOLING.add("inception_reduction", "classifier", (2, 3, 47, 47), (2, 3, 63, 55))
def inception_reduction() -> nn.Module:
    """Two reduction blocks in a row."""
    return nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), Reduction(8), Reduction(24), head(40))


@POOLING.add("huge_average_pool", "classifier", SMALL, OTHER)
def huge_average_pool() -> nn.Module:
    """A global pooling written as a window larger than any map."""
    pool = nn.AvgPool2d(640, ceil_mode=True)
    return nn.Sequential(conv_bn(3, 8, 2), conv_bn(8, 16, 2), pool, nn.Flatten(), nn.Linear(16, 10))


@POOLING.add("power_pooling", "classifier", SMALL, OTHER)
class PowerPooling(nn.Module):
    """Power-average pooling as a module and as a function."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.pool = conv_bn(3, 8), conv_bn(8, 16), nn.LPPool2d(2, 2, stride=2)
        self.fc = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.conv1(x))
        x = F.lp_pool2d(self.conv2(x), norm_type=2, kernel_size=3, stride=2)
        return self.fc(x.mean([2, 3]))


@POOLING.add("dilated_max_pool", "classifier", SMALL, OTHER)
def dilated_max_pool() -> nn.Module:
    """Max poolings with dilation, one of them with indices that nobody uses."""
    pools = [nn.MaxPool2d(3, stride=2, padding=1, dilation=2), nn.MaxPool2d((3, 2), (2, 3), dilation=(1, 2))]
    return nn.Sequential(conv_bn(3, 8), pools[0], conv_bn(8, 16), pools[1], head(16))


@POOLING.add("derived_adaptive_pool", "classifier", SMALL, OTHER)
class DerivedAdaptive(nn.Module):
    """Adaptive pooling to half of what arrives."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = conv_bn(3, 8, 2), conv_bn(8, 8), conv_bn(8, 16, 2)
        self.head = head(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        h, w = x.shape[-2:]
        x = self.conv2(F.adaptive_avg_pool2d(x, (h // 2, w // 2)))
        return self.head(self.conv3(x))


@POOLING.add("pools_as_functions", "classifier", (2, 1, 16, 16, 16), (2, 1, 20, 16, 24))
class PoolsAsFunctions(nn.Module):
    """Poolings of one and three dimensions as functions, with and without a stride of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv3d, self.conv1d, self.fc = nn.Conv3d(1, 8, 3, padding=1), nn.Conv1d(8, 16, 3), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool3d(F.relu(self.conv3d(x)), 2)
        x = F.max_pool3d(x, (1, 2, 2)).flatten(2)
        x = F.max_pool1d(F.relu(self.conv1d(x)), 3, stride=2)
        x = F.avg_pool1d(x, kernel_size=2)
        return self.fc(F.adaptive_max_pool1d(x, 1).squeeze(-1))


@POOLING.add("nature_dqn", "classifier", (2, 4, 84, 84))
class NatureDQN(nn.Module):
    """Frames scaled in forward, no padding, and a linear layer whose width was found by running the trunk."""

    def __init__(self) -> None:
        super().__init__()
        first, second = nn.Conv2d(4, 8, 8, stride=4), nn.Conv2d(8, 16, 4, stride=2)
        last = [nn.Conv2d(16, 16, 3, stride=1), nn.ReLU(), nn.Flatten()]
        self.cnn = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), *last)
        with torch.no_grad():
            flat = self.cnn(torch.zeros(1, 4, 84, 84)).shape[1]
        self.q = nn.Sequential(nn.Linear(flat, 32), nn.ReLU(), nn.Linear(32, 6))

    def forward(self, observations: Tensor) -> Tensor:
        return self.q(self.cnn(observations.float() / 255.0))


class ImpalaBlock(nn.Module):
    """Two convolutions after activations, and the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv0, self.conv1 = (
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        inputs = x
        x = self.conv0(nn.functional.relu(x))
        x = self.conv1(nn.functional.relu(x))
        return x + inputs


class ImpalaStage(nn.Module):
    """Knows the shape of its output from integer arithmetic."""

    def __init__(self, shape: tuple[int, int, int], channels: int) -> None:
        super().__init__()
        self.shape = (channels, (shape[1] + 1) // 2, (shape[2] + 1) // 2)
        self.conv = nn.Conv2d(shape[0], channels, 3, padding=1)
        self.block0, self.block1 = ImpalaBlock(channels), ImpalaBlock(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(self.conv(x), kernel_size=3, stride=2, padding=1)
        x = self.block1(self.block0(x))
        assert x.shape[1:] == self.shape
        return x


@POOLING.add("impala", "classifier", (2, 3, 64, 64))
class Impala(nn.Module):
    """Stages that assert their shapes, and two heads."""

    def __init__(self) -> None:
        super().__init__()
        shape = (3, 64, 64)
        stages = []
        for channels in (4, 8, 8):
            stages.append(ImpalaStage(shape, channels))
            shape = stages[-1].shape
        self.network = nn.Sequential(*stages, nn.Flatten(), nn.ReLU(), nn.Linear(shape[0] * shape[1] * shape[2], 32))
        self.actor, self.critic = nn.Linear(32, 15), nn.Linear(32, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = F.relu(self.network(x / 255.0))
        return self.actor(hidden), self.critic(hidden)


class Expert(nn.Module):
    """One network of a mixture."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_bn(3, 8, 2, kernel), conv_bn(8, 8, 2, kernel))

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        maps = self.body(x)
        return maps, {"mean": maps.mean((2, 3))}


@POOLING.add("mixture", "classifier", SMALL, OTHER)
class Mixture(nn.Module):
    """Experts that return a map and a dictionary; their maps are stacked and weighed by a strided gate."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(Expert(kernel) for kernel in (3, 5))
        self.gate = nn.Sequential(nn.Conv2d(3, 2, 4, stride=4), nn.Softmax(1))
        self.fc = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Any]]:
        results = [expert(x) for expert in self.experts]
        maps = torch.stack([maps for maps, _ in results], 1)
        mixed = (maps * self.gate(x).unsqueeze(2)).sum(1)
        return self.fc(mixed.mean((-2, -1))), {"means": [more["mean"] for _, more in results]}
