"""A model as it was: what a forward pass does to it is undone, whatever a model keeps and wherever it keeps it."""

import contextlib
import random
import sys
from collections import deque
from collections.abc import Iterator
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from anystride.resample import Place
from anystride.stride import HasStride
from anystride.trees import map_tensors

# How deep containers within attributes are looked into (a list of dictionaries), and up to how many entries.
_DEPTH, _WIDTH = 3, 10_000
_MODULE = frozenset(vars(nn.Module()))
_ATOMS = (int, float, str, bytes, tuple, type, FunctionType, MethodType, ModuleType, nn.Module)
_TENSOR_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")


class Snapshot:
    """Everything that modules hold, kept when it is made and put back by `put_back`.

    That is each module's class, attributes, parameters, buffers, children and hooks, what lists, dictionaries, sets,
    arrays and objects among the attributes hold, what such containers in the modules' classes hold, and the flags,
    gradients and hooks of tensors. All of it is put back into the very objects that held it.

    Two things stay as a pass left them: attributes of places (`resample.Place`), whose job it is to note sizes, and
    lazy modules that the pass has given their shapes.

    Args:
        model: any module.
        values: also keep the values of all tensors, for a pass with data.
    """

    def __init__(self, model: nn.Module, values: bool) -> None:
        self.containers: list[tuple[Any, Any]] = []
        self._kinds: list[tuple[nn.Module, type]] = []
        self._tensors: list[tuple[Tensor, Tensor | None, bool, Tensor | None, list[dict[int, Any]]]] = []
        self._generators: list[tuple[Any, Any]] = []
        self._seen: set[int] = set()
        self._values = values
        classes: dict[type, None] = {}
        for module in model.modules():
            if is_lazy(module):
                continue
            self._kinds.append((module, type(module)))
            classes.update(dict.fromkeys(type(module).__mro__))
            if isinstance(module, Place):
                for name in _MODULE:
                    self._keep(module.__dict__.get(name), 1)
            else:
                self._keep(module.__dict__, 0)
        for kind in classes:
            if not kind.__module__.startswith(("torch.", "builtins", "anystride.")):
                for name, value in vars(kind).items():
                    if not name.startswith("__") and isinstance(value, (dict, list, set, deque)):
                        self._keep(value, 1)

    def _keep(self, value: Any, depth: int) -> None:
        if value is None or isinstance(value, _ATOMS) or id(value) in self._seen:
            if type(value) is tuple and depth < _DEPTH:
                for child in value:
                    self._keep(child, depth + 1)
            return
        self._seen.add(id(value))
        if isinstance(value, Tensor):
            self._keep_tensor(value)
        elif isinstance(value, (dict, list, deque)):
            self.containers.append((value, dict(value) if isinstance(value, dict) else list(value)))
            if depth < _DEPTH and len(value) <= _WIDTH:
                for child in value.values() if isinstance(value, dict) else value:
                    self._keep(child, depth + 1)
        elif isinstance(value, set):
            self.containers.append((value, set(value)))
        elif isinstance(value, (torch.Generator, random.Random)):
            state = value.get_state() if isinstance(value, torch.Generator) else value.getstate()
            self._generators.append((value, state))
        elif _is_array(value):
            self.containers.append((value, value.copy()))
        elif isinstance(getattr(value, "__dict__", None), dict) and depth < _DEPTH:
            self._keep(value.__dict__, depth + 1)

    def _keep_tensor(self, tensor: Tensor) -> None:
        grad = tensor.grad if tensor.is_leaf else None
        kept = tensor.detach().clone() if self._values and not tensor.is_meta else None
        hooks = [dict(getattr(tensor, name, None) or {}) for name in _TENSOR_HOOKS]
        self._tensors.append((tensor, kept, tensor.requires_grad, grad, hooks))

    def take_gradients_away(self) -> None:
        """What a model adds to gradients by itself goes to others, which `put_back` forgets."""
        for tensor, *_ in self._tensors:
            if tensor.is_leaf and tensor.grad is not None:
                tensor.grad = None

    def put_back(self) -> None:
        """Let the model be what it was."""
        for module, kind in self._kinds:
            if type(module) is not kind:
                module.__class__ = kind
        for container, before in self.containers:
            _put_back(container, before)
        for tensor, kept, flag, grad, hooks in self._tensors:
            if kept is not None and not _is_equal(tensor, kept):
                _set_value(tensor, kept)
            if tensor.requires_grad != flag:
                tensor.requires_grad_(flag)
            if grad is not None or (tensor.is_leaf and tensor.grad is not None):
                tensor.grad = grad
            for name, known in zip(_TENSOR_HOOKS, hooks, strict=True):
                now = getattr(tensor, name, None)
                if now is not None:
                    _put_back(now, known)
        for generator, state in self._generators:
            set_state = generator.set_state if isinstance(generator, torch.Generator) else generator.setstate
            set_state(state)


