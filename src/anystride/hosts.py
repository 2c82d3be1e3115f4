"""Classes of the user's modules once they are converted: a `forward` that passes the map through a place.

A converted layer stays the object that it was, with its weights, name, hooks and flags; it gets a child `resample`, and
its class becomes one that is derived from its own. So `forward` is in a class, copies and pickles are those of any
module, and `isinstance` tells the truth.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvTransposeNd
from torch.utils._pytree import tree_leaves

from anystride.calls import INPUT, close_record, open_record
from anystride.checks import check_input, shape_of, spatial_size
from anystride.convolution import CONVOLUTIONS
from anystride.geometry import Size
from anystride.layers import DiffStrideNd
from anystride.resample import CHILD
from anystride.trees import leaves_with_paths, tensors
from anystride.unstrided import alone, at_stride_one

# Attribute of a module that opens the record of its calls: the names of the places that are followed within it.
NAMES = "_anystride_followed"
_MADE_FROM = "_anystride_made_from"


class _ResampledConv(nn.Module):
    """What converted convolutions have in common: the convolution and its place run as one program."""

    resample: nn.Module
    _convolve: Callable[..., Tensor]

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, *spatial), or (C, *spatial), to the size that the place gives."""
        place = self._modules.get(CHILD)
        if place is None:  # one that a tool has built anew from attributes
            return self._strided(input)
        check_input(input, None, 2)
        kind: Any = self
        alone = input.dim() == len(kind.kernel_size) + 1
        x = self._padded(input.unsqueeze(0) if alone else input)
        y: Tensor = place(self.unstrided(x), None, spatial_size(x)) if place.partial else place(x, self)
        return y.squeeze(0) if alone else y

    def unstrided(self, x: Tensor) -> Tensor:
        """The convolution at stride 1, but along axes whose stride stays, of a map that has its border."""
        place: Any = self.resample
        return self._run(x, place.layer_stride)

    def _strided(self, x: Tensor) -> Tensor:
        if any(step != int(step) for step in self.stride):
            raise ValueError(
                f"{type(self).__name__} was built with stride {self.stride}, which was learned; build it with a whole "
                "stride, or convert it with anystride.convert_"
            )
        return self._run(self._padded(x), tuple(int(step) for step in self.stride))

    def _padded(self, x: Tensor) -> Tensor:
        """The map with its border, where that is not of zeros."""
        conv: Any = self
        if conv.padding_mode == "zeros":
            return x
        return F.pad(x, conv._reversed_padding_repeated_twice, mode=conv.padding_mode)

    def _run(self, x: Tensor, stride: int | tuple[int, ...]) -> Tensor:
        conv: Any = self
        padding = conv.padding if conv.padding_mode == "zeros" else 0
        return type(self)._convolve(x, conv.weight, conv.bias, stride, padding, conv.dilation, conv.groups)

    @property
    def stride(self) -> tuple[float, ...]:
        """The stride per axis now, in numbers that no convolution takes: a layer rebuilt with them raises."""
        place: Any = self._modules.get(CHILD)
        given: tuple[float, ...] = self.__dict__["stride"]
        if place is None:
            return given
        if place.whole:
            return given
        now = [float(step) for step in given]
        pool = getattr(place, "pool", None)
        if isinstance(pool, DiffStrideNd):
            for axis, step in zip(place.pooled, pool.stride_values(), strict=True):
                now[axis] = step
        return tuple(now)

    @stride.setter
    def stride(self, value: tuple[float, ...]) -> None:
        self.__dict__["stride"] = value

    def extra_repr(self) -> str:
        now = tuple(round(step, 3) for step in self.stride)
        return super().extra_repr().replace(f"stride={self.__dict__['stride']}", f"stride={now}")


class ResampledConv1d(_ResampledConv, nn.Conv1d):  # type: ignore[misc]  # its stride is a property
    """A converted `torch.nn.Conv1d`: its output has the size that the child `resample` gives."""

    _convolve = staticmethod(F.conv1d)


class ResampledConv2d(_ResampledConv, nn.Conv2d):  # type: ignore[misc]  # its stride is a property
    """A converted `torch.nn.Conv2d`: its output has the size that the child `resample` gives."""

    _convolve = staticmethod(F.conv2d)


