"""Every recipe on every data set: the right runs, in the right order, that their networks accept."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

pytest.importorskip("lightning", reason="needs the extra 'lab'")

from anystride.lab.data.catalogue import is_known
from anystride.lab.errors import UsageError
from anystride.lab.models.registry import ARCHITECTURES
from anystride.lab.paper.catalogue import RECIPES
from anystride.lab.paper.plan import build_network
from anystride.lab.paper.protocols import AUDIO_TASKS
from anystride.lab.paper.recipe import METHODS, nearest_whole
from anystride.lab.run.config import RunConfig
from anystride.lab.run.optimiser import OPTIMIZERS, SCHEDULES

from ..records import fabricated

EVERY = [(name, dataset) for name, recipe in RECIPES.items() for dataset in recipe.datasets]

RUNS = {
    # rows x methods (the paper's and "inner") x 3 seeds
    "table1": 6 * 4 * 3,
    "table2": 6 * 2 * 3,
    "table3": 6 * 4 * 3,
    "figure3": 6 * 2 * 3,
    "table4": 6 * 4 * 3,
    "figure4": (6 * 2 + 6) * 3,
    "figure-a1": 6 * 2 * 3,
    "figure-a2": 6 * 2 * 3,
    "table-a3": 5 * 4 * 3,
    "table-a4": 5 * 4 * 3,
    "table-a5": 4 * 4 * 3,
    "table-a6": 4 * 4 * 3,
    "table-a7": 2 * 2 * 3,
    "release": 2 * 5 * 3,
    "smoothness": 5 * 2 * 3,
    "learning": (2 + 4 * 5) * 3,
    "pareto": (27 + 5 + 3 * 6) * 3,
}
FEWER = {**RUNS, "table1": 3 * 4 * 3, "table2": 3 * 2 * 3}
"""The notes have two tasks, and so three networks per method."""


@pytest.mark.parametrize(("name", "dataset"), EVERY)
def test_a_grid_at_five_per_cent_is_the_whole_grid(name, dataset):
    recipe = RECIPES[name]
    grid = recipe.grid(dataset, budget=0.05)
    if dataset in AUDIO_TASKS:
        assert len(grid.runs) == {"table1": 4, "table2": 2}[name] * 3
    elif (name, dataset) in (("table1", "spoken-digits"), ("table3", "cifar10-jpeg")):
        assert len(grid.runs) == {"table1": 3, "table3": 6}[name] * 5 * 3  # with "cosine"
    elif (name, dataset) == ("figure4", "cifar10-jpeg"):
        assert len(grid.runs) == (6 * 3 + 2 * 6 + 6) * 3  # weights, budgets, fixed strides
    else:
        assert len(grid.runs) == (FEWER if dataset in ("notes", "spoken-digits") else RUNS)[name]
    full = recipe.grid(dataset)
    assert [replace(run, epochs=0) for run in grid.runs] == [replace(run, epochs=0) for run in full.runs]
    for short, long in zip(grid.runs, full.runs, strict=True):
        assert short.epochs == max(1, round(long.epochs / 20))


def test_table_3_has_the_papers_54_runs_and_18_of_ours():
    grid = RECIPES["table3"].grid("cifar10")
    assert sum(run.method != "inner" for run in grid.runs) == 54
    assert sum(run.method == "inner" for run in grid.runs) == 18


@pytest.mark.parametrize(("name", "dataset"), EVERY)
def test_each_seed_completes_the_comparison_first(name, dataset):
    grid = RECIPES[name].grid(dataset)
    seeds = [run.seed for run in grid.runs]
    assert seeds == sorted(seeds)
    assert set(seeds) == {0, 1, 2}
    first = [replace(run, seed=0) for run in grid.runs if run.seed == 0]
    assert [replace(run, seed=0) for run in grid.runs if run.seed == 2] == first
    assert len({run.key for run in grid.runs}) == len(grid.runs)


@pytest.mark.parametrize(("name", "dataset"), EVERY)
def test_configurations_are_valid(name, dataset):
    for run in RECIPES[name].grid(dataset).runs:
        architecture = ARCHITECTURES[run.model]
        assert len(run.strides) in architecture.strides
        assert run.method in architecture.methods
        assert run.schedule in SCHEDULES
        assert run.optimizer in OPTIMIZERS
        assert is_known(run.data)
        assert RunConfig.from_json(run.to_json()) == run


@pytest.mark.parametrize(("name", "dataset"), EVERY)
def test_cells_are_distinct_and_say_what_they_stand_in_for(name, dataset):
    grid = RECIPES[name].grid(dataset)
    places = [(cell.panel, cell.row, cell.column, cell.value) for cell in grid.cells]
    assert len(set(places)) == len(places)
    assert bool(grid.stands_in_for) == (dataset in ("scenes", "notes", "cifar10-jpeg", "spoken-digits"))
    assert grid.note.startswith("Stand-in") == (dataset in ("scenes", "notes"))


@pytest.mark.parametrize("name", RECIPES)
def test_published_values_belong_to_the_papers_methods(name):
    grid = RECIPES[name].grid()
    for cell in grid.cells:
        ours = any(run.method == "inner" for run in (*cell.runs, *cell.follows))
        without = name.startswith("figure") or name in ("pareto", "smoothness", "learning")
        without = without or (cell.column == "DiffStride" and name == "release")
        assert without or (cell.published is None) == ours


def test_the_search_by_hand_has_every_combination_of_strides():
    cells = [cell for cell in RECIPES["pareto"].grid(seeds=1).cells if cell.panel == "Accuracy"]
    searched = {cell.runs[0].strides for cell in cells if cell.runs[0].method == "strided"}
    assert len(searched) == 27
    assert {stride for strides in searched for pair in strides for stride in pair} == {1, 2, 3}


def test_a_stand_in_keeps_the_papers_grid():
    paper, scenes = (RECIPES["table4"].grid(dataset) for dataset in ("imagenet", "scenes"))
    assert [(run.method, run.strides) for run in paper.runs] == [(run.method, run.strides) for run in scenes.runs]
    assert [cell.published for cell in paper.cells] == [cell.published for cell in scenes.cells]


def test_figures_share_the_runs_of_their_tables():
    for figure, table in (("figure3", "table3"), ("figure-a2", "table4"), ("table2", "table1")):
        assert set(RECIPES[figure].grid().runs) <= set(RECIPES[table].grid().runs)
    strided = {run for run in RECIPES["figure4"].grid().runs if run.method == "strided"}
    assert strided <= set(RECIPES["table4"].grid().runs)
    different = {run for run in RECIPES["table-a7"].grid().runs if not run.shared_stride}
    assert different <= set(RECIPES["table1"].grid().runs)


def test_tasks_can_be_joined():
    grid = RECIPES["table1"].grid("nsynth-instrument+nsynth-pitch", seeds=1)
    assert len(grid.runs) == 3 * len(METHODS)
    multi = [cell for cell in grid.cells if cell.panel == "Multi-task"]
    assert {cell.value for cell in multi} == {"accuracy:nsynth-instrument", "accuracy:nsynth-pitch", "accuracies"}
    assert all(cell.published is None for cell in multi)  # published for five tasks, not for two


def test_changes_reach_every_run():
    grid = RECIPES["table3"].grid("scenes", budget=2.0, seeds=1, width=4, epochs=3, precision="bf16-mixed")
    assert {(run.width, run.epochs, run.precision) for run in grid.runs} == {(4, 6, "bf16-mixed")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"dataset": "mnist"},
            r"dataset must be one of cifar10, cifar100, cifar10-jpeg, scenes for table3, or a folder of one's own, got",
        ),
        ({"dataset": "cifar10+scenes"}, r"dataset must be one of .* got 'cifar10\+scenes'"),
        ({"budget": 0}, "budget must be a finite number greater than 0, got 0"),
        ({"budget": float("nan")}, "budget must be"),
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
        ({"method": "outer"}, "method is what the recipe compares, got 'outer'"),
        ({"depth": 3}, "depth is not a part of a run's configuration, got 3"),
    ],
)
def test_exception(arguments, message):
    with pytest.raises(UsageError, match=message):
        RECIPES["table3"].grid(**arguments)


def test_a_task_cannot_be_joined_with_itself():
    with pytest.raises(UsageError, match="dataset must be one of"):
        RECIPES["table1"].grid("speech-commands+speech-commands")
    with pytest.raises(UsageError, match="dataset must be one of"):
        RECIPES["table1"].grid("speech-commands+notes")


def test_figure_4_follows_what_was_learned():
    grid = RECIPES["figure4"].grid("scenes", seeds=2)
    assert len(grid.pending) == 4  # a point's two coordinates, for "outer" and "inner"
    followed = grid.pending[0].follows
    assert {(run.method, run.lam) for run in followed} == {("outer", 10.0)}
    assert set(followed) <= set(grid.runs)

    learned = fabricated(strides=[[10.51, 32.23], [1.20, 2.68], [1.20, 2.04], [1.96, 4.53]])
    half = grid.resolve(lambda run: learned if run.method == "outer" and run.seed == 0 else None)
    assert len(half.runs) == len(grid.runs) + 1
    assert len(half.pending) == 4
    whole = grid.resolve(lambda run: learned)
    assert len(whole.pending) == 0
    new = set(whole.runs) - set(grid.runs)
    assert {run.strides for run in new} == {((11.0, 32.0), (1.0, 3.0), (1.0, 2.0), (2.0, 5.0))}
    assert {(run.method, run.lam) for run in new} == {("strided", 0.0)}
    assert whole.resolve(lambda run: learned) == whole


def test_whole_strides_are_at_least_one():
    assert nearest_whole(RunConfig(), fabricated(strides=[[0.4, 1.49]])).strides == ((1.0, 1.0),)


@pytest.mark.parametrize("name", ["table4", "release", "table-a3", "table-a5"])
def test_a_stand_ins_networks_train_from_every_start(name):
    grid = RECIPES[name].grid(RECIPES[name].datasets[-1], seeds=1, width=2)
    # The deepest loss of resolution is that of strided convolutions and of spectral pooling.
    for run in grid.runs:
        if run.method in ("strided", "spectral"):
            network, shape = build_network(run)
            logits = network.train()(torch.randn(2, *shape))
            logits.sum().backward()
            assert logits.isfinite().all()
