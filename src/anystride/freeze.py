"""`freeze_`: what a network has learned becomes constant matrices, one set per size of its maps."""

import collections
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from anystride.checks import check_tolerance
from anystride.constants import Constant, Key, constant_of
from anystride.exchange import HOOKS, exchange
from anystride.filtered import Filters, filters_of
from anystride.filters import FilterPlace, frozen_filters
from anystride.frozen import Border, Frozen, FrozenConv, FrozenLayer, FrozenPlace
from anystride.frozen_upsample import FrozenUpsample
from anystride.hosts import NAMES, put_off, put_on, roles_of
from anystride.layers import DiffStrideNd
from anystride.ops.fusion import programs
from anystride.ops.program import Filter, cost, in_one_order
from anystride.ops.segments import local_of
from anystride.recorded import Record, conflict, record_calls
from anystride.resample import CHILD, Enlarges, Leads, Passes, Place, Shares
from anystride.spectral import SpectralPoolNd
from anystride.upsample import SpectralUpsampleNd

_LEARNED = (Place, DiffStrideNd, SpectralPoolNd, SpectralUpsampleNd)


def freeze_(model: nn.Module, *example_inputs: Any, tolerance: float | None = None) -> nn.Module:
    """Turn the learned layers of a model into constants, in place, for export and deployment.

    The model runs once per example in evaluation mode. Each learned layer (of `convert_`, `DiffStride*d`,
    `SpectralPool*d`, `SpectralUpsample*d`) then is constant; strides are no parameters any more. Outputs stay the same
    to rounding. What is frozen takes `torch.compile` with `fullgraph=True`, `torch.export`, ONNX and
    `torch.jit.script`.

    With `ramp="cosine"` and the stride that a layer was converted with (or, of a `DiffStride*d`, a whole one), it
    becomes a short filter: depthwise convolutions of torch for maps of any size, which a depthwise convolution before
    them takes into its kernel. Any other layer holds a fixed matrix per axis for each size that its maps had, as
    buffers in the state dict, and refuses other sizes with a message; batch sizes may vary.

    Convolutions run at the smaller resolution where that saves work, as they do while strides learn; each
    stands as an ordinary one in a `FrozenConv`, as torch's other layers do in a `FrozenLayer`. All other modules,
    hooks, parameters and the names in the state dict stay. A layer that no example reaches is frozen for no size and
    raises once it is called. A model without learned layers is returned as it is, and so is one that was frozen before.

    Args:
        model: the network, trained.
        example_inputs: one per input size: a tensor, a tuple of positional or a dict of keyword arguments.
        tolerance: share of each kernel (root of energy) that may be cut off, from 1e-4 to 0.2, where that is more than
            what the layers leave out by themselves; outputs then differ by about as much. None keeps what was learned.

    Returns:
        `model`; only if it is itself a learned layer, another module that replaces it.

    Raises:
        ValueError: `tolerance` is out of range, no example is given, no example reaches any learned layer, or a layer
            would need two results for one size of its map. The model is then as it was, as it is if the model itself
            fails on an example.

    Example:
        >>> from anystride import DiffStride2d
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), DiffStride2d(ramp="inner"))
        >>> freeze_(model, torch.randn(1, 3, 32, 32), torch.randn(1, 3, 24, 24))[1]
        Frozen(sizes: (32, 32) to (16, 16), (24, 24) to (12, 12))
    """
    if not example_inputs:
        raise ValueError("example_inputs must have an entry, whose map sizes the model is frozen for, got none")
    if tolerance is not None:
        check_tolerance(tolerance)
    root = nn.ModuleDict({"model": model})  # every learned layer has a parent now
    places = list(_places(root))
    records: dict[nn.Module, Record] = {}
    for _, name, child, qualified in places:
        layer = qualified.removeprefix("model.")
        records.setdefault(child, Record(layer.removesuffix(f".{CHILD}") if name == CHILD else layer))
    if records:
        record_calls(model, records, example_inputs, tolerance or 0.0)
        if not any(record.calls for record in records.values()):
            raise ValueError(
                "example_inputs reached no learned layer; give inputs that do, and freeze before compiling"
            )
    # A tensor born in inference mode could not be used for training later.
    with torch.inference_mode(False), torch.no_grad():
        uses = collections.Counter(id(p) for m in root.modules() for p in m._parameters.values())
        made = {child: _made(parent, child, records[child], uses) for parent, _, child, _ in places}
    # Nothing was changed so far; nothing can fail from here.
    for module in list(root.modules()):
        if module.__dict__.pop(NAMES, None) is not None:
            put_off(module)
    for parent, name, child, _ in places:
        frozen = made[child]
        if isinstance(frozen, FrozenLayer):
            exchange(root, parent, frozen)
        elif frozen is None:
            if all(isinstance(role, str) for role in roles_of(parent)[-1:]) and roles_of(parent):
                put_off(parent)
            delattr(parent, name)
        else:
            parent._modules[name] = frozen
    for module in root.modules():
        for role in roles_of(module)[-1:]:
            if hasattr(role, "froze"):
                put_off(module)
                put_on(module, role.froze())
    return root["model"]


