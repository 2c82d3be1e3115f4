"""What `freeze_` puts in the place of learned layers: constant matrices as buffers, one set per size of the map."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch.fx
from torch import Tensor, nn
from torch.nn import functional as F

from anystride.checks import spatial_size
from anystride.compiling import exporting
from anystride.convolution import take_in
from anystride.geometry import Geometry, Size
from anystride.ops.autograd import autocast, convolve
from anystride.ops.fusion import Convolve, Kernel
from anystride.ops.separable import Product, joined, multiply
from anystride.resample import CHILD

# Spatial size of a map, the lengths that its layer was given where they differ from it, and how the convolution that
# runs with it moves, if one does.
Key = tuple[Size, Size | None, Any]


class Constant(NamedTuple):
    """What a frozen layer does to one size.

    Attributes:
        before, after: products before and after a convolution; without one, all are in `before`. Each has one matrix
            per axis, in float64.
        convolution: how it runs; None where there is none.
        output: spatial size of the result.
    """

    before: tuple[tuple[Product, tuple[Tensor, ...]], ...]
    convolution: Convolve | None
    after: tuple[tuple[Product, tuple[Tensor, ...]], ...]
    output: Size


# The same as plain numbers, for any tracer: axes, rows, columns of each product, and the numbers of its buffers.
Steps = tuple[tuple[Size, Size, Size, Size], ...]


class _Constants(nn.Module):
    """Buffers, and by key the steps that use them."""

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
            self.before[key], self.after[key] = _numbered(constant.before, made), _numbered(constant.after, made)
        for number, matrix in enumerate(made):
            self.register_buffer(f"matrix{number}", matrix.to(device, dtype))

    def _run(self, x: Tensor, steps: Mapping[Key, Steps], key: Key | None = None) -> Tensor:
        """Apply the steps of a key; those of the map's size where it says nothing else."""
        table = tuple([(at[0], step) for at, step in steps.items()]) if key is None else ((key[0], steps[key]),)
        y: Tensor = run_constants(x, self.name, table, list(self._buffers.values()))
        return y

    def extra_repr(self) -> str:
        sizes = ", ".join(f"{size} to {output}" for (size, *_), output in self.outputs.items())
        return f"sizes: {sizes or 'none'}"


class Frozen(_Constants):
    """A frozen operator, called as the layer that it replaces: `DiffStride2d` and its like.

    Args:
        name: of the layer, for messages.
        constants: by key, what is done.
        dtype, device: of the buffers.

    Attributes:
        norm: the gain of the layer, by which a convolution with a bias may have to run by itself.

    Shape:
        (N, C, *spatial) to (N, C, *output), for the sizes that it was made for.

    Raises:
        ValueError: the map has another size.
    """

    norm = "forward"

    def forward(self, x: Tensor, lengths: Size | None = None, convolution: Any = None) -> Tensor:
        """Resample, after `convolution` if one is given. `lengths` is what the learned layer was given at freezing."""
        x, kernel = (x, None) if convolution is None else take_in(x, convolution, self.norm)
        key = key_of(spatial_size(x), lengths, kernel)
        if key not in self.outputs:
            raise ValueError(_refusal(self.name, key, self.outputs))
        x = self._run(x, self.before, key)
        how = self.convolutions[key]
        if how is None:
            return x
        # A pruned convolution has fewer groups.
        x = convolve(x, convolution.weight, convolution.bias, how._replace(groups=convolution.groups))
        return self._run(x, {(how.size, None, None): self.after[key]}, (how.size, None, None))


class FrozenPlace(_Constants):
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

    def forward(self, x: Tensor, convolution: None = None, input_size: Size | None = None) -> Tensor:
        """Resample. The other arguments of a learned place follow from the size of the map."""
        if self.mode is None:
            return self._run(x, self.before)
        sizes = tuple([(key[0], output) for key, output in self.outputs.items()])
        y: Tensor = enlarge(x, self.name, sizes, self.mode, self.align_corners)
        return y

    def extra_repr(self) -> str:
        return super().extra_repr() if self.mode is None else f"{super().extra_repr()}, mode={self.mode!r}"


class FrozenConv(nn.Sequential):
    """A frozen converted convolution: products, an ordinary convolution of torch, products.

    Tools that quantise, prune or rebuild layers see the convolution as it is, at the stride with which it runs.

    Shape:
        (N, C, *spatial), or (C, *spatial), to (N, channels, *output), for the sizes that it was made for.

    Args:
        how: with which stride the convolution runs; None where it runs at stride 1 as it is.
    """

    conv: nn.Module

    def __init__(self, how: Convolve | None) -> None:
        super().__init__()
        self.how = how

    @property
    def weight(self) -> Tensor:
        """The convolution's weight."""
        return self.conv.weight  # type: ignore[return-value]

    @property
    def bias(self) -> Tensor | None:
        """The convolution's bias."""
        return self.conv.bias  # type: ignore[return-value]

    def _names(self, prefix: str) -> dict[str, str]:
        """Names in state dicts, which are those of a converted convolution, by the names of our own tensors."""
        names = {f"{prefix}conv.{name}": f"{prefix}{name}" for name in self.conv.state_dict()}
        matrices = [f"{part}.{name}" for part in ("before", "after") for name in self._matrices(part)]
        return names | {f"{prefix}{name}": f"{prefix}{CHILD}.matrix{n}" for n, name in enumerate(matrices)}

    def _matrices(self, part: str) -> list[str]:
        return list(self._modules[part].state_dict()) if part in self._modules else []

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


