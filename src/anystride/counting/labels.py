"""What each dimension of a map is proportional to: how a size depends on learned strides."""

import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from anystride.layers import DiffStrideNd
from anystride.ops.cosine import CosineBand
from anystride.ops.window import Band

aten = torch.ops.aten

# What one dimension is proportional to: d log(its length) / d log(a learned length).
Label = Mapping["Length", float]
NONE: Label = {}

_TAG = "_anystride_lengths"


@dataclass(eq=False)
class Length:
    """The length of one axis after one call of a learned layer.

    Attributes:
        layer: the layer, weakly.
        axis: which of its spatial axes.
        counted: samples L that each axis of the layer counted before.
        samples: samples h that it had after.
        before: what L is proportional to.
    """

    layer: "weakref.ref[DiffStrideNd]"
    axis: int
    counted: tuple[int, ...]
    samples: int
    before: Label

    def band(self) -> Band | CosineBand:
        """What the axis keeps at the stride that the layer has now."""
        layer = self.layer()
        assert layer is not None
        held = dict(layer._held)
        try:
            return layer.bands(self.counted)[self.axis]
        finally:  # to ask for a size is not to hold it
            layer._held.clear()
            layer._held.update(held)

    def slopes(self) -> tuple[float, float]:
        """d log h / d log L and d log h / d S of h = L / S, plus 2 R for "outer"; S has no part where h is held at L.

        The steps of the rounding to whole samples are left out of h, but h itself is the whole number.
        """
        layer = self.layer()
        assert layer is not None
        at = self.band()
        kept = at.length / at.stride
        reach = 2 * layer.smoothness[self.axis] if layer.ramp == "outer" else 0.0
        if at.length == 1 or (reach and kept + reach >= at.length):
            return 1.0, 0.0
        share = kept / self.samples
        return share, -share / at.stride


class Labels:
    """How labels pass through the operations of a forward pass."""

    def __init__(self) -> None:
        # What a dimension was made of, by its length, for the view that takes it apart again.
        self._merged: dict[tuple[int, frozenset[Length]], tuple[list[int], list[Label]]] = {}
        # Labels by place from the end and length, for what is enlarged to the size of another map.
        self._met: dict[tuple[int, int], Label] = {}

    def pass_on(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], given: list[Tensor], out: Any) -> None:
        """Label the results `out` of an operation on the tensors `given`."""
        known = any(hasattr(t, _TAG) for t in given)
        for t in out:
            if known and not any(t is x for x in given):
                set_labels(t, self.of_result(func, args, kwargs, given, t))
            if t.dim() > 2 and func.overloadpacket in (aten.convolution, aten.native_batch_norm, aten.cat):
                for place in range(2, t.dim()):
                    self._met[t.dim() - place, t.shape[place]] = labels_of(t)[place]

    def of_result(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], given: list[Tensor], out: Tensor
    ) -> list[Label]:
        """What each dimension of an operation's result is proportional to."""
        packet = func.overloadpacket
        name = packet.__name__
        if packet in _PRODUCTS:
            first, second = _operands(packet, args)
            return [*first[:-1], second[-1]]
        x = given[0]
        labels = labels_of(x)
        if packet is aten.convolution:
            return [labels[0], NONE, *labels[2:]]
        if name in _VIEWS:
            return self._regroup(x.shape, labels, out.shape)
        if packet is aten.permute:
            return [labels[d] for d in args[1]]
        if packet in (aten.transpose, aten.t):
            a, b = args[1:3] if packet is aten.transpose else (0, -1)
            labels[a], labels[b] = labels[b], labels[a]
            return labels
        if packet in (aten.cat, aten.stack):
            return _joined(packet, args, kwargs)
        if name.startswith("_adaptive") or name.startswith("adaptive"):
            return [*labels[: x.dim() - len(args[1])], *[NONE] * len(args[1])]
        named = dict(zip([a.name for a in func._schema.arguments], args, strict=False)) | kwargs
        if name.startswith("upsample") and not _scaled(named):
            places = range(2, out.dim())
            return [*labels[:2], *(self._met.get((out.dim() - p, out.shape[p]), NONE) for p in places)]
        dims = named.get("dim")
        dims = [dims] if isinstance(dims, int) else dims
        if dims and out.dim() == x.dim() - len(dims):
            gone = {d % x.dim() for d in dims}
            return [label for d, label in enumerate(labels) if d not in gone]
        if out.dim() < max(t.dim() for t in given):
            return _subsequence(x.shape, labels, out.shape)
        return _broadcast(given, out)

    def _regroup(self, before: Sequence[int], labels: Sequence[Label], after: Sequence[int]) -> list[Label]:
        """Labels after a view: dimensions meet in groups of equal products."""
        result: list[Label] = []
        i = j = 0
        while i < len(before) and j < len(after):
            start_i, start_j = i, j
            p, q, i, j = before[i], after[j], i + 1, j + 1
            while p != q and (i < len(before) if p < q else j < len(after)):
                if p < q:
                    p, i = p * before[i], i + 1
                else:
                    q, j = q * after[j], j + 1
            result += self._group(before[start_i:i], labels[start_i:i], after[start_j:j])
        return (result + [NONE] * len(after))[: len(after)]

    def _group(self, before: Sequence[int], labels: Sequence[Label], after: Sequence[int]) -> list[Label]:
        merged = _merge(labels)
        if not merged or len(after) == 1:
            if merged and len(before) > 1:
                self._merged[after[0], frozenset(merged)] = list(before), list(labels)
            return [merged] if len(after) == 1 else [NONE] * len(after)
        if len(before) == 1:
            sizes, parts = self._merged.get((before[0], frozenset(merged)), ([], []))
            if sizes == list(after):
                return list(parts)
        elif [n for n in before if n > 1] == [n for n in after if n > 1]:
            longer = iter([label for n, label in zip(before, labels, strict=True) if n > 1])
            return [next(longer) if n > 1 else NONE for n in after]
        result = [dict[Length, float]() for _ in after]
        rest = []
        for length, exponent in merged.items():
            fits = [d for d, n in enumerate(after) if n == length.samples and not result[d]]
            if fits:
                result[fits[0]][length] = exponent
            else:
                rest.append(length)
        # One that was cut into windows goes to their number, which stands first.
        free = [d for d, n in enumerate(after) if n > 1 and not result[d]] or [0]
        free = free[:1] if len(rest) == 1 else free[-len(rest) :] or [0]
        for number, length in enumerate(sorted(rest, key=lambda n: n.axis)):
            result[free[min(number, len(free) - 1)]][length] = merged[length]
        return [*result]


