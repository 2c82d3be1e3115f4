"""What a model is now, as a value: all that the course of a pass on given sizes can depend on, but for its strides."""

import functools
import weakref
from collections import deque
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from anystride.resample import Place
from anystride.snapshot import is_lazy
from anystride.stride import HasStride

_OWN = frozenset(vars(nn.Module()))
# Attributes in which learned layers note what they saw; their strides count by the sizes that they give.
_NOTES = {
    HasStride: frozenset({"_watched", "_host", "_bounds", "_projected", "_held", "_last"}),
    Place: frozenset({"seen"}),
}
_NUMBERS = frozenset({int, float, bool, str, type(None)})
_VALUES = (int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size, slice, range, Enum, type)


class Same:
    """An object as a part of a value: equal to itself only, and to nothing once it is gone."""

    def __init__(self, value: Any) -> None:
        self.value = weakref.ref(value)

    def __eq__(self, other: object) -> bool:
        mine = self.value()
        return isinstance(other, Same) and mine is not None and mine is other.value()


def structure(model: nn.Module) -> tuple[Any, ...]:
    """The modules of a model: classes, children, shapes of tensors, and attributes.

    Nothing is told by `id`, which another object may have later, and no model is kept alive. An attribute that is
    neither a value nor a container of values counts by identity: what changes within it goes unnoticed.

    Returns:
        A value to be compared with `==`; it is the same as long as nothing changes in place.
    """
    modules = list(model.modules())
    numbers = {id(module): number for number, module in enumerate(modules)}
    return tuple([_module(module, numbers) for module in modules])


def _module(module: nn.Module, numbers: dict[int, int]) -> tuple[Any, ...]:
    kind: Any = type(module)
    children = [(name, numbers.get(id(child))) for name, child in module._modules.items()]
    if is_lazy(module):
        return kind, children
    tensors = [
        None if t is None else (t.shape, t.dtype, t.device)
        for store in (module._parameters, module._buffers)
        for t in store.values()
    ]
    known = _known(kind)
    # A call per attribute would take as long as all else.
    own = [
        (name, value if type(value) in _NUMBERS else _value(value, 0))
        for name, value in module.__dict__.items()
        if name not in known
    ]
    # A learned layer is itself: costs have a slope with respect to its very stride.
    return kind, children, tensors, own, Same(module) if isinstance(module, HasStride) else None


@functools.cache
def _known(kind: Any) -> frozenset[str]:
    """Attributes of modules of a class that say nothing about a pass, or that stand elsewhere in the value."""
    return _OWN.union(*(names for noting, names in _NOTES.items() if issubclass(kind, noting)))


def _value(value: Any, depth: int) -> Any:
    kind = type(value)
    if kind is tuple and all(type(child) in _NUMBERS for child in value):
        return value
    if kind in _NUMBERS or isinstance(value, _VALUES):
        return value
    if isinstance(value, Tensor):
        return value.shape, value.dtype, value.device
    if isinstance(value, nn.Module):
        return type(value)
    if isinstance(value, (tuple, list, deque, dict)) and depth < 3:
        if isinstance(value, dict):
            return type(value), [(_value(k, depth + 1), _value(v, depth + 1)) for k, v in value.items()]
        return type(value), [_value(child, depth + 1) for child in value]
    try:
        return Same(value)
    except TypeError:  # it cannot be referred to weakly
        return type(value)
