"""`summary`: what learned strides make of a network now, place by place."""

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from anystride.checks import spatial_size
from anystride.columns import Columns, shortly, size_of, wrapped
from anystride.counting.counter import Counter, counted
from anystride.geometry import Size
from anystride.layers import DiffStrideNd
from anystride.resample import CHILD, Follows, Leads, Passes, Place, Shares
from anystride.spectral import SpectralPoolNd
from anystride.trees import batch_of, tensors
from anystride.upsample import SpectralUpsampleNd


@dataclass(frozen=True)
class Row:
    """A place at which the size of a map changes.

    Attributes:
        layer: qualified name of the module, as in the plan; a converted layer and its operator are one place.
        role: "learns", "tied" (to the stride of another layer), "follows" (the size of another map), "keeps" (its
            size), "fixed" (spectral pooling) or "upsamples".
        stride: in use, one value per axis that has one; None where the role has none.
        cutoff: highest frequency that passes, in cycles per sample of the layer's input, 1 / (2 S) per axis; half a
            cycle is all. None where there is no stride.
        size_in, size_out: spatial sizes of its input and output; of the first call, where it runs several times.
        macs: multiply-accumulates of the layer and its operator, for the example input.
    """

    layer: str
    role: str
    stride: tuple[float, ...] | None
    cutoff: tuple[float, ...] | None
    size_in: Size
    size_out: Size
    macs: int


@dataclass(frozen=True, repr=False)
class Summary:
    """What `summary` returns: `print` it, or read its rows.

    Attributes:
        rows: one per place, in the order of execution.
        macs: multiply-accumulates of the whole network, for the example input.
        batch: examples in the example input; None where its tensors do not tell.
    """

    rows: tuple[Row, ...]
    macs: int
    batch: int | None

    def to_dicts(self) -> list[dict[str, Any]]:
        """One dictionary per place, with the names of `Row`, for a table: `pandas.DataFrame(...)`."""
        return [dict(vars(row)) for row in self.rows]

    def __str__(self) -> str:
        each = "per example" if self.batch else "for the example input"
        total = f"{shortly(self.macs / (self.batch or 1))} multiply-accumulates {each}"
        if not self.rows:
            return wrapped(f"No layer of this model has a stride that is learned or spectral. {total}")
        cells = [
            (
                "(model)" * (row.layer[:1] in ("", "#")) + row.layer,
                " ".join(filter(None, (_numbers(row.stride, 2), row.role * (row.role != "learns")))),
                f"{size_of(row.size_in)} -> {size_of(row.size_out)}",
                _numbers(row.cutoff, 3),
                shortly(row.macs / (self.batch or 1)),
            )
            for row in self.rows
        ]
        columns = Columns(("layer", "stride", "size", "cut-off", "MACs"), cells)
        share = sum(row.macs for row in self.rows) / max(self.macs, 1)
        last = wrapped(f"{total}, {share:.0%} of them at these places; cut-offs in cycles per sample of the input")
        return "\n".join([*columns.head, *map(columns.row, cells), last])

    def __repr__(self) -> str:
        return str(self)


def summary(model: nn.Module, example_input: Any) -> Summary:
    """Strides, sizes, cut-off frequencies and multiply-accumulates of a network as it is now.

    Nothing is computed: the model runs on tensors without data, in evaluation mode, and stays as it was. One that
    cannot run so runs for real.

    Args:
        model: any network with layers of this library, converted or not.
        example_input: a tensor, a tuple of positional or a dict of keyword arguments; only shapes matter.

    Returns:
        A table for `print`, whose `rows` are data.

    Example:
        >>> import torch
        >>> from anystride import DiffStride2d
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), DiffStride2d(2.5, ramp="inner"))
        >>> print(summary(model, torch.empty(1, 3, 32, 32)))
        layer  stride  size            cut-off  MACs
        -----  ------  --------------  -------  -------
        1      2.50    32x32 -> 13x13  0.200    149,760
        370,944 multiply-accumulates per example, 40% of them at these places; cut-offs
          in cycles per sample of the input
    """
    counter = counted(lambda device: _Places(device, model), model, example_input)
    return Summary(tuple(counter.rows.values()), counter.total, batch_of(example_input, counter.account().rows))


_OPERATORS = (DiffStrideNd, SpectralPoolNd, SpectralUpsampleNd)
_PARTS = {CHILD, "parametrizations"}


class _Places(Counter):
    """A pass that counts, and notes each place with what it took."""

    def __init__(self, device: Any, model: nn.Module) -> None:
        super().__init__(device)
        places = {module for module in model.modules() if isinstance(module, Place)}
        inside = {part for place in places for part in place.modules()}
        layers = [module for module in model.modules() if isinstance(module, _OPERATORS) and module not in inside]
        # A converted layer is its own place; one among the children of a larger module stands by itself.
        hosts = [module for module in model.modules() if CHILD in module._modules and not {*module._modules} - _PARTS]
        self.places = {*layers, *hosts, *(places - {host._modules[CHILD] for host in hosts})}
        self.rows: dict[str, Row] = {}
        self._before: list[int] = []

    def entered(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        if module in self.places:
            self._before.append(self.total)

    def left(self, name: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        replaced = super().left(name, module, args, output)
        if module in self.places:
            took, (y, *_) = self.total - self._before.pop(), tensors(output)
            x = next(iter(tensors(args)), y)
            place = module._modules.get(CHILD, module)
            name = place.name if isinstance(place, Place) else name
            known = self.rows.get(name)
            self.rows[name] = replace(known, macs=known.macs + took) if known else _row(name, place, x, y, took)
        return replaced


def _row(name: str, place: nn.Module | None, x: Tensor, y: Tensor, took: int) -> Row:
    operator = place.pool if isinstance(place, Leads) else place
    stride: tuple[float, ...] | None = None
    if isinstance(operator, DiffStrideNd):
        values = operator.effective_stride().detach().tolist()
        stride = tuple(values * (operator.spatial_dims // len(values)))
        role = "tied" if isinstance(place, Shares) else "learns"
    elif isinstance(operator, SpectralPoolNd):
        stride, role = operator.stride, "fixed"
    elif isinstance(operator, SpectralUpsampleNd):
        role = "upsamples"
    else:
        role = "follows" if isinstance(place, Follows | Passes) else "keeps"
    cutoff = None if stride is None else tuple([0.5 / value for value in stride])
    return Row(name, role, stride, cutoff, spatial_size(x), spatial_size(y), took)


def _numbers(values: tuple[float, ...] | None, digits: int) -> str:
    told = [f"{value:.{digits}f}" for value in values or ()]
    return told[0] if len(set(told)) == 1 else "x".join(told)
