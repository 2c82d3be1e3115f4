"""Multiply-accumulates of one forward pass, counted on tensors without data, and how strides move them.

Convolutions and matrix products count as `torch.utils.flop_counter` counts them, and what the learned layers run counts
as they run it (`products.schedule`, `unit.choose`). Each dimension of a map knows which learned
lengths it is proportional to, so every count has a derivative with respect to every stride that came before it.
"""

import functools
import math
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from anystride.execution import Execution, arguments, tensors
from anystride.layers import DiffStrideNd, SpectralPoolNd
from anystride.ops.fusion import choose, convolved_shape, stages, walk
from anystride.ops.matrix import is_long
from anystride.ops.separable import schedule
from anystride.ops.window import Band
from anystride.resample import Resample, SizeOf

aten = torch.ops.aten

# What one dimension is proportional to: d log(its length) / d log(a learned length).
Label = Mapping["Length", float]
NONE: Label = {}

_TAG = "_anystride_lengths"
_OPERATORS = (DiffStrideNd, SpectralPoolNd, Resample)
# Structures that are kept per model: a stride that wavers between two sizes is traced twice, not at each turn.
_KEPT = 16


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

    def band(self) -> Band:
        """What the axis keeps at the stride that the layer has now."""
        layer = self.layer()
        assert layer is not None
        return layer.bands(self.counted)[self.axis]

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


@dataclass
class Account:
    """What a pass cost: multiply-accumulates, the learned lengths as they came about, and d total / d log(length)."""

    total: int
    lengths: list[Length]
    weights: dict[Length, float]

    def stands(self) -> bool:
        """Whether a pass at the present strides would meet the same sizes."""
        return all(n.layer() is not None and n.band().output_length == n.samples for n in self.lengths)

    def slopes(self) -> dict[DiffStrideNd, list[float]]:
        """d total / d S per layer that ran, one entry per spatial axis."""
        pull = dict(self.weights)
        slopes: dict[DiffStrideNd, list[float]] = {}
        for length in reversed(self.lengths):
            layer = length.layer()
            assert layer is not None
            along_length, along_stride = length.slopes()
            felt = pull.get(length, 0.0)
            slopes.setdefault(layer, [0.0] * layer.spatial_dims)[length.axis] += felt * along_stride
            for earlier, share in length.before.items():
                pull[earlier] = pull.get(earlier, 0.0) + felt * along_length * share
        return slopes


@functools.cache
def _formulas() -> dict[Any, Any]:
    """Torch's formulas by operation; imported late, because they bring the kernel compiler with them."""
    from torch.utils.flop_counter import flop_registry, sdpa_flop

    return {**flop_registry, aten._scaled_dot_product_flash_attention_for_cpu: sdpa_flop}


def multiply_accumulates(model: nn.Module, example: Any) -> int:
    """Multiply-accumulates of an evaluation pass at the present strides, for all samples of `example` together.

    Args:
        model: any module. One that cannot run on tensors without data runs for real.
        example: a tensor, a tuple of positional or a mapping of keyword arguments; only shapes matter.
    """
    return _count(model, example).total


def account(model: nn.Module, example: Any) -> Account:
    """The costs of an evaluation pass at the present strides; from memory where the sizes have been met before.

    The memory notices modules that were exchanged and strides that moved, but no other attribute that changed.
    """
    leaves = tree_leaves(arguments(example))
    shapes = tuple((tuple(v.shape), v.dtype) if isinstance(v, Tensor) else repr(v) for v in leaves)
    key = (shapes, tuple(map(id, model.modules())))
    kept = _accounts.setdefault(model, [])
    for number, (known, found) in enumerate(kept):
        if known == key and found.stands():
            kept.insert(0, kept.pop(number))
            return found
    found = _count(model, example)
    kept.insert(0, (key, found))
    del kept[_KEPT:]
    return found


_accounts: "weakref.WeakKeyDictionary[nn.Module, list[tuple[Any, Account]]]" = weakref.WeakKeyDictionary()


def _count(model: nn.Module, example: Any) -> Account:
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    with torch.inference_mode(False):
        try:
            ledger = Ledger(device)
            ledger.run(model, example, training=False)
        except Exception:  # it looks at values, or holds tensors that are neither parameters nor buffers
            ledger = Ledger(device)
            ledger.run(model, example, training=False, meta=False)
    return Account(ledger.total, ledger.lengths, ledger.weights)


