"""How the networks of the field are listed: a decorator gives a builder its name, its family and its inputs."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from examine import Network

Build = TypeVar("Build", bound=Callable[[], nn.Module])


def data(*shape: int) -> Tensor:
    """Numbers from a normal distribution."""
    return torch.randn(shape)


class Collection(dict[str, Network]):
    """Networks by name."""

    def add(self, name: str, family: str, first: Any, second: Any = None) -> Callable[[Build], Build]:
        """A decorator for what builds a network.

        Args:
            name: the network's name.
            family: what kind of network it is.
            first: the shape of the input, or a function without arguments that returns the call's arguments.
            second: the same at another size; None where the plain network takes one size only.
        """

        def example(scale: int) -> Any:
            wanted = (first, second)[scale]
            return data(*wanted) if isinstance(wanted, tuple) else wanted and wanted()

        def register(build: Build) -> Build:
            if name in self:
                raise ValueError(f"name {name!r} is taken; choose another")
            self[name] = Network(name, family, build, example)
            return build

        return register


def conv_bn(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    """A convolution with half its kernel as padding, its batch norm, and a ReLU in place."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def double_conv(inputs: int, outputs: int) -> nn.Sequential:
    """The two convolutions of a level of a U-Net."""
    return nn.Sequential(conv_bn(inputs, outputs), conv_bn(outputs, outputs))