def _places(root: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module, str]]:
    """Each place where a learned layer is registered: parent, name, module, qualified name."""
    for prefix, parent in root.named_modules():
        if isinstance(parent, Place | SpectralUpsampleNd):  # its operator goes with it
            continue
        for name, child in parent._modules.items():
            if isinstance(child, _LEARNED):
                yield parent, name, child, f"{prefix}.{name}" if prefix else name


def _made(parent: nn.Module, module: Any, record: Record, uses: Mapping[int, int]) -> nn.Module | None:
    """What takes the place of a learned layer, or of the convolution around it; None where nothing does.

    `uses` counts the modules that hold each parameter, by its id.
    """
    if isinstance(module, Passes):
        return None
    if isinstance(module, SpectralUpsampleNd):
        made: Any = FrozenUpsample(module.asks, record.name, _constants(record), record.dtype, record.device)
        return _dressed(parent, module, made)
    filters = _filters(parent, module, record, uses)
    if filters is not None:
        kind, about = "pool", dict[str, Any](dtype=record.maps, device=record.device)
        if isinstance(module, Place):
            about |= {"geometry": module.geometry, "layer_stride": module.layer_stride, "grows": module.grows}
            kind = "convolution" if roles_of(parent)[-1:] == ("convolution",) else "layer"
        made = frozen_filters(kind, record.name, filters, **about)
        return made.train(module.training) if kind == "convolution" else _dressed(parent, module, made)
    constants = _constants(record)
    if not isinstance(module, Place):
        made = Frozen(record.name, constants, record.dtype, record.device)
        made.keeps_constants, made.late = module.keeps_constants, _goes_on(record)
    elif roles_of(parent)[-1:] == ("convolution",):
        return _frozen_convolution(record, constants).train(module.training)
    else:
        if isinstance(module, Enlarges):  # only sizes count
            constants = {key: constant._replace(before=()) for key, constant in constants.items()}
        host = (module.geometry, module.layer_stride, module.grows)
        made = FrozenPlace(record.name, constants, record.dtype, record.device, *host)
        if isinstance(module, Enlarges):
            made.mode, made.align_corners = module.mode, module.align_corners
    return _dressed(parent, module, made)


def _dressed(parent: nn.Module, module: nn.Module, made: nn.Module) -> nn.Module:
    """A frozen layer with the hooks and the mode of the learned one, in a `FrozenLayer` where it stands in torch's."""
    for attribute in HOOKS:
        setattr(made, attribute, getattr(module, attribute))
    made.train(module.training)
    return _frozen_layer(parent, made) if isinstance(made, FrozenPlace | FilterPlace) and _is_torchs(parent) else made


def _counts_by_itself(place: Leads) -> bool:
    """Whether the length that a place counts follows from its own map, for inputs of any size."""
    own = place.geometry
    if own.same or not isinstance(place, Shares) or place.leading.same:
        return not own.same and not isinstance(place, Shares)
    least = max(*own.span, *place.leading.span)
    for n in range(least, least + 2 * max(own.stride) * max(place.leading.stride)):
        given = (n,) * len(own.stride)
        if own.grid(own.unstrided(given)) != place.lengths(given, True, None):
            return False
    return True


