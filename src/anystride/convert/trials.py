"""What a run with sizes that do not agree says about them: what meets is tied, and what refuses is fixed."""

import itertools
from typing import Any

import torch
from torch import Tensor

from anystride.convert.groups import Resolution
from anystride.convert.labelled import InTheWayError, Labelled, RefusedError
from anystride.convert.meetings import as_if_agreed, check_offsets, near
from anystride.convert.operations import GLUE, shrinks
from anystride.execution import TAG, NeedsDataError, tensors

aten = torch.ops.aten


class Trial(Labelled):
    """A pass that learns from what meets, and from what refuses."""

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
        if at is not None and site is not None and shrinks(at[1] | {"whole": site.whole}):
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
        # Along an axis that is fixed, sizes may be alike by chance.
        changed = {axis for axis, (n, m) in enumerate(zip(x.shape[-axes:], now, strict=True)) if n != m}
        if not changed <= self.groups.moves(root):
            return
        free = changed <= self.groups.moves(other)
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
