"""From a model and an example to a plan: what changes the resolution, how it can be replaced, and what must agree."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from torch import nn

from anystride.convert.change import Change
from anystride.convert.groups import Groups
from anystride.convert.labelled import InTheWayError
from anystride.convert.operations import FILTERS
from anystride.convert.plan import Plan
from anystride.convert.rewrite import check
from anystride.convert.roles import Conflict, Roles
from anystride.convert.rules import Rules
from anystride.convert.sites import Site, SiteKey, Survey, is_stride, larger, pads_by_stride
from anystride.convert.source import UnwritableError
from anystride.convert.ties import find_ties
from anystride.execution import Execution, NeedsDataError, tensors
from anystride.geometry import axis_names
from anystride.resample import CHILD


class Planner:
    """Finds sites, how each can be replaced, and which must agree."""

    def __init__(
        self,
        model: nn.Module,
        example: Any,
        settings: Plan,
        filter: Callable[[nn.Module, str], bool] | None,
        learnable: Sequence[str],
        axes: Mapping[str, Sequence[int | str]] | None = None,
    ) -> None:
        self.model, self.example, self.settings, self.filter = model, example, settings, filter
        self.modules = dict(model.named_modules())
        self.sites: dict[SiteKey, Site] = {}
        self.meta = True
        self.survey = Survey(self.sites, learnable)
        self.training = [False]
        self.untrained = ""  # why training mode fails on the example
        self.positions: frozenset[str] = frozenset()
        # Whether converted convolutions tell the whole strides that they had, and not those that they learn.
        self.whole = False
        # Of each output: how many examples it has, if that is how many the input has.
        self.rows: list[int] = []
        # By place, the spatial sizes that it gave in the converted model.
        self.outputs: dict[str, list[tuple[int, ...]]] = {}
        self._survey()
        # By site, the way in which it is replaced, or the reason for which it is not.
        self.ways: dict[SiteKey, str] = {}
        self.reasons: dict[SiteKey, str] = {}
        self.options: dict[SiteKey, str] = {}
        self.held = {name: self._held_axes(name, chosen) for name, chosen in (axes or {}).items()}
        self._other: dict[SiteKey, Site] | None = None
        for key, site in self.sites.items():
            self._choose(key, site)
        for name in learnable:
            if any(owner == name and index >= 0 for owner, index in self.sites):
                raise ValueError(f"learnable: {name!r} has a stride already, which is learned anyway; leave it out")

    def run(self, execution: Execution, training: bool, meta: bool = True, example: Any = None) -> Any:
        """One pass of the model."""
        example = self.example if example is None else example
        return execution.run(self.model, example, training=training, meta=self.meta and meta)

    def _survey(self) -> None:
        try:
            self._count_rows(self.run(self.survey, False))
        except Exception as on_meta:
            self.meta = False
            self._forget()
            try:
                self._count_rows(self.run(self.survey, False))
            except ValueError:
                raise
            except Exception as error:
                raise RuntimeError(f"model cannot be run on example_input: {error}") from on_meta
            return
        known = {key: list(site.sizes) for key, site in self.sites.items()}
        try:
            self.run(self.survey, True)
            self.training.append(True)
        except Exception as error:  # not every model can be trained on one example
            self.untrained = str(error).partition("\n")[0] or type(error).__name__
            for key in list(self.sites):
                if key in known:
                    self.sites[key].sizes[:] = known[key]
                    del self.sites[key].calls[len(known[key]) :]
                else:
                    del self.sites[key]

    def _count_rows(self, output: Any) -> None:
        given = {x.shape[0] for x in tensors(self.example) if x.dim() > 1}
        self.rows = [t.shape[0] if t.dim() and {t.shape[0]} == given else 0 for t in tensors(output)]

    def _forget(self) -> None:
        self.sites.clear()
        self.survey = Survey(self.sites, self.survey.named)

    def _choose(self, key: SiteKey, site: Site) -> None:
        module = self.modules[site.owner]
        reason = ""
        if self.filter is not None and not self.filter(module, site.owner):
            reason = "left out by filter"
        elif "forward" in module.__dict__ and site.index != -1:
            reason = "its forward was set on the object, and would not see the change; remove it before the conversion"
        elif hasattr(module, CHILD):
            reason = f"it has a {CHILD!r} already, from an earlier conversion or of its own"
        elif site.index == -1:
            self.ways[key] = "output"
        elif getattr(module, "return_indices", False):
            reason = "its indices refer to the map before pooling"
        elif site.adaptive and not self._derived(key):
            reason = "it pools to a size that does not depend on the map's"
        elif len(site.strides) > 1:
            reason = f"it runs with several strides, {', '.join(map(str, sorted(site.strides)))}"
        elif site.kind == "deformable convolution":
            reason = "its offsets have the size that its own stride gives"
        elif site.lone and site.whole and self._strides(module, site):
            self.ways[key], site.mode = "enlarge", "area"
        elif site.lone and site.fixed_filter and self._only_filters(module, site.owner):
            self.ways[key] = "replace"
        elif site.lone and site.grows and isinstance(module, nn.Upsample):
            self.ways[key] = "enlarge"
        elif site.lone and site.grows and not list(module.children()) and site.kind != "interpolation":
            self.ways[key] = "output"
        elif site.lone and not site.grows and self._strides(module, site):
            self.ways[key] = "stride"
        else:
            try:
                self.options[key] = check(module, site.found)
                self.ways[key] = "call"
                site.mode = "area" if site.whole else site.mode
            except UnwritableError as error:
                reason = f"{type(module).__name__} calls it as a function, and {error}; make it a module"
        if reason:
            self.reasons[key] = reason

    def _derived(self, key: SiteKey) -> bool:
        """Whether the size that a layer pools to follows from the map's: another example tells."""
        other = self.other()
        return key in other and other[key].sizes[0][1] != self.sites[key].sizes[0][1]

    def other(self) -> dict[SiteKey, Site]:
        """The sites as a run on a larger example shows them; empty where the model takes no other size."""
        if self._other is None:
            self._other = {}
            for axes in (2, 3):  # boxes and tables have two, and are no maps
                survey, example = Survey(self._other), larger(self.example, axes)
                survey.known.update(self.survey.known)
                try:
                    self.run(survey, False, example=example)
                except Exception:  # it takes no such input
                    self._other.clear()
                    continue
                if True in self.training:
                    with suppress(Exception):  # what it showed until then holds
                        self.run(survey, True, example=example)
                break
        return self._other

    def _strides(self, module: nn.Module, site: Site) -> bool:
        """Whether a module is a layer whose attribute is this stride; a block may have one, too, and branch on it."""
        children = {name for name, _ in module.named_children()}
        return children <= {"parametrizations"} and hasattr(module, "stride") and is_stride(module.stride, site.stride)

    def _only_filters(self, module: nn.Module, name: str) -> bool:
        """Whether a module is a fixed filter and nothing else, so that the operator may take its place."""
        plain = self.survey.operations[name] <= FILTERS and name not in self.survey.several
        hooked = module._forward_hooks or module._forward_pre_hooks
        return plain and not hooked and module is not self.model and not any(True for _ in module.parameters())

    def plan(self) -> Plan:
        """The plan, without costs. Sites that turn out to be in the way are left out, and the search starts anew."""
        while True:
            try:
                return self._plan()
            except Conflict as conflict:
                self.leave(conflict.key, str(conflict))
            except InTheWayError as error:
                for key in error.keys:
                    self.leave(key, str(error))
            except NeedsDataError:
                if not self.meta:
                    raise
                self.meta, self.training = False, [False]

    def _plan(self) -> Plan:
        sites = {key: self.sites[key] for key in self.ways}
        runs = [lambda e, mode=mode: self.same_rows(self.run(e, mode)) for mode in self.training]
        ties = find_ties(runs, sites, self._held(), survey=self.survey)
        if self.meta and self.survey.indexes:
            real = lambda e: self.same_rows(self.run(e, False, meta=False))  # noqa: E731  # as those above
            ties = find_ties([real], sites, ties.groups, survey=self.survey)
        self.positions = ties.positions
        rules = Rules(self.model, self.example, self.sites, ties, self.other)
        roles = Roles(rules).found()
        notes = tuple(
            f"{name or 'the model'} keeps the example's size whatever the input's: how it follows was not found"
            for name in sorted(rules.constant)
        )
        changes = tuple(self._change(key, roles.get(key, {})) for key in self.sites)
        return replace(self.settings, changes=changes, notes=(*self.settings.notes, *notes), whole=self.whole)

    def same_rows(self, output: Any) -> None:
        """A trial's output must have as many examples as the input: a view may have taken a larger map for more."""
        found = tensors(output)
        if len(found) == len(self.rows):
            for t, rows in zip(found, self.rows, strict=True):
                if rows and t.dim() and t.shape[0] != rows:
                    raise ValueError(f"the output would have {t.shape[0]} rows for {rows} examples")

    def _held_axes(self, name: str, chosen: Sequence[int | str]) -> frozenset[int]:
        """The axes of a module's map that are not chosen to learn."""
        count = next((len(site.stride) for key, site in self.sites.items() if key[0] == name), 0)
        if not count:
            raise ValueError(f"axes: {name!r} has no stride; name a layer that has one, or give it to learnable, too")
        numbers = {word: number for number, word in enumerate(axis_names(count))} | {n: n for n in range(count)}
        unknown = [axis for axis in chosen if axis not in numbers]
        if isinstance(chosen, str) or unknown:
            raise ValueError(f"axes: {name!r} has the axes {', '.join(map(str, numbers))}, got {chosen!r}")
        return frozenset(range(count)) - {numbers[axis] for axis in chosen}

    def _held(self) -> Groups:
        """Groups with what the user wants to stay along some axes."""
        groups = Groups()
        groups.held_sites = {key: self.held[key[0]] for key in self.ways if key[0] in self.held}
        return groups

    def leave(self, key: SiteKey, reason: str) -> None:
        """Leave a site as it is, and say why."""
        del self.ways[key]
        self.reasons[key] = reason

    def _change(self, key: SiteKey, role: dict[str, Any]) -> Change:
        site = self.sites[key]
        if key not in self.ways:
            role = {"role": "stay", "how": "", "why": self.reasons[key]}
        elif not role:
            role = {"role": "stay", "how": "", "why": "it did not run in the trials"}
        how = role.pop("how", "" if role["role"] == "stay" else self.ways[key])
        enlarges = how in ("enlarge", "call") and site.mode is not None
        return Change(
            name=site.owner,
            index=site.index,
            kind=site.kind if not site.fixed_filter else "blur pooling",
            how=how,
            stride=site.stride,
            span=site.span,
            padding=site.padding,
            before=site.sizes[0],
            same=pads_by_stride(self.modules[site.owner]),
            ceil=site.ceil,
            grows=site.grows,
            call=self.options.get(key, "") if how else "",
            mode=site.mode if enlarges else None,
            align_corners=site.align_corners if enlarges else None,
            **role,
        )