def _filters(parent: Any, module: Any, record: Record, uses: Mapping[int, int]) -> Filters | None:
    """The filters that do what a layer did, for maps of any size; None where sizes or strides forbid that."""
    calls = list(record.calls.values())
    if len(record.channels) > 1 or isinstance(
        module, SpectralUpsampleNd
    ):  # a depthwise convolution has a number of them
        return None
    if isinstance(module, Place):
        if not isinstance(module, Leads) or module.partial or not _counts_by_itself(module):
            return None
        former = module.geometry.stride
        for call in calls:
            bands = [getattr(axis, "band", None) for axis in call.axes]
            if [getattr(at, "step", 0) for at in bands] != list(former):
                return None
    elif any(key != (key[0], None, None) for key in record.calls):
        return None
    weight = parent._parameters.get("weight")
    composes = weight is not None and uses[id(weight)] == 1 and not parent._forward_pre_hooks
    return filters_of(calls, record.device or torch.device("cpu"), composes)


def _is_torchs(host: nn.Module) -> bool:
    """Whether a layer of torch itself takes one map, and then its place. Another class may be asked for attributes."""
    kind: Any = type(host)
    return roles_of(host) in (("layer",), ("interpolation",)) and kind.__bases__[-1].__module__.startswith("torch.nn.")


def _frozen_layer(host: nn.Module, place: FrozenPlace | FilterPlace) -> FrozenLayer:
    """A border and a place, between which `exchange` puts the layer; where it interpolates, its place alone runs."""
    frozen = FrozenLayer()
    if roles_of(host) == ("layer",):
        if place.geometry is not None and place.geometry.ceil:
            frozen.add_module("border", Border(place.geometry))
        frozen.add_module(frozen.inner, nn.Identity())
    frozen.add_module(CHILD, place)
    frozen.training = host.training
    return frozen


def _constants(record: Record) -> dict[Key, Constant]:
    """What was done to each size, by programs of which a convolution has one order at all sizes."""
    where = record.device or torch.device("cpu")
    calls = record.calls.values()
    every = [programs(*call.extents, call.size, call.kernel, where, local_of(call.axes, call.kernel)) for call in calls]
    found = [[each for each in options if not any(isinstance(step, Filter) for step in each)] for options in every]
    costs = [
        [cost(program, call.size, call.channels, call.kernel) for program in options]
        for call, options in zip(calls, found, strict=True)
    ]
    each = zip(record.calls.items(), in_one_order(found, costs), strict=True)
    return {key: constant_of(call, program) for (key, call), program in each}


def _goes_on(record: Record) -> bool:
    """Whether a convolution of a place goes on beyond its map, where it gives its bias alone."""
    return any(own and own.margin is not None for c in record.calls.values() for own in local_of(c.axes, c.kernel))


def _frozen_convolution(record: Record, constants: dict[Key, Constant]) -> FrozenConv:
    """Products before and after a convolution, which `exchange` puts between them."""
    before: dict[Key, Constant] = {}
    after: dict[Key, Constant] = {}
    for (size, *_), constant in constants.items():
        how = constant.convolution
        first, last = ((), constant.before) if how is None else (constant.before, constant.after)
        between = list(size)
        for product, *_ in first:
            for axis, rows in zip(product.axes, product.rows, strict=True):
                between[axis] = rows
        before[size, None, None] = Constant(first, None, (), tuple(between))
        here = Constant(last, None, (), constant.output)
        known = after.setdefault((size if how is None else how.size, None, None), here)
        if known.output != here.output or str(known.before) != str(here.before):
            raise ValueError(conflict(record.name, "its maps", known.output, here.output))
    late = _goes_on(record) and any(constant.before for constant in after.values())
    frozen = FrozenConv(next((constant.convolution for constant in constants.values()), None), late=late)
    if not constants or any(constant.before for constant in before.values()):
        frozen.add_module("before", FrozenPlace(record.name, before, record.dtype, record.device))
    frozen.add_module("conv", nn.Identity())
    if any(constant.before for constant in after.values()):
        frozen.add_module("after", FrozenPlace(record.name, after, record.dtype, record.device))
    return frozen
