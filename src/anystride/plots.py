"""Pictures of learned strides; they need matplotlib, the extra `plot`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from anystride.optim import learned_layers
from anystride.overview import summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STYLES = ("-", "--", ":")
"""By axis; a layer has one colour."""
_POINTS = 200


def plot_strides(history: Sequence[Mapping[str, float]], ax: "Axes | None" = None) -> "Axes":
    """How strides moved.

    Args:
        history: what `stride_scalars` gave, once per epoch or step, in order. A stride that came later starts later.
        ax: where to draw; a new figure if None.

    Returns:
        The axes: `plot_strides(history).figure.savefig("strides.png")`.

    Raises:
        ValueError: `history` has no stride.
        ImportError: matplotlib is not installed.
    """
    names = list(dict.fromkeys(name for entry in history for name in entry))
    if not names:
        raise ValueError("history must hold strides: append anystride.stride_scalars(model) to a list once per epoch")
    ax = _axes(ax)
    layers = list(dict.fromkeys(name.rpartition("/")[0] for name in names))
    for name in names:
        layer = name.rpartition("/")[0]
        values = [entry.get(name, float("nan")) for entry in history]
        style = _STYLES[[other for other in names if other.rpartition("/")[0] == layer].index(name) % len(_STYLES)]
        ax.plot(range(1, len(values) + 1), values, style, color=f"C{layers.index(layer) % 10}", label=name)
    ax.set(xlabel="epoch", ylabel="stride")
    return _finished(ax)


def plot_windows(model: nn.Module, example_input: Any, ax: "Axes | None" = None) -> "Axes":
    """What each learned layer lets pass: gain against frequency, at its present stride.

    Args:
        model: a network that learns strides.
        example_input: a tensor, a tuple of positional or a dict of keyword arguments; only shapes matter.
        ax: where to draw; a new figure if None.

    Returns:
        The axes. Frequencies are in cycles per sample of the layer's input, of which half a cycle is the highest.

    Raises:
        ValueError: the model learns no stride that runs on the example.
        ImportError: matplotlib is not installed.
    """
    layers = learned_layers(model)
    sizes = {row.layer: row.size_in for row in summary(model, example_input).rows}
    found = {name: layer for name, layer in layers.items() if name in sizes}
    if not found:
        raise ValueError("model must learn a stride that example_input meets: convert it first, see anystride.convert_")
    ax = _axes(ax)
    for number, (name, (layer, words)) in enumerate(found.items()):
        bands = layer.bands(sizes[name][-layer.spatial_dims :])
        for band, word, style in zip(bands, words, _STYLES, strict=False):
            shares = [0.5 * step / _POINTS for step in range(_POINTS + 1)]
            gains = [band.gain(share * band.length) for share in shares]
            ax.plot(shares, gains, style, color=f"C{number % 10}", label=f"{name}/{word}" if name else word)
    ax.set(xlabel="cycles per sample of the layer's input", ylabel="gain")
    return _finished(ax)


def _finished(ax: "Axes") -> "Axes":
    ax.legend(fontsize="small", frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def _axes(ax: "Axes | None") -> "Axes":
    if ax is not None:
        return ax
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("pictures need matplotlib: pip install 'anystride[plot]'") from error
    axes: Axes = Figure(figsize=(7, 3.5), layout="constrained").add_subplot()
    return axes
