"""What the public functions and classes check of their arguments: one clear error that names value and remedy."""

import math
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from anystride.ops.cosine import BORDERS, Cosine
from anystride.ops.window import RAMPS

T = TypeVar("T")
# The least and the largest R, in frequency bins: beyond, a ramp is a step, or wider than any map.
SMOOTHNESS = 1e-9, 1e9


def check_input(x: Tensor, axes: int | None = None, least: int = 3) -> None:
    """Raise unless `x` is a floating-point (N, C, *spatial) with `axes` spatial axes, or `least` dimensions or more."""
    if not isinstance(x, Tensor) or x.is_quantized:
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(
            f"x must be a floating-point tensor, got {got}; tools that trace or quantise a network take it after "
            "anystride.freeze_"
        )
    if not x.is_floating_point():
        raise TypeError(f"x must be a floating-point tensor, got {x.dtype}; convert it, for example with x.float()")
    if axes is None and x.dim() < least:
        raise ValueError(f"x must be (N, C, *spatial) with at least one spatial axis, got shape {tuple(x.shape)}")
    if axes is not None and x.dim() != axes + 2:
        spatial = "1 spatial axis" if axes == 1 else f"{axes} spatial axes"
        raise ValueError(f"x must be (N, C, *spatial) with {spatial}, got shape {tuple(x.shape)}")
    if x.dim() > 2 and not all(shape_of(x)[2:]):
        raise ValueError(
            f"x must have at least one sample along each spatial axis, got shape {tuple(x.shape)}; leave empty maps out"
        )


def shape_of(x: Tensor) -> tuple[int, ...]:
    """The shape, in plain numbers also to `torch.jit.trace`, which counts in tensors."""
    shape = tuple(x.shape)
    return tuple(map(int, shape)) if torch.jit.is_tracing() else shape  # type: ignore[attr-defined,no-untyped-call]


def spatial_size(x: Tensor) -> tuple[int, ...]:
    """The sizes of all axes but the first two."""
    size = tuple(x.shape[2:])
    return tuple(map(int, size)) if torch.jit.is_tracing() else size  # type: ignore[attr-defined,no-untyped-call]


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def check_stride(stride: float, length: int) -> None:
    """Raise unless an axis of `length` samples can be downsampled by `stride` (section 2.4); one sample can stay."""
    if length < 1:
        raise ValueError(f"length must be at least 1, got {length}")
    if not (1 <= stride < length or stride == length == 1):
        raise ValueError(f"stride must be in [1, {length}) for an axis of length {length}, got {stride}")


def check_smoothness(smoothness: Sequence[float]) -> None:
    """Raise unless every R is a number within `SMOOTHNESS`."""
    low, high = SMOOTHNESS
    for value in smoothness:
        if isinstance(value, str) or not 0 < value < math.inf:
            raise ValueError(
                f"smoothness must be positive and finite, got {value}; for a hard edge use spectral pooling"
            )
        if not low <= value <= high:
            raise ValueError(
                f"smoothness must be from {low:g} to {high:g}, got {value}; ramp='cosine' has a width of its own"
            )


def check_tolerance(tolerance: float) -> None:
    """Raise unless a kernel can be cut off by that share."""
    if not 1e-4 <= tolerance <= 0.2:
        raise ValueError(f"tolerance must be from 0.0001 to 0.2, got {tolerance}")


def cosine_ramp(ramp: str, rolloff: float, tolerance: float, padding_mode: str | None) -> str | Cosine:
    """The ramp as the operator takes it; raise where an argument is out of range, or does not fit the ramp."""
    check_choice("ramp", ramp, RAMPS)
    if padding_mode is not None:
        check_choice("padding_mode", padding_mode, BORDERS)
    if ramp != "cosine":
        if padding_mode not in (None, "circular"):
            raise ValueError(
                f"padding_mode must be 'circular' for ramp={ramp!r}, whose kernel is as long as the map, got "
                f"{padding_mode!r}; ramp='cosine' takes any"
            )
        return ramp
    if not 0 < rolloff <= 1:
        raise ValueError(f"rolloff must be above 0 and at most 1, got {rolloff}")
    check_tolerance(tolerance)
    return Cosine.of(float(rolloff), float(tolerance), padding_mode or "auto")


def per_axis(name: str, value: T | Sequence[T], axes: int) -> tuple[T, ...]:
    """One value per spatial axis, from a value for all of them or a sequence."""
    values = tuple(value) if isinstance(value, Sequence) else (value,)
    if len(values) not in (1, axes):
        raise ValueError(f"{name} must be one value or one per spatial axis ({axes}), got {len(values)}: {values}")
    return values if len(values) == axes else values * axes


def check_size(input_size: Sequence[int], axes: int) -> tuple[int, ...]:
    """The spatial size as integers; raise unless there is one per axis."""
    if len(input_size) != axes:
        raise ValueError(f"input_size must have one entry per spatial axis ({axes}), got {tuple(input_size)}")
    if not all(size >= 1 for size in input_size):
        raise ValueError(f"input_size must have at least one sample per axis, got {tuple(input_size)}")
    return tuple(input_size)


def check_output_size(size: float, length: int | None = None) -> int:
    """The samples that an axis, of `length` samples if that is known, is to keep; raise unless it can."""
    # A comparison, not `math.isfinite`, which a compiler cannot trace.
    finite = isinstance(size, (int, float)) and not isinstance(size, bool) and abs(size) < math.inf
    whole = finite and size == int(size)
    if not whole or size < 1 or (length is not None and size > length):
        most = "" if length is None else f" to {length}"
        raise ValueError(f"output_size must be a whole number from 1{most or ' on'} for that axis, got {size!r}")
    return int(size)


def check_grid(grid: int | str) -> None:
    """Raise unless it is "free", "fixed" or a whole number of at least 1."""
    if grid not in ("free", "fixed") and not (isinstance(grid, int) and not isinstance(grid, bool) and grid >= 1):
        raise ValueError(f"grid must be 'free', 'fixed' or a whole number of at least 1, got {grid!r}")


def check_strides(strides: Sequence[float], name: str = "stride") -> tuple[float, ...]:
    """The strides, or other factors by `name`, as floats; raise unless each is finite and at least 1."""
    values = tuple(float(value) for value in strides)
    for value in values:
        if not 1 <= value < math.inf:
            raise ValueError(f"{name} must be a finite number of at least 1, got {value}")
    return values
