"""Torch's functions that change the resolution, called in a user's `forward`: each at stride 1, then a place."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from anystride.checks import check_input, spatial_size
from anystride.geometry import Geometry, along

_POOL = ("input", "kernel_size", "stride", "padding")
_CONV = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")


def _functions(*names: str) -> list[Any]:
    """What torch exports under these names and a number of axes, wherever it does."""
    each = [name + axes for name in names for axes in ("1d", "2d", "3d")]
    return [getattr(space, name) for name in each for space in (F, torch, torch._C._nn) if hasattr(space, name)]


# Names of the arguments that may be given by position, as far as they are read here.
ARGUMENTS: dict[Any, tuple[str, ...]] = {
    **dict.fromkeys(_functions("max_pool"), (*_POOL, "dilation", "ceil_mode", "return_indices")),
    **dict.fromkeys(_functions("avg_pool"), (*_POOL, "ceil_mode", "count_include_pad", "divisor_override")),
    **dict.fromkeys(_functions("lp_pool"), ("input", "norm_type", "kernel_size", "stride", "ceil_mode")),
    **dict.fromkeys(_functions("conv"), _CONV),
}
ADAPTIVE = {
    **dict.fromkeys(_functions("adaptive_avg_pool"), F.avg_pool2d),
    **dict.fromkeys(_functions("adaptive_max_pool"), F.max_pool2d),
}
UNSHUFFLES = (F.pixel_unshuffle, torch.pixel_unshuffle)
INTERPOLATES = (F.interpolate, F.upsample)
ENLARGES = (*INTERPOLATES, F.pixel_shuffle, torch.pixel_shuffle, *_functions("conv_transpose"))


class UnknownFunctionError(RuntimeError):
    """A call that was to be converted is of a function that has no form at stride 1.

    Attributes:
        place: name of the place.
    """

    def __init__(self, place: str, function: Any) -> None:
        super().__init__(f"{place!r} was to be converted, but {name_of(function)} has no form at stride 1")
        self.place = place


def name_of(function: Any) -> str:
    """A function's name, in messages."""
    return getattr(function, "__name__", str(function))


