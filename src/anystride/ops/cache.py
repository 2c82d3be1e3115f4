"""What is remembered between calls because it follows from numbers alone: matrices, tables, orders of steps."""

import functools
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
K = TypeVar("K", bound=tuple[Any, ...])

_BYTES = 64 * 2**20
# What Python keeps for an entry beside its tensors' memory: its key, and the tensors as objects.
_OVERHEAD = 2 * 2**10


def remembered(function: Callable[..., T]) -> Callable[..., T]:
    """Remember the results of a function of hashable values; under a compiler it is called as it is."""
    cached = functools.lru_cache(4096)(function)

    @functools.wraps(function)
    def call(*values: Any) -> T:
        return function(*values) if torch.compiler.is_compiling() else cached(*values)

    return call


class TensorCache:
    """Tuples of tensors by key; the least recently used are dropped beyond a number of bytes."""

    def __init__(self, limit: int) -> None:
        self._limit, self._bytes = limit, 0
        self._entries: OrderedDict[object, Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: object, make: Callable[..., K], *arguments: Any) -> K:
        """The entry of a key; it is made by `make(*arguments)` where there is none."""
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key][0]  # type: ignore[no-any-return]  # what `make` gave for this key
        traced = torch.jit.is_tracing() or torch._C._are_functorch_transforms_active()  # type: ignore
        made: K = _untraced(make, arguments) if traced else _plainly(make, arguments)
        size = _size(made)
        if size is not None:
            with self._lock:
                if key not in self._entries:
                    self._bytes += size
                self._entries[key] = made, size
                while self._bytes > self._limit:
                    self._bytes -= self._entries.popitem(last=False)[1][1]
        return made

    def largest(self) -> int:
        """Bytes of the largest entry."""
        with self._lock:
            return max((size for _, size in self._entries.values()), default=0)


def _plainly(make: Callable[..., T], arguments: tuple[Any, ...]) -> T:
    # A tensor born in inference mode could not be used for training later.
    with torch.inference_mode(False), torch.no_grad():
        return make(*arguments)


def _untraced(make: Callable[..., T], arguments: tuple[Any, ...]) -> T:
    """`torch.jit.trace` and `torch.func` see their own thread alone: what another one makes is a constant to them."""
    made: list[T] = []
    thread = threading.Thread(target=lambda: made.append(_plainly(make, arguments)))
    thread.start()
    thread.join()
    return made[0]


def _size(entry: tuple[Any, ...]) -> int | None:
    """Bytes of an entry and its nested tuples; None if a tensor of a tracer (fake, functional), which must not stay."""
    size, left = _OVERHEAD, [entry]
    while left:
        for part in left.pop():
            if isinstance(part, Tensor):
                if type(part) is not Tensor:
                    return None
                size += part.nbytes
            elif isinstance(part, tuple):
                left.append(part)
    return size


matrices = TensorCache(_BYTES)
