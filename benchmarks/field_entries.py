"""How rows of benchmarks/field.py are written: a class by its name, imported only when it is built; inputs by size."""

import importlib
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn

from examine import Network

Build = Callable[[], nn.Module]
Example = Callable[[int], Any]
SQUARE = ((3, 64, 64), (3, 96, 64))
LARGE = ((3, 128, 128), (3, 160, 128))
CUBE = ((1, 32, 32, 32), (1, 48, 32, 32))


def made(module: str, name: str, *args: Any, **kwargs: Any) -> Build:
    """`module.name(*args, **kwargs)`, imported when it is called."""
    return lambda: attrgetter(name)(importlib.import_module(module))(*args, **kwargs)


def lively(build: Build) -> Build:
    """The same with weights that signals survive, where the library's own let them fade."""

    def again() -> nn.Module:
        model = build()
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                nn.init.kaiming_normal_(parameter.data)
            elif name.endswith("weight"):
                nn.init.ones_(parameter.data)
        return model

    return again


def noise(sizes: Sequence[Sequence[int]]) -> Example:
    """A batch of two, at the first or second size."""
    return lambda scale: torch.randn(2, *sizes[scale])


def named(**examples: Example | Tensor | int) -> Example:
    """Keyword arguments, some of which depend on the size."""
    return lambda scale: {key: value(scale) if callable(value) else value for key, value in examples.items()}


def several(*examples: Example | Tensor | int) -> Example:
    """Positional arguments, some of which depend on the size."""
    return lambda scale: tuple(value(scale) if callable(value) else value for value in examples)


def table(*networks: Network) -> dict[str, Network]:
    """Networks by name."""
    return {network.name: network for network in networks}
