"""A run of a model in which each map that may change its size has a size of its own."""

import math
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from anystride.convert.groups import Groups, Resolution
from anystride.convert.sites import Site, SiteExecution, SiteKey, Survey, spatial
from anystride.execution import TAG

# From 11 on: no window, group or patch divides them by chance.
PRIMES = [n for n in range(11, 4000) if all(n % d for d in range(2, math.isqrt(n) + 1))]


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


class Labelled(SiteExecution):
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
        # Sizes that transposed convolutions are asked for.
        self.asked: dict[SiteKey, tuple[int, ...]] = {}
        # Modules that number the positions of a map.
        self.positions: set[str] = set()
        # After a tie, maps of one class still have the sizes of two in this pass: a refusal then says nothing new.
        self.tied = False

    def run(self, model: nn.Module, example: Any, *, training: bool, meta: bool = True) -> Any:
        transposed = [m for m in model.modules() if isinstance(m, _ConvTransposeNd)]
        handles = [m.register_forward_pre_hook(self._without_size, with_kwargs=True) for m in transposed]
        try:
            return super().run(model, example, training=training, meta=meta)
        finally:
            for handle in handles:
                handle.remove()

    def _without_size(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A transposed convolution that is asked for a size meets what has it; by itself it gives one of its own."""
        named = dict(zip(("input", "output_size"), args, strict=False)) | kwargs
        size = named.get("output_size")
        name = self.stack[-1][0] if self.stack and self.stack[-1][1] is module else ""
        if size is None or (name, 0) not in self.sites:
            return None
        self.asked[name, 0] = tuple(size)[-len(module.kernel_size) :]
        return (named["input"],), {}

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
        other = self.seen.get(self.asked.get(key, ()))
        if other is not None and self.groups.find(other) != root:
            self.groups.merge(root, other, f"output_size of {key[0]}")
            raise RefusedError
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
