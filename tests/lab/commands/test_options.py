"""Options: one for each field of a run, with the choices of the lab, and the same rules for a file."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lightning", reason="needs the extra 'lab'")

from anystride.lab.commands.choices import CHOICES
from anystride.lab.commands.options import RUN_OPTIONS, check
from anystride.lab.commands.train import read
from anystride.lab.errors import UsageError
from anystride.lab.models.downsample import DOWNSAMPLERS
from anystride.lab.models.registry import ARCHITECTURES
from anystride.lab.paper.catalogue import RECIPES
from anystride.lab.run.config import RunConfig
from anystride.lab.run.training import OPTIMIZERS, SCHEDULES


def test_every_field_of_a_run_has_an_option() -> None:
    assert set(RUN_OPTIONS) == {field.name for field in fields(RunConfig)}


def test_choices_repeat_what_the_lab_offers() -> None:
    assert RUN_OPTIONS["method"].choices == tuple(DOWNSAMPLERS)
    assert RUN_OPTIONS["model"].choices == tuple(ARCHITECTURES)
    assert RUN_OPTIONS["schedule"].choices == tuple(SCHEDULES)
    assert RUN_OPTIONS["optimizer"].choices == OPTIMIZERS


@pytest.mark.parametrize("field", CHOICES)
def test_every_choice_has_a_sentence(field: str) -> None:
    choices = RUN_OPTIONS[field].choices or ("free", "N", "fixed")
    assert set(choices) <= set(CHOICES[field])
    assert {name for name, option in RUN_OPTIONS.items() if option.choices} <= set(CHOICES)


@pytest.mark.parametrize(("name", "dataset"), [(name, data) for name in RECIPES for data in RECIPES[name].datasets])
def test_options_can_give_the_runs_of_every_recipe(name: str, dataset: str) -> None:
    for run in RECIPES[name].grid(dataset, seeds=1).runs:
        assert check(run) == run


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 0}, "--config: width must be at least 1, got 0"),
        ({"width": "8"}, "--config: width has a value of another type"),
        ({"epochs": 1.5}, "--config: epochs must be a whole number, got '1.5'"),
        ({"lr": 0.0}, "--config: lr must be a finite number greater than 0"),
        ({"lr": None}, "--config: lr must be a number, got 'None'"),
        ({"method": "max"}, "--config: method must be one of strided, .*, got 'max'"),
        ({"compile": 1}, "--config: compile must be true or false, got 1"),
        ({"grid": "wide"}, "--config: grid must be free, fixed or a whole number"),
        ({"strides": ((2.0, 0.5),)}, "--config: strides must be finite strides of at least 1, got 0.5"),
    ],
)
def test_a_value_that_no_option_gives_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(replace(RunConfig(), **changes).to_json()))
    with pytest.raises(UsageError, match=message):
        read(path)


def test_a_learning_rate_of_the_strides_may_be_absent_or_zero() -> None:
    for value in (None, 0.0, 0.1):
        assert check(RunConfig(stride_lr=value)).stride_lr == value
