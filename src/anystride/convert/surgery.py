"""Carrying out a plan on a model, and taking it back."""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from anystride import layers
from anystride.convert import fx as graph
from anystride.convert.plan import Change, Plan
from anystride.execution import TAG, Execution, tensors
from anystride.ops.fusion import CONVOLUTIONS, Convolved
from anystride.resample import (
    CHILD,
    Geometry,
    Resample,
    SizeOf,
    note_input,
    reach_beyond,
    recompute_output,
    resample_output,
)

INPUT = "input"


class InPlace(Execution):
    """A pass that finds the operators whose output is changed in place, as by `nn.ReLU(inplace=True)`."""

    def operation(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        first = func._schema.arguments[0].alias_info if func._schema.arguments else None
        if first is not None and first.is_write and isinstance(getattr(args[0], TAG, None), Resample):
            getattr(args[0], TAG).copies = True
        out = func(*args, **kwargs)
        if first is not None and not first.is_write and isinstance(getattr(args[0], TAG, None), Resample):
            for view in tensors(out):
                setattr(view, TAG, getattr(args[0], TAG))
        return out

    def left(self, name: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if isinstance(module, Resample):
            setattr(output, TAG, module)


class Surgery:
    """One plan on one model.

    Raises:
        ValueError: the model lacks a module that the plan names, or is converted there already.
    """

    def __init__(self, model: nn.Module, plan: Plan) -> None:
        self.model, self.plan = model, plan
        self.modules = dict(model.named_modules())
        self.units: dict[str, Resample | SizeOf] = {}
        self._undo: list[Callable[[], None]] = []
        self._pools: dict[int, nn.Module] = {}
        work = [change for change in plan.changes if change.how]
        absent = [change.name for change in work if change.name not in self.modules]
        if absent:
            raise ValueError(f"plan does not fit the model, which has no {', '.join(map(repr, absent))}")
        for change in work:
            module = self.modules[change.name]
            if change.how != "graph" and change.how != "replace" and hasattr(module, CHILD):
                raise ValueError(f"plan does not fit the model: {change.name!r} has an attribute {CHILD!r} already")
            if change.how == "stride" and tuple(_tuple(module.stride, len(change.stride))) != change.stride:
                raise ValueError(
                    f"plan does not fit the model: {change.name!r} has stride {module.stride}, not {change.stride}"
                )

    def attach(self) -> None:
        """Carry the plan out."""
        if any(change.leader == INPUT for change in self.plan.changes):
            self._attach_input()
        graphs: dict[str, dict[int, str]] = {}
        for change in self.plan.changes:
            if change.how:
                unit = self._unit(change)
                self.units[change.key] = unit
                self._place(change, unit, graphs)
        for name, children in graphs.items():
            self._undo.append(graph.rewrite(self.modules[name], children))

    def undo(self) -> None:
        """Take back what was done."""
        while self._undo:
            self._undo.pop()()

    def sizes(self) -> tuple[Change, ...]:
        """The changes with the sizes that the converted model's last run had, which the model then forgets."""
        changes = []
        for change in self.plan.changes:
            unit = self.units.get(change.key)
            copies = isinstance(unit, Resample) and unit.copies
            changes.append(change if unit is None else replace(change, after=unit.output_size, copies=copies))
        for unit in self.units.values():
            unit.output_size = None
        return tuple(changes)

    def _unit(self, change: Change) -> Resample | SizeOf:
        if change.how == "note":
            return SizeOf(self._static)
        geometry = Geometry(change.stride, change.span, change.padding, change.same, change.ceil)
        leader = None if change.leader is None else self.units[change.leader]
        size = change.before[1] if change.role == "keep" else None
        pool = self._pool(change) if change.group is not None else None
        unit = Resample(geometry, pool, leader, size, change.mode, change.align_corners, self._static)  # type: ignore[arg-type]
        unit.copies = change.copies
        return unit

    @property
    def _static(self) -> bool:
        return self.plan.grid == "fixed" or self.plan.method == "spectral"

    def _pool(self, change: Change) -> nn.Module:
        assert change.group is not None
        if change.group not in self._pools:
            axes = len(change.stride)
            if self.plan.method == "spectral":
                self._pools[change.group] = getattr(layers, f"SpectralPool{axes}d")(stride=change.stride)
            else:
                self._pools[change.group] = getattr(layers, f"DiffStride{axes}d")(
                    stride=max(change.stride) if self.plan.shared else change.stride,
                    smoothness=self.plan.smoothness,
                    shared=self.plan.shared,
                    ramp=self.plan.ramp,
                    grid=self.plan.grid,
                    device=next((p.device for p in self.model.parameters()), None),
                )
            self._pools[change.group].train(self.modules[change.name].training)
        return self._pools[change.group]

    def _place(self, change: Change, unit: nn.Module, graphs: dict[str, dict[int, str]]) -> None:
        module = self.modules[change.name]
        unit.train(module.training)
        if change.how == "replace":
            self._replace(module, unit)
        elif change.how == "graph":
            name = CHILD if not hasattr(module, CHILD) else f"{CHILD}_{change.index}"
            self._child(module, name, unit)
            graphs.setdefault(change.name, {})[change.index] = name
        else:
            self._child(module, CHILD, unit)
            if change.how == "stride":
                self._set(module, "stride", _ones(module.stride))
                if change.ceil:
                    self._set(module, "ceil_mode", False)
                    self._hook(module.register_forward_pre_hook(reach_beyond))
                if type(module) in CONVOLUTIONS and "forward" not in module.__dict__:
                    module.forward = Convolved(module, CHILD)
                    self._undo.append(lambda: module.__dict__.pop("forward"))
                    return
            hook = recompute_output if change.how == "enlarge" else resample_output
            self._hook(module.register_forward_hook(hook, prepend=True))

    def _attach_input(self) -> None:
        present = getattr(self.model, CHILD, None)
        if isinstance(present, SizeOf):
            self.units[INPUT] = present
            return
        unit = SizeOf(self._static)
        self.units[INPUT] = unit
        self._child(self.model, CHILD, unit)
        self._hook(self.model.register_forward_pre_hook(note_input, with_kwargs=True))

    def _child(self, module: nn.Module, name: str, child: nn.Module) -> None:
        if hasattr(module, name):
            raise ValueError(f"model: a {type(module).__name__} has an attribute {name!r} of its own; rename it")
        module.add_module(name, child)
        self._undo.append(lambda: delattr(module, name))

    def _hook(self, handle: torch.utils.hooks.RemovableHandle) -> None:
        self._undo.append(handle.remove)

    def _set(self, module: nn.Module, name: str, value: Any) -> None:
        before = getattr(module, name)
        setattr(module, name, value)
        self._undo.append(lambda: setattr(module, name, before))

    def _replace(self, module: nn.Module, unit: nn.Module) -> None:
        for parent in self.model.modules():
            for name, child in list(parent._modules.items()):
                if child is module:
                    parent._modules[name] = unit
                    self._undo.append(functools.partial(parent._modules.__setitem__, name, module))


def _ones(stride: Any) -> Any:
    return type(stride)([1] * len(stride)) if isinstance(stride, (tuple, list)) else 1


def _tuple(stride: Any, axes: int) -> tuple[int, ...]:
    values = tuple(stride) if isinstance(stride, (tuple, list)) else (stride,)
    return values if len(values) == axes else values * axes
