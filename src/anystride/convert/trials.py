"""One run of a model in which each map that may change its size has a size of its own."""

import itertools
import math
from typing import Any

import torch
from torch import Tensor, nn

from anystride.convert.groups import Groups, Resolution
from anystride.convert.meetings import as_if_agreed, check_offsets, near
from anystride.convert.operations import GLUE
from anystride.convert.sites import Site, SiteExecution, SiteKey, Survey, spatial
from anystride.execution import TAG, NeedsDataError, tensors

# From 11 on: no window, group or patch divides them by chance.
PRIMES = [n for n in range(11, 4000) if all(n % d for d in range(2, math.isqrt(n) + 1))]
aten = torch.ops.aten


class RefusedError(Exception):
    """A run ended early; what was learned from it is in the groups."""


class InTheWayError(Exception):
    """Sites that must keep their own stride, as what their maps meet has a stride that nothing can replace.

    Attributes:
        keys: of the sites.
    """

    def __init__(self, keys: list[SiteKey], reason: str) -> None:
        super().__init__(reason)
        self.keys = keys


class Trial(SiteExecution):
    """A pass in which each site's output has a size that no other class of maps has."""

    def __init__(
        self,
        sites: dict[SiteKey, Site],
        groups: Groups,
        scale: float,
        survey: Survey | None = None,
    ) -> None:
        super().__init__(None if survey is None else survey.known)
        self.narrow = {} if survey is None else survey.narrow
        self.sites, self.groups, self.scale = sites, groups, scale
        self.calls: dict[SiteKey, int] = {}
        # By item, its site and which of the site's calls it comes from.
        self.nodes: dict[Resolution, SiteKey] = {}
        self.items: dict[Resolution, list[int]] = {}
        self.labels: dict[Resolution, tuple[int, ...]] = {}
        # Sizes that maps of a class have had.
        self.seen: dict[tuple[int, ...], Resolution] = {}
        self.last: Resolution | None = None
        # Modules that number the positions of a map.
        self.positions: set[str] = set()
        # After a tie, maps of one class still have the sizes of two in this pass: a refusal then says nothing new.
        self.tied = False

    def operation(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        at = self.place(func, args, kwargs)
        if func.overloadpacket is aten.arange and any(n in size for n in args for size in self.labels.values()):
            self.positions.add(self.stack[-1][0] if self.stack else "")
        site = None if at is None else self.sites.get(at[0])
        if at is not None and at[0] in self.narrow and hasattr(args[0], TAG):
            self._keep_wide(args[0], self.narrow[at[0]])
        try:
            if site is not None and site.whole:  # whatever the map's size
                out = args[0].new_zeros(*args[0].shape[: -len(site.stride)], *site.sizes[0][1])
            else:
                check_offsets(func, args, self.line)
                out = super().operation(func, args, kwargs)
        except NeedsDataError:
            raise
        except Exception as error:
            out = self._reconcile(func, args, kwargs, error)
        sources = [t for t in tensors((args, kwargs)) if hasattr(t, TAG)]
        if at is not None and site is not None and max(at[1]["stride"]) > 1:
            results = list(out) if isinstance(out, tuple) else [out]
            root, results[0] = self._relabel(at[0], args[0], results[0])
            for t in tensors(results):
                setattr(t, TAG, root)
            return tuple(results) if isinstance(out, tuple) else results[0]
        if sources:
            for t in tensors(out):
                setattr(t, TAG, self._origin(t, sources))
            if func.overloadpacket in GLUE:
                self._find_glue(sources[0], out, func)
            self.last = getattr(tensors(out)[-1], TAG) if tensors(out) else self.last
        return out

    def given(self, inputs: list[Tensor]) -> None:
        super().given(inputs)
        met = {site.sizes[0][0] for site in self.sites.values()}
        axes = {len(size) for size in met}
        sizes: list[tuple[int, ...]] = []
        for x in sorted((x for x in inputs if x.dim() > 1), key=lambda x: -x.dim()):
            # A mask (N, *spatial) has the size of the maps that it is for. Two inputs of one size are one class, as for
            # a shared encoder. A map may come without a batch, and a sound without channels.
            whole, inner = tuple(x.shape[1:]), tuple(x.shape[2:])
            if inner in met or inner in sizes:
                size = inner
            elif whole in met or whole in sizes:
                size = whole
            else:
                size = whole if len(inner) not in axes and len(whole) in axes else inner
            if not size or (x.dim() == 2 and not x.is_floating_point()):
                continue
            sizes.append(size)
            setattr(x, TAG, self.groups.add(("input", sizes.index(size)), size))
            self.seen.setdefault(size, ("input", sizes.index(size)))

    def left(self, name: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        super().left(name, module, args, output)
        if (name, -1) not in self.sites:
            return None
        root, out = self._relabel((name, -1), output, output)
        setattr(out, TAG, root)
        return out

    def label(self, root: Resolution) -> tuple[int, ...]:
        """The size of a class in this pass: along each axis that moves, a prime that no other has."""
        size, moves = self.groups.size[root], self.groups.moves(root)
        if not moves:
            return size
        if root not in self.labels:
            used = {n for label in self.labels.values() for n in label}
            sizes: list[int] = []
            for axis, n in enumerate(size):
                near = sorted(PRIMES, key=lambda p, wanted=self.scale * n: abs(p - wanted))  # type: ignore[misc]
                new = next(p for p in near if p not in used and p not in sizes)
                sizes.append(new if axis in moves else n)
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
        if key in self.groups.held_sites:
            self.groups.hold(item, self.groups.held_sites[key])
        if site.whole:
            self.groups.fix(item, "it takes the mean of the whole map")
        self.nodes[item] = key
        self.items.setdefault(item, []).append(number)
        root = self.groups.find(item)
        self.last = root
        label = self.label(root)
        if len(label) != len(size):
            self.groups.fix(item, "its maps have another number of axes than the maps that they meet")
            raise RefusedError
        # Maps that padding makes meet keep the distance that they had. An axis of one sample keeps it.
        # Along an axis that the user holds, the layer keeps its stride.
        own, first, held = self.groups.size[item], self.groups.size[root], self.groups.held.get(root, frozenset())
        axes = len(label)
        before, after = spatial(x, axes, site.dims), spatial(out, axes, site.dims)
        wanted = [
            n if s == i == 1 or axis in held else n_label + o - f
            for axis, (n, n_label, s, i, o, f) in enumerate(zip(after, label, size, before, own, first, strict=True))
        ]
        shape = list(out.shape)
        for dim, n in zip(range(out.dim() - axes, out.dim()) if site.dims is None else site.dims, wanted, strict=True):
            shape[dim] = n
        return root, out.new_zeros(shape)

    def _origin(self, out: Tensor, sources: list[Tensor]) -> Resolution:
        roots = {self.groups.find(getattr(t, TAG)) for t in sources}
        if out.dim() > 2:
            for size in (tuple(out.shape[2:]), tuple(out.shape[1:-1])):
                own = [r for r in roots if self.labels.get(r) == size]
                if own:
                    self.seen.setdefault(size, own[0])
                    return own[0]
                for root, label in self.labels.items():
                    if label == size and self.groups.find(root) == root:
                        return root
            for t in sources:
                if t.dim() == out.dim() and (t.shape[2:] == out.shape[2:] or t.shape[1:-1] == out.shape[1:-1]):
                    return self.groups.find(getattr(t, TAG))
        root = max(roots, key=self.groups.order.__getitem__)
        if out.dim() > 2 and root in self.labels:
            self.seen.setdefault(tuple(out.shape[-len(self.groups.size[root]) :]), root)
        return root

    def _keep_wide(self, x: Tensor, axes: frozenset[int]) -> None:
        """A window that covers nearly all of a map, without padding, needs the map's size along these axes."""
        root = self.groups.find(getattr(x, TAG))
        if self.groups.moves(root) & axes:
            where = (self.stack[-1][0] if self.stack else "") or "the model"
            self.groups.fix(root, f"the kernel of {where} covers the map", axes)
            raise RefusedError

    def _find_glue(self, x: Tensor, out: Any, func: Any) -> None:
        """A map that padding or a slice brings to the size of another class was to meet it: tie the two."""
        root = self.groups.find(getattr(x, TAG))
        size = self.groups.size[root]
        axes = len(size)
        if not isinstance(out, Tensor) or out.dim() != x.dim() or out.dim() <= axes or not self.groups.free(root):
            return
        now = tuple(out.shape[-axes:])
        other = self.seen.get(now)
        if other is None or now == tuple(x.shape[-axes:]) or self.groups.find(other) == root:
            return
        other = self.groups.find(other)
        free = self.groups.free(other)
        if other[0] == "input":  # what comes from a padded input ends at the size of that
            free = near(size, self.groups.size[other]) and size not in {s.sizes[0][0] for s in self.sites.values()}
        if free and len(self.groups.size[other]) == axes:
            where = (self.stack[-1][0] if self.stack else "") or "the model"
            self.groups.merge(root, other, f"{func.overloadpacket.__name__} in {where}")
            raise RefusedError

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
            self._leave_rigid(roots, f"{operation} in {where} needs its own stride")
            alike = self._alike(roots)
            for root in alike[1:]:
                self.groups.merge(alike[0], root, f"{operation} in {where}")
            if alike:
                self.tied = True
                out = as_if_agreed(func, args, kwargs, maps)
                if out is not None:
                    return out
                raise RefusedError
        if not self.tied:
            for root in free or self._latest_free():
                self.groups.fix(root, reason)
        raise RefusedError from error

    def _alike(self, roots: list[Resolution]) -> list[Resolution]:
        """Those of one size in the example; else two that are near, as what lies between cuts or pads the borders."""
        size = self.groups.size
        for root in roots:
            alike = [other for other in roots if size[other] == size[root]]
            if len(alike) > 1:
                return alike
        for a, b in itertools.combinations(roots, 2):
            if len(size[a]) == len(size[b]) and near(size[a], size[b]):
                return [a, b]
        return []

    def _leave_rigid(self, roots: list[Resolution], reason: str) -> None:
        """Where a map meets one that comes from its own source by a stride that is no site: leave its sites alone."""
        if self.tied or self._alike(roots):
            return
        for root in roots:
            items = [item for item in self.nodes if self.groups.find(item) == root]
            keys = {self.nodes[item] for item in items}
            sources = {self.groups.find(item[2]) if item[2] in self.groups.parent else None for item in items}
            if keys and len(sources) == 1 and next(iter(sources)) in roots and root not in sources:
                raise InTheWayError(sorted(keys), reason)

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