class ResampledConv3d(_ResampledConv, nn.Conv3d):  # type: ignore[misc]  # its stride is a property
    """A converted `torch.nn.Conv3d`: its output has the size that the child `resample` gives."""

    _convolve = staticmethod(F.conv3d)


_STATIC: dict[Any, Any] = {
    nn.Conv1d: ResampledConv1d,
    nn.Conv2d: ResampledConv2d,
    nn.Conv3d: ResampledConv3d,
}


def is_plain_convolution(kind: type[nn.Module]) -> bool:
    """Whether a class is one of torch's convolutions, or does nothing else in its `forward`."""
    for own in CONVOLUTIONS:
        if issubclass(kind, own):
            return kind.forward is own.forward and kind._conv_forward is own._conv_forward
    return False


def put_on(module: nn.Module, role: Any) -> None:
    """Let a module play a role: its class becomes one that is derived from its own.

    Args:
        module: of any class; a parametrized one stays so.
        role: "convolution" (it and its place run as one program), "layer" (a layer at stride 1, then its place),
            "output" (any module, then its place), "interpolation" (its place alone), "scope" (opens the record of its
            calls); or an object with `derive(module)` that returns a class.
    """
    kind: Any = type(module)
    if isinstance(role, str):
        module.__class__ = derive(kind, role)
        return
    # The graph of a `forward` takes its place, and the record is opened around it.
    scoped = getattr(kind, _MADE_FROM, (kind, ()))[1][-1:] == ("scope",)
    if scoped:
        module.__class__ = kind.__bases__[0]
    module.__class__ = role.derive(module)
    if scoped:
        module.__class__ = derive(type(module), "scope")


def put_off(module: nn.Module) -> None:
    """Undo the last `put_on`: the module's class becomes what it was before."""
    kind: Any = type(module)
    if _is_parametrized(kind):
        module.__class__ = type(kind.__name__, (kind.__bases__[0].__bases__[-1],), _own(kind))
    else:
        module.__class__ = kind.__bases__[-1]


def roles_of(module: nn.Module) -> tuple[Any, ...]:
    """The roles that a module plays, in the order in which it was given them."""
    kind: Any = type(module)
    kind = kind.__bases__[0] if _is_parametrized(kind) else kind
    if kind in _STATIC.values():
        return ("convolution",)
    roles: tuple[Any, ...] = getattr(kind, _MADE_FROM, (kind, ()))[1]
    return roles


def _is_parametrized(kind: Any) -> bool:
    return bool(kind.__name__ == f"Parametrized{kind.__bases__[0].__name__.removeprefix('Resampled')}")


def _own(kind: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(kind).items() if name not in ("__dict__", "__weakref__")}


def derive(kind: Any, role: str) -> Any:
    """The class of modules of class `kind` that play a role, see `put_on`."""
    return _STATIC[kind] if role == "convolution" and kind in _STATIC else _derive(kind, role)


