"""The complexity of a network as a function of its strides: Eq. 6, multiply-accumulates, and a budget for them."""

import math
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from anystride.checks import check_choice
from anystride.counting.counter import Account, account
from anystride.counting.labels import Label, Length
from anystride.layers import DiffStrideNd


def complexity(
    model: nn.Module, example_input: Any = None, count: Literal["strides", "convolutions"] = "strides"
) -> Tensor:
    """J of Eq. 6: the sum over layers l of the product over i <= l of 1 / (S_h^i S_w^i), differentiable.

    Each term is the share of the input's positions that is left after layer l, and work in a convolutional network is
    proportional to it. Layers count in the order in which the model registers them, or, with an example, in the order
    in which data meets them. A stride that several layers share counts once, at the first of them. Strides are those
    in use, and all axes of a layer multiply. The equation knows neither branches nor channels: `macs` counts the work
    itself.

    The paper sums "over convolution layers". By `count="strides"` those are the layers with a learned stride, one term
    for each. By "convolutions" they are all convolutions but the last, most of which have a stride of 1: a term repeats
    for each convolution that works on maps of its size. ResNet-18 then has 19 terms instead of 3 or 4, and the same
    weight of J in the loss presses that much more. Every convolution that runs counts, those of shortcuts too; strides
    that are not learned do not.

    Args:
        model: a network with at least one DiffStride layer.
        example_input: a tensor, a tuple of positional or a mapping of keyword arguments, for the order. Nothing is
            computed, and the order of an earlier call with the same sizes is remembered.
        count: what has a term; "convolutions" needs an example.

    Returns:
        A scalar, to be weighted and added to the loss.

    Raises:
        ValueError: the model learns no stride, `count` is none of the two, or it needs an example.

    Example:
        >>> from anystride import DiffStride2d
        >>> complexity(nn.Sequential(DiffStride2d(2.0), DiffStride2d(2.0))).item()
        0.3125
    """
    layers = [module for module in model.modules() if isinstance(module, DiffStrideNd)]
    if not layers:
        raise ValueError("model has no DiffStride layer, so its complexity does not depend on a stride")
    check_choice("count", count, ("strides", "convolutions"))
    if count == "convolutions":
        if example_input is None:
            raise ValueError("example_input must be given with count='convolutions', to see which convolutions run")
        return _over_convolutions(account(model, example_input))
    if example_input is not None:
        met = [layer for length in account(model, example_input).lengths if (layer := length.layer()) is not None]
        layers = list(dict.fromkeys([*met, *layers]))
    shares, seen = [], set()
    for layer in layers:
        if id(layer.stride) not in seen:
            seen.add(id(layer.stride))
            shares.append(layer.effective_stride().expand(layer.spatial_dims).prod().reciprocal())
    return torch.stack(shares).cumprod(dim=0).sum()


def _over_convolutions(found: Account) -> Tensor:
    """Eq. 6 with a term for each convolution but the last: the share of positions that its output has."""
    shares: dict[Length, Tensor] = {}

    def share(label: Label) -> Any:
        return math.prod(shares[length] ** exponent for length, exponent in label.items())

    for length in found.lengths:
        layer = length.layer()
        assert layer is not None
        stride = layer.effective_stride().expand(layer.spatial_dims)[length.axis]
        shares[length] = share(length.before) / stride
    total = sum(math.prod(share(label) for label in axes) for axes in found.convolutions[:-1])
    return torch.as_tensor(total, dtype=torch.float32)


