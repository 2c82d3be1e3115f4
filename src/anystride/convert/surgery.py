"""Carrying out a plan on a model, and taking it back."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from anystride import layers, spectral
from anystride.calls import ENTRY, names_for, place_of
from anystride.checks import cosine_ramp
from anystride.convert.change import Change
from anystride.convert.plan import Plan
from anystride.convert.rewrite import Calls, ordinary
from anystride.convert.source import UnwritableError
from anystride.geometry import Geometry, SizeRule
from anystride.hosts import NAMES, is_plain_convolution, put_on
from anystride.resample import CHILD, Enlarges, Follows, Keeps, Leads, Passes, Place, Shares
from anystride.unstrided import spread


class Surgery:
    """One plan on one model, a context: it is carried out at the start, and taken back at the end unless it is kept.

    Raises:
        ValueError: the model lacks a module that the plan names, or is converted there already.
    """

    def __init__(self, model: nn.Module, plan: Plan) -> None:
        self.model, self.plan = model, plan
        settings = plan.ramp, plan.rolloff, plan.tolerance, plan.padding_mode
        self.ramp = cosine_ramp(*settings) if plan.method == "diffstride" else "inner"
        self.modules = dict(model.named_modules())
        self.places: dict[str, Place] = {}
        self._undo: list[Callable[[], None]] = []
        self._pools: dict[int, nn.Module] = {}
        self._changes = {change.key: change for change in plan.changes}
        leaders = [leader for change in plan.changes for leader in _leaders(change)]
        self._followed = {place_of(leader) for leader in leaders}
        self._entered = {leader.removesuffix(ENTRY) for leader in leaders if leader.endswith(ENTRY)}
        self._check()

    def _check(self) -> None:
        work = [change for change in self.plan.changes if change.how]
        absent = [change.name for change in work if change.name not in self.modules]
        if absent:
            raise ValueError(f"plan does not fit the model, which has no {', '.join(map(repr, absent))}")
        for change in work:
            module = self.modules[change.name]
            if change.how not in ("call", "graph", "replace") and not change.call and hasattr(module, CHILD):
                raise ValueError(f"plan does not fit the model: {change.name!r} has an attribute {CHILD!r} already")
            if change.how == "stride" and spread(module.stride, len(change.stride)) != change.stride:
                raise ValueError(
                    f"plan does not fit the model: {change.name!r} has stride {module.stride}, not {change.stride}"
                )

    def __enter__(self) -> "Surgery":
        try:
            self._attach()
        except BaseException:
            self._take_back()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._take_back()

    def keep(self) -> None:
        """Leave the model as it is now."""
        self._undo.clear()

    def _take_back(self) -> None:
        while self._undo:
            self._undo.pop()()

    def _attach(self) -> None:
        calls: dict[str, dict[str, str]] = {}
        for change in self.plan.changes:
            if change.how:
                self.places[change.key] = self._place(change)
                self._put(change, self.places[change.key], calls)
        for name, children in calls.items():
            try:
                self._play(self.modules[name], Calls(tuple(sorted(children.items()))))
            except UnwritableError as error:
                raise ValueError(f"plan does not fit the model: at {name!r}, {error}") from None
        self._open_scopes()

    def changes(self, outputs: Mapping[str, Sequence[tuple[int, ...]]]) -> tuple[Change, ...]:
        """The changes with the first of the sizes that each place gave, and with what its places found out.

        What a run left on the model's places is forgotten.
        """
        changes = []
        for change in self.plan.changes:
            place = self.places.get(change.key)
            if place is not None:
                after = next(iter(outputs.get(change.key, ())), None)
                change, place.seen = replace(change, after=after, copies=place.copies), None
            changes.append(change)
        return tuple(changes)

    def _place(self, change: Change) -> Place:
        """What stands at a place: an object of its role's class."""
        rules = change.rules
        if change.role == "keep" and rules is None:  # a plan of version 0.1
            rules = change.before[1]
        common: dict[str, Any] = {
            "name": change.key,
            "geometry": _geometry(change),
            "followed": change.key in self._followed,
            "enters": change.key in self._entered,
            "axes": change.axes,
            "rules": None
            if rules is None
            else [SizeRule(*rule) if isinstance(rule, tuple) else rule for rule in rules],
            "grows": change.grows,
            "ramp": self.ramp,
        }
        follows: dict[str, Any] = {
            "leader": change.leader or "",
            "scope": change.scope,
            "shift": change.shift,
            "turns": change.turns,
        }
        place: Place
        if change.how == "note":
            place = Passes(**common)
        elif change.mode is not None:
            place = Enlarges(change.mode, change.align_corners, **follows, **common)
        elif change.role == "keep":
            place = Keeps(common.pop("rules"), **common)
        elif change.group is None:
            place = Follows(**follows, **common)
        elif change.role == "share":
            assert change.leader is not None
            leading = self._changes[change.leader]
            shift = _shift(leading, change)
            place = Shares(self._pool(change), change.leader, _geometry(leading), shift, **common)
        else:
            place = Leads(self._pool(change), **common)
        place.copies, place.whole = change.copies, self.plan.whole
        return place.train(self.modules[change.name].training)

    def _pool(self, change: Change) -> Any:
        assert change.group is not None
        if change.group not in self._pools:
            stride = [change.stride[axis] for axis in self.places_axes(change)]
            if self.plan.method == "spectral":
                self._pools[change.group] = getattr(spectral, f"SpectralPool{len(stride)}d")(stride=stride)
            else:
                self._pools[change.group] = getattr(layers, f"DiffStride{len(stride)}d")(
                    stride=max(stride) if self.plan.shared else stride,
                    smoothness=self.plan.smoothness,
                    shared=self.plan.shared,
                    ramp=self.plan.ramp,
                    grid=self.plan.grid,
                    rolloff=self.plan.rolloff,
                    tolerance=self.plan.tolerance,
                    padding_mode=self.plan.padding_mode,
                    device=next((p.device for p in self.model.parameters()), None),
                )
        return self._pools[change.group]

    @staticmethod
    def places_axes(change: Change) -> list[int]:
        """The axes whose stride a place learns."""
        axes = range(len(change.stride)) if change.axes is None else change.axes
        return [axis for axis in axes if change.rules is None or change.rules[axis] is None]

    def _put(self, change: Change, place: Place, calls: dict[str, dict[str, str]]) -> None:
        module = self.modules[change.name]
        if change.how == "replace":
            self._replace(module, place)
        elif change.how in ("call", "graph") or change.call:
            name = CHILD if not hasattr(module, CHILD) else f"{CHILD}_{change.index}"
            self._child(module, name, place)
            calls.setdefault(change.name, {})[change.call or self._ordinary(change)] = name
        else:
            self._child(module, CHILD, place)
            role = {"stride": "layer", "enlarge": "interpolation"}.get(change.how, "output")
            own: Any = type(module)
            if role == "layer" and is_plain_convolution(own):
                role = "convolution"
            elif role == "layer":
                self._set(module, "stride", _as(module.stride, place.layer_stride))
                if change.ceil and place.layer_stride == (1,) * len(change.stride):
                    self._set(module, "ceil_mode", False)
            if not (role == "output" and own.forward is nn.Sequential.forward):  # which runs its last child by itself
                self._play(module, role)

    def _ordinary(self, change: Change) -> str:
        try:
            return ordinary(self.modules[change.name], change.index)
        except UnwritableError as error:
            raise ValueError(f"plan does not fit the model: at {change.name!r}, {error}") from None

    def _open_scopes(self) -> None:
        """Let each module around a place that follows, and around its leader, open a record when it is called."""
        names: dict[str, set[str]] = {}
        for change in self.plan.changes:
            if change.how:
                leaders = _leaders(change)
                if leaders:
                    scope = self._scope(change.scope if change.role == "follow" else "")
                    names.setdefault(scope, set()).update(names_for(leaders, change.key))
        for scope, leaders_there in names.items():
            module = self.modules[scope]
            present = module.__dict__.get(NAMES)
            self._set(module, NAMES, tuple(sorted(leaders_there | set(present or ()))))
            if present is None:
                self._play(module, "scope")

    def _scope(self, name: str) -> str:
        """The module of that name, or the next around it whose calls reach the `forward` of its class."""
        while "forward" in self.modules[name].__dict__:
            if not name:
                raise ValueError(
                    "model has a forward that was set on the object; remove it (accelerate: remove_hook_from_module) "
                    "and set it again after the conversion"
                )
            name = name.rpartition(".")[0]
        return name

    def _play(self, module: nn.Module, role: Any) -> None:
        before = module.__class__
        put_on(module, role)
        self._undo.append(lambda: setattr(module, "__class__", before))

    def _child(self, module: nn.Module, name: str, child: nn.Module) -> None:
        if hasattr(module, name):
            raise ValueError(f"model: a {type(module).__name__} has an attribute {name!r} of its own; rename it")
        module.add_module(name, child)
        self._undo.append(lambda: delattr(module, name))

    def _set(self, module: nn.Module, name: str, value: Any) -> None:
        absent = name not in module.__dict__
        before = module.__dict__.get(name)
        setattr(module, name, value)
        self._undo.append(lambda: delattr(module, name) if absent else setattr(module, name, before))

    def _replace(self, module: nn.Module, place: nn.Module) -> None:
        for parent in self.model.modules():
            for name, child in list(parent._modules.items()):
                if child is module:
                    parent._modules[name] = place
                    self._undo.append(functools.partial(parent._modules.__setitem__, name, module))


