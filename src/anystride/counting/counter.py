"""Multiply-accumulates of one forward pass, counted on tensors without data, and how strides move them.

Convolutions and matrix products count as `torch.utils.flop_counter` counts them, and a learned layer counts the steps
of the program that it runs (`ops.fusion`). Each dimension of a map knows which learned lengths it is proportional to
(`labels`), so every count has a derivative with respect to every stride that came before it.
"""

import functools
import math
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from anystride import recurrent
from anystride.checks import spatial_size
from anystride.convolution import axes_to_size, counted_size, kernel_for
from anystride.counting.labels import NONE, Label, Labels, Length, factors, labels_of, scaled, set_labels
from anystride.counting.structure import structure
from anystride.execution import ALONE, Execution, arguments, run_once
from anystride.layers import DiffStrideNd
from anystride.ops.axes import Axis
from anystride.ops.program import Apply, Filter, Kernel, work
from anystride.ops.segments import is_local, program_of
from anystride.resample import Enlarges, Follows, Leads, Passes, Place, Shares
from anystride.spectral import SpectralPoolNd
from anystride.trees import leaves_with_paths, tensors
from anystride.upsample import SpectralUpsampleNd

aten = torch.ops.aten
C = TypeVar("C", bound="Counter")

_OPERATORS = (DiffStrideNd, SpectralPoolNd, SpectralUpsampleNd, Place)
# Structures that are kept per model: a stride that wavers between two sizes is traced twice, not at each turn.
_KEPT = 16


@dataclass
class Account:
    """What a pass cost.

    Attributes:
        total: multiply-accumulates.
        lengths: the learned lengths as they came about.
        weights: d total / d log(length).
        convolutions: for each convolution in its turn, what the axes of its output are proportional to.
        rows: the batch of the map that the first place of a converted network was given; None where there is none.
    """

    total: int
    lengths: list[Length]
    weights: dict[Length, float]
    convolutions: list[list[Label]]
    rows: int | None = None

    def stands(self) -> bool:
        """Whether a pass at the present strides would meet the same sizes."""
        return all(n.layer() is not None and n.band().output_length == n.samples for n in self.lengths)

    def slopes(self) -> dict[DiffStrideNd, list[float]]:
        """d total / d S per layer that ran, one entry per spatial axis."""
        weights = dict(self.weights)
        slopes: dict[DiffStrideNd, list[float]] = {}
        for length in reversed(self.lengths):
            layer = length.layer()
            assert layer is not None
            along_length, along_stride = length.slopes()
            weight = weights.get(length, 0.0)
            slopes.setdefault(layer, [0.0] * layer.spatial_dims)[length.axis] += weight * along_stride
            for earlier, share in length.before.items():
                weights[earlier] = weights.get(earlier, 0.0) + weight * along_length * share
        return slopes


@functools.cache
def _formulas() -> dict[Any, Any]:
    """Torch's formulas by operation; imported late, because they bring the kernel compiler with them."""
    from torch.utils.flop_counter import flop_registry, sdpa_flop

    return {**flop_registry, aten._scaled_dot_product_flash_attention_for_cpu: sdpa_flop}


def account(model: nn.Module, example: Any) -> Account:
    """The costs of an evaluation pass at the present strides; from memory where the sizes have been met before.

    The memory notices what changes in place, see `structure`; then the model runs anew.
    """
    with ALONE:
        return _account(model, example)


def _account(model: nn.Module, example: Any) -> Account:
    leaves = leaves_with_paths(arguments(example))
    shapes = [(path, (tuple(v.shape), v.dtype) if isinstance(v, Tensor) else repr(v)) for path, v in leaves]
    key = (shapes, structure(model))
    kept = _accounts.setdefault(model, [])
    for number, (known, found) in enumerate(kept):
        if known == key and found.stands():
            kept.insert(0, kept.pop(number))
            return found
    found = count(model, example)
    kept.insert(0, (key, found))
    del kept[_KEPT:]
    return found


_accounts: "weakref.WeakKeyDictionary[nn.Module, list[tuple[Any, Account]]]" = weakref.WeakKeyDictionary()


