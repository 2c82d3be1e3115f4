"""The operator on a map, alone or as one unit with the convolution before it, and its gradients.

Resampling an axis and convolving commute where the kernel has one entry along that axis. Where it has more, the
operator can still come first, as shifted copies of itself (`resampling.interleaved`). Both are exact, and with either
the convolution runs at the output's resolution. Which order costs least follows from the sizes.
"""

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

from anystride.ops.matrix import AxisOperator, Matrix, Taps, is_long
from anystride.ops.separable import multiply_accumulates, multiply_axes, stride_gradients

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
# A hook with this attribute only looks on, and does not mind if its convolution is not called.
OBSERVES = "_anystride_observes"
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")

_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
# So many channels fill the rows of a matrix product.
_MANY = 16

# What a number costs that is written and read again, in units of a convolution's multiply-accumulates; one of the
# operator's costs about the same. An interleaved map is made three times a step instead of two. Fitted to steps on a
# CPU (`anystride bench unit`); a data sheet's bandwidth and rate give 70 to 250 for a GPU.
_TRAFFIC = 128
_AGAIN = 1.5

# What makes the operator of one axis: its number, and the taps that it is interleaved for.
Make = Callable[[int, Tensor, int, Taps | None], AxisOperator | None]


class Route(NamedTuple):
    """In which order a convolution and the operator run.

    Attributes:
        early: per axis, whether it is resampled before the convolution, which has a kernel of one entry there.
        interleaved: whether all other axes are, too, as shifted copies; else they follow.
    """

    early: tuple[bool, ...]
    interleaved: bool = False


