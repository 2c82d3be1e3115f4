"""The places of a model that change the resolution by a fixed factor, found by running it once."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from anystride.execution import TAG, Execution, tensors
from anystride.resample import CHILD, Place

aten = torch.ops.aten

POOLS = {
    aten.max_pool2d_with_indices.default: "max pooling",
    aten.max_pool3d_with_indices.default: "max pooling",
    aten.avg_pool2d.default: "average pooling",
    aten.avg_pool3d.default: "average pooling",
}
LOOKUPS = {aten.max_unpool2d, aten.max_unpool3d, aten.index, aten.index_select, aten.gather, aten.embedding}
# What a module that is no more than a filter with a stride runs.
FILTERS = {
    *("convolution", "constant_pad_nd", "expand", "repeat", "view", "unsqueeze", "slice"),
    *("_to_copy", "detach", "alias", "clone", "copy"),
    *(f"{kind}_pad{axes}d" for kind in ("reflection", "replication") for axes in (1, 2, 3)),
}
SiteKey = tuple[str, int]
T = TypeVar("T")


@dataclass
class Site:
    """A place in the model that changes the resolution by a fixed factor, as its first call in an ordinary run shows.

    Attributes:
        owner: qualified name of the module that ran the operation.
        index: which of its owner's operations of this family it is.
        kind: what it is, in words.
        grows: whether it enlarges the map.
        stride, span, padding, ceil: as in `geometry.Geometry`; 1, 0 and False where they mean nothing.
        sizes: spatial sizes of input and output of each call.
        calls: per call, how many calls of sites came before it, and the modules whose calls it is in: their names and
            the numbers of these calls, the outermost first.
        fixed_filter: a convolution whose weights are not learned, one per channel: blur pooling.
        lone: whether it is the only operation of this family that its owner runs in a call.
    """

    owner: str
    index: int
    kind: str
    grows: bool
    stride: tuple[int, ...]
    span: tuple[int, ...]
    padding: tuple[int, ...]
    ceil: bool = False
    fixed_filter: bool = False
    lone: bool = True
    sizes: list[tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)
    calls: list[tuple[int, tuple[tuple[str, int], ...]]] = field(default_factory=list)

    @property
    def key(self) -> SiteKey:
        """Identity."""
        return self.owner, self.index


def describe(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any] | None:
    """What a resolution-changing operation is, as arguments of `Site`; None for any other operation."""
    if func is aten.convolution.default:
        x, weight, _, stride, padding, dilation, transposed = args[:7]
        axes = x.dim() - 2
        stride, padding, dilation = (spread(v, axes) for v in (stride, padding, dilation))
        span = tuple((k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilation, strict=True))
        depthwise = args[8] == x.shape[1] == weight.shape[0] and not isinstance(weight, nn.Parameter)
        return {
            "kind": "transposed convolution" if transposed else "convolution",
            "grows": transposed,
            "stride": stride,
            "span": span,
            "padding": padding,
            "fixed_filter": depthwise,
        }
    if func in POOLS:
        axes = 2 if "pool2d" in func.overloadpacket.__name__ else 3  # a map may come without a batch
        named = dict(zip(func_names(func), args, strict=False)) | kwargs
        kernel = spread(named["kernel_size"], axes)
        stride = spread(named.get("stride") or kernel, axes)
        padding = spread(named.get("padding", 0), axes)
        dilation = spread(named.get("dilation", 1), axes)
        return {
            "kind": POOLS[func],
            "grows": False,
            "stride": stride,
            "span": tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)),
            "padding": padding,
            "ceil": bool(named.get("ceil_mode", False)),
        }
    name = func.overloadpacket.__name__
    if "upsample" in name or name == "pixel_shuffle":
        axes = args[0].dim() - 2
        named = dict(zip(func_names(func), args, strict=False)) | kwargs
        scales = named.get("scale_factors") or [v for k, v in named.items() if k.startswith("scales")]
        fixed = name == "pixel_shuffle" or any(scale is not None for scale in scales)
        stride = (2,) * axes if fixed else (1,) * axes  # whatever the factor is: it is fixed
        return {
            "kind": "pixel shuffle" if name == "pixel_shuffle" else "interpolation",
            "grows": True,
            "stride": stride,
            "span": (1,) * axes,
            "padding": (0,) * axes,
        }
    return None


def func_names(func: Any) -> list[str]:
    """Names of an operator's arguments."""
    return [argument.name for argument in func._schema.arguments]


def spread(value: Any, axes: int) -> tuple[int, ...]:
    """One value per axis, from a value for all of them or one each."""
    values = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    return values if len(values) == axes else values * axes


def axes_of(module: nn.Module, site: Site) -> int:
    """Spatial axes of the layer; one-dimensional pooling borrows a second one."""
    name = type(module).__name__
    return 1 if name.endswith("Pool1d") else len(site.stride)


def pads_by_stride(module: nn.Module) -> bool:
    """Whether a layer pads by TensorFlow's rule: timm's layers say so in one of these ways."""
    for flag in ("same_pad", "dynamic_padding"):
        if hasattr(module, flag):
            return bool(getattr(module, flag))
    return type(module).__name__.endswith("Same")


