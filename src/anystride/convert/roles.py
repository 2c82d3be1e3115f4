"""Who leads, shares, follows, keeps or stays: roles from the classes of maps that have one size."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from anystride.calls import ENTRY, EVERY, OWN
from anystride.convert.groups import Resolution
from anystride.convert.rules import Rules
from anystride.convert.sites import SiteKey, common_start

Role = dict[str, Any]
SEVERAL = "it runs at several resolutions that other layers must meet"


class Conflict(Exception):  # noqa: N818  # it says which site is to be left out
    """A site cannot have one role; the message is the reason to leave it out.

    Attributes:
        key: of the site.
    """

    def __init__(self, key: SiteKey, reason: str) -> None:
        super().__init__(reason)
        self.key = key


class Roles:
    """Roles of sites, as arguments of `plan.Change`.

    Args:
        rules: for sizes, with what the trials found.
    """

    def __init__(self, rules: Rules) -> None:
        self.rules, self.sites, self.ties, self.classes = rules, rules.sites, rules.ties, rules.classes
        self.groups, self.nodes = rules.groups, rules.nodes
        self.by_item: dict[Resolution, Role] = {}
        self.numbers: dict[SiteKey, int] = {}

    def found(self) -> dict[SiteKey, Role]:
        """The role of each site that ran.

        Raises:
            Conflict: a site would need two roles.
            ValueError: the output of a module that was to learn a stride meets its own input.
        """
        for root, items in self.classes.items():
            if self.groups.free(root) or root[0] == "input":
                self._tie_class(root, items)
            else:
                for item in items:
                    self.by_item[item] = self._kept(item, self.groups.why(root))
        by_key: dict[SiteKey, list[Resolution]] = {}
        for item in self.by_item:
            by_key.setdefault(self.nodes[item], []).append(item)
        roles = {key: self._one(key, items) for key, items in by_key.items()}
        self._find_scopes(roles)
        return roles

    def _tie_class(self, root: Resolution, items: list[Resolution]) -> None:
        why = ", ".join(self.groups.ties.get(root, []))
        leader = self._lead(root, items, why)
        outside = leader is None or leader[0] == ENTRY
        for item in items if outside else items[1:]:
            key = self.nodes[item]
            if leader is not None and not outside and key == self.nodes[leader] and self._alike(item, leader):
                self.by_item[item] = self.by_item[leader]
                continue
            if key[1] == -1 and self.ties.sources.get(item) == root:
                raise ValueError(
                    f"learnable: the output of {key[0]!r} meets its own input ({why}); "
                    "name the residual block that it is in instead"
                )
            self.by_item[item] = {**self._axes(item, root), **self._tied(item, leader), "why": why}

    def _lead(self, root: Resolution, items: Sequence[Resolution], why: str) -> Resolution | None:
        """Give a role to what the others of a class are tied to, and return it; None where that is the input.

        It may also be the map that a site is given, as ENTRY and its key: where the model pads its input, a decoder
        ends at that size.
        """
        first = items[0]
        site = self.sites[self.nodes[first]]
        # What a decoder ends with meets no map in the network, but outside: labels have the input's size.
        inputs = [size for item, size in self.groups.size.items() if item[0] == "input"]
        if root[0] == "input" or (site.grows and self.groups.size[root] in inputs):
            return None
        entry = self._entry(self.groups.size[root]) if site.grows else None
        if entry is not None and len({self.nodes[item] for item in items}) == 1:
            return ENTRY, entry
        if not site.grows:
            number = self.numbers.setdefault(self.nodes[first], len(self.numbers))
            self.by_item[first] = {**self._axes(first, root), "role": "learn", "group": number, "why": why}
        elif len({self.nodes[item] for item in items}) == 1:
            self.by_item[first] = self._alone(first, root)
        else:
            self.by_item[first] = {"role": "stay", "how": "note", "why": "others follow its size"}
        return first

    def _alone(self, item: Resolution, root: Resolution) -> Role:
        """What enlarges and meets no other map: the last one gives the size that it gave, which the outside expects."""
        kept = self._kept(item, "it meets no other map, and is the last to enlarge")
        if root in self.ties.sources.values() or kept["role"] == "stay":
            return {"role": "stay", "how": "", "why": "it meets no other map"}
        return kept

    def _entry(self, size: tuple[int, ...]) -> SiteKey | None:
        """The site that is converted, and is given a map of this size that comes from no other site."""
        for item, role in self.by_item.items():
            source = self.ties.sources.get(item)
            first = source is None or source[0] == "input"
            if first and role["role"] != "stay" and self.sites[self.nodes[item]].sizes[0][0] == size:
                return self.nodes[item]
        return None

    def _tied(self, item: Resolution, leader: Resolution | None) -> Role:
        """The role of a place that is tied to another one, or to the input."""
        site = self.sites[self.nodes[item]]
        if leader is not None and leader[0] == ENTRY:
            return {"role": "follow", "leader": leader}
        if leader is None:
            return {"role": "follow", "leader": self.rules.input(self.groups.size[item])}
        leading = self.by_item[leader]
        if self._alike(item, leader) and not site.grows and leading["role"] == "learn":
            return {"role": "share", "leader": place_name(self.nodes[leader]), "group": leading["group"]}
        sizes = zip(self.groups.size[item], self.groups.size[leader], strict=True)
        shift = tuple([n - first for n, first in sizes])
        return {"role": "follow", "leader": leader, "shift": shift if any(shift) else None}

    def _alike(self, item: Resolution, leader: Resolution) -> bool:
        """Whether two layers of one stride are given the same map."""
        site, leading = self.sites[self.nodes[item]], self.sites[self.nodes[leader]]
        same = self.ties.sources.get(item) == self.ties.sources.get(leader) and site.stride == leading.stride
        return same and self.groups.size[item] == self.groups.size[leader]

    def _axes(self, item: Resolution, root: Resolution) -> Role:
        """Along which axes a place moves, and which rules hold along those that a refusal fixed."""
        moves = self.groups.moves(root)
        count = len(self.groups.size[item])
        if root[0] == "input" or len(moves) == count:
            return {}
        kept = self._moved(item) - moves - self.groups.held.get(root, frozenset())
        role: Role = {"axes": tuple(sorted(moves | kept))}
        return role | {"rules": self.rules.of(item, kept)} if kept else role

    def _kept(self, item: Resolution, why: str) -> Role:
        """A place of a class that cannot move: it stays, but where the map that it is given moves."""
        kept = self._moved(item) - self.groups.held.get(self.groups.find(item), frozenset())
        if not kept:
            return {"role": "stay", "why": why}
        if self.sites[self.nodes[item]].whole:
            kept = frozenset(range(len(self.groups.size[item])))
        axes = tuple(sorted(kept)) if len(kept) < len(self.groups.size[item]) else None
        return {"role": "keep", "why": why, "axes": axes, "rules": self.rules.of(item, kept)}

    def _moved(self, item: Resolution) -> frozenset[int]:
        """The axes along which the map that a site is given may have another size than before the conversion."""
        source = self.ties.sources.get(item)
        if source is None:
            return frozenset()
        items = self.classes.get(source, [])
        if items and all(self.by_item.get(one, {}).get("role") == "stay" for one in items):
            return frozenset[int]().union(*(self._moved(one) for one in items))
        return self.groups.moves(source) | self.groups.held.get(source, frozenset())

    def _one(self, key: SiteKey, items: Sequence[Resolution]) -> Role:
        """The one role of a site whose calls give maps of several classes."""
        roles = [self.by_item[item] for item in items]
        if {role["role"] for role in roles} == {"follow", "stay"} and self.sites[key].grows:
            # Where it meets no other map, it enlarges as it did.
            for role in roles:
                if role["role"] == "stay":
                    role.pop("how", None)
                    role.update(role="follow", leader=OWN)
        kinds = {role["role"] for role in roles}
        if len(kinds) > 1 or len({role.get("how") for role in roles}) > 1:
            raise Conflict(key, SEVERAL)
        if kinds == {"follow"}:
            return self._followed(key, items)
        told = {str({k: v for k, v in role.items() if k != "why"}) for role in roles}
        if len(told) > 1:
            raise Conflict(key, SEVERAL)
        why = list(dict.fromkeys(role["why"] for role in roles if role["why"]))
        return {**roles[0], "why": ", ".join(why)}

    def _followed(self, key: SiteKey, items: Sequence[Resolution]) -> Role:
        """The role of a site that follows one place, or several in turn."""
        roles = [self.by_item[item] for item in items]
        rest = {str((role.get("shift"), role.get("axes"), role.get("rules"))) for role in roles}
        if len(rest) > 1:
            raise Conflict(key, SEVERAL)
        if len({str(role["leader"]) for role in roles}) == 1:
            return roles[0]
        turns: dict[int, Any] = {}
        for item, role in zip(items, roles, strict=True):
            turns.update(dict.fromkeys(self.ties.calls[item], role["leader"]))
        if sorted(turns) != list(range(len(turns))):
            raise Conflict(key, SEVERAL)
        return {**roles[0], "turns": tuple([turns[number] for number in range(len(turns))])}

    def _find_scopes(self, roles: dict[SiteKey, Role]) -> None:
        """Write leaders as places call them, and note the innermost module that they and all their followers run in."""
        around: dict[SiteKey, list[tuple[str, ...]]] = {}
        for key, role in roles.items():
            for leader in self._leaders(role):
                leading = self.sites[self._site(leader)].calls
                for number, calls in self.sites[key].calls:
                    before = [other for earlier, other in leading if earlier < number]
                    shared = common_start(calls, before[-1]) if before else ()
                    around.setdefault(self._site(leader), []).append(tuple([name for name, _ in shared]))
        scopes = {key: next(iter(functools.reduce(common_start, found)[-1:]), "") for key, found in around.items()}
        for key, role in roles.items():
            if role["role"] != "follow":
                continue
            leaders = self._leaders(role)
            if leaders:
                role["scope"] = min((scopes[self._site(leader)] for leader in leaders), key=len)
            role["turns"] = tuple([self._name(leader, scopes) for leader in role.get("turns", ())])
            if len(role["turns"]) > 1 and len({scopes.get(self._site(leader)) for leader in leaders}) > 1:
                raise Conflict(key, SEVERAL)
            role["turns"] = self._of_one_call(key, role)
            role["leader"] = role["turns"][0] if role["turns"] else self._name(role["leader"], scopes)
            if len(set(role["turns"])) == 1:
                role["turns"] = ()

    def _of_one_call(self, key: SiteKey, role: Role) -> tuple[str, ...]:
        """The turns of one call of the scope: a module that runs several times takes the same turns each time."""
        turns: tuple[str, ...] = role["turns"]
        if not turns:
            return turns
        counts = [dict(calls).get(role.get("scope", ""), 0) for _, calls in self.sites[key].calls[: len(turns)]]
        by_call = [
            tuple([leader for leader, count in zip(turns, counts, strict=False) if count == one])
            for one in dict.fromkeys(counts)
        ]
        if len(set(by_call)) > 1:
            raise Conflict(key, SEVERAL)
        return by_call[0]

    def _site(self, leader: Resolution) -> SiteKey:
        key: SiteKey = leader[1] if leader[0] == ENTRY else self.nodes[leader]
        return key

    def _leaders(self, role: Role) -> list[Resolution]:
        if role["role"] != "follow":
            return []
        return [leader for leader in role.get("turns") or (role["leader"],) if not isinstance(leader, str)]

    def _name(self, leader: Any, scopes: Mapping[SiteKey, str]) -> str:
        """A leader as a place calls it: with the number of its call, where it runs several times in the scope."""
        if isinstance(leader, str):
            return leader
        if leader[0] == ENTRY:
            return place_name(leader[1]) + ENTRY
        key = self.nodes[leader]
        site, scope = self.sites[key], scopes[key]
        number = min(self.ties.calls[leader][-1], len(site.calls) - 1)
        each = [dict(calls).get(scope) for _, calls in site.calls]
        earlier = [one for one in each[:number] if one == each[number]]
        several = sum(one == each[number] for one in each) > 1
        sizes = {site.sizes[n][1] for n, one in enumerate(each) if one == each[number]}
        return f"{place_name(key)}{EVERY}{len(earlier)}" if several and len(sizes) > 1 else place_name(key)


def place_name(key: SiteKey) -> str:
    """A site as the plan calls it."""
    return key[0] if key[1] <= 0 else f"{key[0]}#{key[1]}"
