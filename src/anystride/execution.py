"""One forward pass of a model, seen operation by operation, on tensors that have shapes but no data."""

import contextlib
import functools
import inspect
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils._python_dispatch import TorchDispatchMode

from anystride.convolution import OBSERVES
from anystride.layers import DiffStrideNd
from anystride.recurrent import recurrent_as_one
from anystride.snapshot import is_lazy, untouched
from anystride.spectral import SpectralPoolNd
from anystride.trees import map_tensors
from anystride.trees import tensors as tensors
from anystride.upsample import SpectralUpsampleNd

TAG = "_anystride_tag"
E = TypeVar("E", bound="Execution")
aten = torch.ops.aten
ALONE = threading.RLock()
"""Held by what looks at a model in a pass, which takes its tensors and hooks away: one thread after another."""


# Torch takes them apart where there is no data, which is half of the time that a pass takes.
_NORMS = {aten.native_batch_norm.default, aten._native_batch_norm_legit.default}


def _normalised(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), x.new_empty(0), x.new_empty(0)


class NeedsDataError(RuntimeError):
    """A model looks at values, and cannot run on tensors without data. This says nothing about sizes."""


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
        return self.call(func, args, kwargs)

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one operation.

        Raises:
            NeedsDataError: it refuses tensors without data, whatever their sizes.
        """
        if func in _NORMS and args[0].is_meta and args[3] is not None and args[3].shape[0] == args[0].shape[1]:
            return _normalised(args[0])
        try:
            return func(*args, **kwargs)
        except Exception as error:
            if lacks_data(error):
                raise NeedsDataError(f"{func} needs data: {error}") from error
            raise

    def entered(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Called before a module runs."""

    def left(self, name: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """Called after a module has run; a result other than None takes the place of its output."""

    def given(self, inputs: list[Tensor]) -> None:
        """Called with the tensors that the model is given."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if _reads_data(func, args, kwargs):
            raise NeedsDataError(f"{func} reads data, and its tensors have none")
        return self.operation(func, args, kwargs)

    def run(self, model: nn.Module, example: Any, *, training: bool, meta: bool = True) -> Any:
        """Run `model` on `example` once; it stays as it was.

        Args:
            model: any module.
            example: a tensor, a tuple of positional or a mapping of keyword arguments.
            training: the mode for all modules but normalisation, whose statistics are never touched.
            meta: on tensors without data, so that nothing is computed; else for real, on a copy of the example.

        Raises:
            NeedsDataError: with `meta`, where the reason is that there is no data.
            ValueError: the model is spread over processes.
        """
        if any(map(_is_sharded, model.modules())):
            raise ValueError(
                "model must be whole, and FSDP has sharded it: convert it before it is wrapped, and take macs of a "
                "copy that is not"
            )
        if meta and any(map(is_lazy, model.modules())):
            raise NeedsDataError("lazy modules get their shapes from data")
        args, kwargs = map_tensors(_without_data if meta else _copy, arguments(example))
        self.stack.clear()
        self.given(tensors((args, kwargs)))
        with contextlib.ExitStack() as stack, torch.no_grad():
            stack.enter_context(ALONE)  # two passes would put back what each other left
            quiet = untouched(model, meta), mode_of(model, training), self._hooks(model), recurrent_as_one(model)
            for context in (*quiet, self):
                stack.enter_context(context)
            try:
                return model(*args, **kwargs)
            except Exception as error:
                if meta and lacks_data(error) and not isinstance(error, NeedsDataError):
                    raise NeedsDataError(f"model needs data: {error}") from error
                raise

    @contextlib.contextmanager
    def _hooks(self, model: nn.Module) -> Iterator[None]:
        names = {module: name for name, module in reversed(list(model.named_modules()))}

        def enter(module: nn.Module, args: tuple[Any, ...]) -> None:
            self.stack.append((names[module], module))
            self.entered(names[module], module, args)

        def leave(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            if kwargs and isinstance(module, DiffStrideNd | SpectralPoolNd | SpectralUpsampleNd):
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

    It cannot where it looks at values, or where an operation of its own knows no such tensors. Whatever fails without
    data is tried with data: only what fails then is an error of the model.
    """
    execution = make()
    try:
        execution.run(model, example, training=training)
    except Exception:
        execution = make()
        execution.run(model, example, training=training, meta=False)
    return execution


def lacks_data(error: Exception) -> bool:
    """Whether an error says that there is no data, or nothing that could work without; else it may be about sizes."""
    return isinstance(error, (NeedsDataError, NotImplementedError)) or bool(_NO_DATA.search(str(error)))


def arguments(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of a call, from an example input in any of its forms.

    A mapping holds keyword arguments and a tuple positional ones; anything else is one argument, also a list, a
    dataclass and a named tuple.
    """
    if isinstance(example, Mapping):
        return (), dict(example)
    if isinstance(example, tuple) and not hasattr(example, "_fields"):
        return example, {}
    return (example,), {}


def positional(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """All arguments of a call of a module by position, also those that were left out."""
    bound = inspect.signature(type(module).forward).bind(module, *args, **kwargs)
    bound.apply_defaults()
    return bound.args[1:]


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


# What torch says where tensors without data meet others, or an operation or a library that knows none.
_NO_DATA = re.compile(r"\bmeta\b|\bfake impl\b", re.IGNORECASE)
_NEEDS_VALUES = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)


def _reads_data(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether an operation's result or its size depends on values that are not there."""
    reads, works = _needs(func)
    if not reads and works:
        return False
    if func.overloadpacket is aten.index and not any(t.dtype in (torch.bool, torch.uint8) for t in tensors(args[1])):
        return False
    if kwargs.get("output_size") is not None:  # of repeat_interleave
        return False
    return any(t.is_meta for t in tensors((args, kwargs)))


@functools.cache
def _needs(func: Any) -> tuple[bool, bool]:
    """Whether an operation reads values, and whether it has a kernel for tensors without data."""
    works = torch._C._dispatch_has_computed_kernel_for_dispatch_key(func.name(), "Meta")
    return any(tag in func.tags for tag in _NEEDS_VALUES), bool(works)


def _is_sharded(module: nn.Module) -> bool:
    wrapper = type(module).__name__ == "FullyShardedDataParallel"
    return wrapper or any(hasattr(parameter, "full_tensor") for parameter in module._parameters.values())


def _without_data(tensor: Tensor) -> Tensor:
    return tensor.detach().to("meta")


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().clone()