def is_stride(stride: Any, values: tuple[int, ...]) -> bool:
    """Whether an attribute says these strides: one for all axes, or one each."""
    given = tuple(stride) if isinstance(stride, (tuple, list)) else (stride,)
    return given == values[-len(given) :] or given * len(values) == values


def common_start(a: tuple[T, ...], b: tuple[T, ...]) -> tuple[T, ...]:
    """What two sequences begin with."""
    shared = 0
    while shared < min(len(a), len(b)) and a[shared] == b[shared]:
        shared += 1
    return a[:shared]


class SiteExecution(Execution):
    """A forward pass that knows its sites."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[int] = []
        # Numbers of the calls that are under way, as in `stack`, and how many calls there were.
        self.numbers: list[int] = []
        self.count = 0

    def given(self, inputs: list[Tensor]) -> None:
        self.frames.clear()
        self.numbers.clear()

    def entered(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        self.frames.append(0)
        self.count += 1
        self.numbers.append(self.count)

    def left(self, name: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        self.frames.pop()
        self.numbers.pop()
        return None

    def place(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[SiteKey, dict[str, Any]] | None:
        """Key and description if this operation belongs to a family of sites, at whatever stride."""
        what = describe(func, args, kwargs)
        if what is None or not self.stack:
            return None
        key = (self.stack[-1][0], self.frames[-1])
        self.frames[-1] += 1
        return key, what


class Survey(SiteExecution):
    """An ordinary pass: finds the sites. `named` modules count as sites of stride 1 by their output."""

    def __init__(self, sites: dict[SiteKey, Site], named: Iterable[str] = ()) -> None:
        super().__init__()
        self.sites, self.named = sites, set(named)
        self.slices: dict[str, str] = {}
        self.counts: dict[str, int] = {}
        # What ran in each module, and which modules were given other than one argument.
        self.operations: dict[str, set[str]] = {}
        self.several: set[str] = set()
        # Whether it looks something up: without data, an index out of range goes unnoticed.
        self.indexes = False
        self.visits = 0

    def operation(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        out = func(*args, **kwargs)
        at = self.place(func, args, kwargs)
        for name, _ in self.stack:
            self.operations.setdefault(name, set()).add(func.overloadpacket.__name__)
        self.indexes |= func.overloadpacket in LOOKUPS
        if at is not None:
            key, what = at
            if max(what["stride"]) > 1:
                site = self.sites.setdefault(key, Site(key[0], key[1], **what))
                axes = len(site.stride)
                self._add(site, tuple(args[0].shape[-axes:]), tuple(tensors(out)[0].shape[-axes:]))
        elif func is aten.slice.Tensor and len(args) > 4 and args[4] > 1 and args[0].dim() > 2 and self.stack:
            self.slices[self.stack[-1][0]] = "a slice with a step"
        return out

    def entered(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        super().entered(name, module, args)
        if len(args) != 1:
            self.several.add(name)

    def left(self, name: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        self.counts[name] = max(self.frames[-1], self.counts.get(name, 0))
        if self.frames[-1] > 1:
            for index in range(self.frames[-1]):
                if (name, index) in self.sites:
                    self.sites[name, index].lone = False
        if name in self.named:
            if not isinstance(output, Tensor) or output.dim() < 3:
                raise ValueError(f"learnable: {name!r} must give one map (N, C, *spatial)")
            axes, size = output.dim() - 2, tuple(output.shape[2:])
            one = (1,) * axes
            site = self.sites.setdefault((name, -1), Site(name, -1, "output", False, one, one, (0,) * axes))
            self._add(site, size, size)
        return super().left(name, module, args, output)

    def _add(self, site: Site, before: tuple[int, ...], after: tuple[int, ...]) -> None:
        site.sizes.append((before, after))
        around = [(name, number) for (name, _), number in zip(self.stack, self.numbers, strict=True)]
        self.visits += 1
        site.calls.append((self.visits, tuple(around)))


class InPlace(Execution):
    """A pass that finds the operators whose output is changed in place, as by `nn.ReLU(inplace=True)`."""

    def __init__(self) -> None:
        super().__init__()
        # Names of places that a module runs twice in one call, because it runs all its children by itself.
        self.twice: set[str] = set()
        self._ran: list[set[nn.Module]] = [set()]

    def entered(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        self._ran.append(set())

    def operation(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        first = func._schema.arguments[0].alias_info if func._schema.arguments else None
        if first is not None and first.is_write and isinstance(getattr(args[0], TAG, None), Place):
            getattr(args[0], TAG).copies = True
        out = func(*args, **kwargs)
        if first is not None and not first.is_write and isinstance(getattr(args[0], TAG, None), Place):
            for view in tensors(out):
                setattr(view, TAG, getattr(args[0], TAG))
        return out

    def left(self, name: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self._ran.pop()
        if isinstance(module, Place):
            setattr(output, TAG, module)
            if module in self._ran[-1] and self.stack[-2][1]._modules.get(CHILD) is module:
                self.twice.add(module.name)
            self._ran[-1].add(module)
