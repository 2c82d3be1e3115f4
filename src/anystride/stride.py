"""What a stride parameter is: its range, its projection onto it, and its value on the host."""

import functools
import math
import weakref
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from anystride.decay import watch_optimisers
from anystride.ops.axes import LearnedAxis
from anystride.ops.cache import remembered
from anystride.ops.cosine import Cosine
from anystride.ops.window import band, stride_bounds


@remembered
def bounds_of(
    lengths: tuple[int, ...], smoothness: tuple[float, ...], ramp: str | Cosine
) -> tuple[tuple[float, float], ...]:
    """The range of the stride of each axis of so many samples."""
    return tuple([stride_bounds(n, width, ramp) for n, width in zip(lengths, smoothness, strict=True)])


@remembered
def learned_axes(
    lengths: tuple[int, ...],
    strides: tuple[float, ...],
    smoothness: tuple[float, ...],
    ramp: str | Cosine,
    norm: str,
    learns: bool,
    sizes: tuple[int, ...] | None = None,
) -> tuple[LearnedAxis, ...]:
    """What a layer does to axes of so many samples, whose output sizes may be given."""
    held = (None,) * len(lengths) if sizes is None else sizes
    each_axis = zip(lengths, strides, smoothness, held, strict=True)
    return tuple([LearnedAxis.of(band(n, stride, width, ramp, h), norm, learns) for n, stride, width, h in each_axis])


