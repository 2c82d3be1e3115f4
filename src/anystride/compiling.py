"""What a compiler sees of a layer: all where its sizes stand still, nothing where they follow a parameter."""

import inspect
import sys
from collections.abc import Callable

import torch
from torch import Tensor

FOLLOW = (
    "sizes follow a learned stride, which no graph can hold: call anystride.freeze_(model, example_input) before an "
    "export; grid='fixed' keeps sizes, and compiles while strides learn"
)
"""Why a layer whose grid is not fixed is not exported."""


def outside_graphs(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The function, kept out of a compiler's graphs.

    Sizes follow from a parameter's value: a compiler would pin the value and compile anew every step, where outside of
    its graphs it sees no more than a map whose size sometimes changes. Without a compiler, which takes a second to
    import, the function is returned as it is.
    """
    if "torch._dynamo" not in sys.modules:
        return function
    if function not in _outside:
        tells = "reason" in inspect.signature(torch.compiler.disable).parameters  # from PyTorch 2.8 on
        _outside[function] = torch.compiler.disable(function, **{"reason": FOLLOW} if tells else {})
    return _outside[function]


_outside: dict[Callable[..., Tensor], Callable[..., Tensor]] = {}


def exporting() -> bool:
    """Whether torch.export runs."""
    return torch.compiler.is_exporting()