def at_stride_one(place: Any, run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A layer at stride 1, then its place.

    Args:
        place: what stands at the layer's place.
        run: the layer at stride 1.
        x: (N, C, *spatial) or (C, *spatial).
    """
    check_input(x, None, 2)
    geometry: Geometry = place.geometry
    batch = x if x.dim() != len(geometry.stride) + 1 else x.unsqueeze(0)
    size = spatial_size(batch)
    missing = geometry.missing(size)
    if any(missing):  # windows that reached beyond the border: repeat the last samples
        batch_in = F.pad(batch, [n for samples in reversed(missing) for n in (0, samples)], mode="replicate")
    else:
        batch_in = batch
    y = place(run(batch_in), None, size)
    return y if batch is x else y.squeeze(0)  # type: ignore[no-any-return]


def alone(place: Any, x: Tensor) -> Tensor:
    """A place that takes a layer's place, on (N, C, *spatial) or (C, *spatial)."""
    y: Tensor = place(x) if x.dim() != len(place.geometry.stride) + 1 else place(x.unsqueeze(0)).squeeze(0)
    return y


def call(self: nn.Module, child: str, function: Any, *args: Any, **kwargs: Any) -> Any:
    """A call of a function in a `forward`, at stride 1, and its place.

    Args:
        self: whose `forward` it is.
        child: the name under which the place is registered.
        function: with its arguments as they stand in the `forward`.

    Raises:
        RuntimeError: the function has another stride than when the network was converted, or no form at stride 1.
    """
    place: Any = self._modules.get(child)
    if place is None:  # what only read its size is gone from a frozen network
        return function(*args, **kwargs)
    if place.mode is not None and function in (*ARGUMENTS, *INTERPOLATES):
        given = {**dict(zip(("input", "size", "scale_factor"), args, strict=False)), **kwargs}
        if function in INTERPOLATES and given.get("size") is not None:
            return function(*args, **kwargs)
        return alone(place, given["input"])
    if function in ARGUMENTS:
        given = {**dict(zip(ARGUMENTS[function], args, strict=False)), **kwargs}
        x = given.pop("input")
        steps = place.geometry.stride
        stride = spread(given.get("stride") or given.get("kernel_size", 1), len(steps))
        if stride != steps:
            if max(stride) == 1:
                return function(*args, **kwargs)
            raise RuntimeError(
                f"{place.name!r} was converted with stride {steps}, and {name_of(function)} is called with {stride}; "
                "convert with filter= so that this module stays"
            )
        given["stride"] = place.layer_stride
        if "ceil_mode" in given:
            given["ceil_mode"] = False
        return at_stride_one(place, lambda batch: function(batch, **given), x)
    if function in ADAPTIVE:
        pool = getattr(F, f"{ADAPTIVE[function].__name__[:-2]}{len(place.geometry.stride)}d")
        x = args[0] if args else kwargs["input"]
        return at_stride_one(place, lambda batch: pool(batch, place.geometry.stride, place.layer_stride), x)
    if function in UNSHUFFLES:
        x, factor = (*args, *kwargs.values())
        return at_stride_one(place, lambda batch: phases(batch, factor), x)
    if function in ENLARGES:
        return place(function(*args, **kwargs))
    with _Within(self, child) as within:
        y = function(*args, **kwargs)
    if within.met != 1:
        raise UnknownFunctionError(place.name, function)
    return y


class _Within(TorchFunctionMode):
    """Finds the call of torch within a function of the user's, and hands it to the place."""

    def __init__(self, owner: nn.Module, child: str) -> None:
        super().__init__()
        self.owner, self.child, self.met = owner, child, 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        place: Any = self.owner._modules[self.child]
        if func is Tensor.__getitem__:
            steps = steps_of(*args) if isinstance(args[0], Tensor) else None
            if steps is not None and steps.stride == place.geometry.stride:
                self.met += 1
                return decimate(self.owner, self.child, *args)
        elif func in ARGUMENTS or func in ADAPTIVE or func in UNSHUFFLES or func in ENLARGES:
            self.met += 1
            return call(self.owner, self.child, func, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def decimate(self: nn.Module, child: str, x: Tensor, index: Any) -> Tensor:
    """`x[index]` in a `forward`, its steps left to the place that is registered as `child`."""
    place: Any = self._modules.get(child)
    if place is None:
        return x[index]
    if place.grows and place.mode is None:  # others follow the size that a mask has
        place(x[index].float())
        return x[index]
    if place.mode is not None:
        return place(x.float()).to(x.dtype)  # type: ignore[no-any-return]
    found = steps_of(x, index)
    if found is None or found.stride != place.geometry.stride:
        if found is None:
            return x[index]
        raise RuntimeError(f"{place.name!r} was converted with steps {place.geometry.stride}, got {found.stride}")
    whole, shifts = list(found.index), [0, 0] * len(found.dims)
    for number, dim in enumerate(found.dims):
        part = found.index[dim]
        whole[dim] = slice(part.start, part.stop, place.layer_stride[number])
        if part.stop is None and part.start:  # all phases of a map have one length
            shifts[2 * (len(found.dims) - 1 - number) + 1] = int(part.start)
    y = x[tuple(whole)]
    return along(y, found.dims, lambda maps: place(F.pad(maps, shifts, mode="replicate") if any(shifts) else maps))


class Steps:
    """A slice with steps.

    Attributes:
        dims: the dimensions of the map that are spatial.
        stride: the step of each.
        index: one slice per dimension of the map.
    """

    def __init__(self, dims: tuple[int, ...], index: tuple[slice, ...]) -> None:
        self.dims, self.index = dims, index
        self.stride = tuple([index[dim].step or 1 for dim in dims])


def steps_of(x: Tensor, index: Any) -> Steps | None:
    """The steps of a slice of a map, (N, C, *spatial) or (N, *spatial, C); None where it is something else."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if sum(part is Ellipsis for part in parts) == 1:
        at = next(number for number, part in enumerate(parts) if part is Ellipsis)
        parts[at : at + 1] = [slice(None)] * (x.dim() - len(parts) + 1)
    parts += [slice(None)] * (x.dim() - len(parts))
    if len(parts) != x.dim() or x.dim() < 3 or not all(isinstance(part, slice) for part in parts):
        return None
    dims = [dim for dim, part in enumerate(parts) if part.step not in (None, 1)]
    if not dims or dims[0] == 0 or (parts[dims[0]].step or 1) < 1:
        return None
    first = tuple(range(2, x.dim()))
    last = tuple(range(1, x.dim() - 1))
    spatial = first if set(dims) <= set(first) else last
    return Steps(spatial, tuple(parts)) if set(dims) <= set(spatial) else None


def phases(x: Tensor, factor: int) -> Tensor:
    """What space-to-depth gives at stride 1: a copy of the map for each shift, in the order of its channels."""
    axes = x.dim() - 2
    padded = F.pad(x, (0, factor - 1) * axes, mode="replicate")
    for axis in range(axes):
        padded = padded.unfold(2 + axis, x.shape[2 + axis], 1)
    return padded.flatten(1, 1 + axes)  # it was (N, C, *shifts, *spatial)


def spread(value: Any, axes: int) -> tuple[int, ...]:
    """One value per axis, from a value for all of them or one each."""
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    return values if len(values) == axes else values * axes
