"""Options: one for each field of a run, with the choices of the lab, and the same rules for a file."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("lightning", reason="needs the extra 'lab'")

from anystride.lab.cli import build_parser
from anystride.lab.commands.choices import CHOICES
from anystride.lab.commands.options import RUN_OPTIONS, check
from anystride.lab.commands.train import configuration, read
from anystride.lab.errors import UsageError
from anystride.lab.models.downsample import DOWNSAMPLERS
from anystride.lab.models.registry import ARCHITECTURES
from anystride.lab.models.spec import NetworkSpec
from anystride.lab.paper.catalogue import RECIPES
from anystride.lab.run.config import RunConfig
from anystride.lab.run.defaults import STRIDES
from anystride.lab.run.experiment import run
from anystride.lab.run.folder import inspect
from anystride.lab.run.optimiser import OPTIMIZERS, SCHEDULES

from ..conftest import tiny


def test_with_a_budget_strides_rest_in_the_second_half() -> None:
    def until(*options: str) -> float:
        return configuration(build_parser().parse_args(["train", *options])).stride_until

    assert until() == 1.0
    assert until("--budget-macs", "0.5x") == 0.5
    assert until("--budget-macs", "strided:2,2,2", "--stride-until", "80%") == 0.8
    assert until("--budget-macs", "strided:2,2,2", "--stride-until", "0") == 0.0


@pytest.mark.parametrize("text", ["0x", "strided:", "strided:2,1.5", "strided:0,2", "much"])
def test_a_budget_that_is_none(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["train", "--budget-macs", text])
    assert "--budget-macs: must be" in capsys.readouterr().err.replace("must have", "must be")


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
    for config in RECIPES[name].grid(dataset, seeds=1).runs:
        assert check(config) == config


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


DAMAGE: list[Any] = [
    None, True, -1, 0, 1.5, "", "x", [], [[]], [[1]], [[1, 2, 3]], {}, "\x00", 10**400, [["a", "b"]], [[0.5, 2]], 1e400,
]  # fmt: skip


def test_a_damaged_configuration_is_one_line_or_a_configuration(tmp_path: Path) -> None:
    base = RunConfig().to_json()
    texts = ["", "[]", "null", "3", "[" * 100_000, '{"strides": 1}', '{"configuration": 3}', json.dumps(base)[:-30]]
    for name in base:
        texts += [json.dumps({**base, name: value}) for value in DAMAGE]
        texts.append(json.dumps({other: value for other, value in base.items() if other != name}))
    read_well = 0
    for text in texts:
        path = tmp_path / "configuration.json"
        path.write_text(text)
        with suppress(UsageError):
            assert check(read(path)) == read(path)
            read_well += 1
        inspect(tmp_path)
    assert 20 < read_well < len(texts) / 3


def parsed(*arguments: str) -> RunConfig:
    options = build_parser().parse_args(["train", *arguments])
    return configuration(options)


def test_what_is_not_given_follows_from_the_data(tmp_path: Path) -> None:
    scenes = parsed()
    assert (scenes.method, scenes.validation, scenes.model) == ("cosine", 0.1, "resnet18")
    audio = parsed("--data", "notes-pitch")
    assert (audio.model, audio.optimizer, len(audio.strides)) == ("audio", "adam", 6)
    assert parsed("--model", "efficientnet-b0").strides == STRIDES["efficientnet-b0"]
    for side, model in ((40, "resnet18"), (100, "resnet18-imagenet")):
        for name in "ab":
            (tmp_path / str(side) / name).mkdir(parents=True)
            for number in range(3):
                Image.new("RGB", (side, side + 5)).save(tmp_path / str(side) / name / f"{number}.png")
        config = parsed("--data", str(tmp_path / str(side)))
        assert (config.model, config.image_size) == (model, side // 8 * 8)
        assert len(config.strides) == len(STRIDES[model])


def test_a_file_gives_what_the_command_line_does_not(tmp_path: Path) -> None:
    path = tmp_path / "configuration.json"
    path.write_text(json.dumps(RunConfig(lr=0.01, epochs=3).to_json()))
    assert parsed("--config", str(path)) == RunConfig(lr=0.01, epochs=3)
    assert parsed("--config", str(path), "--epochs", "5") == RunConfig(lr=0.01, epochs=5)


def test_a_run_that_goes_on_needs_no_other_option(tmp_path: Path) -> None:
    run(tiny(method="strided", epochs=1), tmp_path)
    assert parsed("--out", str(tmp_path), "--resume") == tiny(method="strided", epochs=1)
    assert parsed("--out", str(tmp_path), "--resume", "--epochs", "9").epochs == 9
    tuned = parsed("--init", str(tmp_path))
    assert (tuned.method, tuned.width, tuned.init) == ("strided", 2, str(tmp_path))
    assert tuned.epochs == RunConfig.epochs
    with pytest.raises(UsageError, match="--init must be the folder of a run"):
        parsed("--init", str(tmp_path / "none"))


@pytest.mark.parametrize("model", STRIDES)
def test_usual_strides_are_those_of_the_networks(model: str) -> None:
    assert len(STRIDES[model]) in ARCHITECTURES[model].strides
    method = "average" if model == "densenet-bc" else "strided"
    spec = NetworkSpec([3], in_channels=1, width=8, method=method)
    usual, ours = (ARCHITECTURES[model].build(replace(spec, strides=strides)) for strides in (None, STRIDES[model]))
    assert str(usual) == str(ours)
