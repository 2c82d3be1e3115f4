"""What stands at a converted place: one class per role.

A place takes the map of a layer that once had a stride, and that now runs at stride 1, to the size that the plan asks
for. `Leads` learns a stride, `Shares` uses the stride of a place whose maps it meets, `Follows` takes the size that
another place gave in the same call of the network, `Keeps` gives a fixed size, `Enlarges` interpolates to a size.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anystride.calls import ENTRY, OWN, note_size, size_of, turn
from anystride.checks import check_input, spatial_size
from anystride.convolution import axes_to_size, take_in, to_size
from anystride.geometry import Geometry, Size, SizeRule, along, counted, words
from anystride.layers import DiffStrideNd
from anystride.ops.axes import Axis
from anystride.ops.cosine import Cosine
from anystride.spectral import SpectralPoolNd

CHILD = "resample"
"""The name under which a converted layer registers its place."""


class Place(nn.Module):
    """What all roles have in common.

    Args:
        name: of the place, as in the plan.
        geometry: of the layer that it stands after.
        followed: whether other places take their size from this one.
        enters: whether other places take the size of the map that its layer is given.
        axes: spatial axes whose size it changes; along all others the layer keeps its stride. None for all.
        rules: per axis, the size that it keeps: a number, or how it follows from the size of the input; None where the
            role says what becomes of the axis.
        grows: whether the layer enlarges the map.

    Attributes:
        whole: whether the convolution tells the stride that it had, in whole numbers.
        ramp: of the network, by which what learns no stride is brought to its size.
        copies: whether the output is copied, because what comes next changes it in place and a gradient needs it.
        seen: spatial size of the last map and of what became of it, for `print(model)` alone.
        mode: of an interpolation that takes the layer's place.
    """

    mode: str | None = None

    def __init__(
        self,
        name: str,
        geometry: Geometry,
        followed: bool = False,
        axes: Sequence[int] | None = None,
        rules: Sequence[int | SizeRule | None] | None = None,
        grows: bool = False,
        enters: bool = False,
        ramp: str | Cosine = "inner",
    ) -> None:
        super().__init__()
        self.ramp = ramp
        self.enters, self.whole = enters, False
        self.name, self.geometry, self.followed, self.grows, self.copies = name, geometry, followed, grows, False
        every = range(len(geometry.stride))
        self.axes = tuple(every if axes is None else axes)
        self.rules = tuple([None for _ in every] if rules is None else rules)
        self.seen: tuple[Size, Size] | None = None

    @property
    def layer_stride(self) -> Size:
        """The stride per axis that the layer itself still has."""
        return tuple([1 if axis in self.axes else step for axis, step in enumerate(self.geometry.stride)])

    @property
    def pooled(self) -> Size:
        """The axes that the role itself resamples."""
        return tuple([axis for axis in self.axes if self.rules[axis] is None])

    @property
    def partial(self) -> bool:
        """Whether the layer cannot run in one program with the role, which leaves an axis to it."""
        return len(self.axes) < len(self.geometry.stride)

    def forward(self, x: Tensor, convolution: nn.Module | None = None, input_size: Size | None = None) -> Tensor:
        """Resample.

        Args:
            x: (N, C, *spatial), the stride-1 map; with `convolution`, the map before it.
            convolution: runs at stride 1 before, in the cheapest exact order.
            input_size: spatial size of the layer's input, where that is not `x`.

        Returns:
            (N, C, *size), with the channels of the convolution where there is one.
        """
        check_input(x)
        if self.enters:
            note_size(self.name + ENTRY, spatial_size(x) if input_size is None else input_size)
        y = self.resampled(x, convolution, input_size)
        size = spatial_size(y)
        if self.followed:
            note_size(self.name, size)
        if not torch.compiler.is_compiling():
            self.seen = spatial_size(x), size
        return y.clone() if self.copies and y.requires_grad else y

    def resampled(self, x: Tensor, convolution: Any, input_size: Size | None) -> Tensor:
        """What the role does; here the map stays as it is, after the convolution if there is one."""
        return x if convolution is None else take_in(x, convolution, False)[0]

    def brought(self, x: Tensor, convolution: Any, target: Callable[[Size], Size]) -> Tensor:
        """The map at another size, after the convolution if there is one."""
        return to_size(x, convolution, target, self.ramp, self.geometry.stride)

    def kept(self, size: Size) -> Size:
        """A size with the axes that have a rule at the size that it gives."""
        sizes = list(size)
        for axis, rule in enumerate(self.rules):
            if isinstance(rule, SizeRule):
                sizes[axis] = rule.apply(size_of(rule.leader, self.name, rule.axes, "")[rule.axis])
            elif rule is not None:
                sizes[axis] = rule
        return tuple(sizes)

    def extra_repr(self) -> str:
        sizes = "" if self.seen is None else f"last {words(self.seen[0])} to {words(self.seen[1])}"
        along = f"axes {', '.join(map(str, self.axes))}" if len(self.axes) < len(self.geometry.stride) else ""
        return ", ".join(part for part in (self.described(), along, sizes) if part)

    def described(self) -> str:
        """What the role does, for `print(model)`."""
        return ""


class Leads(Place):
    """A stride of its own.

    Args:
        pool: the operator, for as many axes as the role resamples; its stride is the place's.
        place: arguments of `Place`.
    """

    def __init__(self, pool: DiffStrideNd | SpectralPoolNd, **place: Any) -> None:
        super().__init__(**place)
        self.pool = pool

    @property
    def partial(self) -> bool:
        return len(self.pooled) < len(self.geometry.stride)

    def resampled(self, x: Tensor, convolution: Any, input_size: Size | None) -> Tensor:
        lengths = self.lengths(spatial_size(x), convolution is not None, input_size)
        if self.geometry.same:
            for axis, skipped in enumerate(self.geometry.offset(x.shape[2:])):
                if skipped and axis in self.axes:
                    x = x.narrow(2 + axis, skipped, x.shape[2 + axis] - skipped)
        if not self.partial:
            y: Tensor = self.pool(x, lengths, convolution)
            return y
        if any(rule is not None for rule in self.rules):
            x = self.brought(x, None, self.kept)
        counts = [lengths[axis] for axis in self.pooled]
        return along(x, [2 + axis for axis in self.pooled], lambda maps: self.pool(maps, counts))

    def resampled_axes(self, size: Size, convolves: bool, input_size: Size | None, output: Tensor) -> tuple[Axis, ...]:
        """What became of each axis of a map that gave `output`; the other arguments are those of `lengths`."""
        lengths = self.lengths(size, convolves, input_size)
        axes = list(axes_to_size(size, spatial_size(output), self.ramp, self.geometry.stride))
        learned: Sequence[Axis] = self.pool.axes(tuple([lengths[axis] for axis in self.pooled]))
        for number, axis in enumerate(self.pooled):
            axes[axis] = learned[number]
        return tuple(axes)

    def lengths(self, size: Size, convolves: bool, input_size: Size | None) -> Size:
        """Length per axis that the stride-1 map counts as; the arguments are those of `forward`."""
        return counted(self.geometry, size, convolves)


class Shares(Leads):
    """The stride of a place that is given the same map, and whose output it meets.

    Args:
        pool: the operator of the leading place, the same object.
        leader: name of the leading place.
        leading: geometry of the leading layer: where the two layers would count different lengths, its length counts.
        shift: by how many samples the leading layer's input is longer than its own, per axis.
        place: arguments of `Place`.
    """

    def __init__(
        self, pool: DiffStrideNd | SpectralPoolNd, leader: str, leading: Geometry, shift: Size, **place: Any
    ) -> None:
        super().__init__(pool, **place)
        self.leader, self.leading, self.shift = leader, leading, shift

    def lengths(self, size: Size, convolves: bool, input_size: Size | None) -> Size:
        if convolves:
            input_size = size
        elif input_size is None:
            each_axis = zip(size, self.geometry.span, self.geometry.padding, strict=True)
            input_size = tuple([n + k - 1 - 2 * p for n, k, p in each_axis])
        leading = tuple([n + more for n, more in zip(input_size, self.shift, strict=True)])
        return counted(self.leading, leading, True)

    def described(self) -> str:
        return f"stride of {self.leader!r}"


class Keeps(Place):
    """The size that the network had there before it was converted.

    Args:
        rules: along each axis a number, or how it follows from the size of the input.
        place: arguments of `Place`.
    """

    def __init__(self, rules: Sequence[int | SizeRule | None], **place: Any) -> None:
        super().__init__(rules=rules, **place)

    def resampled(self, x: Tensor, convolution: Any, input_size: Size | None) -> Tensor:
        return self.brought(x, convolution, self.kept)

    def described(self) -> str:
        return f"size {words(self.rules)}"


class Follows(Place):
    """The size that another place gave in the same call.

    Args:
        leader: name of that place, or `INPUT`; with "@" and a number, the size of one of its calls.
        scope: name of the module that must be called as a whole, for messages.
        shift: samples per axis by which its map is longer than the leader's.
        turns: where it runs several times in a call, the leader of each time.
    """

    def __init__(
        self, leader: str, scope: str = "", shift: Size | None = None, turns: Sequence[str] = (), **place: Any
    ) -> None:
        super().__init__(**place)
        self.leader, self.scope, self.shift, self.turns = leader, scope, shift, tuple(turns)

    def resampled(self, x: Tensor, convolution: Any, input_size: Size | None) -> Tensor:
        return self.brought(x, convolution, self.target)

    def target(self, size: Size) -> Size:
        """The size that counts in this call for a map of `size`, see `calls.size_of`."""
        if any(rule is not None for rule in self.rules):
            return self.kept(size)
        leader = self.leader
        if self.turns:
            number = turn(self.name)
            if number >= len(self.turns):
                raise RuntimeError(
                    f"{self.name!r} ran {len(self.turns)} times when the network was converted, now it runs once more; "
                    "convert it with an example that needs as many calls"
                )
            leader = self.turns[number]
        if leader == OWN:
            return self.enlarged(size)
        target = size_of(leader, self.name, len(size), self.scope)
        return target if self.shift is None else tuple([n + more for n, more in zip(target, self.shift, strict=True)])

    def enlarged(self, size: Size) -> Size:
        """The size that the layer gives by itself; here it has done so."""
        return size

    def described(self) -> str:
        if any(rule is not None for rule in self.rules):
            return f"size {words(self.rules)}"
        return f"size of {', '.join(map(repr, self.turns or (self.leader,)))}"


class Enlarges(Follows):
    """Interpolation to the size that another place gave, or to one that it keeps.

    Args:
        mode, align_corners: those of `torch.nn.functional.interpolate`.
        follows: arguments of `Follows` and `Place`.
    """

    def __init__(self, mode: str, align_corners: bool | None = None, **follows: Any) -> None:
        super().__init__(**follows)
        self.mode, self.align_corners = mode, align_corners

    def resampled(self, x: Tensor, convolution: Any, input_size: Size | None) -> Tensor:
        mode: Any = self.mode
        return F.interpolate(x, self.target(spatial_size(x)), mode=mode, align_corners=self.align_corners)

    def enlarged(self, size: Size) -> Size:
        return tuple([n * factor for n, factor in zip(size, self.geometry.stride, strict=True)])

    def described(self) -> str:
        return f"{super().described()}, mode={self.mode!r}"


class Passes(Place):
    """Nothing but its size is read, by places that follow it."""