def key_of(size: Size, lengths: Iterable[int] | None, kernel: Kernel | None) -> Key:
    """What the constants of a call are found by; channels are no part of it, so a pruned network keeps them."""
    other = None if lengths is None or tuple(lengths) == size else tuple(lengths)
    return size, other, None if kernel is None else kernel.taps


@torch.fx.wrap
def run_constants(x: Tensor, name: str, table: tuple[tuple[Size, Steps], ...], buffers: list[Tensor]) -> Tensor:
    """The steps for a map's size: one operation to a tracer. A quantised map keeps its scale, as in torch's poolings.

    Args:
        x: (N, C, *spatial) or (C, *spatial).
        name: of the layer, for messages.
        table: by spatial size, the steps.
        buffers: the matrices.
    """
    if x.is_quantized:
        y = run_constants(x.dequantize(), name, table, buffers)
        return torch.quantize_per_tensor(y, x.q_scale(), x.q_zero_point(), x.dtype)
    axes = len(table[0][0]) if table else x.dim() - 2
    if x.dim() == axes + 1:
        return run_constants(x.unsqueeze(0), name, table, buffers).squeeze(0)  # type: ignore[no-any-return]
    size = spatial_size(x)
    steps = next((steps for known, steps in table if known == size), None)
    if steps is None:
        raise ValueError(_refusal(name, (size, None, None), [(known, None, None) for known, _ in table]))
    if not steps:
        return x
    x = autocast(x)
    wide = x.dtype == torch.float16 and x.is_cpu  # where products run in float32
    parts = [[buffers[n].to(torch.float32 if wide else x.dtype) for n in numbers] for *_, numbers in steps]
    products = [Product(*step[:3]) for step in steps]
    if exporting() and not wide:
        return _matmul(x, products, parts)
    return multiply(x, products, [joined(part) for part in parts])


@torch.fx.wrap
def enlarge(
    x: Tensor, name: str, sizes: tuple[tuple[Size, Size], ...], mode: str, align_corners: bool | None
) -> Tensor:
    """Interpolation to the size that belongs to the map's: one operation to a tracer."""
    size = spatial_size(x)
    output = next((output for known, output in sizes if known == size), None)
    if output is None:
        raise ValueError(_refusal(name, (size, None, None), [(known, None, None) for known, _ in sizes]))
    return F.interpolate(x, output, mode=mode, align_corners=align_corners)


def _matmul(x: Tensor, products: list[Product], parts: list[list[Tensor]]) -> Tensor:
    """`multiply` for a graph that leaves PyTorch: broadcasting products alone, for any batch and layout."""
    for product, matrices in zip(products, parts, strict=True):
        for axis, matrix in zip(product.axes, matrices, strict=True):
            before, after = x.shape[1 : 2 + axis], x.shape[3 + axis :]
            if not after:
                x = x @ matrix.t()
            elif len(after) == 1:
                x = matrix @ x
            else:
                lines = x.reshape(-1, *before, x.shape[2 + axis], math.prod(after))
                x = (matrix @ lines).reshape(-1, *before, matrix.shape[0], *after)
    return x


def _numbered(steps: Iterable[tuple[Product, tuple[Tensor, ...]]], made: list[Tensor]) -> Steps:
    """Steps with the numbers of their matrices in `made`, where each is put, axis by axis, unless it is there."""
    by_axis = {a: m for product, parts in steps for a, m in zip(product.axes, parts, strict=True)}
    numbers = {axis: _number(by_axis[axis], made) for axis in sorted(by_axis)}
    return tuple([(*product, tuple([numbers[axis] for axis in product.axes])) for product, _ in steps])


def _number(matrix: Tensor, made: list[Tensor]) -> int:
    for number, other in enumerate(made):
        if torch.equal(other, matrix):
            return number
    made.append(matrix)
    return len(made) - 1


def _refusal(name: str, key: Key, known: Iterable[Key]) -> str:
    # Where only the lengths differ, the size alone would say nothing.
    known = list(known)
    alike = any(other[0] == key[0] for other in known)
    words = [_words(other) if alike else f"{other[0]}" for other in (key, *known)]
    sizes = f"maps of size {', '.join(words[1:])}" if known else "no map, as no example input reached it"
    return (
        f"layer {name!r} was frozen for {sizes}; got size {words[0]}: freeze the learned model with one more "
        "example input, which leads to this size here"
    )


def _words(key: Key) -> str:
    size, lengths, taps = key
    words = f"{size}" if lengths is None else f"{size} (lengths {lengths})"
    return words if taps is None else f"{words} after a convolution"
