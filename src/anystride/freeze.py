"""`freeze_`: what a network has learned becomes constant matrices, one set per size of its maps."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anystride.execution import arguments, mode_of, positional
from anystride.layers import DiffStrideNd, SpectralPoolNd
from anystride.ops.fusion import CONVOLUTIONS, Convolving, Route, autocast, choose, convolving, run, walk
from anystride.ops.matrix import Taps, band_matrix, interleaved, onto_samples, spectral_matrix
from anystride.ops.separable import multiply_axes, schedule
from anystride.resample import (
    CHILD,
    Geometry,
    Resample,
    SizeOf,
    note_input,
    resample_output,
)

Size = tuple[int, ...]
# Spatial size of a map, and what its layer was told beside the map (None where that is the same size or nothing).
# Last, the convolution that runs with it, as plain values; None if none does.
Key = tuple[Size, Size | None, Any]

_LEARNED = (Resample, DiffStrideNd, SpectralPoolNd)
# Everything that a module knows about its hooks: their handles point at these very dictionaries.
_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_is_full_backward_hook",
)


@dataclass(frozen=True)
class Call:
    """What a learned layer did to one size: everything that its matrices follow from, but for its strides.

    Attributes:
        met: spatial size of the map that it resampled.
        skipped: samples per axis before the first one that counts.
        lengths: samples that each axis counted.
        output: spatial size of the result.
        taps: of the convolution that runs with it as one unit, if one does.
        route: the order in which they run.
        groups: of the convolution.
    """

    met: Size
    skipped: Size
    lengths: Size
    output: Size
    taps: tuple[Taps, ...] | None = None
    route: Route | None = None
    groups: int = 1


@dataclass
class Constant:
    """What a frozen layer does to one size: a matrix per axis, or None, before a convolution and after it.

    Attributes:
        before, after: float64 matrices, or the names of buffers that hold them.
        how: how the convolution of an interleaved map runs; None to call it as it is.
    """

    before: list[Any]
    after: list[Any]
    how: Convolving | None = None


@dataclass
class Record:
    """All calls of one learned layer, and where and in which type its matrices are wanted."""

    name: str
    calls: dict[Key, Call] = field(default_factory=dict)
    dtype: torch.dtype = torch.float32
    device: torch.device | None = None


class Frozen(nn.Module):
    """What `freeze_` puts in the place of a learned layer: constant matrices as buffers, and no parameter.

    Args:
        name: of the layer, for messages.
        operators: by key, the matrices, in float64.
        outputs: by key, the spatial size of the output.
        mode, align_corners: for what enlarges, those of `torch.nn.functional.interpolate`; there are no matrices then.
        geometry: of the layer that it hangs under.
        dtype, device: of the buffers.

    Shape:
        (N, C, *spatial) to (N, C, *output), for the sizes that it was made for.

    Raises:
        ValueError: the map has another size.
    """

    def __init__(
        self,
        name: str,
        operators: dict[Key, Constant],
        outputs: dict[Key, Size],
        mode: str | None = None,
        align_corners: bool | None = None,
        geometry: Geometry | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
    ) -> None:
        super().__init__()
        self.name, self.outputs, self.geometry = name, outputs, geometry
        self.mode, self.align_corners = mode, align_corners
        # By key, the buffer of each axis. Axes and sizes with the same matrix share one.
        self.constants: dict[Key, Constant] = {}
        made: dict[str, Tensor] = {}
        for key, constant in operators.items():
            before, after = (
                [None if m is None else _number(made, m) for m in matrices]
                for matrices in (constant.before, constant.after)
            )
            self.constants[key] = Constant(before, after, constant.how)
        for buffer, matrix in made.items():
            self.register_buffer(buffer, matrix.to(device, dtype))

    def forward(self, x: Tensor, lengths: Sequence[int] | None = None, convolution: nn.Module | None = None) -> Tensor:
        """Resample, after `convolution` if one is given. `lengths` is what the learned layer was told at freezing."""
        at = _key(tuple(x.shape[2:]), lengths, convolution)
        for key, output in self.outputs.items():
            if key == at:
                if self.mode is not None:
                    return F.interpolate(x, output, mode=self.mode, align_corners=self.align_corners)
                constant = self.constants[key]
                x = self._multiply(x, constant.before)
                if convolution is not None:
                    if constant.how is None:
                        x = run(convolution, x)
                    else:
                        weight, bias = convolution.weight, convolution.bias
                        x = constant.how.run(x, weight, bias)  # type: ignore[arg-type]
                return self._multiply(x, constant.after)
        # Where only what it was told differs, the size alone would say nothing.
        alike = any(key[:1] == at[:1] for key in self.outputs)
        words = [_words(key) if alike else f"{key[0]}" for key in (at, *self.outputs)]
        known = f"maps of size {', '.join(words[1:])}" if self.outputs else "no map, as no example input reached it"
        raise ValueError(
            f"layer {self.name!r} was frozen for {known}; got size {words[0]}: freeze the learned model with one more "
            "example input, which leads to this size here"
        )

    def _multiply(self, x: Tensor, names: Sequence[str | None]) -> Tensor:
        if not any(names):
            return x
        x = autocast(x)
        matrices = [None if n is None else getattr(self, n).to(x.dtype) for n in names]
        return (_matmul if _exporting() else multiply_axes)(x, matrices)

    def extra_repr(self) -> str:
        sizes = ", ".join(f"{size} to {output}" for (size, *_), output in self.outputs.items())
        return f"sizes: {sizes or 'none'}" if self.mode is None else f"sizes: {sizes}, mode={self.mode!r}"


def freeze_(model: nn.Module, *example_inputs: Any) -> nn.Module:
    """Turn the learned layers of a model into constant matrices, in place, for export and deployment.

    The model runs once per example in evaluation mode. Each learned layer (of `convert_`, `DiffStride*d`,
    `SpectralPool*d`) then holds a fixed matrix per axis for each size that its maps had, as buffers in the state dict;
    strides are no parameters any more. Outputs stay the same to rounding. What is frozen takes `torch.compile` with
    `fullgraph=True`, `torch.export` and ONNX; batch sizes may vary, other map sizes are refused with a message.
    Convolutions run at the smaller resolution where that saves work, as they do while strides learn. All other modules,
    hooks and parameters stay. A
    layer that no example reaches is frozen for no size and raises once it is called. A model without learned layers is
    returned as it is, and so is one that was frozen before.

    Args:
        model: the network, trained.
        example_inputs: one per input size: a tensor, a tuple of positional or a dict of keyword arguments.

    Returns:
        `model`; only if it is itself a learned layer, another module that replaces it.

    Raises:
        ValueError: no example is given, no example reaches any learned layer, or a layer would need two results for one
            size of its map. The model is then as it was, as it is if the model itself fails on an example.

    Example:
        >>> from anystride import DiffStride2d
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), DiffStride2d(ramp="inner"))
        >>> freeze_(model, torch.randn(1, 3, 32, 32), torch.randn(1, 3, 24, 24))[1]
        Frozen(sizes: (32, 32) to (16, 16), (24, 24) to (12, 12))
    """
    if not example_inputs:
        raise ValueError(
            "example_inputs must have at least one entry, whose map sizes the model is frozen for, got none"
        )
    root = nn.ModuleDict({"model": model})  # so that every learned layer has a parent
    places = list(_places(root))
    records: dict[nn.Module, Record] = {}
    for _, name, child, qualified in places:
        if isinstance(child, _LEARNED):
            layer = qualified.removeprefix("model.")
            records.setdefault(child, Record(layer.removesuffix(f".{CHILD}") if name == CHILD else layer))
    if records:
        _record(model, records, example_inputs)
        if not any(record.calls for record in records.values()):
            raise ValueError(
                "example_inputs reached no learned layer of the model; give inputs that do, and freeze before compiling"
            )
    swaps: list[tuple[nn.Module, str, Frozen | None]] = []
    made: dict[nn.Module, Frozen] = {}
    for parent, name, child, _ in places:
        if isinstance(child, SizeOf):
            swaps.append((parent, name, None))
            continue
        if child not in made:
            record = records[child]
            # A tensor born in inference mode could not be used for training later.
            with torch.inference_mode(False), torch.no_grad():
                operators = {key: _operators(child, key[0], call) for key, call in record.calls.items()}
                made[child] = _frozen(child, record, operators)
        swaps.append((parent, name, made[child]))
    # Nothing was changed so far, and nothing can fail from here on.
    for parent, name, frozen in swaps:
        if frozen is None:
            _unhook(parent, resample_output, note_input)
            delattr(parent, name)
        else:
            parent._modules[name] = frozen
    return root["model"]


def _places(root: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module, str]]:
    """Each place where a learned layer or a note of a size is registered: parent, name, module, qualified name."""
    for prefix, parent in root.named_modules():
        if isinstance(parent, Resample):  # its operator goes with it
            continue
        for name, child in parent._modules.items():
            if isinstance(child, (*_LEARNED, SizeOf)):
                yield parent, name, child, f"{prefix}.{name}" if prefix else name


def _record(model: nn.Module, records: dict[nn.Module, Record], example_inputs: Sequence[Any]) -> None:
    """Run the model on the examples, in evaluation mode, and note what its learned layers do."""
    handles: list[torch.utils.hooks.RemovableHandle] = []

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
        x, told, convolution = positional(module, args, kwargs)
        _note(module, records[module], x, told, convolution, output)

    try:
        handles.extend(module.register_forward_hook(note, prepend=True, with_kwargs=True) for module in records)
        with mode_of(model, False), torch.no_grad():
            for example in example_inputs:
                args, kwargs = arguments(example)
                model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()


def _note(
    module: nn.Module, record: Record, x: Tensor, told: Sequence[int] | None, convolution: Any, output: Tensor
) -> None:
    size = tuple(x.shape[2:])
    taps = None if convolution is None else walk(convolution, getattr(_pool_of(module), "norm", "forward"))
    # A convolution that runs by itself is called as it is: the operator's matrices are those of its output.
    if taps is not None:
        met: Size = tuple(tap.output_length(n) for tap, n in zip(taps, size, strict=True))
    elif convolution is not None:
        met = tuple(run(convolution, x).shape[2:])
    else:
        met = size
    skipped, lengths = (0,) * len(size), met
    if not isinstance(module, Resample):
        lengths = met if told is None else tuple(told)
    elif module.pool is not None:
        assert module.grid is not None
        lengths = module.grid
        if module.geometry is not None:
            skipped = tuple(module.geometry.offset(met))
    chosen, groups = None, 1
    if taps is not None and convolution is not None:
        groups = convolution.groups
        channels = (x.shape[1], output.shape[1], groups)
        chosen = choose(size, channels, taps, tuple(output.shape[2:]), x.device)
    key = _key(size, told, convolution)
    call = Call(met, skipped, lengths, tuple(output.shape[2:]), taps, chosen, groups)
    before = record.calls.setdefault(key, call)
    if before != call:
        raise ValueError(
            f"layer {record.name!r} turns maps of size {_words(key)} into {before.output} and into {call.output}, as "
            "it follows maps elsewhere in the model; freeze one copy of the model per example input"
        )
    if x.dtype == torch.float64:
        record.dtype = x.dtype
    record.device = record.device or x.device


def _pool_of(module: nn.Module) -> nn.Module | None:
    return module.pool if isinstance(module, Resample) else module


def _operators(module: nn.Module, size: Size, call: Call) -> Constant:
    """All that a layer did to each axis in one call, as float64 matrices on the host; None where that is nothing."""
    before: list[Tensor | None] = [None] * len(size)
    after: list[Tensor | None] = [None] * len(size)
    if isinstance(module, Resample) and module.mode is not None:
        return Constant(before, after)
    pool = _pool_of(module)
    bands = pool.bands(call.lengths) if isinstance(pool, DiffStrideNd) else None
    for axis, (n, skipped, length, rows) in enumerate(
        zip(call.met, call.skipped, call.lengths, call.output, strict=True)
    ):
        if isinstance(pool, DiffStrideNd):
            assert bands is not None
            whole = band_matrix(bands[axis], pool.norm)
        else:
            norm = pool.norm if isinstance(pool, SpectralPoolNd) else "forward"
            whole = spectral_matrix(length, rows, norm, dtype=torch.float64)
        matrix = F.pad(onto_samples(whole, n - skipped), (skipped, 0))
        same = rows == n and torch.allclose(matrix, torch.eye(n, dtype=torch.float64, device="cpu"), rtol=0, atol=1e-9)
        if call.route is not None and call.route.interleaved and not call.route.early[axis]:
            assert call.taps is not None
            before[axis] = interleaved(matrix, call.taps[axis])
        elif not same:
            (before if call.route is not None and call.route.early[axis] else after)[axis] = matrix
    if call.route is not None and call.route.interleaved:
        assert call.taps is not None
        return Constant(before, after, convolving(call.route, call.taps, call.groups))
    return Constant(before, after)


def _frozen(module: nn.Module, record: Record, operators: dict[Key, Constant]) -> Frozen:
    unit = module if isinstance(module, Resample) else Resample()
    outputs = {key: call.output for key, call in record.calls.items()}
    frozen = Frozen(
        record.name, operators, outputs, unit.mode, unit.align_corners, unit.geometry, record.dtype, record.device
    )
    for attribute in _HOOKS:
        setattr(frozen, attribute, getattr(module, attribute))
    return frozen.train(module.training)


def _matmul(x: Tensor, matrices: Sequence[Tensor | None]) -> Tensor:
    """`multiply_axes` for a graph that leaves PyTorch: broadcasting products alone, for any batch and layout."""
    steps = schedule([None if m is None else (m.shape[0], m.shape[1]) for m in matrices])
    for axis in (axis for axes, _ in steps for axis in axes):
        matrix = matrices[axis]
        assert matrix is not None
        before, after = x.shape[1 : 2 + axis], x.shape[3 + axis :]
        if not after:
            x = x @ matrix.t()
        elif len(after) == 1:
            x = matrix @ x
        else:
            lines = x.reshape(-1, *before, x.shape[2 + axis], math.prod(after))
            x = (matrix @ lines).reshape(-1, *before, matrix.shape[0], *after)
    return x


def _exporting() -> bool:
    # PyTorch 2.6 cannot tell export from compilation; the products serve both.
    return bool(getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)())


def _key(size: Size, told: Sequence[int] | None, convolution: nn.Module | None) -> Key:
    kind: Any = None
    if isinstance(convolution, CONVOLUTIONS):
        where = (convolution.kernel_size, convolution.padding, convolution.dilation)
        kind = (convolution.in_channels, convolution.out_channels, convolution.groups, *where)
    elif convolution is not None:
        kind = type(convolution).__name__
    return size, None if told is None or tuple(told) == size else tuple(told), kind


def _words(key: Key) -> str:
    size, told, kind = key
    words = f"{size}" if told is None else f"{size} (told {told})"
    return words if kind is None else f"{words} after a convolution"


def _number(made: dict[str, Tensor], matrix: Tensor) -> str:
    """The name under which a matrix is kept in `made`, where it is put unless it is there."""
    for name, other in made.items():
        if torch.equal(other, matrix):
            return name
    name = f"matrix{len(made)}"
    made[name] = matrix
    return name


def _unhook(module: nn.Module, *hooks: Any) -> None:
    for kept, notes in (
        (module._forward_hooks, (module._forward_hooks_with_kwargs, module._forward_hooks_always_called)),
        (module._forward_pre_hooks, (module._forward_pre_hooks_with_kwargs,)),
    ):
        for key in [key for key, hook in kept.items() if hook in hooks]:
            del kept[key]
            for note in notes:
                note.pop(key, None)
