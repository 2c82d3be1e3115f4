"""Whether a plan fits a model: its places are there, and are what the plan says that they are."""

import inspect
from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.pooling import _AvgPoolNd, _MaxPoolNd

from anystride.calls import INPUT, place_of
from anystride.convert.change import Change
from anystride.convert.plan import Plan
from anystride.convert.rewrite import check_call
from anystride.convert.sites import pads_by_stride
from anystride.convert.source import UnwritableError
from anystride.geometry import SizeRule
from anystride.unstrided import spread

# What torch's layers are in a plan; the first class that fits counts.
_KINDS: dict[Any, str] = {
    _ConvTransposeNd: "transposed convolution",
    _ConvNd: "convolution",
    _MaxPoolNd: "max pooling",
    _AvgPoolNd: "average pooling",
    nn.Upsample: "interpolation",
    nn.PixelShuffle: "pixel shuffle",
}


def check_fit(model: nn.Module, plan: Plan) -> None:
    """Raise a ValueError unless a plan fits a model, as far as that can be told without running it.

    Args:
        model: that is to be converted.
        plan: of another model, or from a file.
    """
    plan.check()
    modules = dict(model.named_modules())
    work = [change for change in plan.changes if change.how]
    for change in work:
        if change.name in modules:  # what is absent, surgery names all at once
            _check_module(modules[change.name], change)
            _check_scope(model, modules, change, plan)


def _check_module(module: nn.Module, change: Change) -> None:
    if change.how == "stride" and not hasattr(module, "stride"):
        _refuse(change, f"is a {type(module).__name__}, without a stride")
    if change.how == "replace" and any(True for _ in module.parameters()):
        _refuse(change, f"is a {type(module).__name__} with parameters, and no fixed filter")
    if change.same != pads_by_stride(module):
        _refuse(change, f"pads {'otherwise' if change.same else 'by its stride'}, and the plan says same={change.same}")
    if change.call:
        try:
            check_call(module, change.call, change.kind)
        except UnwritableError as error:
            _refuse(change, f"cannot be converted: {error}")
        return
    if change.index != -1 and change.how in ("stride", "output", "enlarge"):
        _check_layer(module, change)


def _check_layer(module: Any, change: Change) -> None:
    """Compare with what a layer of torch, which runs as its class says, has among its attributes."""
    kind = next((word for layer, word in _KINDS.items() if isinstance(module, layer)), None)
    if kind is None or not type(module).forward.__module__.startswith("torch."):
        return
    if change.kind != kind:
        _refuse(change, f"is a {type(module).__name__}, and the plan says {change.kind!r}")
    if change.how == "stride":
        axes = len(change.stride)
        sizes, dilations = (spread(getattr(module, name, 1), axes) for name in ("kernel_size", "dilation"))
        span = tuple([(k - 1) * d + 1 for k, d in zip(sizes, dilations, strict=True)])
        if span != change.span:
            _refuse(change, f"covers {span} samples, and the plan says {change.span}")
        pads = module.padding if getattr(module, "padding_mode", "zeros") == "zeros" else 0
        padding = change.padding if isinstance(pads, str) else spread(pads, axes)
        if padding != change.padding:
            _refuse(change, f"has padding {padding}, and the plan says {change.padding}")
        if bool(getattr(module, "ceil_mode", False)) != change.ceil:
            _refuse(change, f"has another ceil_mode than the plan says, {change.ceil}")


def _check_scope(model: nn.Module, modules: dict[str, nn.Module], change: Change, plan: Plan) -> None:
    """The module that must be called as a whole holds the place and its leaders, and inputs are arguments."""
    leaders = [*([] if change.leader is None or change.role == "share" else [change.leader]), *change.turns]
    names = {other.key: other.name for other in plan.changes}
    if change.scope not in modules:
        _refuse(change, f"follows another place within {change.scope!r}, which is no module of it")
    inside = set(modules[change.scope].modules())
    for leader in leaders:
        name = names.get(leader, names.get(place_of(leader)))
        if name is not None and not {modules[change.name], modules.get(name)} <= inside | {None}:
            _refuse(change, f"follows {leader!r} within {change.scope!r}, which does not hold both")
    known = inspect.signature(type(model).forward).parameters
    open_ended = any(
        parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL) for parameter in known.values()
    )
    rules = [SizeRule(*rule).leader for rule in change.rules or () if isinstance(rule, tuple)]
    for leader in [*rules, *(leader for leader in leaders if leader not in names)]:
        head, _, path = leader.partition(":")
        if head == INPUT and path and not open_ended and not any(path.startswith(f"[{name!r}]") for name in known):
            _refuse(change, f"follows the input {path!r}, which its forward does not take")


def _refuse(change: Change, why: str) -> None:
    raise ValueError(f"plan does not fit the model: {change.name!r} {why}; convert this model with convert_")