class HasStride(nn.Module):
    """A module with a stride parameter, (n,) or (1,) if all axes share it, float32 whatever the model's type.

    Any optimiser may step the parameter anywhere. Its value in use is clamped to what the map can take, the gradient
    passes the clamp, and each backward pass brings a value that has left the range back to its end.
    """

    spatial_dims: ClassVar[int]
    stride: nn.Parameter
    smoothness: tuple[float, ...]
    kind: str | Cosine

    def __init__(self, start: Sequence[float], device: torch.device | str | None) -> None:
        super().__init__()
        self._start = tuple(start)
        self.stride = nn.Parameter(torch.tensor(self._start, dtype=torch.float32, device=device))
        # The parameter that carries our hook, in a tuple, or the module would list it as a second parameter.
        self._watched: tuple[nn.Parameter] | None = None
        # Its version and values when the host last read them.
        self._host: tuple[tuple[int, int], tuple[float, ...]] | None = None
        # Values when this process last saw all of them, for a parameter that is spread over processes.
        self._last = self._start
        # What its maps could take since the last backward pass, per axis.
        self._bounds: tuple[tuple[float, float], ...] | None = None
        self._projected = False

    def reset_parameters(self) -> None:
        """Put the stride back to its initial value."""
        with torch.no_grad():
            self.stride.copy_(torch.tensor(self._start))

    def effective_stride(self) -> Tensor:
        """The stride in use, (n,) or (1,) as the parameter: clamped to what the last maps could take.

        Its gradient passes the clamp. Under `fully_shard` all processes must ask for it together.

        Raises:
            RuntimeError: FSDP holds the parameter in parts; ask within its `summon_full_params`.
        """
        stride: Any = self.stride
        if hasattr(stride, "full_tensor"):
            stride = stride.full_tensor()
        elif not self._is_whole(stride):
            raise RuntimeError(
                "stride is held in parts by FullyShardedDataParallel: ask for it within "
                "`with FullyShardedDataParallel.summon_full_params(model):`"
            )
        value: Tensor = stride.detach()
        clamped = [part.clamp(low, high) for part, (low, high) in zip(value.split(1), self._range(), strict=True)]
        whole: Tensor = torch.cat(clamped) + (stride - value)
        return whole

    def stride_values(self) -> tuple[float, ...]:
        """The parameter's values on the host, one per axis.

        Of a parameter that is spread over processes: those of the last call, where it was whole.

        Raises:
            ValueError: one is NaN.
        """
        stride: Any = self.stride
        if hasattr(stride, "to_local"):
            stride = stride.to_local()
        if stride.is_cpu and isinstance(stride, nn.Parameter) and stride.numel() == len(self._start):
            values = tuple(stride.detach().tolist())
            if values != self._last:
                self._last = values
        elif stride.is_meta:
            values = self._start
        elif torch._C._are_functorch_transforms_active():  # its tensors have no address
            values = _values(stride)
        elif not self._is_whole(stride):
            values = self._last
        else:
            values = self._on_host(stride)
            if values != self._last:
                self._last = values
        if any(map(math.isnan, values)):
            raise ValueError(f"stride is {values}: training has diverged; lower the learning rate (or only stride_lr)")
        return values * (self.spatial_dims // len(values))

    def _on_host(self, stride: Tensor) -> tuple[float, ...]:
        if stride.is_cpu:
            return tuple(stride.detach().tolist())
        version = stride._version, stride.data_ptr()
        if self._host is None or self._host[0] != version:
            self._host = version, tuple(stride.detach().tolist())
        return self._host[1]

    def _is_whole(self, stride: Tensor) -> bool:
        """Whether this process holds all values: FSDP keeps a part of them, or a view of memory that it gave back."""
        if stride.numel() != len(self._start):
            return False
        return isinstance(stride, nn.Parameter) or stride.untyped_storage().nbytes() > 0

    def _range(self) -> list[tuple[float, float]]:
        """Bounds per entry of the parameter, as wide as any axis that it serves allows."""
        bounds = list(self._bounds or [(1.0, math.inf)] * self.spatial_dims)
        if len(self._start) == 1:
            return [(min(low for low, _ in bounds), max(high for _, high in bounds))]
        return bounds

    def _watch(self, lengths: tuple[int, ...]) -> None:
        """Remember what a map of so many samples can take, together with others since the last backward pass."""
        bounds = bounds_of(lengths, self.smoothness, self.kind)
        if self._bounds is not None and not self._projected and self._bounds != bounds:
            bounds = tuple([(min(a, c), max(b, d)) for (a, b), (c, d) in zip(bounds, self._bounds, strict=True)])
        self._bounds, self._projected = bounds, False
        stride = self.stride
        if self._watched is not None and self._watched[0] is stride:
            return
        if stride.is_leaf and stride.requires_grad and isinstance(stride, nn.Parameter):
            # A hook that owned the layer would keep it alive: the parameter belongs to the layer, out of sight of gc.
            project = weakref.WeakMethod(self._project)
            stride.register_post_accumulate_grad_hook(functools.partial(_project_if_alive, project))
            self._watched = (stride,)
            watch_optimisers(is_stride)

    @torch.no_grad()
    def _project(self, stride: Tensor) -> None:
        """Before the optimiser steps: start its step from within the range."""
        for value, (low, high) in zip(stride.split(1), self._range(), strict=True):
            value.clamp_(low, high)
        self._projected = True

    def __getstate__(self) -> dict[str, Any]:
        """Without what belongs to this very parameter: a copy has its own."""
        return {**self.__dict__, "_watched": None, "_host": None}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "HasStride":
        def keep_float32(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == torch.float32 else tensor.to(moved.device)

        super()._apply(keep_float32, recurse)  # type: ignore[no-untyped-call]
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        if self.stride.dtype != torch.float32:  # load_state_dict(assign=True) brings the file's type
            self.stride = nn.Parameter(self.stride.detach().float(), self.stride.requires_grad)


def _values(stride: Tensor) -> tuple[float, ...]:
    try:
        return tuple(stride.detach().tolist())
    except RuntimeError as error:
        raise RuntimeError(
            "sizes follow the values of strides, which torch.func.vmap hides: map over samples, and loop over models"
        ) from error


def is_stride(parameter: Tensor) -> bool:
    """Whether a layer learns it as a stride: then it carries the layer's hook."""
    hooks = getattr(parameter, "_post_accumulate_grad_hooks", None) or {}
    return any(getattr(hook, "func", None) is _project_if_alive for hook in hooks.values())


def _project_if_alive(project: "weakref.WeakMethod[Any]", stride: Tensor) -> None:
    alive = project()
    if alive is not None:
        alive(stride)