_VIEWS = {"view", "_unsafe_view", "reshape", "_reshape_alias", "squeeze", "unsqueeze", "flatten", "unflatten"}

# Matrix products, and which argument their first matrix is.
_PRODUCTS = {aten.mm: 0, aten.addmm: 1, aten.bmm: 0, aten.baddbmm: 1}


def labels_of(t: Tensor) -> list[Label]:
    """A label per dimension."""
    return list(getattr(t, _TAG, ())) or [NONE] * t.dim()


def set_labels(t: Tensor, labels: Sequence[Label]) -> None:
    """Label a tensor."""
    if any(labels) and len(labels) == t.dim():
        setattr(t, _TAG, tuple(labels))
    elif hasattr(t, _TAG):
        delattr(t, _TAG)


def _operands(packet: Any, args: tuple[Any, ...]) -> tuple[list[Label], list[Label]]:
    first = _PRODUCTS[packet]
    return labels_of(args[first]), labels_of(args[first + 1])


def factors(packet: Any, args: tuple[Any, ...]) -> list[Label]:
    """The labels of all dimensions that a count multiplies."""
    if packet in _PRODUCTS:
        first, second = _operands(packet, args)
        return [*first, second[-1]]
    x = labels_of(args[0])
    if len(x) == 4 and "attention" in packet.__name__:
        return [*x, labels_of(args[1])[-2]]
    return [x[0], *x[2:]]


def scaled(label: Label, share: float) -> Label:
    """The label of a dimension that is only a share of its."""
    return {length: exponent * share for length, exponent in label.items()} if share else NONE


def _merge(labels: Iterable[Label]) -> dict[Length, float]:
    merged: dict[Length, float] = {}
    for label in labels:
        for length, exponent in label.items():
            merged[length] = merged.get(length, 0.0) + exponent
    return merged


def _joined(packet: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Label]:
    """Along the dimension of a concatenation each part has the weight of its length."""
    parts = [t for t in args[0] if t.numel()]
    dim = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % (parts[0].dim() + (packet is aten.stack))
    labels = [next((found for t in parts if (found := labels_of(t)[d])), NONE) for d in range(parts[0].dim())]
    if packet is aten.stack:
        return [*labels[:dim], NONE, *labels[dim:]]
    whole = sum(t.shape[dim] for t in parts)
    labels[dim] = _merge(scaled(labels_of(t)[dim], t.shape[dim] / whole) for t in parts)
    return labels


def _subsequence(before: Sequence[int], labels: Sequence[Label], after: Sequence[int]) -> list[Label]:
    """Labels where dimensions went missing: each that stayed is the next one of its length."""
    left = iter(zip(before, labels, strict=True))
    return [next((label for length, label in left if length == n), NONE) for n in after]


def _broadcast(given: Sequence[Tensor], out: Tensor) -> list[Label]:
    """Labels where dimensions keep their places: from an input as long there, or else (pooling, a slice) the first."""
    labels: list[Label] = []
    for place in range(1, out.dim() + 1):
        n = out.shape[-place]
        aligned = [(t.shape[-place], labels_of(t)[-place]) for t in given if t.dim() >= place]
        found = [label for m, label in aligned if label and m == n]
        if not found and given[0].dim() == out.dim() and n > 1:
            found = [aligned[0][1]]
        labels.append(found[0] if found else NONE)
    return labels[::-1]


def _scaled(named: Mapping[str, Any]) -> bool:
    """Whether an interpolation with these arguments enlarges by a factor and not to a size."""
    factors = named.get("scale_factors") or [value for key, value in named.items() if key.startswith("scales")]
    return any(factor is not None for factor in factors)
