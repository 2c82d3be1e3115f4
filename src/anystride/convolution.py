"""How a convolution moves, where the operator can take it into its program."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from anystride.checks import spatial_size
from anystride.ops.autograd import resample
from anystride.ops.axes import Axis, LearnedAxis, SpectralAxis, Taps
from anystride.ops.cache import remembered
from anystride.ops.cosine import Cosine
from anystride.ops.program import Kernel, convolved
from anystride.ops.window import band

Size = tuple[int, ...]

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
# A hook with this attribute only looks on, and does not mind if its convolution is not called.
OBSERVES = "_anystride_observes"
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def take_in(x: Tensor, convolution: Any, keeps: bool) -> tuple[Tensor, Kernel | None]:
    """The map, and the kernel of a convolution that can be a part of the operator's program.

    A border that is not of zeros is a part of the map then, and the kernel has no padding.

    `keeps` says whether the operator keeps constants, as a bias is one. A module that cannot be runs on `x` at once,
    and there is no kernel.
    """
    kernel = kernel_for(convolution, keeps)
    if kernel is None:
        return getattr(convolution, "unstrided", convolution)(x), None
    if convolution.padding_mode != "zeros" and not hasattr(convolution, "unstrided"):  # that one has padded its map
        x = F.pad(x, convolution._reversed_padding_repeated_twice, mode=convolution.padding_mode)
    return x, kernel


def counted_size(x: Tensor, kernel: Kernel | None, lengths: Sequence[int] | None = None) -> tuple[int, ...]:
    """Samples that each axis counts: `lengths` if given, else those that are there, after the convolution if any."""
    if lengths is not None:
        return tuple(lengths)
    return spatial_size(x) if kernel is None else convolved(kernel, spatial_size(x))


def kernel_for(convolution: Any, keeps: bool) -> Kernel | None:
    """The kernel of a module that can be a part of the operator's program, else None.

    A converted convolution says what it is at stride 1 by its method `unstrided`. Any other module must be one of
    torch's own convolutions at stride 1, without hooks that want to see it run.
    """
    if not hasattr(convolution, "unstrided") and (type(convolution) not in CONVOLUTIONS or not _is_plain(convolution)):
        return None
    return kernel_of(
        convolution.kernel_size,
        convolution.dilation,
        convolution.padding if convolution.padding_mode == "zeros" else (0,) * len(convolution.kernel_size),
        len(convolution.weight),
        convolution.groups,
        convolution.bias is None or keeps,
    )


def _is_plain(convolution: Any) -> bool:
    if any(step != 1 for step in convolution.stride):
        return False
    hooks = [hook for name in _HOOKS for hook in getattr(convolution, name).values()]
    return all(hasattr(hook, OBSERVES) for hook in hooks)


@remembered
def kernel_of(
    size: tuple[int, ...],
    dilation: tuple[int, ...],
    padding: tuple[int, ...] | str,
    channels: int,
    groups: int,
    keeps_bias: bool,
) -> Kernel | None:
    """The kernel of a convolution with these attributes; None if only calling it will do.

    That is where it is not padded by zeros alike on both sides, and where its bias would not stay a constant that the
    operator keeps.
    """
    if not keeps_bias:
        return None
    spans = [(k - 1) * d for k, d in zip(size, dilation, strict=True)]
    if isinstance(padding, str):
        if padding == "same" and any(span % 2 for span in spans):
            return None
        padding = tuple([span // 2 if padding == "same" else 0 for span in spans])
    return Kernel(tuple([Taps(*tap) for tap in zip(size, dilation, padding, strict=True)]), channels, groups)


def axes_to_size(size: Size, target: Size, ramp: str | Cosine, stride: Size) -> tuple[Axis, ...]:
    """What brings a map of `size` to the `target` size: spectral pooling or its inverse, or a local window.

    Args:
        size, target: per axis.
        ramp: of the network; only a `Cosine` counts.
        stride: that the layer had: where that gives the target, positions are those that it had.
    """
    axes: list[Axis] = []
    for n, h, step in zip(size, target, stride, strict=True):
        if not isinstance(ramp, Cosine) or h >= n:
            axes.append(SpectralAxis(n, h))
            continue
        counted = step * h if -(-n // step) == h else n
        axes.append(LearnedAxis.of(band(counted, counted / h, 1.0, ramp, h), "forward", False))
    return tuple(axes)


def to_size(
    x: Tensor,
    convolution: Any,
    target: Callable[[Size], Size],
    ramp: str | Cosine = "inner",
    stride: Size = (),
) -> Tensor:
    """Resampling to what `target` makes of the size, after a convolution if there is one; see `axes_to_size`."""
    kernel = None
    if convolution is not None:
        x, kernel = take_in(x, convolution, True)
    size = counted_size(x, kernel)
    wanted = target(size)
    if kernel is None and tuple(wanted) == size:
        return x
    axes = axes_to_size(size, wanted, ramp, stride or (1,) * len(size))
    if kernel is None:
        return resample(x, axes)
    return resample(x, axes, None, kernel, convolution.weight, convolution.bias)
