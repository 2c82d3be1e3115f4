"""The places of a model that change the resolution by a fixed factor, found by running it once."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from anystride.convert.operations import LOOKUPS, decimation, describe, narrow, shrinks
from anystride.convert.source import Found, find
from anystride.execution import TAG, Execution, tensors
from anystride.frozen import Frozen, FrozenLayer, FrozenPlace
from anystride.hosts import roles_of
from anystride.layers import DiffStrideNd
from anystride.resample import CHILD, Place
from anystride.spectral import SpectralPoolNd
from anystride.trees import map_tensors
from anystride.unstrided import name_of

SiteKey = tuple[str, int]
# What they run is theirs: a convolution that goes with an operator may have a stride of its own.
_LEARNED = (Place, DiffStrideNd, SpectralPoolNd, Frozen, FrozenLayer, FrozenPlace)
T = TypeVar("T")


@dataclass
class Site:
    """A place in the model that changes the resolution by a fixed factor, as its first call in an ordinary run shows.

    Attributes:
        owner: qualified name of the module that ran the operation.
        index: which of its owner's operations of this family it is.
        kind: what it is, in words.
        stride, span, padding, ceil: as in `geometry.Geometry`; 1, 0 and False where they mean nothing.
        grows: whether it enlarges the map.
        sizes: spatial sizes of input and output of each call.
        calls: per call, how many calls of sites came before it, and the modules whose calls it is in: their names and
            the numbers of these calls, the outermost first.
        fixed_filter: a convolution whose weights are not learned, one per channel: blur pooling.
        adaptive: a pooling to a size; whether that follows from the input's size, another run must tell.
        whole: a pooling whose window is the whole map.
        lone: whether it is the only operation of this family that its owner runs in a call.
        found: where its owner's class calls it.
        strides: all strides that it had in its calls.
        mode, align_corners: of an interpolation.
        dims: the dimensions of a map that a slice takes for spatial ones.
    """

    owner: str
    index: int
    kind: str
    stride: tuple[int, ...]
    span: tuple[int, ...]
    padding: tuple[int, ...]
    ceil: bool = False
    grows: bool = False
    fixed_filter: bool = False
    adaptive: bool = False
    whole: bool = False
    lone: bool = True
    found: Found | None = None
    mode: str | None = None
    align_corners: bool | None = None
    dims: tuple[int, ...] | None = None
    strides: set[tuple[int, ...]] = field(default_factory=set)
    sizes: list[tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)
    calls: list[tuple[int, tuple[tuple[str, int], ...]]] = field(default_factory=list)

    @property
    def key(self) -> SiteKey:
        """Identity."""
        return self.owner, self.index


def pads_by_stride(module: nn.Module) -> bool:
    """Whether a layer pads by TensorFlow's rule: timm's layers say so in one of these ways."""
    for flag in ("same_pad", "dynamic_padding"):
        if hasattr(module, flag):
            return bool(getattr(module, flag))
    return type(module).__name__.endswith("Same")


def is_stride(stride: Any, values: tuple[int, ...]) -> bool:
    """Whether an attribute says these strides: one for all axes, or one each."""
    if not isinstance(stride, (int, tuple, list)):
        return False
    given = tuple(stride) if isinstance(stride, (tuple, list)) else (stride,)
    return given == values[-len(given) :] or given * len(values) == values


def common_start(a: Sequence[T], b: Sequence[T]) -> tuple[T, ...]:
    """What two sequences begin with."""
    shared = 0
    while shared < min(len(a), len(b)) and a[shared] == b[shared]:
        shared += 1
    return tuple(a[:shared])


def larger(example: Any, least: int) -> Any:
    """An example whose maps, of at least so many axes, are twice as long along each spatial axis."""

    def twice(value: Tensor) -> Tensor:
        if value.dim() < least:
            return value
        first = 1 if value.dim() == 2 else 2
        return value.repeat(*[1] * first, *[2] * (value.dim() - first))

    return map_tensors(twice, example)


def spatial(x: Tensor, axes: int, dims: Sequence[int] | None) -> tuple[int, ...]:
    """The spatial size of a map: its last axes, or those that are named."""
    return tuple(x.shape[-axes:]) if dims is None else tuple([x.shape[dim] for dim in dims])


class _Functions(TorchFunctionMode):
    """Sees slices with steps whole, and which poolings are along one axis."""

    def __init__(self, execution: "SiteExecution") -> None:
        super().__init__()
        self.execution = execution

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is Tensor.__getitem__:
            whole = decimation(*args)
            if whole is not None:
                return self.execution.operation(whole, args, {})
        elif name_of(func).endswith("pool1d"):
            self.execution.line = True
            try:
                return func(*args, **(kwargs or {}))
            finally:
                self.execution.line = False
        return func(*args, **(kwargs or {}))


class SiteExecution(Execution):
    """A forward pass that knows its sites."""

    def __init__(self, numbers: dict[str, dict[Any, int]] | None = None) -> None:
        super().__init__()
        # By owner, the number of each of its operations, by the line that calls it or by their order.
        self.known: dict[str, dict[Any, int]] = {} if numbers is None else numbers
        self.frames: list[int] = []
        # Numbers of the calls that are under way, as in `stack`, and how many calls there were.
        self.numbers: list[int] = []
        self.count = 0
        self.line = False

    def run(self, model: nn.Module, example: Any, *, training: bool, meta: bool = True) -> Any:
        with _Functions(self):
            return super().run(model, example, training=training, meta=meta)

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
        what = describe(func, args, kwargs, self.line) if self.stack else None
        if what is None or any(isinstance(module, _LEARNED) for _, module in self.stack):
            return None
        name, module = self.stack[-1]
        found = None if type(module).__module__.startswith("torch.nn.modules.conv") else find(module)
        order = self.frames[-1]
        self.frames[-1] += 1
        known = self.known.setdefault(name, {})
        number = known.setdefault(order if found is None else found.call, len(known))
        return (name, number), {**what, "found": found}


class Survey(SiteExecution):
    """An ordinary pass: finds the sites. `named` modules count as sites of stride 1 by their output."""

    def __init__(self, sites: dict[SiteKey, Site], named: Iterable[str] = ()) -> None:
        super().__init__()
        self.sites, self.named = sites, set(named)
        # What ran in each module, and which modules were given other than one argument.
        self.operations: dict[str, set[str]] = {}
        self.several: set[str] = set()
        # Whether it looks something up: without data, an index out of range goes unnoticed.
        self.indexes = False
        # Operations whose windows would not fit into a smaller map, with the axes.
        self.narrow: dict[SiteKey, frozenset[int]] = {}
        self.visits = 0

    def operation(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        at = self.place(func, args, kwargs)
        out = super().operation(func, args, kwargs)
        for name, _ in self.stack:
            self.operations.setdefault(name, set()).add(func.overloadpacket.__name__)
        self.indexes |= func.overloadpacket in LOOKUPS
        if at is not None and not at[1].get("grows"):
            axes = narrow(at[1], spatial(args[0], len(at[1]["stride"]), at[1].get("dims")))
            if axes and at[1]["kind"] == "convolution":
                self.narrow[at[0]] = self.narrow.get(at[0], frozenset()) | axes
        if at is not None and shrinks(at[1]):
            key, what = at
            count, result = len(what["stride"]), tensors(out)[0]
            if what["kind"] == "interpolation":  # by a fixed factor, which the operation need not say
                sizes = zip(result.shape[-count:], args[0].shape[-count:], strict=True)
                what["stride"] = tuple([max(1, h // n) for h, n in sizes])
            site = self.sites.setdefault(key, Site(key[0], key[1], **what))
            site.strides.add(what["stride"])
            self._add(site, spatial(args[0], count, site.dims), spatial(result, count, site.dims))
        return out

    def entered(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        super().entered(name, module, args)
        if len(args) != 1:
            self.several.add(name)

    def left(self, name: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if len(self.known.get(name, ())) > 1:
            for index in range(len(self.known[name])):
                if (name, index) in self.sites:
                    self.sites[name, index].lone = False
        if name in self.named:
            if not isinstance(output, Tensor) or output.dim() < 3:
                raise ValueError(f"learnable: {name!r} must give one map (N, C, *spatial)")
            axes, size = output.dim() - 2, tuple(output.shape[2:])
            one = (1,) * axes
            site = self.sites.setdefault((name, -1), Site(name, -1, "output", one, one, (0,) * axes))
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
        # By place, the spatial size of each of its outputs.
        self.outputs: dict[str, list[tuple[int, ...]]] = {}
        # Places in the order in which they ran.
        self.order: list[str] = []
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
            self.order.append(module.name)
            self.outputs.setdefault(module.name, []).append(tuple(output.shape[2:]))
            around = self.stack[-2][1]
            if module in self._ran[-1] and around._modules.get(CHILD) is module and "output" in roles_of(around):
                self.twice.add(module.name)
            self._ran[-1].add(module)