def _geometry(change: Change) -> Geometry:
    """How the layer moved over its input; an operator in the place of a filter is given that input itself."""
    if change.how == "replace":
        ones = (1,) * len(change.stride)
        return Geometry(change.stride, ones, tuple([0] * len(ones)))
    return Geometry(change.stride, change.span, change.padding, change.same, change.ceil)


def _shift(leading: Change, change: Change) -> tuple[int, ...]:
    """Samples by which the input of a leading layer is longer than that of one that is given the same map.

    What a layer of TensorFlow's rule or a filter pads by itself is no part of its input.
    """
    if any(each.same or each.how == "replace" for each in (leading, change)):
        return (0,) * len(change.stride)
    return tuple([a - b for a, b in zip(leading.before[0], change.before[0], strict=True)])


def _as(stride: Any, values: tuple[int, ...]) -> Any:
    """Strides in the form that a layer's attribute has."""
    if isinstance(stride, (tuple, list)):
        return type(stride)(values)
    return values if len(set(values)) > 1 else values[0]


def _leaders(change: Change) -> list[str]:
    """The places, and inputs, whose sizes a place asks for."""
    if change.role == "follow" and not change.rules:
        assert change.leader is not None
        return list(change.turns or (change.leader,))
    rules = [rule for rule in change.rules or () if isinstance(rule, tuple)]
    return sorted({SizeRule(*rule).leader for rule in rules})
