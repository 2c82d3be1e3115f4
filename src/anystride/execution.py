"""One forward pass of a model, seen operation by operation, on tensors that have shapes but no data."""

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from anystride.convolution import OBSERVES
from anystride.layers import DiffStrideNd, SpectralPoolNd
from anystride.resample import Place

TAG = "_anystride_tag"
E = TypeVar("E", bound="Execution")


class NeedsDataError(RuntimeError):
    """A model cannot run on tensors without data."""


class Execution(TorchDispatchMode):
    """Sees each operation of a forward pass, and which module called it. Subclasses say what they want to know.

    Attributes:
        stack: names and modules of the calls that are under way, the innermost last.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.stack: list[tuple[str, nn.Module]] = []

    def operation(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one operation and return its result, or another in its place."""
        return func(*args, **kwargs)

    def entered(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Called before a module runs."""

    def left(self, name: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """Called after a module has run; a result other than None takes the place of its output."""

    def given(self, inputs: list[Tensor]) -> None:
        """Called with the tensors that the model is given."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return self.operation(func, args, kwargs or {})

    def run(self, model: nn.Module, example: Any, *, training: bool, meta: bool = True) -> Any:
        """Run `model` on `example` once; it stays as it was.

        Args:
            model: any module.
            example: a tensor, a tuple of positional or a mapping of keyword arguments.
            training: the mode for all modules but normalisation, whose statistics are never touched.
            meta: on tensors without data, so that nothing is computed; else for real.
        """
        args, kwargs = arguments(example)
        if meta:
            args, kwargs = tree_map(_to_meta, (args, kwargs))
        self.stack.clear()
        self.given(tensors((args, kwargs)))
        state = _without_data(model) if meta else contextlib.nullcontext()
        quiet = (state, mode_of(model, training), _attributes_of(model, meta), self._hooks(model))
        with contextlib.ExitStack() as stack, torch.no_grad(), torch.random.fork_rng([]):
            for context in (*quiet, self):
                stack.enter_context(context)
            return model(*args, **kwargs)

    @contextlib.contextmanager
    def _hooks(self, model: nn.Module) -> Iterator[None]:
        names = {module: name for name, module in reversed(list(model.named_modules()))}

        def enter(module: nn.Module, args: tuple[Any, ...]) -> None:
            self.stack.append((names[module], module))
            self.entered(names[module], module, args)

        def leave(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            if kwargs and isinstance(module, DiffStrideNd | SpectralPoolNd):
                args = positional(module, args, kwargs)
            replaced = self.left(names[module], module, args, output)
            self.stack.pop()
            return replaced

        setattr(enter, OBSERVES, True)
        setattr(leave, OBSERVES, True)
        handles = []
        for module in names:
            handles.append(module.register_forward_pre_hook(enter, prepend=True))
            handles.append(module.register_forward_hook(leave, with_kwargs=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def run_once(make: Callable[[], E], model: nn.Module, example: Any, *, training: bool) -> E:
    """Run a model under an execution without data, or for real where it cannot run so, and return the execution.

    It cannot where it looks at values, or holds tensors that are neither parameters nor buffers.
    """
    execution = make()
    try:
        execution.run(model, example, training=training)
    except Exception:
        execution = make()
        execution.run(model, example, training=training, meta=False)
    return execution


def arguments(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of a call, from an example input in any of its forms."""
    if isinstance(example, Mapping):
        return (), dict(example)
    if isinstance(example, tuple):
        return example, {}
    return (example,), {}


def positional(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """All arguments of a call of a module by position, also those that were left out."""
    bound = inspect.signature(type(module).forward).bind(module, *args, **kwargs)
    bound.apply_defaults()
    return bound.args[1:]


def tensors(tree: Any) -> list[Tensor]:
    """All tensors in nested arguments or results."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _to_meta(value: Any) -> Any:
    return value.detach().to("meta") if isinstance(value, Tensor) else value


@contextlib.contextmanager
def _without_data(model: nn.Module) -> Iterator[None]:
    """Put a tensor without data in the place of each parameter and buffer, but for strides: sizes follow from them.

    `torch.func.functional_call` would leave them there in a module that has two names.
    """
    strides = {id(module.stride) for module in model.modules() if isinstance(module, DiffStrideNd)}
    made: dict[int, Tensor] = {}
    before: list[tuple[dict[str, Any], str, Tensor]] = []
    try:
        for module in model.modules():
            stores: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
            for store in stores:
                for name, tensor in store.items():
                    if tensor is None or id(tensor) in strides:
                        continue
                    if id(tensor) not in made:
                        empty = tensor.detach().to("meta")
                        isparameter = isinstance(tensor, nn.Parameter)
                        made[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if isparameter else empty
                    before.append((store, name, tensor))
        for store, name, tensor in before:
            store[name] = made[id(tensor)]
        yield
    finally:
        for store, name, tensor in before:
            store[name] = tensor


@contextlib.contextmanager
def mode_of(model: nn.Module, training: bool) -> Iterator[None]:
    """All modules in one mode, but normalisation always in evaluation; afterwards each as it was."""
    before = {module: module.training for module in model.modules()}
    try:
        for module in before:
            module.training = training and not isinstance(module, _NormBase)
        yield
    finally:
        for module, flag in before.items():
            module.training = flag


@contextlib.contextmanager
def _attributes_of(model: nn.Module, meta: bool) -> Iterator[None]:
    """What a forward pass notes on its modules is forgotten: a tensor kept from a pass has no data, or another size."""
    skipped = (Place, DiffStrideNd, SpectralPoolNd, nn.modules.lazy.LazyModuleMixin)
    before = [(m, dict(m.__dict__), dict(m._buffers)) for m in model.modules() if not isinstance(m, skipped)]
    try:
        if meta:
            for module, kept, _ in before:
                module.__dict__.update({k: _to_meta(v) for k, v in kept.items() if isinstance(v, Tensor)})
        yield
    finally:
        for module, kept, buffers in before:
            module.__dict__.clear()
            module.__dict__.update(kept)
            module._buffers.clear()
            module._buffers.update(buffers)