def count(model: nn.Module, example: Any) -> Account:
    """The costs of an evaluation pass at the present strides, for all samples of `example` together.

    Args:
        model: any module. One that cannot run on tensors without data runs for real.
        example: a tensor, a tuple of positional or a mapping of keyword arguments; only shapes matter.
    """
    return counted(Counter, model, example).account()


def counted(kind: Callable[[torch.device], C], model: nn.Module, example: Any) -> C:
    """A counter of some kind after its pass; what `print(model)` shows are sizes that data had."""
    with ALONE, torch.inference_mode(False):
        seen = [(module, module.seen) for module in model.modules() if isinstance(module, Place)]
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        counter = run_once(lambda: kind(device), model, example, training=False)
        for place, sizes in seen:
            place.seen = sizes
        return counter


class Counter(Execution):
    """A forward pass that counts.

    Args:
        device: where the model runs; the tensors of this pass have no data, and none that would tell.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device
        self.total = 0
        self.lengths: list[Length] = []
        self.weights: dict[Length, float] = {}
        self.convolutions: list[list[Label]] = []
        self._labels = Labels()
        # By the name of a place, the labels of what it gave last.
        self._given_by: dict[str, list[Label]] = {}
        # What the last module gave that is no operator.
        self._last: Any = None
        # Examples of the map that the first place was given.
        self._rows: int | None = None

    def account(self) -> Account:
        """What the pass cost."""
        return Account(self.total, self.lengths, self.weights, self.convolutions, self._rows)

    def operation(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        out = self.call(func, args, kwargs)
        if func.overloadpacket.__name__ == recurrent.NAME:
            self._recurrent(args, out)
            return out
        formula = _formulas().get(func.overloadpacket)
        if formula is not None and not (self.stack and isinstance(self.stack[-1][1], _OPERATORS)):
            flops: int = formula(*args, **kwargs, out_val=out)
            self._add(flops // 2, factors(func.overloadpacket, args))
            if func.overloadpacket is aten.convolution:
                self.convolutions.append(labels_of(args[0])[2:])
        self._labels.pass_on(func, args, kwargs, tensors((args, kwargs)), tensors(out))
        return out

    def _recurrent(self, args: tuple[Any, ...], out: list[Tensor]) -> None:
        """A recurrent layer: the same work at each position, and a state that is as long as the batch is wide."""
        *positions, _ = labels_of(args[1])
        self._add(recurrent.multiply_accumulates(args), positions)
        if len(out) > 1 or out[0].shape[:-1] == args[1].shape[:-1]:
            set_labels(out[0], [*positions, NONE])

    def left(self, name: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if self._rows is None and isinstance(module, _OPERATORS):
            self._rows = len(output)
        if isinstance(module, Place):
            x, convolution = (*args, None)[:2]
            self._left_place(module, x, convolution, output)
        elif isinstance(module, DiffStrideNd | SpectralPoolNd):
            x, lengths, convolution = (*args, None, None)[:3]
            x, kernel = self._operand(x, convolution, module.keeps_constants)
            self._left_pool(module, x, counted_size(x, kernel, lengths), kernel, output)
        elif isinstance(module, SpectralUpsampleNd):
            x, like = (*args, None)[:2]
            self._left_upsample(module, x, like, output)
        else:
            self._last = output

    def _left_upsample(self, module: SpectralUpsampleNd, x: Tensor, like: Any, output: Tensor) -> None:
        size, target = spatial_size(x), spatial_size(output)
        if isinstance(like, Tensor):
            after = labels_of(like)[2:]
        elif module.scale_factor is None:
            after = [NONE] * len(target)
        else:
            each_axis = zip(labels_of(x)[2:], size, module.scale_factor, target, strict=True)
            after = [scaled(label, n * factor / samples) for label, n, factor, samples in each_axis]
        self._program(x, module.axes(size, target), None, after)
        set_labels(output, [*labels_of(x)[:1], NONE, *after])

    def _left_pool(
        self,
        pool: DiffStrideNd | SpectralPoolNd,
        x: Tensor,
        counted: tuple[int, ...],
        kernel: Kernel | None,
        output: Tensor,
    ) -> None:
        before, after = labels_of(x)[2:], list[Label]()
        for axis, samples in enumerate(output.shape[2:]):
            if isinstance(pool, DiffStrideNd):
                self.lengths.append(Length(weakref.ref(pool), axis, counted, samples, before[axis]))
                after.append({self.lengths[-1]: 1.0})
            else:
                share = 0.0 if pool.stride is None else counted[axis] / pool.stride[axis] / samples
                after.append(scaled(before[axis], share))
        self._program(x, pool.axes(counted), kernel, after)
        set_labels(output, [*labels_of(x)[:1], NONE, *after])

    def _left_place(self, place: Place, x: Tensor, convolution: Any, output: Tensor) -> None:
        """An operator within the place counted itself; a place that leads or passes knows its output's labels."""
        if isinstance(place, Shares | Follows):
            nothing = [NONE] * (output.dim() - 2)
            after = self._given_by.get(place.leader, nothing)
            if isinstance(place, Follows) and not isinstance(place, Enlarges):
                self._to_size(place, x, convolution, output, after)
            set_labels(output, [*labels_of(output)[:1], NONE, *after])
        elif not isinstance(place, Leads | Passes):
            after = [NONE] * (output.dim() - 2)
            self._to_size(place, x, convolution, output, after)
            set_labels(output, [*labels_of(x)[:1], NONE, *after])
        self._given_by[place.name] = labels_of(output)[2:]

    def _to_size(self, place: Place, x: Tensor, convolution: Any, output: Tensor, after: Sequence[Label]) -> None:
        x, kernel = self._operand(x, convolution, True)
        sizes = counted_size(x, kernel), tuple(output.shape[2:])
        axes = axes_to_size(*sizes, place.ramp, place.geometry.stride)
        self._program(x, axes, kernel, after)

    def _operand(self, x: Tensor, convolution: Any, keeps: bool) -> tuple[Tensor, Kernel | None]:
        """The map that a program starts from; a convolution without a kernel ran by itself before, and was counted."""
        if convolution is None:
            return x, None
        kernel = kernel_for(convolution, keeps)
        return (self._last, None) if kernel is None else (x, kernel)

    def _program(self, x: Tensor, axes: tuple[Axis, ...], kernel: Kernel | None, after: Sequence[Label]) -> None:
        """Count the steps of the program that runs on a map."""
        if kernel is not None:
            self.convolutions.append([*after])
        size, labels, batch = tuple(x.shape[2:]), labels_of(x)[2:], len(x)
        sizes = [axis.output_length for axis in axes]
        program = program_of(axes, size, x.shape[1], kernel, self.device, is_local(axes))
        for step, macs, left, channels in work(program, size, x.shape[1], kernel):
            if isinstance(step, Filter):
                labels[step.axis] = after[step.axis] if step.stride > 1 else labels[step.axis]
                self._add(batch * macs, labels)
                continue
            if not isinstance(step, Apply):
                labels = [*after] if step.size == tuple(sizes) else labels
                self._add(batch * macs, labels)
                continue
            product = step.product
            if step.fourier:
                (axis,), (rows,), _ = product
                lines = batch * channels * math.prod(left) // rows
                for n, own in ((axes[axis].length, labels[axis]), (rows, after[axis])):
                    self._add(lines * _transform(n), [*labels[:axis], own, *labels[axis + 1 :]])
            else:
                self._add(batch * macs, [*labels, *(after[axis] for axis in product.axes)])
            for axis in product.axes:
                labels[axis] = after[axis]

    def _add(self, macs: int, factors: Iterable[Label]) -> None:
        self.total += macs
        for label in factors:
            for length, exponent in label.items():
                self.weights[length] = self.weights.get(length, 0.0) + macs * exponent


def _transform(samples: int) -> int:
    """Multiply-accumulates of a real Fourier transform, at the usual 2.5 n log2 n operations."""
    return round(1.25 * samples * math.log2(samples))
