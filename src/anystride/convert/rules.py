"""How the size of a map follows from that of the network's input."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from anystride.calls import INPUT
from anystride.convert.groups import Resolution
from anystride.convert.sites import Site, SiteKey, pads_by_stride
from anystride.convert.ties import Ties
from anystride.execution import arguments
from anystride.geometry import Geometry, SizeRule
from anystride.hosts import input_maps

Steps = tuple[tuple[int, int, int], ...]


class Rules:
    """Rules for sizes, from what the trials found.

    Args:
        model, example: for the inputs.
        sites: all of them, in the order of execution.
        ties: what the trials found.
        other: gives the sites of a run on a larger example, or none.

    Attributes:
        classes: the items of each class, in the order of execution.
        constant: places that keep the example's size where the unconverted network, given a larger input, would not.
    """

    def __init__(
        self,
        model: nn.Module,
        example: Any,
        sites: dict[SiteKey, Site],
        ties: Ties,
        other: Callable[[], Mapping[SiteKey, Site]],
    ) -> None:
        self.model, self.example, self.sites, self.ties, self.other = model, example, sites, ties, other
        self.groups, self.nodes = ties.groups, ties.nodes
        self.modules = dict(model.named_modules())
        self.classes: dict[Resolution, list[Resolution]] = {}
        for item in sorted(self.nodes, key=self._visit):
            self.classes.setdefault(self.groups.find(item), []).append(item)
        self.constant: set[str] = set()

    def _visit(self, item: Resolution) -> int:
        """When the site's call that an item comes from ran."""
        site = self.sites[self.nodes[item]]
        return site.calls[min(self.ties.calls[item][0], len(site.calls) - 1)][0]

    def of(self, item: Resolution, axes: frozenset[int]) -> tuple[int | SizeRule | None, ...]:
        """How the size along axes follows from the input's; a number where that cannot be told."""
        size = self.groups.size[item]
        return tuple([self._one(item, axis) if axis in axes else None for axis in range(len(size))])

    def _one(self, item: Resolution, axis: int) -> int | SizeRule:
        rule = self._found(item, axis)
        other, number = self.other().get(self.nodes[item]), self.ties.calls[item][0]
        sizes = other.sizes[number : number + 1] if other is not None else []
        if isinstance(rule, int) and any(size[axis : axis + 1] != (rule,) for _, size in sizes):
            self.constant.add(self.nodes[item][0])
        return rule

    def _found(self, item: Resolution, axis: int) -> int | SizeRule:
        key, fixed = self.nodes[item], self.groups.size[item][axis]
        chain = self._chain(item, axis, len(self.groups.order))
        if chain is None:
            return fixed
        root, along, steps = chain
        given = self.groups.size[root]
        rule = SizeRule(self.input(given), along, len(given), steps, given)
        if rule.apply(given[along]) != fixed:
            return fixed
        other, number = self.other().get(key), self.ties.calls[item][0]
        if other is None or number >= len(other.sizes):
            if not any(step[::2] == (1, 1) for step in steps):
                return rule
            # Nothing bears out what lies between layers: a crop of so many samples, or a size of its own (RoI pooling).
            self.constant.add(key[0])
            return fixed
        # In the larger run each input is twice as long.
        found = other.sizes[number][1]
        if axis >= len(found) or rule.apply(2 * given[along]) != found[axis]:
            return fixed
        return rule

    def _chain(self, item: Resolution, axis: int, depth: int) -> tuple[Resolution, int, Steps] | None:
        """The input that an item's size comes from, its axis, and the steps from there."""
        source, size = self.ties.sources.get(item), self.groups.size[item]
        if source is None or depth == 0:
            return None
        # An axis before the others may have been folded into the batch.
        along = axis + len(self.groups.size[source]) - len(size)
        if along < 0:
            return None
        site = self.sites[self.nodes[item]]
        number = min(self.ties.calls[item][0], len(site.sizes) - 1)
        before, after = (size[axis] for size in site.sizes[number])
        between = before - self.groups.size[source][along]
        steps: Steps = ((1, between, 1),) if between else ()
        if site.grows:
            factor = site.stride[axis] if "convolution" in site.kind else max(1, after // before)
            steps += ((factor, after - before * factor, 1),)
        else:
            same = pads_by_stride(self.modules[site.owner])
            steps += (Geometry(site.stride, site.span, site.padding, same, site.ceil).step(axis),)
        if source[0] == "input":
            return source, along, steps
        first = self.classes.get(source)
        before_it = None if not first else self._chain(first[0], along, depth - 1)
        return None if before_it is None else (*before_it[:2], before_it[2] + steps)

    def input(self, size: tuple[int, ...]) -> str:
        """Which of the model's inputs has a size: INPUT for the first with so many axes, else INPUT and its path."""
        args, kwargs = arguments(self.example)
        maps = input_maps(type(self.model).forward, self.model, True, args, kwargs)
        axes = len(size)
        alike = [(path, tuple(x.shape[2:])) for path, x in maps if x.dim() == axes + 2]
        alike = alike or [(path, tuple(x.shape[1:])) for path, x in maps if x.dim() == axes + 1]
        path = next((path for path, found in alike if found == size), "")
        return INPUT if not path or path == alike[0][0] else f"{INPUT}:{path}"
