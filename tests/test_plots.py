"""Pictures of learned strides: what is drawn, and what is said without strides or without matplotlib."""

import sys

import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from anystride import DiffStride2d, convert_, plot_strides, plot_windows, stride_scalars
from networks import Segments, set_strides


def curves(ax):
    return {line.get_label(): line.get_ydata() for line in ax.get_lines()}


def test_strides_are_drawn_by_name(tmp_path):
    pool, history = DiffStride2d((2.0, 3.0)), []
    for _ in range(3):
        history.append(stride_scalars(nn.Sequential(pool)))
        with torch.no_grad():
            pool.stride.add_(0.5)
    ax = plot_strides(history)
    assert {name: list(values) for name, values in curves(ax).items()} == {
        "0/height": [2.0, 2.5, 3.0],
        "0/width": [3.0, 3.5, 4.0],
    }
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "stride")
    ax.figure.savefig(tmp_path / "strides.png")


def test_a_stride_that_came_later_starts_later():
    later = list(curves(plot_strides([{"a/height": 2.0}, {"a/height": 2.1, "b/height": 3.0}]))["b/height"])
    assert later[0] != later[0]
    assert later[1] == 3.0


def test_a_picture_goes_where_it_is_told():
    ax = Figure().add_subplot()
    assert plot_strides([{"a/height": 2.0}], ax=ax) is ax


@pytest.mark.parametrize("ramp", ["cosine", "inner", "outer"])
def test_windows_fall_at_the_cutoff(ramp):
    model, x = Segments(), torch.zeros(1, 3, 64, 64)
    convert_(model, x, ramp=ramp)
    set_strides(model, 4.0)
    ax = plot_windows(model, x)
    found = curves(ax)
    assert list(found) == [f"{layer}/{axis}" for layer in ("down1", "down2") for axis in ("height", "width")]
    for line in ax.get_lines():
        passed = dict(zip(line.get_xdata(), line.get_ydata(), strict=True))
        assert passed[0.0] == pytest.approx(1.0, abs=0.01)
        assert passed[0.5] == pytest.approx(0.0, abs=0.01)
    half = next(x for x, y in zip(ax.get_lines()[0].get_xdata(), found["down1/height"], strict=True) if y <= 0.5)
    shift = {"cosine": 0.0, "inner": -2 / 64, "outer": 2 / 64}[ramp]
    assert half == pytest.approx(1 / 8 + shift, abs=0.01)


def test_what_has_no_stride_says_so():
    with pytest.raises(ValueError, match="stride_scalars"):
        plot_strides([])
    with pytest.raises(ValueError, match="convert_"):
        plot_windows(nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 8, 8))


def test_without_matplotlib_the_remedy_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'anystride\[plot\]'"):
        plot_strides([{"a/height": 2.0}])