class Ledger(Execution):
    """A forward pass that counts. Labels of a map's dimensions travel with it."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        # Where the model runs; the tensors of this pass have no data, and so no device that would tell.
        self.device = device
        self.total = 0
        self.lengths: list[Length] = []
        self.weights: dict[Length, float] = {}
        self._left_by: dict[nn.Module, list[Label]] = {}
        # What the last module gave that is no operator.
        self._last: Any = None
        # What a dimension was made of, by its length, for the view that takes it apart again.
        self._merged: dict[tuple[int, frozenset[Length]], tuple[list[int], list[Label]]] = {}
        # Labels by place from the end and length, for what is enlarged to the size of another map.
        self._met: dict[tuple[int, int], Label] = {}

    def operation(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        out = func(*args, **kwargs)
        packet = func.overloadpacket
        formula = _formulas().get(packet)
        if formula is not None and not (self.stack and isinstance(self.stack[-1][1], _OPERATORS)):
            flops: int = formula(*args, **kwargs, out_val=out)
            self._add(flops // 2, _factors(packet, args))
        given = tensors((args, kwargs))
        known = any(hasattr(t, _TAG) for t in given)
        for t in tensors(out):
            if known and not any(t is x for x in given):
                _set(t, self._labels(func, args, kwargs, given, t))
            if t.dim() > 2 and packet in (aten.convolution, aten.native_batch_norm, aten.cat):
                for place in range(2, t.dim()):
                    self._met[t.dim() - place, t.shape[place]] = _get(t)[place]
        return out

    def left(self, name: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if not isinstance(module, _OPERATORS):
            if isinstance(module, SizeOf):
                self._left_by[module] = _get(output)[2:]
            self._last = output
            return
        x, told, convolution = (*args, None, None)[:3]
        if isinstance(module, Resample) and (module.pool is not None or module.mode is not None):
            # Its operator counted itself, and says what comes out; but on the grid of another layer, that is the same.
            if module.mode is not None or module.leader is not None:
                _set(output, [*_get(output)[:2], *self._followed(module, x)])
            self._left_by[module] = _get(output)[2:]
            return
        if convolution is not None and walk(convolution, getattr(module, "norm", "forward")) is None:
            x, convolution = self._last, None  # it ran by itself just before, and was counted
        counted = tuple(convolved_shape(x, convolution)[2:] if told is None else told)
        before = _get(x)[2:]
        if isinstance(module, DiffStrideNd):
            after: list[Label] = []
            for axis, samples in enumerate(output.shape[2:]):
                self.lengths.append(Length(weakref.ref(module), axis, counted, samples, before[axis]))
                after.append({self.lengths[-1]: 1.0})
            rests = [n == 1 for n in counted]  # where the sizes agree its matrix is still a low-pass
        elif isinstance(module, SpectralPoolNd):
            shares = [0.0] * len(counted)
            if module.stride is not None:
                shares = [n / s / h for n, s, h in zip(counted, module.stride, output.shape[2:], strict=True)]
            after = [_scale(b, share) for b, share in zip(before, shares, strict=True)]
            rests = [n == h for n, h in zip(counted, output.shape[2:], strict=True)]
        else:
            after = self._followed(module, x)
            rests = [n == h for n, h in zip(counted, output.shape[2:], strict=True)]
        self._unit(x, convolution, output, after, rests)
        _set(output, [*_get(x)[:1], NONE, *after])
        if isinstance(module, Resample):
            self._left_by[module] = after

    def _followed(self, module: Resample, x: Tensor) -> list[Label]:
        nothing = [NONE] * (x.dim() - 2)
        return nothing if module.leader is None else self._left_by.get(module.leader, nothing)

    def _unit(
        self, x: Tensor, convolution: nn.Module | None, output: Tensor, after: list[Label], rests: list[bool]
    ) -> None:
        """Count what `unit.resample` runs: products, a convolution between them, products."""
        size, sizes, labels = tuple(x.shape[2:]), tuple(output.shape[2:]), _get(x)
        channels, batch = x.shape[1], len(x)
        if convolution is None:
            shapes = [None if rest and n == h else (h, n) for rest, n, h in zip(rests, size, sizes, strict=True)]
            self._products(batch * channels, size, shapes, labels[2:], after)
            return
        taps = walk(convolution, "forward")
        assert taps is not None
        groups: int = convolution.groups  # type: ignore[assignment]
        chosen = choose(size, (channels, output.shape[1], groups), taps, sizes, self.device)
        first, convolved, last = stages(chosen, size, taps, sizes)
        self._products(batch * channels, size, first, labels[2:], after, dense=chosen.interleaved)
        middle = [b if shape is None else a for b, a, shape in zip(labels[2:], after, first, strict=True)]
        weight = math.prod([tap.size for tap in taps]) * channels // groups * output.shape[1]
        self._add(batch * math.prod(convolved) * weight, middle)
        rest = [None if r and s is not None and s[0] == s[1] else s for r, s in zip(rests, last, strict=True)]
        self._products(batch * output.shape[1], convolved, rest, middle, after)

    def _products(
        self,
        maps: int,
        size: Sequence[int],
        shapes: Sequence[tuple[int, int] | None],
        before: Sequence[Label],
        after: Sequence[Label],
        dense: bool = False,
    ) -> None:
        """Count what `products.multiply_axes` does to so many maps; `dense` ones are matrices whatever their length."""
        left, labels = list(size), list(before)
        for axes, (rows, length) in schedule(shapes):
            if not dense and is_long(rows, self.device):
                (axis,), lines = axes, maps * math.prod(left) // length
                for n, own in ((length, labels[axis]), (rows, after[axis])):
                    self._add(lines * _transform(n), [*labels[:axis], own, *labels[axis + 1 :]])
            else:
                self._add(maps * math.prod(left) * rows, [*labels, *(after[axis] for axis in axes)])
            for axis in axes:
                shape = shapes[axis]
                assert shape is not None
                left[axis], labels[axis] = shape[0], after[axis]

    def _add(self, macs: int, factors: Iterable[Label]) -> None:
        self.total += macs
        for label in factors:
            for length, exponent in label.items():
                self.weights[length] = self.weights.get(length, 0.0) + macs * exponent

    def _labels(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], given: list[Tensor], out: Tensor
    ) -> list[Label]:
        """What each dimension of an operation's result is proportional to."""
        packet = func.overloadpacket
        name = packet.__name__
        if packet in _PRODUCTS:
            first, second = _operands(packet, args)
            return [*first[:-1], second[-1]]
        x = given[0]
        labels = _get(x)
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


