"""What `torch.compile` sees of a layer: nothing where its sizes follow a parameter, all where they stand still."""

import functools
from typing import Any

import torch
from torch import Tensor, nn

from anystride.ops.matrix import tables


class InGraph:
    """The forward of a layer whose sizes stand still: a compiler sees its `inside`."""

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        layer: Any = self.layer
        if torch.compiler.is_compiling():
            inside: Tensor = layer.inside(*args, **kwargs)
            return inside
        outside: Tensor = type(layer).forward(layer, *args, **kwargs)
        return outside


def join_graphs(layer: nn.Module, joins: bool) -> None:
    """Let one layer be in `torch.compile`'s graphs although its kind is not (`leave_graphs`), or not any more."""
    layer.__dict__.pop("forward", None)
    if joins:
        layer.forward = InGraph(layer)


@functools.cache
def leave_graphs(layer: type[nn.Module]) -> None:
    """Keep a kind of learned layer out of `torch.compile`'s graphs.

    Their sizes follow from a parameter's value: a compiler would pin the value and compile anew every step, where
    outside of its graphs it sees no more than a map whose size sometimes changes. This is done when the first layer is
    made and not in a decorator, because it imports the compiler, which takes a second.
    """
    layer.forward = torch.compiler.disable(layer.forward)
    torch.compiler.assume_constant_result(tables)
