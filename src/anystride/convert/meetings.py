"""What can be said of maps that meet in an operation."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from anystride.convert.operations import describe
from anystride.execution import TAG
from anystride.geometry import Geometry

aten = torch.ops.aten


def as_if_agreed(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], maps: list[Tensor]) -> Any:
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


def near(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Whether two sizes differ by what borders can make."""
    return all(abs(n - m) < min(n, m) / 3 for n, m in zip(a, b, strict=True))


def check_offsets(func: Any, args: tuple[Any, ...], line: bool) -> None:
    """Offsets of a deformable convolution have its output's size, which it does not ask of tensors without data."""
    what = describe(func, args, {}, line) if func.overloadpacket.__name__ == "deform_conv2d" else None
    if what is not None:
        geometry = Geometry(what["stride"], what["span"], what["padding"])
        size, offsets = args[0].shape[2:], tuple(args[2].shape[2:])
        own = tuple([(n + b) // c for n, (_, b, c) in zip(size, map(geometry.step, range(2)), strict=True)])
        if own != offsets:
            raise RuntimeError(f"offsets of size {offsets} for an output of {own}")
