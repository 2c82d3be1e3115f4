"""`convert_`: the downsampling of any CNN becomes DiffStride, in place.

The story, a file each: *find* what changes the resolution by running the model once (`source`, `operations`, `sites`),
*tie* what must agree by running it at sizes that do not (`groups`, `labelled`, `meetings`, `trials`, `ties`), *plan*
who leads, shares, follows, keeps or stays (`rules`, `roles`, `planner`), tell it (`change`, `plan`, `display`), *carry
out* the plan (`rewrite`, `surgery`), *count* what it costs (`counting`), and *accept* or undo it (`acceptance`). A plan
that comes from outside must be one (`schema`, `agreements`) and suit the model (`fit`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import nn

from anystride.checks import check_choice, check_grid, check_smoothness, cosine_ramp
from anystride.convert.acceptance import Acceptance
from anystride.convert.fit import check_fit
from anystride.convert.plan import Plan
from anystride.convert.planner import Planner
from anystride.convert.schema import METHODS
from anystride.convert.surgery import Surgery
from anystride.counting.counter import count
from anystride.execution import tensors
from anystride.filters import FilterPlace
from anystride.frozen import Constants, FrozenLayer
from anystride.functional import PaddingMode, Ramp
from anystride.layers import Grid
from anystride.ops.cosine import ROLLOFF, TOLERANCE
from anystride.optim import learned_strides
from anystride.spectral import SpectralPoolNd
from anystride.trees import batch_of


@torch.inference_mode(False)
def convert_(
    model: nn.Module,
    example_input: Any,
    *,
    method: Literal["diffstride", "spectral"] = "diffstride",
    ramp: Ramp = "cosine",
    smoothness: float = 4.0,
    shared: bool = False,
    grid: Grid = "free",
    filter: Callable[[nn.Module, str], bool] | None = None,
    groups: Iterable[Sequence[str]] = (),
    learnable: Sequence[str] = (),
    axes: Mapping[str, Sequence[int | str]] | None = None,
    dry_run: bool = False,
    rolloff: float = ROLLOFF,
    tolerance: float = TOLERANCE,
    padding_mode: PaddingMode | None = None,
) -> Plan:
    """Replace the downsampling of a network by layers that learn their strides, in place, with the weights kept.

    Convolutions and poolings with a stride keep everything but the stride, which becomes 1; the operator follows them.
    Blur pooling is replaced. Layers whose maps meet in the network (residual additions, gates, concatenations) share
    one stride; where chains of different length meet, the one that runs later follows the other's size and has no
    stride of its own. Interpolation by a fixed factor follows the map that it meets. What meets a size that the network
    fixes (a position table, a flattened map before a linear layer) keeps that size, or stays; the plan says why.

    With any ramp but "outer" every map has the shape that it had. The network is not the same function: decimation
    became a low-pass. Fine-tune it, and recalibrate its batch norms first (`torch.optim.swa_utils.update_bn`).

    Args:
        model: the network. Its hooks, flags, devices and dtypes stay.
        example_input: a tensor, a tuple of positional or a dict of keyword arguments. It is used for its shapes; the
            model is run on tensors without data where it can be, and once for real where it cannot.
        method: "diffstride", or "spectral" for spectral pooling at the strides that the network has.
        ramp: "cosine" (a short filter: at the strides that the network has it costs little more than that had), "inner"
            (the paper's window within the same shapes) or "outer" (the paper: larger maps).
        smoothness: R, in frequency bins, for "inner" and "outer".
        shared: learn a single stride for all axes of a layer.
        grid: how sizes follow strides, "free", a whole number or "fixed", as in `DiffStride2d`.
        filter: given a module and its qualified name, whether its downsampling is replaced; the default replaces all.
        groups: names of modules that are to learn one stride together, though nothing forces them to.
        learnable: names of modules with stride 1 whose output is to be downsampled at a stride that starts at 1 (the
            paper's ImageNet setting names the first identity block). Name a whole residual block, not a layer in it.
        axes: by the name of a module, the spatial axes whose stride it learns, as numbers or as "depth", "height",
            "width", "length"; along the others it stays as it is, and so does all that its maps meet. `{"pool": (0,)}`
            keeps the time axis of a pooling by (2, 1).
        dry_run: plan, and change nothing.
        rolloff, tolerance, padding_mode: for "cosine", as in `DiffStride2d`, but for "zeros".

    Returns:
        The plan: print it, keep it as JSON, repeat it with `apply_`.

    Raises:
        ValueError: an argument is wrong; the message names it.
        RuntimeError: the model could not be run on the example.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
        >>> plan = convert_(model, torch.randn(1, 3, 32, 32))
        >>> model[0].resample.pool.stride
        Parameter containing:
        tensor([2., 2.], requires_grad=True)
    """
    tied = [tuple(names) for names in groups]
    _check(model, example_input, method, [*learnable, *(axes or ()), *(name for names in tied for name in names)])
    cosine_ramp(ramp, rolloff, tolerance, padding_mode)
    if padding_mode == "zeros":
        raise ValueError(
            "padding_mode must not be 'zeros' here, as biases would fade towards the border; with 'auto' a convolution "
            "goes on where its input is zero, as it does under a stride"
        )
    check_smoothness((smoothness,))
    check_grid(grid)
    settings = Plan(
        method=method,
        ramp=ramp,
        smoothness=float(smoothness),
        shared=shared,
        grid=grid,
        rolloff=rolloff,
        tolerance=tolerance,
        padding_mode=padding_mode,
        notes=_before(model),
    )
    planner = Planner(model, example_input, settings, filter, learnable, axes)  # find
    before = count(model, example_input).total
    while True:
        plan = planner.plan().grouped(tied)  # tie and plan
        with Surgery(model, plan) as surgery:  # carry out
            acceptance = Acceptance(planner, plan, surgery.places)
            if not (acceptance.runs() and acceptance.as_before() and acceptance.moves()):  # accept, or undo
                continue
            cost = count(model, example_input)  # count
            after, batch = cost.total, batch_of(example_input, cost.rows)
            changes, notes = surgery.changes(acceptance.outputs), (*plan.notes, *acceptance.notes())
            notes += plan.notes_on_cost(before, after)
            if not dry_run:
                surgery.keep()
            return replace(plan, changes=changes, notes=notes, macs=(before, after), batch=batch)


@torch.inference_mode(False)
def apply_(model: nn.Module, plan: Plan) -> nn.Module:
    """Repeat a conversion on a model of the same architecture, without the search.

    Args:
        model: an unconverted model.
        plan: what `convert_` returned, or `Plan.from_json`.

    Returns:
        `model`, which was changed in place.

    Raises:
        ValueError: the plan is none, or does not fit; the message says what differs, and the model is as it was.
    """
    check_fit(model, plan)
    with Surgery(model, plan) as surgery:
        surgery.keep()
    return model


def _before(model: nn.Module) -> tuple[str, ...]:
    """What an earlier conversion has made of the model."""
    if strides := len(learned_strides(model)):
        verb = f"learns {strides} stride{'s' if strides > 1 else ''} already"
        return (f"This model {verb}: see anystride.learned_strides(model).",)
    if any(isinstance(module, SpectralPoolNd) for module in model.modules()):
        return ("This model has spectral poolings already.",)
    if any(isinstance(module, Constants | FrozenLayer | FilterPlace) for module in model.modules()):
        return ("This model is frozen: its strides are constants.",)
    return ()


def _check(model: nn.Module, example_input: Any, method: str, names: Sequence[str]) -> None:
    check_choice("method", method, METHODS)
    if not tensors(example_input):
        raise ValueError(
            "example_input must be a tensor, a tuple of arguments or a dict of keyword arguments, with at least one "
            f"tensor in it, got {type(example_input).__name__}"
        )
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise ValueError(
            f"model must be converted before it is wrapped in {type(model).__name__}, or pass model.module"
        )
    modules = dict(model.named_modules())
    for name in names:
        if name not in modules:
            raise ValueError(
                f"learnable, groups and axes must name modules of the model, got {name!r}; see named_modules()"
            )
