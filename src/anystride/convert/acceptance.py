"""Whether a converted model does what it did, also at other strides; what is in the way is left out then."""

import contextlib
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from anystride.convert.change import Change
from anystride.convert.plan import Plan
from anystride.convert.planner import Planner
from anystride.convert.sites import InPlace, SiteKey
from anystride.execution import Execution, NeedsDataError, tensors
from anystride.layers import DiffStrideNd
from anystride.resample import Place
from anystride.stride import HasStride
from anystride.unstrided import UnknownFunctionError

# Strides in relation to those at the start, at which a converted model must run, too.
FACTORS = (0.75, 1.35)
# How torch begins when a norm is given a map with one sample: that is a matter of the example's size, not of the model.
ONE_SAMPLE = "Expected more than 1 "
SMALL = "strides that grow leave a norm a single sample at this input size: larger inputs avoid that"


class Acceptance:
    """Checks of one plan that has been carried out.

    Args:
        planner: made the plan, and is told what to leave out.
        plan: the plan.
        places: what stands at each place, by its key.
    """

    def __init__(self, planner: Planner, plan: Plan, places: dict[str, Place]) -> None:
        self.planner, self.plan, self.places = planner, plan, places
        # By place, the spatial sizes that it gave at the strides of the start.
        self.outputs: dict[str, list[tuple[int, ...]]] = {}
        self.twice: set[str] = set()
        self.start: list[Tensor] = []
        self.found: list[list[Tensor]] = []
        self.small = ""

    def runs(self) -> bool:
        """Run the model in each mode; see also whose output what comes next changes in place."""
        for mode in reversed(self.planner.training):
            seen = InPlace()
            try:
                self.start = tensors(self.planner.run(seen, mode))
            except Exception as error:
                if isinstance(error, (TypeError, ValueError)) and not self.planner.whole:
                    self.planner.whole = True  # pads may be computed from strides, and must be whole
                    return False
                return self._refused(error, seen, "what follows refuses")
            self.twice |= seen.twice
            self.outputs.update(seen.outputs)
        return True

    def as_before(self) -> bool:
        """Whether all maps have the sizes that they had."""
        for change in self.plan.replaced:
            if change.key in self.twice:
                return self._leave(change.key, "it runs all its children, and would run the operator twice")
        if self.plan.method == "diffstride" and self.plan.ramp == "outer":
            return True
        for change in self.plan.replaced:
            now = self.outputs.get(change.key, [])
            before = [size for _, size in self.planner.sites[key_of(change)].sizes]
            if change.how != "note" and now != before[: len(now)]:
                return self._leave(change.key, "its form at stride 1 gives maps of another size")
        return True

    def moves(self) -> bool:
        """Whether the model runs at other strides, for as many examples; if so, what it then gives is noted."""
        pools = _pools(self.places)
        self.found, self.small = [], ""
        for factor in FACTORS if pools else ():
            seen = InPlace()
            with _moved(pools, factor):
                try:
                    output = self.planner.run(seen, False)
                    self.planner.same_rows(output)
                except Exception as error:
                    if factor > 1 and str(error).startswith(ONE_SAMPLE):
                        self.small = SMALL
                        continue
                    return self._refused(error, seen, "at other strides what follows refuses")
            self.found.append(tensors(output))
        return True

    def notes(self) -> tuple[str, ...]:
        """What follows the strides that should perhaps not."""
        inputs = {tuple(x.shape[-axes:]) for x in tensors(self.planner.example) for axes in range(1, x.dim() - 1)}
        notes = [self.small] if self.small else []
        if (why := self.planner.untrained) and not why.startswith(ONE_SAMPLE):
            notes.append(
                f"what runs in training mode alone was not looked at, as that mode fails on the example ({why}): pass "
                "what it needs in example_input, such as targets"
            )
        for number, start in enumerate(self.start):
            others = [found[number].shape for found in self.found if number < len(found)]
            other = next((shape for shape in others if shape != start.shape and len(shape) == start.dim()), None)
            if other is None or start.dim() < 3:
                continue
            axes = start.dim() - 2
            was, now = ("x".join(map(str, shape[-axes:])) for shape in (start.shape, other))
            if tuple(start.shape[-axes:]) in inputs and any(site.grows for site in self.planner.sites.values()):
                notes.append(
                    f"output {number} had the input's size, {was}, and has another one at other strides ({now}): "
                    "nothing ties its decoder to the input; leave downsampling out with filter=, or resize the output"
                )
                warnings.warn(f"convert_: {notes[-1]}", stacklevel=4)
            else:
                was, now = ("x".join(map(str, shape[1:])) for shape in (start.shape, other))
                notes.append(f"output {number} follows the strides: {was} at the start, {now} at others")
        return (*notes, *self._constant_strides())

    def _constant_strides(self) -> tuple[str, ...]:
        """Heads that multiply the positions of a map by a constant: without weights, results move with the strides."""
        pools = _pools(self.places)
        if not self.planner.positions or not pools:
            return ()
        names = ", ".join(repr(name or "the model") for name in sorted(self.planner.positions))
        tops = []
        try:
            for factor in (1.0, *FACTORS):
                with _without_weights(self.planner.model), _moved(pools, factor):
                    found = tensors(self.planner.run(Execution(), False, meta=False))
                tops.append([float(t.abs().max()) for t in found if t.is_floating_point() and t.numel()])
        except Exception as error:  # a model need not run without weights
            return (f"{names}: numbers positions; whether it multiplies them by a constant was not found ({error})",)
        start, *others = tops
        if not any(abs(b - a) > 0.1 * a for other in others for a, b in zip(start, other, strict=False) if a > 0):
            return ()
        text = (
            f"{names}: positions of a map are multiplied by a constant, which no longer fits once strides move (boxes "
            "would be wrong): leave the downsampling before it out with filter=, or compute it from the map's size"
        )
        warnings.warn(f"convert_: {text}", stacklevel=5)
        return (text,)

    def _refused(self, error: Exception, seen: InPlace, why: str) -> bool:
        """Leave the place at fault out: the one that an error names, else the last with an operator before it."""
        if isinstance(error, NeedsDataError):
            raise error
        if isinstance(error, UnknownFunctionError):
            return self._leave(error.place, str(error))
        learned = [name for name in seen.order if hasattr(self.places.get(name), "pool")]
        if not learned:
            raise error
        reason = str(error).strip().splitlines() or [type(error).__name__]
        return self._leave(learned[-1], f"{why}: {reason[0][:160]}")

    def _leave(self, name: str, reason: str) -> bool:
        change = next(change for change in self.plan.changes if change.key == name)
        for other in self.plan.changes:  # one stride, one fate
            if other.key == name or (change.group is not None and other.group == change.group):
                self.planner.leave(key_of(other), reason)
        return False


