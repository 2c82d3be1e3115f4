"""Values of cells from records made by hand, and costs without a run."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

pytest.importorskip("lightning", reason="needs the extra 'lab'")

from anystride import DiffStride2d, complexity
from anystride.lab.errors import UsageError
from anystride.lab.paper import plan
from anystride.lab.paper.catalogue import RECIPES
from anystride.lab.paper.plan import estimate
from anystride.lab.paper.recipe import MEAN, Cell, Published
from anystride.lab.paper.values import complexity_of, difference, measured, numbers_of
from anystride.lab.run.config import RunConfig

from ..records import fabricated

STRIDES = [[2.0, 4.0], [1.0, 2.0]]
RECORD = fabricated(
    RunConfig(data="a+b"),
    accuracy=0.75,
    accuracies={"a": 0.5, "b": 1.0},
    strides=STRIDES,
    multiply_accumulates=1234,
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("accuracy", (75.0,)),
        ("accuracy:b", (100.0,)),
        ("accuracies", (50.0, 100.0)),
        ("top5", (90.0,)),
        ("stride:0:1", (4.0,)),
        ("cutoff:0:0", (25.0,)),
        ("cutoff:0:1", (0.125,)),
        ("striding", (16.0,)),
        ("complexity", (1 / 8 + 1 / 16,)),
        ("macs", (1234.0,)),
    ],
)
def test_values(value, expected):
    assert numbers_of(value, RECORD) == pytest.approx(expected)


def test_one_task_needs_no_accuracies():
    assert numbers_of("accuracies", replace(RECORD, accuracies=None)) == (75.0,)


@pytest.mark.parametrize(
    ("value", "record", "message"),
    [
        ("accuracy:c", RECORD, "value accuracy:c is not in a record with the tasks a, b"),
        ("top5", replace(RECORD, top5=None), "value top5 is not in the record of 'a\\+b'"),
        ("loss", RECORD, "value must be one of those .* got 'loss'"),
    ],
)
def test_exception(value, record, message):
    with pytest.raises(UsageError, match=message):
        numbers_of(value, record)


def test_complexity_equals_the_cores():
    model = nn.Sequential(*(DiffStride2d(tuple(pair), ramp="inner") for pair in STRIDES))
    model(torch.zeros(1, 1, 32, 32))
    assert complexity_of(STRIDES) == pytest.approx(complexity(model).item())


def test_mean_and_deviation_are_over_the_runs_that_have_ended():
    runs = tuple(RunConfig(seed=seed) for seed in range(3))
    cell = Cell("row", "column", runs, published=Published(80.0, 0.1))
    records = {runs[0]: replace(RECORD, accuracy=0.8), runs[2]: replace(RECORD, accuracy=0.9)}
    value = measured(cell, records.get)
    assert value.mean == pytest.approx(85)
    assert value.sd == pytest.approx(50**0.5)
    assert (len(value.numbers), value.expected, value.complete) == (2, 3, False)
    assert difference(cell, value) == pytest.approx(5)
    assert difference(replace(cell, published=None), value) is None

    nothing = measured(cell, {}.get)
    assert (nothing.mean, nothing.sd, nothing.complete) == (None, None, False)
    assert difference(cell, nothing) is None
    assert measured(replace(cell, runs=runs[:1]), records.get).sd is None


def test_the_mean_of_several_tasks_is_over_tasks_and_runs():
    cell = Cell("row", "column", tuple(RunConfig(data="a+b", seed=seed) for seed in range(3)), "accuracies")
    value = measured(cell, lambda run: RECORD)
    assert value.numbers == (50, 100) * 3
    assert value.complete


def test_a_cell_that_waits_is_not_complete():
    waiting = RECIPES["figure4"].grid("scenes").pending[0]
    value = measured(waiting, lambda run: RECORD)
    assert (value.numbers, value.complete) == ((), False)


def test_the_row_of_means_is_over_all_runs():
    grid = RECIPES["table3"].grid("cifar10")
    (cell,) = [cell for cell in grid.cells if cell.row == MEAN and cell.column == "Strided Conv."]
    assert len(cell.runs) == 18
    assert cell.published == Published(87.7, 3.4)


SMALL = {"width": 2, "batch_size": 4}


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_can_be_estimated(name):
    dataset = RECIPES[name].datasets[-1]
    whole = RECIPES[name].grid(dataset, seeds=1, **({"image_size": 32} if dataset == "scenes" else {}), **SMALL)
    grid = replace(whole, cells=(*whole.cells[:4], *whole.pending))  # a deep network's costs take a second each
    cost = estimate(grid, torch.device("cpu"))
    assert cost.runs == len(grid.runs) + (2 if name == "figure4" else 0)  # those that follow from a result
    assert 0 < cost.hours.low <= cost.hours.middle <= cost.hours.high
    assert 0 < cost.macs[0] <= cost.macs[1]
    assert set(cost.rate) == {run.method for run in grid.runs} | ({"strided"} if grid.pending else set())
    assert cost.data_bytes == 0


def test_an_estimate_counts_examples_and_bytes():
    grid = RECIPES["table1"].grid("nsynth-instrument+nsynth-pitch", seeds=1, **SMALL)
    cost = estimate(grid, torch.device("cpu"))
    # A million batches of 4, in 4 methods x 3 networks; both tasks are on the same recordings.
    assert cost.examples == 12 * 4 * 10**6
    assert cost.data_bytes == 39 * 10**9
    assert cost.checkpoint_bytes >= 12 * cost.parameters[0] * 4 * 3  # weights and Adam's two moments
    scenes = estimate(RECIPES["release"].grid("scenes", seeds=1, epochs=3, train_size=50, **SMALL), torch.device("cpu"))
    assert scenes.examples == 10 * 3 * 50


def test_an_estimate_at_another_devices_rate_measures_nothing(monkeypatch):
    monkeypatch.setattr(plan, "_seconds", lambda *_: pytest.fail("a step was measured"))
    grid = RECIPES["pareto"].grid("scenes", seeds=1, **SMALL)
    cost, twice = (estimate(grid, torch.device("cpu"), rate) for rate in (1e9, 2e9))
    macs = sum(plan._cost(plan._cost_key(run))[0] * plan._examples(run) for run in grid.runs)
    assert cost.hours.low == cost.hours.high == pytest.approx(3 * macs / 1e9 / 3600)
    assert twice.hours.middle == pytest.approx(cost.hours.middle / 2)


def test_an_estimate_counts_what_is_left():
    grid = RECIPES["table3"].grid("scenes", seeds=1, **SMALL)
    left = [run for run in grid.runs if run.method == "strided"][:2]
    cost = estimate(grid, torch.device("cpu"), 1e9, is_left=left.__contains__)
    assert (cost.runs, cost.examples) == (2, 2 * plan._examples(left[0]))
    assert list(cost.rate) == ["strided"]


def test_time_grows_linearly_between_the_cheapest_and_the_most_expensive_network(monkeypatch):
    grid = RECIPES["pareto"].grid("scenes", seeds=1, **SMALL)
    strided = replace(grid, cells=tuple(cell for cell in grid.cells if cell.column == "Strided Conv."))
    asked = []

    def seconds(run, _):
        asked.append(run.strides)
        return plan.Range(1.0, 2.0, 4.0) if run.strides[0] == (3.0, 3.0) else plan.Range(10.0, 20.0, 40.0)

    monkeypatch.setattr(plan, "_seconds", seconds)
    cost = estimate(strided, torch.device("cpu"))
    assert len(asked) == 2
    costs = [plan._cost(plan._cost_key(run))[0] for run in strided.runs]
    shares = [(each - min(costs)) / (max(costs) - min(costs)) for each in costs]
    expected = sum(2 + 18 * share for share in shares) * plan._examples(strided.runs[0]) / 3600
    assert cost.hours.middle == pytest.approx(expected)
    assert cost.hours.high == pytest.approx(2 * cost.hours.middle) == pytest.approx(4 * cost.hours.low)
