"""Which of a model's downsamplers must agree, found by running it at sizes that do not.

Every operation that changes the resolution by a fixed factor is a *site*. The model runs on tensors without data, and
each site's output is given a size of its own, a prime number that no other map has. Where an operation then refuses to
work, the maps that it got should have been of one size: the sites they come from are tied, and the run starts anew.
Where that does not help, a size is fixed by something else (a table of positions, a linear layer), and the message of
the operation that refused is the reason. When a run passes, any sizes that respect the ties do.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from anystride.convert.groups import Groups, Resolution
from anystride.convert.sites import Site, SiteExecution, SiteKey
from anystride.execution import TAG, Execution, tensors

# From 11 on: no window, group or patch divides them by chance.
PRIMES = [n for n in range(11, 4000) if all(n % d for d in range(2, math.isqrt(n) + 1))]
# Sizes of trials relative to those of the example: near them, and larger, where tables would be too short.
SCALES = (1.0, 1.25)
aten = torch.ops.aten


class RefusedError(Exception):
    """A run ended early; what was learned from it is in the groups."""


class Trial(SiteExecution):
    """A pass in which each site's output has a size that no other class of maps has."""

    def __init__(self, sites: dict[SiteKey, Site], groups: Groups, scale: float) -> None:
        super().__init__()
        self.sites, self.groups, self.scale = sites, groups, scale
        self.calls: dict[SiteKey, int] = {}
        self.nodes: dict[Resolution, SiteKey] = {}
        self.labels: dict[Resolution, tuple[int, ...]] = {}
        self.last: Resolution | None = None
        # After a tie, maps of one class still have the sizes of two in this pass: a refusal then says nothing new.
        self.tied = False

    def operation(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        at = self.place(func, args, kwargs)
        try:
            out = func(*args, **kwargs)
        except Exception as error:
            out = self._reconcile(func, args, kwargs, error)
        sources = [t for t in tensors((args, kwargs)) if hasattr(t, TAG)]
        if at is not None and at[0] in self.sites and max(at[1]["stride"]) > 1:
            results = list(out) if isinstance(out, tuple) else [out]
            root, results[0] = self._relabel(at[0], args[0], results[0])
            for t in tensors(results):
                setattr(t, TAG, root)
            return tuple(results) if isinstance(out, tuple) else results[0]
        if sources:
            for t in tensors(out):
                setattr(t, TAG, self._origin(t, sources))
            self.last = getattr(tensors(out)[-1], TAG) if tensors(out) else self.last
        return out

    def given(self, inputs: list[Tensor]) -> None:
        super().given(inputs)
        maps = [x for x in inputs if x.dim() > 2]
        sizes: list[tuple[int, ...]] = []
        for x in sorted(maps, key=lambda x: -x.dim()):
            # A mask (N, *spatial) has the size of the maps that it is for. Two inputs of one size are one class, as for
            # a shared encoder.
            size = tuple(x.shape[1:]) if tuple(x.shape[1:]) in sizes else tuple(x.shape[2:])
            sizes.append(size)
            setattr(x, TAG, self.groups.add(("input", sizes.index(size)), size))

    def left(self, name: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        super().left(name, module, args, output)
        if (name, -1) not in self.sites:
            return None
        root, out = self._relabel((name, -1), output, output)
        setattr(out, TAG, root)
        return out

    def label(self, root: Resolution) -> tuple[int, ...]:
        """The size of a class in this pass."""
        if not self.groups.free(root):
            return self.groups.size[root]
        if root not in self.labels:
            used = {n for label in self.labels.values() for n in label}
            sizes: list[int] = []
            for n in self.groups.size[root]:
                near = sorted(PRIMES, key=lambda p, wanted=self.scale * n: abs(p - wanted))  # type: ignore[misc]
                sizes.append(next(p for p in near if p not in used and p not in sizes))
            self.labels[root] = tuple(sizes)
        return self.labels[root]

    def _relabel(self, key: SiteKey, x: Tensor, out: Tensor) -> tuple[Resolution, Tensor]:
        site = self.sites[key]
        number = self.calls.get(key, 0)
        self.calls[key] = number + 1
        size = site.sizes[min(number, len(site.sizes) - 1)][1]
        source = self.groups.find(getattr(x, TAG)) if hasattr(x, TAG) else ("none",)
        item = ("site", key, source)
        self.groups.add(item, size)
        self.nodes[item] = key
        root = self.groups.find(item)
        self.last = root
        label = self.label(root)
        if len(label) != len(size):
            self.groups.fix(item, "its maps have another number of axes than the maps that they meet")
            raise RefusedError
        # An axis that a one-dimensional layer borrowed has one sample, and keeps it.
        axes = len(label)
        wanted = [
            n if s == 1 and i == 1 else n_label
            for n, n_label, s, i in zip(out.shape[-axes:], label, size, x.shape[-axes:], strict=True)
        ]
        return root, out.new_zeros(*out.shape[:-axes], *wanted)

    def _origin(self, out: Tensor, sources: list[Tensor]) -> Resolution:
        roots = {self.groups.find(getattr(t, TAG)) for t in sources}
        if out.dim() > 2:
            spatial = tuple(out.shape[2:])
            own = [r for r in roots if self.labels.get(r) == spatial]
            if own:
                return own[0]
            for root, label in self.labels.items():
                if label == spatial and self.groups.find(root) == root:
                    return root
            for t in sources:
                if t.dim() == out.dim() and (t.shape[2:] == out.shape[2:] or t.shape[1:-1] == out.shape[1:-1]):
                    return self.groups.find(getattr(t, TAG))
        return max(roots, key=self.groups.order.__getitem__)

    def _reconcile(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], error: Exception) -> Any:
        """Tie what met in an operation that refused, and run it as if sizes agreed; or learn that this is no help."""
        where = (self.stack[-1][0] if self.stack else "") or "the model"
        operation = func.overloadpacket.__name__
        maps = [t for t in tensors((args, kwargs)) if hasattr(t, TAG) and t.dim() > 1]
        roots: list[Resolution] = []
        for t in maps:
            root = self.groups.find(getattr(t, TAG))
            if root not in roots:
                roots.append(root)
        reason = f"{operation} in {where} needs its size: {_first_line(error)}"
        free = [root for root in roots if self.groups.free(root)]
        if self.tied and len(roots) < 2:
            raise RefusedError
        if len(roots) > 1 and free:
            alike = [root for root in roots if self.groups.size[root] == self.groups.size[roots[0]]]
            if len(alike) > 1:
                for root in alike[1:]:
                    self.groups.merge(alike[0], root, f"{operation} in {where}")
                self.tied = True
                out = self._as_if_agreed(func, args, kwargs, maps)
                if out is not None:
                    return out
                raise RefusedError
        if not self.tied:
            for root in free or self._latest_free():
                self.groups.fix(root, reason)
        raise RefusedError from error

    def _as_if_agreed(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], maps: list[Tensor]) -> Any:
        first = maps[0]
        channels = 1
        if func.overloadpacket is aten.cat:
            channels = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % first.dim()
        elif first.dim() != max(t.dim() for t in maps):
            return None

        def agree(value: Any) -> Any:
            if not isinstance(value, Tensor) or not hasattr(value, TAG) or value.dim() != first.dim():
                return value
            shape = [
                n if i == channels and func.overloadpacket is aten.cat else (n if n == 1 else wanted)
                for i, (n, wanted) in enumerate(zip(value.shape, first.shape, strict=True))
            ]
            agreed = value.new_zeros(shape)
            setattr(agreed, TAG, getattr(value, TAG))
            return agreed

        try:
            out: Any = func(*tree_map(agree, args), **kwargs)
        except Exception:
            return None
        return out

    def _latest_free(self) -> list[Resolution]:
        roots = [self.groups.find(item) for item in self.nodes]
        free = [root for root in roots if self.groups.free(root)]
        if self.last is not None and self.groups.free(self.groups.find(self.last)):
            return [self.groups.find(self.last)]
        return free[-1:]

    def refused_by_model(self, error: Exception) -> None:
        """An exception that no operation raised: the model itself checks a size."""
        if self.tied:
            return
        where = self.stack[-1][0] if self.stack else ""
        roots = self._latest_free()
        if not roots:
            raise error
        for root in roots:
            self.groups.fix(root, f"{where or 'the model'} refuses another size: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__)[:160]


def find_ties(
    runs: Sequence[Callable[[Execution], None]],
    sites: dict[SiteKey, Site],
    groups: Groups | None = None,
    limit: int = 400,
) -> tuple[Groups, dict[Resolution, SiteKey], dict[Resolution, Resolution]]:
    """Run until runs pass; return the groups, the site of each node and the class that each node's input has.

    Args:
        runs: each runs the model once under the given execution, in one of its modes.
        sites: what may be given another size.
        groups: what is known already.
        limit: runs after which the search is given up.
    """
    groups = groups or Groups()
    nodes: dict[Resolution, SiteKey] = {}
    clean = 0
    for _ in range(limit):
        nodes = {}
        learned = (dict(groups.parent), dict(groups.fixed))
        for run in runs:
            trial = Trial(sites, groups, SCALES[clean % len(SCALES)])
            try:
                run(trial)
            except RefusedError:
                break
            except Exception as error:
                trial.refused_by_model(error)
                break
            nodes.update(trial.nodes)
        else:
            close_chains(groups, nodes, sites)
            known = {item: parent for item, parent in groups.parent.items() if item in learned[0]}
            if known == learned[0] and groups.fixed == learned[1]:
                clean += 1
                if clean == len(SCALES):
                    return groups, nodes, {item: groups.find(item[2]) for item in nodes if item[2] in groups.parent}
    raise RuntimeError(f"no set of sizes was found at which the model runs, in {limit} runs; use filter or groups")


def close_chains(groups: Groups, nodes: dict[Resolution, SiteKey], sites: dict[SiteKey, Site]) -> None:
    """Where chains of sites meet, tie also the maps along them that had one size: then they meet at any stride."""
    arriving: dict[Resolution, list[Resolution]] = {}
    for item, key in nodes.items():
        if not sites[key].grows and item[2] in groups.parent:
            arriving.setdefault(groups.find(item), []).append(groups.find(item[2]))
    for sources in arriving.values():
        for a in sources:
            for b in sources:
                if groups.find(a) != groups.find(b) and groups.size[groups.find(a)] == groups.size[groups.find(b)]:
                    groups.merge(a, b, "chains that meet further on")
