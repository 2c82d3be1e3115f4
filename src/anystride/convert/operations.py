"""The operations that change the resolution by a fixed factor, as a pass sees them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from anystride.unstrided import Steps, spread, steps_of

aten = torch.ops.aten

POOLS = {
    aten.max_pool2d_with_indices.default: "max pooling",
    aten.max_pool3d_with_indices.default: "max pooling",
    aten.avg_pool2d.default: "average pooling",
    aten.avg_pool3d.default: "average pooling",
}
ADAPTIVE = {"_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_max_pool2d", "adaptive_max_pool3d"}
LOOKUPS = {aten.max_unpool2d, aten.max_unpool3d, aten.index, aten.index_select, aten.gather, aten.embedding}
# What a module that is no more than a filter with a stride runs.
FILTERS = {
    *("convolution", "constant_pad_nd", "expand", "repeat", "view", "unsqueeze", "slice"),
    *("_to_copy", "detach", "alias", "clone", "copy"),
    *(f"{kind}_pad{axes}d" for kind in ("reflection", "replication") for axes in (1, 2, 3)),
}
# What makes a map fit another one: where two sizes differ, it hides that they do.
GLUE = {aten.constant_pad_nd, aten.slice, aten.narrow, aten.reflection_pad2d, aten.replication_pad2d}


class Decimation:
    """A slice with steps as one operation: torch itself runs one per axis."""

    def __init__(self, steps: Steps) -> None:
        self.steps = steps
        self.overloadpacket, self.__name__ = self, "a slice with a step"

    def __call__(self, x: Tensor, index: Any) -> Tensor:
        return x[index]


def decimation(x: Any, index: Any) -> Decimation | None:
    """The operation that `x[index]` is, if it takes every s-th sample of a map."""
    steps = steps_of(x, index) if isinstance(x, Tensor) else None
    return None if steps is None else Decimation(steps)


def describe(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], line: bool) -> dict[str, Any] | None:
    """What a resolution-changing operation is, as arguments of `sites.Site`; None for any other operation.

    Args:
        func, args, kwargs: the operation.
        line: whether it is a pooling along one axis, which torch runs on maps with a second one of one sample.
    """
    if isinstance(func, Decimation):
        site = _site(func.__name__, func.steps.stride, dims=func.steps.dims)
        # A mask has no frequencies: it follows the map that it is for, sample by sample.
        return site if args[0].is_floating_point() else {**site, "grows": True, "mode": "nearest"}
    if func is aten.convolution.default:
        return _convolution(args)
    name = func.overloadpacket.__name__
    if name == "deform_conv2d":
        return _site("deformable convolution", args[5:7], _spans(args[1].shape[2:], args[9:11]), args[7:9])
    found: dict[str, Any] | None
    if func in POOLS:
        found = _pool(func, args, kwargs)
    elif name in ADAPTIVE:
        axes = int(name[-2])
        sizes = zip(args[0].shape[-axes:], spread(args[1], axes), strict=True)
        stride = tuple([max(1, round(n / max(1, h))) for n, h in sizes])
        found = _site("adaptive pooling", stride, stride, adaptive=True)
    elif name == "pixel_unshuffle":
        found = _site("space to depth", (args[1],) * 2)
    elif "upsample" in name or name == "pixel_shuffle":
        found = _enlarging(func, name, args, kwargs)
    else:
        return None
    if line and found is not None:
        found = {key: value[-1:] if isinstance(value, tuple) else value for key, value in found.items()}
    return found


def _site(
    kind: str,
    stride: Sequence[int],
    span: Sequence[int] | None = None,
    padding: Sequence[int] | None = None,
    **more: Any,
) -> dict[str, Any]:
    axes = len(stride)
    return {
        "kind": kind,
        "stride": tuple(stride),
        "span": (1,) * axes if span is None else tuple(span),
        "padding": (0,) * axes if padding is None else tuple(padding),
        **more,
    }


def _spans(kernel: Sequence[int], dilation: Sequence[int]) -> tuple[int, ...]:
    return tuple([(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)])


def _convolution(args: tuple[Any, ...]) -> dict[str, Any]:
    x, weight, _, stride, padding, dilation, transposed = args[:7]
    axes = x.dim() - 2
    stride, padding, dilation = (spread(v, axes) for v in (stride, padding, dilation))
    depthwise = args[8] == x.shape[1] == weight.shape[0] and not isinstance(weight, nn.Parameter)
    kind = "transposed convolution" if transposed else "convolution"
    return _site(kind, stride, _spans(weight.shape[2:], dilation), padding, grows=transposed, fixed_filter=depthwise)


def _pool(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any] | None:
    axes = 2 if "pool2d" in func.overloadpacket.__name__ else 3  # a map may come without a batch
    named = dict(zip(func_names(func), args, strict=False)) | kwargs
    kernel = spread(named["kernel_size"], axes)
    stride = spread(named.get("stride") or kernel, axes)
    padding = spread(named.get("padding", 0), axes)
    span = _spans(kernel, spread(named.get("dilation", 1), axes))
    size = args[0].shape[-axes:]
    if all(k > n + 2 * p for k, n, p in zip(span, size, padding, strict=True)):
        return None  # a window larger than any map: global pooling
    whole = POOLS[func] == "average pooling" and not any(padding) and max(span) > 1
    whole = whole and all(k >= n for k, n in zip(span, size, strict=True))
    return _site(POOLS[func], stride, span, padding, ceil=bool(named.get("ceil_mode", False)), whole=whole)


def _enlarging(func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    axes = 2 if name == "pixel_shuffle" else args[0].dim() - 2
    if name == "pixel_shuffle":
        return _site("pixel shuffle", (args[1],) * 2, grows=True)
    named = dict(zip(func_names(func), args, strict=False)) | kwargs
    scales = named.get("scale_factors") or [v for k, v in named.items() if k.startswith("scales")]
    fixed = any(scale is not None for scale in scales)
    mode = next(word for word in ("nearest-exact", "nearest", "linear", "cubic") if word.replace("-", "_") in name)
    mode = {"linear": ("linear", "bilinear", "trilinear")[axes - 1], "cubic": "bicubic"}.get(mode, mode)
    # Whatever the factor is: it is fixed.
    found = _site("interpolation", (2 if fixed else 1,) * axes, grows=True)
    return found | {"mode": mode, "align_corners": named.get("align_corners")}


def shrinks(what: dict[str, Any]) -> bool:
    """Whether an operation is one whose place is looked for: it has a stride, or takes the mean of the whole map."""
    return max(what["stride"]) > 1 or bool(what.get("whole"))


def narrow(what: dict[str, Any], size: Sequence[int]) -> frozenset[int]:
    """The axes along which a window without padding would soon be larger than a map of this size, if that shrank."""
    spans = zip(size, what["span"], what["padding"], strict=True)
    return frozenset([axis for axis, (n, k, p) in enumerate(spans) if 2 * p < k - 1 and 2 * n < 3 * (k - 2 * p)])


def func_names(func: Any) -> list[str]:
    """Names of an operator's arguments."""
    return [argument.name for argument in func._schema.arguments]
