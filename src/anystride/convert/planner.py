"""From a model and an example to a plan: what changes the resolution, how it can be replaced, and what must agree."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from anystride.calls import INPUT
from anystride.convert.fx import UntraceableError, check
from anystride.convert.groups import Groups, Resolution
from anystride.convert.plan import Change, Plan
from anystride.convert.sites import (
    FILTERS,
    InPlace,
    Site,
    SiteKey,
    Survey,
    axes_of,
    common_start,
    is_stride,
    pads_by_stride,
)
from anystride.convert.ties import find_ties
from anystride.execution import Execution, arguments
from anystride.hosts import input_maps
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
    ) -> None:
        self.model, self.example, self.settings, self.filter = model, example, settings, filter
        self.modules = dict(model.named_modules())
        self.sites: dict[SiteKey, Site] = {}
        self.meta = True
        self.survey = Survey(self.sites, learnable)
        self.training = [False]
        self.twice: set[str] = set()
        self._survey()
        # By site, the way in which it is replaced, or the reason for which it is not.
        self.ways: dict[SiteKey, str] = {}
        self.reasons: dict[SiteKey, str] = {}
        self.options: dict[SiteKey, dict[str, Any]] = {}
        for key, site in self.sites.items():
            self._choose(key, site)
        for name in learnable:
            if any(owner == name and index >= 0 for owner, index in self.sites):
                raise ValueError(f"learnable: {name!r} has a stride already, which is learned anyway; leave it out")

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
            self.ways[key] = "output"
        elif getattr(module, "return_indices", False):
            reason = "its indices refer to the map before pooling"
        elif site.lone and site.fixed_filter and self._only_filters(module, site.owner):
            self.ways[key] = "replace"
        elif site.lone and site.grows and isinstance(module, nn.Upsample):
            self.ways[key] = "enlarge"
            self.options[key] = {"mode": module.mode, "align_corners": module.align_corners}
        elif site.lone and site.grows and not list(module.children()) and site.kind != "interpolation":
            self.ways[key] = "output"
        elif site.lone and not site.grows and self._strides(module, site):
            self.ways[key] = "stride"
        else:
            try:
                self.options[key] = check(module, self.survey.counts[site.owner], site.index)
                self.ways[key] = "graph"
            except UntraceableError as error:
                kind = type(module).__name__
                reason = f"{kind} calls it as a function, and {error}; make it a module"
        if reason:
            self.reasons[key] = reason

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
        runs = [lambda e, mode=mode: self.run(e, mode) for mode in self.training]
        while True:
            sites = {key: self.sites[key] for key in self.ways}
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

    def find_changes_in_place(self) -> None:
        """Run the converted model in each mode, to see whose output what comes next changes in place."""
        for mode in reversed(self.training):
            self.run(seen := InPlace(), mode)
            self.twice |= seen.twice

    def accepts(self, plan: Plan) -> bool:
        """Whether all maps have the sizes that they had; a place that gives another one is left out from now on."""
        for change in [change for change in plan.replaced if change.key in self.twice]:
            self._leave((change.name, change.index), "it runs all its children, and would run the operator twice")
            return False
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
        del self.ways[key]
        self.reasons[key] = reason

    def _roles(
        self, groups: Groups, nodes: dict[Resolution, SiteKey], sources: dict[Resolution, Resolution]
    ) -> dict[SiteKey, dict[str, Any]] | None:
        """Role, leader, group and reason by site; None if a site had to be left out."""
        classes: dict[Resolution, list[Resolution]] = {}
        # In the order of execution, in which the plan is carried out: who leads must be there before who follows.
        position = {key: number for number, key in enumerate(self.sites)}
        for item in sorted(nodes, key=lambda item: position[nodes[item]]):
            classes.setdefault(groups.find(item), []).append(item)
        homes: dict[SiteKey, set[Resolution]] = {}
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
            leader = self._lead(root, [nodes[item] for item in items], groups, roles)
            for item in items if leader == INPUT else items[1:]:
                key = nodes[item]
                if key in roles:
                    continue
                if key[1] == -1 and sources.get(item) == root:
                    raise ValueError(
                        f"learnable: the output of {key[0]!r} meets its own input ({why}); "
                        "name the residual block that it is in instead"
                    )
                roles[key] = {**self._tie(item, items[0], leader, nodes, sources, roles), "why": why}
        self._find_scopes(roles)
        return roles

    def _lead(
        self, root: Resolution, keys: Sequence[SiteKey], groups: Groups, roles: dict[SiteKey, dict[str, Any]]
    ) -> str:
        """Give a role to the place that the others of a class of maps are tied to, and return its name, or INPUT."""
        first = keys[0]
        site = self.sites[first]
        # What a decoder ends with meets no map in the network, but outside: labels have the input's size.
        ends = site.grows and groups.size[root] in [size for item, size in groups.size.items() if item[0] == "input"]
        if root[0] == "input" or ends:
            return INPUT
        if not site.grows:
            why = ", ".join(groups.ties.get(root, []))
            roles[first] = {"role": "learn", "group": len(roles), "why": why}
        elif all(key == first for key in keys):
            roles[first] = {"role": "stay", "how": "", "why": "it meets no other map"}
        else:
            roles[first] = {"role": "stay", "how": "note", "why": "others follow its size"}
        return _key(first)

    def _tie(
        self,
        item: Resolution,
        first: Resolution,
        leader: str,
        nodes: dict[Resolution, SiteKey],
        sources: dict[Resolution, Resolution],
        roles: dict[SiteKey, dict[str, Any]],
    ) -> dict[str, Any]:
        """The role of a place that is tied to another one, or to the input."""
        site = self.sites[nodes[item]]
        if leader == INPUT:
            return {"role": "follow", "leader": self._input(site.sizes[0][1])}
        alike = sources.get(item) == sources.get(first) and site.stride == self.sites[nodes[first]].stride
        if alike and not site.grows and roles[nodes[first]]["role"] == "learn":
            return {"role": "share", "leader": leader, "group": roles[nodes[first]]["group"]}
        return {"role": "follow", "leader": leader}

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
                shared = common_start(calls, before[-1]) if before else ()
                around.setdefault(role["leader"], []).append(tuple([name for name, _ in shared]))
        for _, role in followers:
            role["scope"] = next(iter(functools.reduce(common_start, around[role["leader"]])[-1:]), "")

    def _change(self, key: SiteKey, role: dict[str, Any]) -> Change:
        site = self.sites[key]
        module = self.modules[site.owner]
        axes = axes_of(module, site)
        if key not in self.ways:
            role = {"role": "stay", "how": "", "why": self.reasons[key]}
        elif not role:
            role = {"role": "stay", "how": "", "why": "it did not run in the trials"}
        how = role.pop("how", "" if role["role"] == "stay" else self.ways[key])
        return Change(
            name=site.owner,
            index=site.index,
            kind=site.kind if not site.fixed_filter else "blur pooling",
            how=how,
            stride=site.stride[-axes:],
            span=site.span[-axes:],
            padding=site.padding[-axes:],
            before=(site.sizes[0][0][-axes:], site.sizes[0][1][-axes:]),
            same=pads_by_stride(module),
            ceil=site.ceil,
            **role,
            **(self.options.get(key, {}) if how else {}),
        )


def _key(key: SiteKey) -> str:
    return key[0] if key[1] <= 0 else f"{key[0]}#{key[1]}"
