"""From a model and an example to a plan: what changes the resolution, how it can be replaced, and what must agree."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from torch import nn

from anystride.convert import fx as graph
from anystride.convert.plan import Change, Plan
from anystride.convert.sites import FILTERS, Site, SiteKey, Survey
from anystride.convert.ties import Class, Groups, find_ties
from anystride.execution import Execution, arguments
from anystride.hosts import input_maps
from anystride.resample import CHILD, INPUT

T = TypeVar("T")


class Search:
    """Finds sites, how each can be replaced, and which must agree."""

    def __init__(
        self,
        model: nn.Module,
        example: Any,
        settings: Plan,
        filter: Callable[[nn.Module, str], bool] | None,
        learnable: Sequence[str],
    ) -> None:
        self.model, self.example, self.settings, self.filter, self.learnable = (
            model, example, settings, filter, learnable)  # fmt: skip
        self.modules = dict(model.named_modules())
        self.sites: dict[SiteKey, Site] = {}
        self.meta = True
        self.survey = Survey(self.sites, learnable)
        self.training = [False]
        self._survey()
        # By site, the way in which it is replaced, or the reason for which it is not.
        self.how: dict[SiteKey, str] = {}
        self.reasons: dict[SiteKey, str] = {}
        self.options: dict[SiteKey, dict[str, Any]] = {}
        for key, site in self.sites.items():
            self._choose(key, site)

    def run(self, execution: Execution, training: bool, meta: bool = True) -> Any:
        """One pass of the model."""
        return execution.run(self.model, self.example, training=training, meta=self.meta and meta)

    def _survey(self) -> None:
        try:
            self.run(self.survey, False)
        except Exception as on_meta:
            self.meta = False
            self.sites.clear()
            try:
                self.run(self.survey, False)
            except ValueError:
                raise
            except Exception as error:
                raise RuntimeError(f"model cannot be run on example_input: {error}") from on_meta
            return
        known = {key: list(site.sizes) for key, site in self.sites.items()}
        try:
            self.run(self.survey, True)
            self.training.append(True)
        except Exception:  # not every model can be trained on one example
            for key in list(self.sites):
                if key in known:
                    self.sites[key].sizes[:] = known[key]
                    del self.sites[key].calls[len(known[key]) :]
                else:
                    del self.sites[key]

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
            self.how[key] = "output"
        elif getattr(module, "return_indices", False):
            reason = "its indices refer to the map before pooling"
        elif site.lone and site.fixed_filter and self._only_filters(module, site.owner):
            self.how[key] = "replace"
        elif site.lone and site.grows and isinstance(module, nn.Upsample):
            self.how[key] = "enlarge"
            self.options[key] = {"mode": module.mode, "align_corners": module.align_corners}
        elif site.lone and site.grows and not list(module.children()) and site.kind != "interpolation":
            self.how[key] = "output"
        elif site.lone and not site.grows and self._strides(module, site):
            self.how[key] = "stride"
        else:
            try:
                self.options[key] = graph.check(module, self.survey.counts[site.owner], site.index)
                self.how[key] = "graph"
            except graph.UntraceableError as error:
                kind = type(module).__name__
                reason = f"{kind} calls it as a function, and {error}; make it a module"
        if reason:
            self.reasons[key] = reason

    def _strides(self, module: nn.Module, site: Site) -> bool:
        """Whether a module is a layer whose attribute is this stride; a block may have one, too, and branch on it."""
        children = {name for name, _ in module.named_children()}
        return children <= {"parametrizations"} and hasattr(module, "stride") and _is(module.stride, site.stride)

    def _only_filters(self, module: nn.Module, name: str) -> bool:
        """Whether a module is a fixed filter and nothing else, so that the operator may take its place."""
        plain = self.survey.operations[name] <= FILTERS and name not in self.survey.several
        hooked = module._forward_hooks or module._forward_pre_hooks
        return plain and not hooked and module is not self.model and not any(True for _ in module.parameters())

    def plan(self) -> Plan:
        """The plan, without costs. Sites that turn out to be in the way are left out, and the search starts anew."""
        runs = [lambda e, mode=mode: self.run(e, mode) for mode in self.training]
        while True:
            sites = {key: self.sites[key] for key in self.how}
            groups, nodes, sources = find_ties(runs, sites)
            if self.meta and self.survey.indexes:
                real = lambda e: self.run(e, False, meta=False)  # noqa: E731  # as short as those above
                groups, nodes, sources = find_ties([real], sites, groups)
            roles = self._roles(groups, nodes, sources)
            if roles is not None:
                changes = tuple(self._change(key, roles.get(key, {})) for key in self.sites)
                slices = self.survey.slices.items()
                notes = tuple(f"{name or 'the model'}: {what} stays, no layer does it" for name, what in slices)
                return replace(self.settings, changes=changes, notes=notes)

    def accepts(self, plan: Plan) -> bool:
        """Whether all maps have the sizes that they had; a place that gives another one is left out from now on."""
        if plan.method == "diffstride" and plan.ramp == "outer":
            return True
        wrong = [
            (change.name, change.index)
            for change in plan.replaced
            if change.after is not None and change.after != change.before[1]
        ]
        if wrong:
            self._leave(wrong[0], "its form at stride 1 gives maps of another size")
        return not wrong

    def _leave(self, key: SiteKey, reason: str) -> None:
        del self.how[key]
        self.reasons[key] = reason

    def _roles(
        self, groups: Groups, nodes: dict[Class, SiteKey], sources: dict[Class, Class]
    ) -> dict[SiteKey, dict[str, Any]] | None:
        """Role, leader, group and reason by site; None if a site had to be left out."""
        classes: dict[Class, list[Class]] = {}
        # In the order of execution, in which the plan is carried out: who leads must be there before who follows.
        position = {key: number for number, key in enumerate(self.sites)}
        for item in sorted(nodes, key=lambda item: position[nodes[item]]):
            classes.setdefault(groups.find(item), []).append(item)
        homes: dict[SiteKey, set[Class]] = {}
        for root, items in classes.items():
            for item in items:
                homes.setdefault(nodes[item], set()).add(root)
        for key, roots in homes.items():
            if len(roots) > 1:
                self._leave(key, "it runs at several resolutions that other layers must meet")
                return None
        roles: dict[SiteKey, dict[str, Any]] = {}
        for root, items in classes.items():
            why = ", ".join(groups.ties.get(root, []))
            if not groups.free(root) and root[0] != "input":
                for item in items:
                    source = sources.get(item)
                    moves = source is not None and groups.free(source)
                    reason = groups.fixed[root]
                    roles[nodes[item]] = {"role": "keep" if moves else "stay", "why": reason}
                continue
            first = nodes[items[0]]
            leader: str | None = INPUT
            rest = items
            # What a decoder ends with meets no map in the network, but outside: labels have the input's size.
            inputs = [size for item, size in groups.size.items() if item[0] == "input"]
            ends = self.sites[first].grows and groups.size[root] in inputs
            if root[0] != "input" and not ends:
                rest = items[1:]
                leader = _key(first)
                if self.sites[first].grows:
                    alone = all(nodes[item] == first for item in rest)
                    roles[first] = {
                        "role": "stay",
                        "how": "" if alone else "note",
                        "why": "it meets no other map" if alone else "others follow its size",
                    }
                else:
                    roles[first] = {"role": "learn", "group": len(roles), "why": why}
            for item in rest:
                key = nodes[item]
                if key in roles:
                    continue
                site, source = self.sites[key], sources.get(item)
                if key[1] == -1 and source == root:
                    raise ValueError(
                        f"learnable: the output of {key[0]!r} meets its own input ({why}); "
                        "name the residual block that it is in instead"
                    )
                alike = leader != INPUT and source == sources.get(items[0]) and site.stride == self.sites[first].stride
                if alike and not site.grows and roles[first]["role"] == "learn":
                    roles[key] = {"role": "share", "leader": leader, "group": roles[first]["group"], "why": why}
                else:
                    roles[key] = {"role": "follow", "leader": leader, "why": why}
                    if leader == INPUT:
                        roles[key]["leader"] = self._input(site.sizes[0][1])
        self._find_scopes(roles)
        return roles

    def _input(self, size: tuple[int, ...]) -> str:
        """Which of the model's inputs has a size: INPUT for the first with so many axes, else INPUT and its path."""
        args, kwargs = arguments(self.example)
        maps = input_maps(type(self.model).forward, self.model, True, args, kwargs)
        alike = [(path, tuple(x.shape[2:])) for path, x in maps if x.dim() == len(size) + 2]
        path = next((path for path, found in alike if found == size), "")
        return INPUT if not path or path == alike[0][0] else f"{INPUT}:{path}"

    def _find_scopes(self, roles: dict[SiteKey, dict[str, Any]]) -> None:
        """Note for all that follow one place the innermost module that all of them and the place run in."""
        keys = {_key(key): key for key in self.sites}
        around: dict[str, list[tuple[str, ...]]] = {}
        followers = [(key, role) for key, role in roles.items() if role["role"] == "follow" and role["leader"] in keys]
        for key, role in followers:
            leading = self.sites[keys[role["leader"]]].calls
            for number, calls in self.sites[key].calls:
                before = [other for earlier, other in leading if earlier < number]
                shared = _common(calls, before[-1]) if before else ()
                around.setdefault(role["leader"], []).append(tuple([name for name, _ in shared]))
        for _, role in followers:
            role["scope"] = next(iter(functools.reduce(_common, around[role["leader"]])[-1:]), "")

    def _change(self, key: SiteKey, role: dict[str, Any]) -> Change:
        site = self.sites[key]
        module = self.modules[site.owner]
        axes = _axes(module, site)
        if key not in self.how:
            role = {"role": "stay", "how": "", "why": self.reasons[key]}
        elif not role:
            role = {"role": "stay", "how": "", "why": "it did not run in the trials"}
        how = role.pop("how", "" if role["role"] == "stay" else self.how[key])
        return Change(
            name=site.owner,
            index=site.index,
            kind=site.kind if not site.fixed_filter else "blur pooling",
            how=how,
            stride=site.stride[-axes:],
            span=site.span[-axes:],
            padding=site.padding[-axes:],
            before=(site.sizes[0][0][-axes:], site.sizes[0][1][-axes:]),
            same=_pads_by_stride(module),
            ceil=site.ceil,
            **role,
            **(self.options.get(key, {}) if how else {}),
        )


def _is(stride: Any, values: tuple[int, ...]) -> bool:
    given = tuple(stride) if isinstance(stride, (tuple, list)) else (stride,)
    return given == values[-len(given) :] or given * len(values) == values


def _axes(module: nn.Module, site: Site) -> int:
    """Spatial axes of the layer; one-dimensional pooling borrows a second one."""
    name = type(module).__name__
    return 1 if name.endswith("Pool1d") else len(site.stride)


def _pads_by_stride(module: nn.Module) -> bool:
    """Whether a layer pads by TensorFlow's rule: timm's layers say so in one of these ways."""
    for flag in ("same_pad", "dynamic_padding"):
        if hasattr(module, flag):
            return bool(getattr(module, flag))
    return type(module).__name__.endswith("Same")


def _common(a: tuple[T, ...], b: tuple[T, ...]) -> tuple[T, ...]:
    """What two sequences begin with."""
    shared = 0
    while shared < min(len(a), len(b)) and a[shared] == b[shared]:
        shared += 1
    return a[:shared]


def _key(key: SiteKey) -> str:
    return key[0] if key[1] <= 0 else f"{key[0]}#{key[1]}"