@contextlib.contextmanager
def untouched(model: nn.Module, meta: bool) -> Iterator[None]:
    """A context in which a model may be run; afterwards it is what it was, and so are random states.

    Args:
        model: any module.
        meta: all its tensors are without data meanwhile, but for the strides that sizes follow from.
    """
    with _same_random_states():
        snapshot = Snapshot(model, values=not meta)
        try:
            snapshot.take_gradients_away()
            if meta:
                _take_data_away(model, snapshot)
            yield
        finally:
            snapshot.put_back()


def is_lazy(module: nn.Module) -> bool:
    """Whether a module gets its shapes from the first map that it sees."""
    return isinstance(module, LazyModuleMixin) and module.has_uninitialized_params()


def _take_data_away(model: nn.Module, snapshot: Snapshot) -> None:
    """Put a tensor without data in the place of each that a snapshot knows."""
    strides = {id(module.stride) for module in model.modules() if isinstance(module, HasStride)}
    made: dict[int, Tensor] = {}

    def emptied(tensor: Tensor) -> Tensor:
        if id(tensor) in strides or tensor.is_meta:
            return tensor
        if id(tensor) not in made:
            empty = tensor.detach().to("meta")
            made[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
        return made[id(tensor)]

    for container, before in snapshot.containers:
        if isinstance(container, (dict, list, deque)):
            for key, value in before.items() if isinstance(before, dict) else enumerate(before):
                if isinstance(value, Tensor) or (type(value) is tuple and any(isinstance(v, Tensor) for v in value)):
                    container[key] = map_tensors(emptied, value)


@contextlib.contextmanager
def _same_random_states() -> Iterator[None]:
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    numpy: Any = sys.modules.get("numpy")
    python, array = random.getstate(), None if numpy is None else numpy.random.get_state()
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            random.setstate(python)
            if numpy is not None:
                numpy.random.set_state(array)


def _put_back(container: Any, before: Any) -> None:
    """Give a container what it held, if it holds anything else now."""
    if isinstance(container, dict):
        pairs = zip(container.items(), before.items(), strict=False)
        if len(container) != len(before) or any(a is not c or b is not d for (a, b), (c, d) in pairs):
            container.clear()
            container.update(before)
    elif isinstance(container, (list, deque)):
        if len(container) != len(before) or any(a is not b for a, b in zip(container, before, strict=True)):
            container.clear()
            container.extend(before)
    elif isinstance(container, set):
        if container != before:
            container.clear()
            container.update(before)
    elif container.tobytes() != before.tobytes():
        container[...] = before


def _is_array(value: Any) -> bool:
    numpy: Any = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray) and value.dtype != object


def _is_equal(tensor: Tensor, kept: Tensor) -> bool:
    same = tensor.shape == kept.shape and tensor.dtype == kept.dtype and tensor.device == kept.device
    return same and torch.equal(tensor, kept)


@torch.no_grad()
def _set_value(tensor: Tensor, kept: Tensor) -> None:
    if tensor.shape == kept.shape and tensor.dtype == kept.dtype and tensor.device == kept.device:
        tensor.copy_(kept)
    else:
        tensor.data = kept
