"""What `freeze_` puts in the place of learned layers: constant matrices as buffers, one set per size of the map."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch.fx
from torch import Tensor, nn
from torch.nn import functional as F

from anystride.checks import spatial_size
from anystride.compiling import exporting
from anystride.constants import Constant, Key, Steps, enlarge, key_of, numbered, refusal, run_constants
from anystride.convolution import take_in
from anystride.geometry import Geometry, Size
from anystride.ops.layout import convolve
from anystride.ops.program import Convolve
from anystride.resample import CHILD

# One operation each to a tracer that calls this file.
torch.fx.wrap("run_constants")
torch.fx.wrap("enlarge")


class Constants(nn.Module):
    """Buffers, and by key the steps that use them; to TorchScript, lists of plain numbers say the same."""

    __jit_ignored_attributes__: ClassVar[list[str]] = [
        *("outputs", "convolutions", "before", "after", "geometry", "layer_stride"),
    ]
    _sizes: list[list[int]]
    _lengths: list[list[int]]
    _output_sizes: list[list[int]]
    _by_axis: list[list[tuple[int, list[int], list[int]]]]

    def __init__(
        self, name: str, constants: Mapping[Key, Constant], dtype: torch.dtype, device: torch.device | None
    ) -> None:
        super().__init__()
        self.name = name
        self.outputs = {key: constant.output for key, constant in constants.items()}
        self.convolutions = {key: constant.convolution for key, constant in constants.items()}
        made: list[Tensor] = []
        self.before: dict[Key, Steps] = {}
        self.after: dict[Key, Steps] = {}
        for key, constant in constants.items():
            self.before[key], self.after[key] = numbered(constant.before, made), numbered(constant.after, made)
        for number, matrix in enumerate(made):
            self.register_buffer(f"matrix{number}", matrix.to(device, dtype))
        alone = [key for key in constants if key[2] is None]
        self._sizes = [list(size) for size, *_ in alone]
        self._lengths = [list(size if lengths is None else lengths) for size, lengths, _ in alone]
        self._output_sizes = [list(self.outputs[key]) for key in alone]
        self._by_axis = [
            [each for axes, _, _, numbers, starts in self.before[key] for each in _alone(axes, numbers, starts)]
            for key in alone
        ]

    def _run(self, x: Tensor, steps: Mapping[Key, Steps], key: Key | None = None) -> Tensor:
        """Apply the steps of a key; those of the map's size where it says nothing else."""
        table = tuple([(at[0], step) for at, step in steps.items()]) if key is None else ((key[0], steps[key]),)
        buffers: Any = list(self._buffers.values())
        return run_constants(x, self.name, table, buffers)

    def _scripted(self, x: Tensor, lengths: list[int] | None) -> Tensor:
        """As `_run`, in the part of Python that TorchScript knows."""
        axes = len(self._sizes[0]) if len(self._sizes) > 0 else x.dim() - 2
        size = list(x.shape[x.dim() - axes :])
        buffers: list[Tensor] = []
        for _, buffer in self.named_buffers():
            buffers.append(buffer.to(x.dtype))
        for n, known in enumerate(self._sizes):
            if known == size and self._lengths[n] == (size if lengths is None else lengths):
                for axis, numbers, starts in self._by_axis[n]:
                    lines = x.movedim(x.dim() - axes + axis, -1)
                    parts: list[Tensor] = []
                    for k, number in enumerate(numbers):
                        matrix = buffers[number]
                        part = lines if len(starts) == 0 else lines.narrow(-1, starts[k], matrix.shape[1])
                        parts.append(torch.matmul(part, matrix.t()))
                    x = torch.cat(parts, -1).movedim(-1, x.dim() - axes + axis)
                return x.clone() if len(self._by_axis[n]) == 0 else x
        raise ValueError(f"layer '{self.name}' was frozen for maps of size {self._sizes}; got size {size}")

    def extra_repr(self) -> str:
        sizes = ", ".join(f"{size} to {output}" for (size, *_), output in self.outputs.items())
        return f"sizes: {sizes or 'none'}"