def _pools(places: dict[str, Place]) -> set[DiffStrideNd]:
    return {m for place in places.values() for m in place.modules() if isinstance(m, DiffStrideNd)}


@contextlib.contextmanager
def _without_weights(model: nn.Module) -> Iterator[None]:
    """All parameters at zero for a while, but for strides."""
    modules = [m for m in model.modules() if not isinstance(m, HasStride)]
    kept = [(m._parameters, name, p) for m in modules for name, p in m._parameters.items() if p is not None]
    try:
        for store, name, parameter in kept:
            store[name] = nn.Parameter(torch.zeros_like(parameter), False)
        yield
    finally:
        for store, name, parameter in kept:
            store[name] = parameter


@contextlib.contextmanager
def _moved(pools: set[DiffStrideNd], factor: float) -> Iterator[None]:
    """Strides other than at the start, for a while."""
    before = {pool: pool.stride.detach().clone() for pool in pools}
    try:
        with torch.no_grad():
            for pool, stride in before.items():
                pool.stride.copy_((stride * factor).clamp_min(1.05))
        yield
    finally:
        with torch.no_grad():
            for pool, stride in before.items():
                pool.stride.copy_(stride)


def key_of(change: Change) -> SiteKey:
    """The site that a change is for."""
    return change.name, change.index