class Convolving(NamedTuple):
    """The convolution of an interleaved map, whose stride is its kernel: no padding, no dilation."""

    stride: tuple[int, ...]
    groups: int

    def run(self, z: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Shape (N, C, *spatial) to (N, channels, *spatial / stride)."""
        convolve = (F.conv1d, F.conv2d, F.conv3d)[len(self.stride) - 1]
        return convolve(z, weight, bias, self.stride, 0, 1, self.groups)


def walk(convolution: nn.Module, norm: str) -> tuple[Taps, ...] | None:
    """How a convolution walks over each axis; None if only calling it will do.

    That is where it is none of torch's own kinds, strided or not padded by zeros alike on both sides, where hooks want
    to see it run, and where its bias would not stay a constant that the operator keeps.
    """
    if type(convolution) not in CONVOLUTIONS:
        return None
    assert isinstance(convolution, CONVOLUTIONS)
    # Where its forward is the unit, hooks run around that.
    inside = isinstance(convolution.__dict__.get("forward"), Convolved)
    hooks = [hook for name in _HOOKS for hook in getattr(convolution, name).values()]
    watched = not all(hasattr(hook, OBSERVES) for hook in hooks)
    if (watched and not inside) or convolution.padding_mode != "zeros" or any(step != 1 for step in convolution.stride):
        return None
    if convolution.bias is not None and norm != "forward":
        return None
    spans = [(k - 1) * d for k, d in zip(convolution.kernel_size, convolution.dilation, strict=True)]
    padding = convolution.padding
    if isinstance(padding, str):
        if padding == "same" and any(span % 2 for span in spans):
            return None
        padding = tuple(span // 2 if padding == "same" else 0 for span in spans)
    return tuple(Taps(k, d, p) for k, d, p in zip(convolution.kernel_size, convolution.dilation, padding, strict=True))


class Convolved:
    """The forward of a convolution whose child resamples its output: both run as one unit.

    The convolution stays an object of its class; copies and pickles carry this along.
    """

    def __init__(self, owner: nn.Module, child: str) -> None:
        self.owner, self.child = owner, child

    def __call__(self, input: Tensor) -> Tensor:
        unit: Tensor = getattr(self.owner, self.child)(input, None, self.owner)
        return unit


def run(convolution: nn.Module, x: Tensor) -> Tensor:
    """The convolution alone, also where its forward is the unit."""
    if isinstance(convolution.__dict__.get("forward"), Convolved):
        plain: Tensor = type(convolution).forward(convolution, x)
        return plain
    called: Tensor = convolution(x)
    return called


def settle(x: Tensor, convolution: nn.Module | None, norm: str) -> tuple[Tensor, nn.Module | None]:
    """The map, and the convolution that is still to run: one that `walk` does not know runs at once."""
    if convolution is None or walk(convolution, norm) is not None:
        return x, convolution
    return run(convolution, x), None


def convolved_shape(x: Tensor, convolution: nn.Module | None) -> tuple[int, ...]:
    """Shape of a map after a convolution that `walk` knows, if there is one."""
    if convolution is None:
        return tuple(x.shape)
    taps = walk(convolution, "forward")
    assert taps is not None
    weight: Tensor = convolution.weight  # type: ignore[assignment]
    return (len(x), len(weight), *(tap.output_length(n) for tap, n in zip(taps, x.shape[2:], strict=True)))


def choose(
    size: Sequence[int],
    channels: tuple[int, int, int],
    taps: Sequence[Taps],
    output_size: Sequence[int],
    device: torch.device,
) -> Route:
    """The cheapest order.

    Args:
        size: of the map before the convolution.
        channels: of its input and its output, and the number of groups.
        taps: of the convolution, per axis.
        output_size: of the resampled map.
        device: where it runs.
    """
    single = tuple(tap.size == 1 and tap.padding == 0 for tap in taps)
    nothing = (False,) * len(taps)
    options = [Route(early) for early in dict.fromkeys((nothing, single))]
    if not all(single) and not any(is_long(n, device) for n in output_size):
        options += [option._replace(interleaved=True) for option in options]
    costs = [_cost(option, size, channels, taps, output_size) for option in options]
    return options[costs.index(min(costs))]


def convolving(chosen: Route, taps: Sequence[Taps], groups: int) -> Convolving:
    """The convolution of a map that was interleaved along all axes but the early ones."""
    stride = tuple(1 if early else tap.size for early, tap in zip(chosen.early, taps, strict=True))
    return Convolving(stride, groups)


class Stages(NamedTuple):
    """What a route runs on one sample: matrix shapes per axis before and after the convolution, and sizes between."""

    before: list[tuple[int, int] | None]
    convolved: tuple[int, ...]
    after: list[tuple[int, int] | None]


def stages(option: Route, size: Sequence[int], taps: Sequence[Taps], output_size: Sequence[int]) -> Stages:
    """The steps of a route. An axis that keeps its size is still a low-pass, and counts."""
    before: list[tuple[int, int] | None] = []
    after: list[tuple[int, int] | None] = []
    convolved: list[int] = []
    for n, tap, h, early in zip(size, taps, output_size, option.early, strict=True):
        first = early or option.interleaved
        before.append((h * (1 if early else tap.size), n) if first else None)
        convolved.append(h if first else tap.output_length(n))
        after.append(None if first else (h, tap.output_length(n)))
    return Stages(before, tuple(convolved), after)


def _cost(
    option: Route,
    size: Sequence[int],
    channels: tuple[int, int, int],
    taps: Sequence[Taps],
    output_size: Sequence[int],
) -> float:
    first, last, groups = channels
    before, convolved, after = stages(option, size, taps, output_size)
    between = [n if shape is None else shape[0] for n, shape in zip(size, before, strict=True)]
    work = math.prod(convolved) * math.prod([tap.size for tap in taps]) * first // groups * last
    first_products = multiply_accumulates(size, before) * first
    first_products += _TRAFFIC * math.prod(between) * first if any(before) else 0
    last_products = multiply_accumulates(convolved, after) * last
    last_products += _TRAFFIC * math.prod(output_size) * last if any(after) else 0
    again = _AGAIN if option.interleaved else 1.0
    return work + _TRAFFIC * math.prod(convolved) * last + again * first_products + last_products


def resample(
    x: Tensor,
    make: Make,
    output_size: Sequence[int],
    norm: str,
    stride: Tensor | None = None,
    convolution: nn.Module | None = None,
) -> Tensor:
    """The operator, after a convolution if one is given.

    Args:
        x: (N, C, *spatial).
        make: gives the operator of an axis, for a map of a type and a device, of so many samples.
        output_size: what comes out.
        norm: the gain, as the layers call it.
        stride: what receives the stride's gradient.
        convolution: what runs first, if `walk` knows it.
    """
    axes = range(x.dim() - 2)
    if convolution is None:
        return _along(x, [make(axis, x, x.shape[2 + axis], None) for axis in axes], stride)
    taps = walk(convolution, norm)
    assert taps is not None
    weight: Tensor = convolution.weight  # type: ignore[assignment]
    bias: Tensor | None = convolution.bias  # type: ignore[assignment]
    groups: int = convolution.groups  # type: ignore[assignment]
    chosen = choose(x.shape[2:], (x.shape[1], len(weight), groups), taps, output_size, x.device)
    if any(chosen.early):
        early = [make(a, x, x.shape[2 + a], None) if chosen.early[a] else None for a in axes]
        x = _along(x, early, stride)
    if not chosen.interleaved:
        x = autocast(run(convolution, x))
        return _along(x, [None if chosen.early[a] else make(a, x, x.shape[2 + a], None) for a in axes], stride)
    samples = [tap.output_length(n) for tap, n in zip(taps, x.shape[2:], strict=True)]
    operators = [None if chosen.early[a] else make(a, x, samples[a], taps[a]) for a in axes]
    how = convolving(chosen, taps, groups)
    weight, bias = autocast(weight), None if bias is None else autocast(bias)
    if torch.is_grad_enabled():
        return _apply(x, stride, weight, bias, how, operators)
    y = how.run(multiply_axes(_quick_layout(x), _matrices(operators)), weight, bias)
    return _laid_out_as(x, y)


def _along(x: Tensor, operators: Sequence[AxisOperator | None], stride: Tensor | None) -> Tensor:
    if torch.is_grad_enabled() and stride is not None and stride.requires_grad:
        return _apply(x, stride, None, None, None, operators)
    return multiply_axes(x, _matrices(operators))


def _apply(
    x: Tensor,
    stride: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    how: Convolving | None,
    operators: Sequence[AxisOperator | None],
) -> Tensor:
    flat = [part for operator in operators for part in (operator or (None, None))]
    out: Tensor = _Unit.apply(x, stride, weight, bias, how, *flat)  # type: ignore[no-untyped-call]
    return out


class _Unit(torch.autograd.Function):
    """One matrix per axis, then a convolution if there is one; the gradient of the strides is had from the output.

    On the ramp the output's spectrum is window(k) times the input's, so dy / dS is the output's ramp bins scaled by
    window'(k) / window(k): the full-resolution input is not kept for it. Of an interleaved map, which is larger than
    the input, only the input is kept, and it is made again.
    """

    @staticmethod
    def forward(
        x: Tensor,
        stride: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        how: Convolving | None,
        *flat: Any,
    ) -> Tensor:
        if how is not None:
            assert weight is not None
            y = how.run(multiply_axes(_quick_layout(x), flat[::2]), weight, bias)
            return _laid_out_as(x, y)
        y = multiply_axes(x, flat[::2])
        # Not a view, which could not be changed in place; and no alias of the input, which must not be.
        return y.clone() if all(matrix is None for matrix in flat[::2]) else y.detach()

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, stride, weight, bias, how, *flat = inputs
        kept: Any = ctx
        kept.how, kept.has_bias = how, bias is not None
        kept.stride = None if stride is None else (stride.shape, stride.dtype)
        kept.long = [None if part is None or isinstance(part, Tensor) else part for part in flat]
        tensors = [part if isinstance(part, Tensor) else None for part in flat]
        kept.save_for_backward(output, None if how is None else x, weight, *tensors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        y, x, weight, *tensors = ctx.saved_tensors
        flat = [a if a is not None else b for a, b in zip(tensors, ctx.long, strict=True)]
        matrices, probes = flat[::2], flat[1::2]
        needs = ctx.needs_input_grad
        grad_x = grad_stride = grad_weight = grad_bias = None
        with torch.autocast(grad.device.type, enabled=False) if _autocasts(grad) else contextlib.nullcontext():
            if needs[1]:
                pairs = zip(matrices, probes, strict=True)
                axes = [None if m is None or p is None else AxisOperator(m, p) for m, p in pairs]
                shape, dtype = ctx.stride
                grad_stride = torch.stack(stride_gradients(y, grad, axes)).to(dtype)
                grad_stride = (grad_stride.sum() if math.prod(shape) == 1 else grad_stride).reshape(shape)
            inner: Tensor | None = grad
            if ctx.how is not None:
                inner, grad_weight, grad_bias = _convolution_backward(ctx, grad, x, weight, matrices)
            if needs[0]:
                assert inner is not None
                grad_x = multiply_axes(inner, [None if m is None else m.t() for m in matrices])
                grad_x = grad_x if x is None else _laid_out_as(x, grad_x)
        return grad_x, grad_stride, grad_weight, grad_bias, None, *[None] * len(flat)


def _convolution_backward(
    ctx: Any, grad: Tensor, x: Tensor, weight: Tensor, matrices: Sequence[Matrix | None]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    how: Convolving = ctx.how
    needs = ctx.needs_input_grad
    z = multiply_axes(_quick_layout(x), matrices)
    found: tuple[Tensor | None, Tensor | None, Tensor | None] = torch.ops.aten.convolution_backward(
        _quick_layout(grad),
        z,
        weight,
        [len(weight)] if ctx.has_bias else None,
        how.stride,
        [0] * len(how.stride),
        [1] * len(how.stride),
        False,
        [0] * len(how.stride),
        how.groups,
        [needs[0], needs[2], needs[3]],
    )
    return found


def _quick_layout(x: Tensor) -> Tensor:
    """On a CPU, channels last: a convolution of so large a stride takes half as long; but not for a few channels."""
    if x.device.type != "cpu" or x.dim() not in _LAST:
        return x
    return x.contiguous(memory_format=_LAST[x.dim()] if x.shape[1] >= _MANY else torch.contiguous_format)


def _laid_out_as(x: Tensor, y: Tensor) -> Tensor:
    if x.is_contiguous() or x.dim() not in _LAST:
        return y.contiguous()
    return y.contiguous(memory_format=_LAST[x.dim()]) if x.is_contiguous(memory_format=_LAST[x.dim()]) else y


def _matrices(operators: Sequence[AxisOperator | None]) -> list[Matrix | None]:
    return [None if operator is None else operator.matrix for operator in operators]


def autocast(x: Tensor) -> Tensor:
    """Under autocast, the operator is a matrix product like any other: it runs in autocast's type."""
    if x.dtype == torch.float32 and _autocasts(x):
        return x.to(torch.get_autocast_dtype(x.device.type))
    return x


def _autocasts(x: Tensor) -> bool:
    return not x.is_meta and torch.is_autocast_enabled(x.device.type)