def macs(model: nn.Module, example_input: Any) -> Tensor:
    """Multiply-accumulates of an evaluation pass at the present strides, differentiable in the strides.

    The value is exact: convolutions and matrix products at the sizes that the maps have now, as
    `torch.utils.flop_counter` counts them (halved), and the matrix products of the learned layers themselves. It is a
    staircase in the strides, so the gradient is that of the sizes before they are rounded: L / S ("inner") or
    L / S + 2 R ("outer"), and zero where an "outer" map is held at L. Work that depends on several lengths, such as
    attention, feels all of them.

    Nothing is computed: the model runs on tensors without data when sizes are met for the first time, and afterwards
    the result comes from memory, so the call is cheap enough for every step. What changes in the model in place (a
    pruned kernel, another child, an attribute that is a number) is noticed, and then it runs anew. A model that cannot
    run without data runs for real, once per set of sizes. Batch size counts, so give one sample for the costs of one.

    Args:
        model: any network, in any mode; not a compiled or distributed wrapper of it.
        example_input: a tensor, a tuple of positional or a mapping of keyword arguments. Only shapes and dtypes matter.

    Returns:
        A float64 scalar, on the device of the strides.

    Example:
        >>> from anystride import DiffStride2d
        >>> pool = DiffStride2d(2.0, ramp="inner")
        >>> macs(nn.Sequential(pool, nn.Conv2d(1, 8, 3, padding=1, bias=False)), torch.empty(1, 1, 32, 32)).item()
        43008.0
    """
    found = account(model, example_input)
    slopes = found.slopes()
    if not slopes:
        return torch.tensor(float(found.total), dtype=torch.float64)
    device = next(iter(slopes)).stride.device
    value = torch.tensor(float(found.total), dtype=torch.float64, device=device)
    strides = torch.cat([layer.stride.to(device) for layer in slopes]).double()
    # One entry per entry of the parameter: a stride that serves all axes feels all of them.
    parts = [part if layer.stride.numel() > 1 else [sum(part)] for layer, part in slopes.items()]
    slope = torch.tensor([entry for part in parts for entry in part], dtype=torch.float64, device=device)
    # Strides enter with the value zero: only their gradient counts.
    return value + slope @ (strides - strides.detach())


class Budget(nn.Module):
    """Training towards at most `limit` multiply-accumulates: an augmented Lagrangian of c = log(macs / limit) <= 0.

    A fixed weight on the costs ends wherever the task's pull happens to balance it, and a hinge holds its limit only
    with a weight above that unknown pull. Here a multiplier finds the pull: each call in training mode moves it by
    `rate` times c, up while the model costs too much and down, no further than zero, while it costs less. What is
    below the budget is free. The logarithm makes c a relative excess, whatever the unit of the costs.

    The step is a PI controller's: `penalty` acts at once and damps, `rate` removes what is left over. With a
    learning rate e of the strides, e * penalty well below 1 is stable, and rate <= e * penalty^2 / 4 does not
    oscillate. In the loss, both have the unit of the task's loss.

    It is checkpointed like any module. Keep it beside the model, not within it.

    Args:
        limit: the budget, in the unit of what it is called with: for `macs(model, x[:1])`, per sample.
        penalty: weight of the squared excess, > 0.
        rate: step of the multiplier per call, >= 0; 0 leaves a penalty that the task's pull can exceed the limit by.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> from anystride import DiffStride2d
        >>> model = nn.Sequential(DiffStride2d(2.0), nn.Conv2d(1, 8, 3, padding=1))
        >>> budget = Budget(limit=20_000)
        >>> x = torch.randn(4, 1, 32, 32)
        >>> loss = model(x).square().mean() + budget(macs(model, x[:1]))
        >>> loss.backward()
        >>> bool(budget.multiplier > 0)
        True
    """

    multiplier: Tensor

    def __init__(self, limit: float, penalty: float = 1.0, rate: float = 0.01) -> None:
        super().__init__()
        for name, value, least in (("limit", limit, "> 0"), ("penalty", penalty, "> 0"), ("rate", rate, ">= 0")):
            if not (0 < value < math.inf or (least == ">= 0" and value == 0)):
                raise ValueError(f"{name} must be a finite number {least}, got {value}")
        self.limit, self.penalty, self.rate = float(limit), float(penalty), float(rate)
        self.register_buffer("multiplier", torch.zeros((), dtype=torch.float64))

    def forward(self, cost: Tensor) -> Tensor:
        """The loss to add, a float32 scalar, for a cost such as `macs(model, x[:1])`."""
        excess = (cost.double() / self.limit).log()
        if self.multiplier.device != excess.device:
            self.multiplier = self.multiplier.to(excess.device)
        # A copy, because the step below writes to what the backward pass would look for.
        before = self.multiplier.double().clone()
        pull = (before + self.penalty * excess).clamp_min(0)
        loss = (pull.square() - before.square()) / (2 * self.penalty)
        if self.training and torch.is_grad_enabled():
            with torch.no_grad():
                self.multiplier.copy_((before + self.rate * excess.detach()).clamp_min(0))
        return loss.float()

    if TYPE_CHECKING:  # nn.Module's has no types

        def __call__(self, cost: Tensor) -> Tensor: ...

    def extra_repr(self) -> str:
        return f"limit={self.limit:g}, penalty={self.penalty:g}, rate={self.rate:g}"
