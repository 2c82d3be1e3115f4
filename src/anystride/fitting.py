"""Strides whose multiply-accumulates end at a limit, on maps whose sizes move in steps."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from anystride.budget import macs
from anystride.counting.counter import account
from anystride.layers import DiffStrideNd

CLOSE = 0.98
"""Share of the limit from which on nothing is filled up."""
FEW = 12
"""Strides up to which two are exchanged: more of them have finer steps, and more pairs."""
HALVINGS = 12
DOUBLINGS = 8
FIRST = 1 / 16
"""Of the logarithm of a stride: the first step of a search, which is doubled until costs cross the limit."""


def fit_macs_(model: nn.Module, example_input: Any, limit: float) -> float:
    """Move strides in place, by as little as possible, to where the model costs just no more than `limit`.

    A loss that holds costs down, such as `Budget`, ends somewhere near its limit: the strides follow noisy gradients,
    and towards the end of a training their learning rate is too small for corrections. What is below the limit is
    accuracy given away, and what is above is a broken promise. Call this when strides have found their places, then let
    them rest (`stride.requires_grad_(False)`) while the weights adapt to the final sizes.

    All strides move together, each in proportion to its effect on the costs (the shortest way in the logarithms of
    strides). Sizes are whole numbers, so costs move in steps: what is then left below the limit is filled up by one
    stride after the other, or by two that are exchanged. Strides never leave the range of their maps. Nothing is
    changed when an error is raised. Whole strides of the "cosine" ramp are cheaper than their neighbours; the search
    does not look for them.

    Args:
        model: a network that learns strides, in any mode; not a compiled or distributed wrapper of it.
        example_input: as in `macs`; give one sample for a limit per sample.
        limit: multiply-accumulates of an evaluation pass, > 0.

    Returns:
        The multiply-accumulates at the new strides: at most `limit`, and mostly within 2 % of it unless all strides
        have reached the lower end of their range.

    Raises:
        ValueError: the limit is not a positive number, the model learns no stride, or it costs more than the limit even
            at the largest strides that its maps can take, where a kernel may end them early.

    Example:
        >>> from anystride import DiffStride2d
        >>> model = nn.Sequential(DiffStride2d(2.0, ramp="inner"), nn.Conv2d(1, 8, 3, padding=1, bias=False))
        >>> x = torch.randn(1, 1, 32, 32)
        >>> macs(model, x).item(), fit_macs_(model, x, limit=30_000)
        (43008.0, 29760.0)
    """
    if not 0 < limit < math.inf:
        raise ValueError(f"limit must be a finite number of multiply-accumulates > 0, got {limit}")
    strides = list({id(m.stride): m.stride for m in model.modules() if isinstance(m, DiffStrideNd)}.values())
    if not strides:
        raise ValueError("model has no DiffStride layer, so its multiply-accumulates do not depend on a stride")
    search = _Search(model, example_input, limit, strides)
    try:
        return search.run()
    except BaseException:
        search.put(search.start)
        raise


Found = tuple[float, list[Tensor]]
"""Costs, and the strides that have them."""


class _Search:
    """The search for the strides that cost most within a limit."""

    def __init__(self, model: nn.Module, example: Any, limit: float, strides: Sequence[nn.Parameter]) -> None:
        self.model, self.example, self.limit, self.strides = model, example, limit, strides
        self.start, self.least = self._values(), math.inf
        self.entries = [(number, entry) for number, each in enumerate(self.start) for entry in range(each.numel())]

    def run(self) -> float:
        """Put the strides where they are to be; gives their costs."""
        along = self._effects()
        found = self._between(lambda t: [s * torch.exp(t * e) for s, e in zip(self.start, along, strict=True)])
        if found is None:
            raise ValueError(
                f"limit must be at least {self.least:,.0f}, what the model costs at the largest strides that its "
                f"maps can take, got {self.limit:,.0f}"
            )
        cost, values = self._exchanged(*self._filled_up(*found))
        self.put(values)
        self._clamp()
        return cost

    def _between(self, at: Callable[[float], list[Tensor]]) -> Found | None:
        """Of the strides at(t) within the limit those that cost most, tried from t = 0 to where costs cross it.

        Costs fall as t grows, but for small steps back, until maps are too small for a kernel and the model does not
        run. None where even the largest t that changes anything, or with which it runs, is beyond.
        """
        best: Found | None = None

        def fits(t: float) -> bool:
            nonlocal best
            self.put([value.clamp_min(1.0) for value in at(t)])
            cost = self._cost()
            if cost is None:
                return True
            if cost <= self.limit and (best is None or cost > best[0]):
                best = cost, self._values()
            return cost <= self.limit

        within = fits(0.0)
        near, far = 0.0, -FIRST if within else FIRST
        for _ in range(DOUBLINGS):
            if fits(far) != within:
                break
            near, far = far, 2 * far
        else:
            return best  # all strides are at an end of their range
        for _ in range(HALVINGS):
            middle = (near + far) / 2
            if fits(middle) == within:
                near = middle
            else:
                far = middle
        return best

    def _filled_up(self, cost: float, values: list[Tensor]) -> Found:
        """Lower single strides as far as the limit allows, each time the one that has to move least."""
        for _ in self.entries:
            if cost >= CLOSE * self.limit:
                break
            found = [self._lowered(values, *place) for place in self.entries]
            better = [each for each in found if each is not None and each[0] > cost]
            if not better:
                break
            close = [each for each in better if each[0] >= CLOSE * self.limit]
            cost, values = min(close, key=lambda each: _distance(each[1], values)) if close else max(better, key=_first)
        return cost, values

    def _exchanged(self, cost: float, values: list[Tensor]) -> Found:
        """Raise one stride a little and lower another one: single strides have large steps on small maps."""
        pairs = [(up, down) for up in self.entries for down in self.entries if up != down]
        for (number, entry), down in pairs if len(self.entries) <= FEW else []:
            if cost >= CLOSE * self.limit:
                break
            raised = [each.clone() for each in values]
            raised[number][entry] *= math.exp(FIRST)
            found = self._lowered(raised, *down)
            if found is not None and found[0] > cost:
                cost, values = found
        return cost, values

    def _lowered(self, values: list[Tensor], number: int, entry: int) -> Found | None:
        def at(t: float) -> list[Tensor]:
            moved = [each.clone() for each in values]
            moved[number][entry] *= math.exp(t)
            return moved

        return self._between(at)

    def _effects(self) -> list[Tensor]:
        """How each stride moves: in proportion to its effect on the costs, the largest by 1, upwards."""
        needed = [stride.requires_grad for stride in self.strides]
        try:
            for stride in self.strides:
                stride.requires_grad_(True)
            with torch.enable_grad():
                # A stride that nothing depends on has the gradient zero, not none.
                cost = macs(self.model, self.example) + sum(0 * stride.sum() for stride in self.strides)
                gradients = torch.autograd.grad(cost, self.strides)
        finally:
            for stride, before in zip(self.strides, needed, strict=True):
                stride.requires_grad_(before)
        falls = [(-slope * value).clamp_min(0) for slope, value in zip(gradients, self.start, strict=True)]
        largest = max(float(fall.max()) for fall in falls)
        if largest == 0:
            raise ValueError("model must cost less at larger strides: its multiply-accumulates depend on none of them")
        return [fall / largest for fall in falls]

    def _cost(self) -> float | None:
        """The costs; None where the model, which ran at the strides that it came with, does not run at these."""
        try:
            with torch.no_grad():
                cost = float(macs(self.model, self.example))
        except (RuntimeError, ValueError):
            return None
        self.least = min(self.least, cost)
        return cost

    def _values(self) -> list[Tensor]:
        return [stride.detach().clone() for stride in self.strides]

    @torch.no_grad()
    def put(self, values: Sequence[Tensor]) -> None:
        for stride, value in zip(self.strides, values, strict=True):
            stride.copy_(value)

    @torch.no_grad()
    def _clamp(self) -> None:
        """Bring strides that ended beyond what their maps can take to what is in use there."""
        used: dict[int, list[list[float]]] = {}
        for length in account(self.model, self.example).lengths:
            layer = length.layer()
            assert layer is not None
            entries = used.setdefault(id(layer.stride), [[] for _ in range(layer.stride.numel())])
            entries[min(length.axis, len(entries) - 1)].append(float(length.band().stride))
        for stride in self.strides:
            for entry, values in enumerate(used.get(id(stride), [])):
                stride[entry].clamp_(min(values), max(values))


def _distance(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    """Between strides, in their logarithms."""
    return sum(float((a / b).log().abs().sum()) for a, b in zip(one, other, strict=True))


def _first(found: Found) -> float:
    return found[0]
