"""What learned layers do when a model runs on examples."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from anystride.constants import Call, Key, key_of
from anystride.convolution import axes_to_size, counted_size, take_in
from anystride.execution import arguments, mode_of, positional
from anystride.filtered import cut
from anystride.geometry import Size
from anystride.ops.axes import Axis
from anystride.resample import Leads, Place
from anystride.upsample import SpectralUpsampleNd


@dataclass
class Record:
    """All calls of one learned layer, where and in which type its matrices are wanted, and what its maps are."""

    name: str
    calls: dict[Key, Call] = field(default_factory=dict)
    dtype: torch.dtype = torch.float32
    maps: torch.dtype = torch.float32
    channels: set[int] = field(default_factory=set)
    device: torch.device | None = None


def record_calls(
    model: nn.Module, records: dict[nn.Module, Record], example_inputs: Sequence[Any], tolerance: float
) -> None:
    """Run the model on the examples, in evaluation mode, and note what its learned layers do."""
    handles: list[torch.utils.hooks.RemovableHandle] = []

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
        _note(module, records[module], positional(module, args, kwargs), output, tolerance)

    try:
        handles.extend(module.register_forward_hook(note, prepend=True, with_kwargs=True) for module in records)
        with mode_of(model, False), torch.no_grad():
            for example in example_inputs:
                args, kwargs = arguments(example)
                model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()


def _note(module: Any, record: Record, args: Sequence[Any], output: Tensor, tolerance: float) -> None:
    if isinstance(module, SpectralUpsampleNd):
        x, lengths, convolution = args[0], tuple(output.shape[2:]), None
    else:
        x, lengths, convolution = args if not isinstance(module, Place) else (args[0], args[2], args[1])
    kernel = None
    if convolution is not None:
        x, kernel = take_in(x, convolution, getattr(getattr(module, "pool", module), "keeps_constants", True))
    size, met = tuple(x.shape[2:]), counted_size(x, kernel)
    skipped, axes = (0,) * len(size), tuple[Axis, ...]()
    if isinstance(module, Leads):
        skipped = tuple(module.geometry.offset(met))
        axes = module.resampled_axes(size, kernel is not None, lengths, output)
    elif isinstance(module, Place):
        axes = axes_to_size(met, tuple(output.shape[2:]), module.ramp, module.geometry.stride)
    elif isinstance(module, SpectralUpsampleNd):
        axes = module.axes(size, tuple(output.shape[2:]))
    else:
        axes = module.axes(met if lengths is None else tuple(lengths))
    key = key_of(size, None if isinstance(module, Place) else lengths, kernel)
    axes = tuple([cut(axis, tolerance) for axis in axes])
    call = Call(size, x.shape[1], axes, skipped, tuple(output.shape[2:]), kernel)
    before = record.calls.setdefault(key, call)
    record.channels.add(x.shape[1])
    if replace(before, channels=call.channels) != call:
        raise ValueError(conflict(record.name, f"maps of size {size}", before.output, call.output))
    record.dtype = x.dtype if x.dtype == torch.float64 else record.dtype
    record.maps = x.dtype
    record.device = record.device or x.device


def conflict(name: str, maps: str, one: Size, other: Size) -> str:
    why = "as it follows maps elsewhere in the model; freeze one copy of the model per example input"
    return f"layer {name!r} turns {maps} into {one} and into {other}, {why}"
