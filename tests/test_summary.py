"""What a network tells of its strides: numbers for a logger, and a table of places."""

import threading
import warnings

import pytest
import torch
from torch import nn

import anystride
from anystride import (
    DiffStride1d,
    DiffStride2d,
    ParallelScales2d,
    SpectralPool2d,
    convert_,
    macs,
    stride_scalars,
    summary,
)
from anystride.columns import WIDTH
from networks import EveryRole, Segments, set_strides


def x2d(batch=1, size=32):
    return torch.zeros(batch, 3, size, size)


def test_scalars_have_the_names_of_converted_layers():
    model = Segments()
    convert_(model, x2d())
    set_strides(model, 2.5)
    scalars = stride_scalars(model)
    assert scalars == {f"{name}/{axis}": 2.5 for name in ("down1", "down2") for axis in ("height", "width")}
    assert all(type(value) is float for value in scalars.values())


def test_scalars_name_axes_and_what_is_shared():
    assert stride_scalars(DiffStride1d(3.0)) == {"length": 3.0}
    assert stride_scalars(nn.Sequential(DiffStride2d(3.0, shared=True))) == {"0/shared": 3.0}
    pool = DiffStride2d((2.0, 3.0))
    assert stride_scalars(nn.ModuleDict({"a": pool, "b": pool})) == {"a/height": 2.0, "a/width": 3.0}
    assert stride_scalars(nn.Sequential(SpectralPool2d(2.0))) == {}


def test_scalars_name_the_axes_that_learn():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1))
    convert_(model, x2d(), axes={"0": ("width",)})
    assert stride_scalars(model) == {"0/width": 2.0}


def test_scalars_are_the_strides_in_use():
    pool = DiffStride2d(2.0)
    pool(x2d())
    with torch.no_grad():
        pool.stride.fill_(0.5)
    least = 32 / 28
    assert stride_scalars(pool) == pytest.approx({"height": least, "width": least})


@pytest.mark.parametrize("make", [Segments, EveryRole])
def test_a_summary_counts_as_macs_does_and_changes_nothing(make):
    model = make()
    convert_(model, x2d(2))
    shown = str(model)
    found = summary(model, x2d(2))
    assert found.macs == macs(model, x2d(2)).item()
    assert sum(row.macs for row in found.rows) <= found.macs
    assert str(model) == shown
    assert max(map(len, str(found).splitlines())) <= WIDTH
    assert repr(found) == str(found)


def test_a_row_tells_a_place():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
    convert_(model, x2d(), ramp="inner")
    set_strides(model, 2.5)
    found = summary(model, x2d(4))
    [row] = found.to_dicts()
    own = macs(model[0], x2d(4)).item()
    assert row == {
        "layer": "0",
        "role": "learns",
        "stride": (2.5, 2.5),
        "cutoff": (0.2, 0.2),
        "size_in": (32, 32),
        "size_out": (13, 13),
        "macs": own,
    }
    assert found.batch == 4
    assert f"{own / 4:,.0f}" in str(found)


def test_roles_are_told():
    model = EveryRole()
    plan = convert_(model, x2d())
    roles = {row.layer: row.role for row in summary(model, x2d()).rows}
    words = {"learn": "learns", "share": "tied", "follow": "follows", "keep": "keeps"}
    assert roles == {change.key: words[change.role] for change in plan.replaced}


def test_layers_by_themselves_are_places():
    model = ParallelScales2d([nn.Conv2d(3, 4, 3, padding=1) for _ in range(2)], strides=(1.0, 2.0))
    rows = summary(model, x2d()).rows
    assert [(row.layer, row.role, row.size_out) for row in rows] == [
        ("pools.0", "learns", (32, 32)),
        ("ups.0", "upsamples", (32, 32)),
        ("pools.1", "learns", (16, 16)),
        ("ups.1", "upsamples", (32, 32)),
    ]


def test_a_layer_that_runs_twice_costs_twice():
    pool = DiffStride2d(2.0, ramp="inner")
    once, twice = (summary(nn.Sequential(*[pool] * times), x2d()) for times in (1, 2))
    assert len(twice.rows) == 1
    assert twice.rows[0].macs == twice.macs > once.macs


def test_a_network_without_such_layers_says_so():
    assert "No layer of this model" in str(summary(nn.Conv2d(3, 4, 3), x2d()))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.compile's own
def test_scalars_of_a_wrapped_model_have_the_names_that_it_had():
    model = Segments()
    convert_(model, x2d())
    names = list(stride_scalars(model))
    assert list(stride_scalars(nn.DataParallel(model))) == names
    assert list(stride_scalars(torch.compile(model))) == names
    own = nn.ModuleDict({"module": model})
    assert list(stride_scalars(own)) == [f"module.{name}" for name in names]


def test_two_threads_look_at_one_model():
    """Each pass takes the model's tensors away for itself, and puts them back."""
    model = Segments()
    convert_(model, x2d())
    want, failed = model.eval()(x2d(2) + 1), []

    def look():
        try:
            for size in (32, 48, 64):
                assert summary(model, x2d(1, size)).macs == macs(model, x2d(1, size)).item()
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert torch.equal(model(x2d(2) + 1), want)


def step(optimiser, model):
    model(torch.randn(2, 3, 16, 16)).square().mean().backward()
    optimiser.step()


def test_an_optimiser_that_decays_strides_is_warned_of_once():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), DiffStride2d(2.0, ramp="inner"))
    optimiser = torch.optim.AdamW(model.parameters())
    with pytest.warns(UserWarning, match=r"AdamW decays learned strides .*param_groups") as told:
        step(optimiser, model)
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step(optimiser, model)


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_groups_that_leave_strides_alone_are_quiet(decay):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), DiffStride2d(2.0, ramp="inner"))
    step(torch.optim.AdamW(anystride.param_groups(model, lr=0.1, weight_decay=decay)), model)
    fixed = nn.Sequential(nn.Conv2d(3, 4, 3), DiffStride2d(2.0, ramp="inner").requires_grad_(False))
    step(torch.optim.AdamW(fixed.parameters()), fixed)
    step(torch.optim.SGD(model.parameters(), lr=0.1), model)
