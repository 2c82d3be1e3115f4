"""RNN, LSTM and GRU as one operation each: without data, torch would run hundreds of small ones per sequence."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

NAME = "recurrent"
_LAYERS = ("lstm", "gru", "rnn_tanh", "rnn_relu")
_CELLS = tuple(f"{name}_cell" for name in _LAYERS)
_FUNCTIONS = {getattr(torch, name): name for name in (*_LAYERS, *_CELLS)}
_SCHEMA = (
    f"{NAME}(str name, Tensor input, Tensor? batch_sizes, Tensor[] hx, Tensor[] params, bool has_biases, "
    "int num_layers, bool bidirectional, bool batch_first) -> Tensor[]"
)


@contextmanager
def recurrent_as_one(model: nn.Module) -> Iterator[None]:
    """A context in which torch's recurrent functions are seen as calls of `operation()`, if a model has such layers."""
    if any(isinstance(module, nn.RNNBase | nn.RNNCellBase) for module in model.modules()):
        with _AsOne():
            yield
    else:
        yield


def multiply_accumulates(args: tuple[Any, ...]) -> int:
    """Of a call of `operation()`: each matrix of weights is multiplied with each position of the sequences once."""
    x: Tensor = args[1]
    params: list[Tensor] = args[4]
    positions = x.numel() // x.shape[-1]
    return positions * sum(p.numel() for p in params if p.dim() > 1)


@functools.cache
def operation() -> Any:
    """The operation: recurrent layers and cells by the name of torch's function, for tensors with and without data."""
    library = torch.library.Library("anystride", "FRAGMENT")
    library.define(_SCHEMA)
    library.impl(NAME, _run, "CompositeExplicitAutograd")
    _libraries.append(library)  # what it defines lives as long as it does
    return torch.ops.anystride.recurrent.default


_libraries: list[torch.library.Library] = []


class _AsOne(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = _FUNCTIONS.get(func)
        if name is None or kwargs:
            return func(*args, **(kwargs or {}))
        if name in _CELLS:
            x, hx, *params = args
            results = operation()(name, x, None, _listed(hx), [p for p in params if p is not None], len(params) > 2,
                                  1, False, False)  # fmt: skip
            return tuple(results) if len(results) > 1 else results[0]
        packed = isinstance(args[3], list | tuple)
        x, batch_sizes, hx, params, has_biases, layers = (args[0], args[1] if packed else None, *args[1 + packed :][:4])
        two_ways, batch_first = args[7 + packed], not packed and args[8]
        call = name, x, batch_sizes, _listed(hx), list(params), has_biases, layers, two_ways, batch_first
        return tuple(operation()(*call))


def _listed(hx: Any) -> list[Tensor]:
    return [hx] if isinstance(hx, Tensor) else list(hx)


def _run(
    name: str,
    x: Tensor,
    batch_sizes: Tensor | None,
    hx: list[Tensor],
    params: list[Tensor],
    has_biases: bool,
    num_layers: int,
    bidirectional: bool,
    batch_first: bool,
) -> list[Tensor]:
    if not x.is_meta:
        return _with_data(name, x, batch_sizes, hx, params, has_biases, num_layers, bidirectional, batch_first)
    if x.shape[-1] != params[0].shape[1]:
        raise RuntimeError(f"input has {x.shape[-1]} features, and the weights are for {params[0].shape[1]}")
    last = [x.new_empty(state.shape) for state in hx]
    if name in _CELLS:
        return last
    batch = x.shape[0 if batch_first else 1] if batch_sizes is None else None
    if batch is not None and any(state.shape[1] != batch for state in hx):
        raise RuntimeError(f"hidden state is for {hx[0].shape[1]} sequences, got {batch}")
    return [x.new_empty(*x.shape[:-1], hx[0].shape[-1] * (1 + bidirectional)), *last]


def _with_data(
    name: str, x: Tensor, batch_sizes: Tensor | None, hx: list[Tensor], params: list[Tensor], *more: Any
) -> list[Tensor]:
    function, state = getattr(torch, name), hx if name.startswith("lstm") else hx[0]
    if name in _CELLS:
        given = function(x, state, *params)
    else:
        has_biases, layers, two_ways, batch_first = more
        # Without dropout: what is random says nothing about a model.
        sequence, first = ((x,), (batch_first,)) if batch_sizes is None else ((x, batch_sizes), ())
        given = function(*sequence, state, params, has_biases, layers, 0.0, False, two_ways, *first)
    # An operation must not give out its arguments.
    return [result.clone() for result in ([given] if isinstance(given, Tensor) else given)]