def _alone(axes: Size, numbers: Size, starts: Size) -> list[tuple[int, list[int], list[int]]]:
    """A product as one step per axis: the axis, its buffers and their starts."""
    if starts:
        return [(axes[0], list(numbers), list(starts))]
    return [(axis, [number], []) for axis, number in zip(axes, numbers, strict=True)]


class Frozen(Constants):
    """A frozen operator, called as the layer that it replaces: `DiffStride2d` and its like.

    Args:
        name: of the layer, for messages.
        constants: by key, what is done.
        dtype, device: of the buffers.

    Attributes:
        keeps_constants: whether the layer did; else a convolution with a bias runs by itself.
        late: whether a bias is added after what follows the convolution, which goes on beyond its map.

    Shape:
        (N, C, *spatial) to (N, C, *output), for the sizes that it was made for.

    Raises:
        ValueError: the map has another size.
    """

    keeps_constants = True
    late = False

    def forward(self, x: Tensor, lengths: list[int] | None = None, convolution: Any = None) -> Tensor:
        """Resample, after `convolution` if one is given. `lengths` is what the learned layer was given at freezing."""
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            return self._scripted(x, lengths)
        return self._resampled(x, lengths, convolution)

    @torch.jit.unused
    def _resampled(self, x: Tensor, lengths: Any, convolution: Any) -> Tensor:
        x, kernel = (x, None) if convolution is None else take_in(x, convolution, self.keeps_constants)
        key = key_of(spatial_size(x), lengths, kernel)
        if key not in self.outputs:
            raise ValueError(refusal(self.name, key, self.outputs))
        given = x
        x = self._run(x, self.before, key)
        how = self.convolutions[key]
        if how is None:
            return x.clone() if x is given and kernel is None and convolution is None else x
        # A pruned convolution has fewer groups.
        early, late = (None, convolution.bias) if self.late else (convolution.bias, None)
        x = convolve(x, convolution.weight, early, how._replace(groups=convolution.groups))
        x = self._run(x, {(how.size, None, None): self.after[key]}, (how.size, None, None))
        return x if late is None else x + late.to(x.dtype).reshape(-1, *[1] * len(how.size))


class FrozenPlace(Constants):
    """A frozen place of a converted network, called with the stride-1 map.

    Args:
        name: of the place, for messages.
        constants: by key, what is done.
        dtype, device: of the buffers.
        geometry, layer_stride, grows: of the layer that it stands after, as in `resample.Place`.

    Attributes:
        mode, align_corners: for what enlarges, those of `torch.nn.functional.interpolate`; there are no matrices then.

    Shape:
        (N, C, *spatial) to (N, C, *output), for the sizes that it was made for.

    Raises:
        ValueError: the map has another size.
    """

    def __init__(
        self,
        name: str,
        constants: Mapping[Key, Constant],
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
        geometry: Geometry | None = None,
        layer_stride: Size = (),
        grows: bool = False,
    ) -> None:
        super().__init__(name, constants, dtype, device)
        self.geometry, self.layer_stride, self.grows = geometry, layer_stride, grows
        self.mode: str | None = None
        self.align_corners: bool | None = None

    def forward(self, x: Tensor, convolution: Any = None, input_size: Any = None) -> Tensor:
        """Resample. The other arguments of a learned place follow from the size of the map."""
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            return self._scripted(x, None) if self.mode is None else self._enlarged(x)
        return self._resampled(x)

    def _enlarged(self, x: Tensor) -> Tensor:
        """`enlarge` for TorchScript."""
        assert self.mode is not None
        for known, output in zip(self._sizes, self._output_sizes):  # noqa: B905 - TorchScript knows no strict
            if known == list(x.shape[2:]):
                return F.interpolate(x, output, mode=self.mode, align_corners=self.align_corners)
        raise ValueError(f"layer '{self.name}' was frozen for maps of size {self._sizes}; got size {x.shape[2:]}")

    @torch.jit.unused
    def _resampled(self, x: Tensor) -> Tensor:
        if self.mode is None:
            return self._run(x, self.before)
        sizes = tuple([(key[0], output) for key, output in self.outputs.items()])
        return enlarge(x, self.name, sizes, self.mode, self.align_corners)

    def extra_repr(self) -> str:
        return super().extra_repr() if self.mode is None else f"{super().extra_repr()}, mode={self.mode!r}"