def _transform(samples: int) -> int:
    """Multiply-accumulates of a real Fourier transform, at the usual 2.5 n log2 n operations."""
    return round(1.25 * samples * math.log2(samples))


_VIEWS = {"view", "_unsafe_view", "reshape", "_reshape_alias", "squeeze", "unsqueeze", "flatten", "unflatten"}

# Matrix products, and which argument their first matrix is.
_PRODUCTS = {aten.mm: 0, aten.addmm: 1, aten.bmm: 0, aten.baddbmm: 1}


def _get(t: Tensor) -> list[Label]:
    return list(getattr(t, _TAG, ())) or [NONE] * t.dim()


def _set(t: Tensor, labels: Sequence[Label]) -> None:
    if any(labels) and len(labels) == t.dim():
        setattr(t, _TAG, tuple(labels))
    elif hasattr(t, _TAG):
        delattr(t, _TAG)


def _operands(packet: Any, args: tuple[Any, ...]) -> tuple[list[Label], list[Label]]:
    first = _PRODUCTS[packet]
    return _get(args[first]), _get(args[first + 1])


def _factors(packet: Any, args: tuple[Any, ...]) -> list[Label]:
    """The labels of all dimensions that a count multiplies."""
    if packet in _PRODUCTS:
        first, second = _operands(packet, args)
        return [*first, second[-1]]
    x = _get(args[0])
    if len(x) == 4 and "attention" in packet.__name__:
        return [*x, _get(args[1])[-2]]
    return [x[0], *x[2:]]


def _scale(label: Label, share: float) -> Label:
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
    labels = [next((found for t in parts if (found := _get(t)[d])), NONE) for d in range(parts[0].dim())]
    if packet is aten.stack:
        return [*labels[:dim], NONE, *labels[dim:]]
    whole = sum(t.shape[dim] for t in parts)
    labels[dim] = _merge(_scale(_get(t)[dim], t.shape[dim] / whole) for t in parts)
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
        aligned = [(t.shape[-place], _get(t)[-place]) for t in given if t.dim() >= place]
        found = [label for m, label in aligned if label and m == n]
        if not found and given[0].dim() == out.dim() and n > 1:
            found = [aligned[0][1]]
        labels.append(found[0] if found else NONE)
    return labels[::-1]


def _scaled(named: Mapping[str, Any]) -> bool:
    """Whether an interpolation with these arguments enlarges by a factor and not to a size."""
    factors = named.get("scale_factors") or [value for key, value in named.items() if key.startswith("scales")]
    return any(factor is not None for factor in factors)