@functools.cache
def _derive(kind: Any, role: str) -> Any:
    if _is_parametrized(kind):
        # torch.nn.utils.parametrize goes back to the first base when it is removed: that must be the converted class.
        return type(kind.__name__, (derive(kind.__bases__[0], role),), _own(kind))
    if role == "convolution":
        base = next(own for own in CONVOLUTIONS if issubclass(kind, own))
        bases: tuple[type, ...] = (_ResampledConv, kind)
        return type(f"Resampled{kind.__name__}", bases, {**space(kind, role), "_convolve": _STATIC[base]._convolve})
    run = {"layer": _layer, "output": _output, "interpolation": _interpolation, "scope": _scope}[role]
    forward: Any = kind.forward

    @functools.wraps(forward)
    def forward_in_class(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return run(forward, self, args, kwargs)

    name = kind.__name__ if role == "scope" else f"Resampled{kind.__name__}"
    return type(name, (kind,), {**space(kind, role), "forward": forward_in_class})


def space(kind: type[nn.Module], role: Any) -> dict[str, Any]:
    """What each derived class holds besides its `forward`: how it is pickled and copied."""
    origin, roles = getattr(kind, _MADE_FROM, (kind, ()))
    found = {"__module__": __name__, "__doc__": kind.__doc__, _MADE_FROM: (origin, (*roles, role))}
    plain = kind.__reduce__ is object.__reduce__ and kind.__reduce_ex__ in (object.__reduce_ex__, _reduce)
    return {**found, "__reduce_ex__": _reduce} if plain else found


def _reduce(self: nn.Module, protocol: Any) -> Any:
    """Pickle and copy by the class that the user wrote, and the roles that the module plays."""
    reduced: Any = object.__reduce_ex__(self, max(int(protocol), 2))
    return (_new, getattr(type(self), _MADE_FROM), *reduced[2:])


def _new(origin: type[nn.Module], roles: Sequence[Any]) -> nn.Module:
    """An empty module that plays its roles as soon as it has its state, on which they may depend."""

    def restore(self: nn.Module, state: dict[str, Any]) -> None:
        self.__class__ = origin
        self.__setstate__(state)
        for role in roles:
            put_on(self, role)

    empty: Any = type(origin.__name__, (origin,), {"__setstate__": restore, "__module__": __name__})
    return empty.__new__(empty)  # type: ignore[no-any-return]


def _layer(forward: Any, self: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """A layer at stride 1, then its place; the map is its first argument."""
    kwargs = dict(kwargs)
    x: Tensor = args[0] if args else kwargs.pop(next(iter(kwargs)))
    return at_stride_one(self.resample, lambda batch: forward(self, batch, *args[1:], **kwargs), x)


def _output(forward: Any, self: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    place: Any = self.resample
    if isinstance(self, _ConvTransposeNd):
        args, kwargs = _possible(self, *args, **kwargs), {}
    return place(forward(self, *args, **kwargs))  # type: ignore[no-any-return]


def _possible(conv: Any, input: Tensor, output_size: Sequence[int] | None = None) -> tuple[Any, ...]:
    """Arguments of a transposed convolution; a size that it cannot give is replaced by the next one that it can."""
    if output_size is None:
        return (input,)
    axes = len(conv.kernel_size)
    each_axis = zip(input.shape[-axes:], conv.kernel_size, conv.stride, conv.padding, conv.dilation, strict=True)
    least = [(n - 1) * s - 2 * p + d * (k - 1) + 1 for n, k, s, p, d in each_axis]
    sizes = zip(output_size[-axes:], least, conv.stride, strict=True)
    return input, [min(max(wanted, first), first + s - 1) for wanted, first, s in sizes]


def _interpolation(_: Any, self: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    place: Any = self.resample
    return alone(place, *args, *kwargs.values())


def _scope(forward: Any, self: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    names: tuple[str, ...] = self.__dict__.get(NAMES, ())  # a part that was sliced off has none
    before = open_record(names, input_shapes(forward, self, names, args, kwargs))
    try:
        return forward(self, *args, **kwargs)
    finally:
        close_record(before)


def input_shapes(
    forward: Any, module: nn.Module, names: Sequence[str], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Size]:
    """Shapes of the maps among a call's arguments that some of `names` ask for, by path."""
    wanted = [name for name in names if name.partition(":")[0] == INPUT]
    if not wanted:
        return {}
    return {path: shape_of(x) for path, x in input_maps(forward, module, wanted != [INPUT], args, kwargs)}


def input_maps(
    forward: Any, module: nn.Module, by_name: bool, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[tuple[str, Tensor]]:
    """The tensors of more than one dimension among the arguments of a call, each with its path.

    With `by_name` a path starts with the name of the parameter, whether it was given by position or by keyword.
    """
    if not by_name:
        # A compiler follows torch's walk, and takes the containers that torch knows.
        leaves = tree_leaves((args, kwargs)) if torch.compiler.is_compiling() else tensors((args, kwargs))
        return [(str(n), x) for n, x in enumerate(leaves) if isinstance(x, Tensor) and x.dim() > 1]
    given = inspect.signature(forward).bind(module, *args, **kwargs).arguments
    named = leaves_with_paths(dict(list(given.items())[1:]))
    return [(path, x) for path, x in named if isinstance(x, Tensor) and x.dim() > 1]