class Border(nn.Module):
    """The last samples repeated as far as windows reach beyond the border: what `ceil_mode` does at stride 1.

    Args:
        geometry: of the layer that comes next.
    """

    def __init__(self, geometry: Geometry) -> None:
        super().__init__()
        self.stride, self.span, self.padding = list(geometry.stride), list(geometry.span), list(geometry.padding)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *spatial), or (C, *spatial), to the same with longer axes."""
        y: Tensor = extend(x, self.stride, self.span, self.padding)
        return y


@torch.fx.wrap
def extend(x: Tensor, stride: list[int], span: list[int], padding: list[int]) -> Tensor:
    """Repeat last samples (`geometry.Geometry.missing`): one operation to a tracer."""
    axes = len(stride)
    sides: list[int] = []
    for axis in range(axes - 1, -1, -1):
        free = x.shape[x.dim() - axes + axis] + 2 * padding[axis] - span[axis]
        sides.append(0)
        sides.append((-free) % stride[axis])
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        if exporting():  # the answer may differ for another size
            return F.pad(x, sides, mode="replicate")
        sides = [int(side) for side in sides]
    return F.pad(x, sides, mode="replicate") if max(sides) > 0 else x


class FrozenLayer(nn.Sequential):
    """A frozen converted layer of torch: a `Border` where it needs one, the layer at stride 1, its place.

    Shape:
        (N, C, *spatial), or (C, *spatial), to (N, C, *output), for the sizes that it was made for.
    """

    inner: ClassVar[str] = "layer"

    def _names(self, prefix: str) -> dict[str, str]:
        """Names in state dicts, which are those of a converted layer, by the names of our own tensors."""
        found = {name: list(part.state_dict()) for name, part in self._modules.items() if part is not None}
        parts = [(part, name) for part in (self.inner, "late") for name in found.pop(part, [])]
        names = {f"{prefix}{part}.{name}": f"{prefix}{name}" for part, name in parts}
        matrices = [f"{part}.{name}" for part, tensors in found.items() for name in tensors]
        return names | {f"{prefix}{name}": f"{prefix}{CHILD}.matrix{n}" for n, name in enumerate(matrices)}

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The tensors, by the names that they had before freezing."""
        found = super().state_dict(*args, **kwargs)
        for own, name in self._names(kwargs.get("prefix", "")).items():
            found[name] = found.pop(own)
        return found

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for own, name in self._names(prefix).items():
            if name in state_dict:
                state_dict[own] = state_dict.pop(name)
        super()._load_from_state_dict(state_dict, prefix, *args)


class FrozenConv(FrozenLayer):
    """A frozen converted convolution: products, an ordinary convolution of torch, products; a border before all of them
    where that was not of zeros.

    Tools that quantise, prune or rebuild layers see the convolution as it is, at the stride with which it runs.

    Shape:
        (N, C, *spatial), or (C, *spatial), to (N, channels, *output), for the sizes that it was made for.

    Args:
        how: with which stride the convolution runs; None where it runs at stride 1 as it is.

        composed: per axis, the filter that the convolution's weight is to take in.
        late: whether the bias is added after what follows the convolution, which goes on beyond its map.
    """

    __jit_unused_properties__: ClassVar[list[str]] = ["weight", "bias"]
    __jit_ignored_attributes__: ClassVar[list[str]] = ["how", "composed", "bias_comes_late"]
    inner = "conv"

    def __init__(self, how: Convolve | None, composed: list[Tensor] | None = None, late: bool = False) -> None:
        super().__init__()
        self.how, self.composed, self.bias_comes_late = how, composed, late

    @property
    def weight(self) -> Tensor:
        """The convolution's weight."""
        return self.conv.weight  # type: ignore[return-value, union-attr]

    @property
    def bias(self) -> Tensor | None:
        """The convolution's bias."""
        late: Any = self._modules.get("late")
        return self.conv.bias if late is None else late.bias  # type: ignore[return-value, union-attr]
