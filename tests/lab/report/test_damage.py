"""Damaged records, requests and measurements: each is one line on the page and the terminal, and ends nothing."""

import copy
import json
import os
import random
import re
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from anystride.lab import cli
from anystride.lab.errors import UsageError
from anystride.lab.paper.grid import GridRequest, load_measurement, load_request, run_folder, save_request
from anystride.lab.record import write
from anystride.lab.report.html.page import report
from anystride.lab.run.config import RunConfig
from anystride.lab.run.record import Record, load, save

from ..records import fabricated

POISON: tuple[Any, ...] = (
    None, True, -1, 0, 1e30, 10**400, float("nan"), float("inf"), "", "x", "<b>", "\ud800", "\0", [], [[]], {},
    [None], [[1.0]], [[1.0, "x"]], [[0.5, 1.0]] * 3, [[1e300, 1e300]] * 3, {"x": 1}, [1] * 1000,
)  # fmt: skip
TEXTS = ("", "{", "null", "[]", "1", '"text"', '{"schema": 1}', "[" * 100_000, "\0", '{"schema": 1, "seeds": 1e999}')
RUN = RunConfig(method="inner", width=2)
REQUEST = {"schema": 1, "recipe": "table3", "dataset": "scenes", "budget": 0.5, "seeds": 2, "changes": {"width": 2}}
MEASUREMENT = {
    "schema": 1,
    "recipe": "table-a2",
    "ratios": {"time": {"strided": 1.0, "spectral": 1.1, "outer": 1.2, "inner": 1.0}},
    "settings": {"device": "cpu", "width": 2, "batch_size": 4, "memory": "none"},
    "published": {"time": {"outer": 1.4}},
}


def places(values: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each value of nested values."""
    inner = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in inner:
        yield (*path, key)
        yield from places(value, (*path, key))


def damaged(values: dict[str, Any], count: int, seed: int) -> Iterator[str]:
    """Texts of files, each with one value that is replaced, absent or cut."""
    chance = random.Random(seed)
    every = list(places(values))
    yield from TEXTS
    for number in range(count):
        changed = copy.deepcopy(values)
        *way, last = chance.choice(every)
        inside: Any = changed
        for key in way:
            inside = inside[key]
        if number % 8 == 0:
            del inside[last]
        else:
            inside[last] = chance.choice(POISON)
        text = json.dumps(changed)
        yield text[: chance.randrange(len(text))] if number % 25 == 0 else text


def assert_whole(page: str) -> None:
    page.encode()
    assert page.startswith("<!doctype html>")
    assert page.endswith("</html>\n")
    assert "<b>" not in page


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one whole run of each kind."""
    save_request(GridRequest("table3", "scenes", 0.5, 2, {"width": 2}), tmp_path)
    runs = GridRequest("table3", "scenes", 0.5, 2, {"width": 2}).grid().runs
    for run in runs[:3]:
        save(fabricated(run), run_folder(tmp_path, run) / "record.json")
    return tmp_path


def test_a_damaged_record_is_refused_in_one_line_or_is_drawn(folder: Path) -> None:
    whole = fabricated(
        replace(RUN, epochs=2),
        accuracies={"class": 0.5},
        validation_accuracy=0.5,
        best_epoch=2,
        devices=1,
        examples="a",
    ).to_json()
    whole["epochs"] = [
        {"strides": whole["strides"], "seconds": 1.0, "test_accuracy": 0.5, "tasks": {"class": 0.5}, "test_loss": None}
    ]
    refused: list[str] = []
    drawn = 0
    for number, text in enumerate(damaged(whole, 700, seed=0)):
        path = folder / "mine" / str(number) / "record.json"
        path.parent.mkdir(parents=True)
        path.write_text(text)
        try:
            record = load(path)
        except UsageError as error:
            refused.append(str(error))
            continue
        drawn += 1
        assert isinstance(record, Record)
    page = report(folder, folder / "page.html")
    assert all(len(problem.splitlines()) == 1 for problem in refused)
    assert len(page.problems) == len(refused) > 300
    assert page.runs == 3 + drawn > 50
    assert all(len(problem) <= 300 and "\n" not in problem for problem in page.problems)
    text = page.path.read_text()
    assert_whole(text)
    assert all(problem in unescape(text) for problem in page.problems)


def test_a_damaged_request_is_refused_in_one_line_or_is_a_table(folder: Path) -> None:
    kept, refused = 0, []
    for number, text in enumerate(damaged(REQUEST, 300, seed=1)):
        path = folder / "grids" / f"{number}.json"
        path.write_text(text)
        try:
            request = load_request(path)
            kept += 1
            if request.seeds > 10:
                path.unlink()
        except UsageError as error:
            refused.append(str(error))
    assert all("does not say which table was asked for" in problem for problem in refused)
    page = report(folder, folder / "page.html")
    assert len(page.problems) == 310 - kept > 100
    assert_whole(page.path.read_text())


def test_a_damaged_measurement_is_refused_in_one_line_or_is_a_table(folder: Path) -> None:
    (folder / "measurements").mkdir()
    kept, refused = 0, []
    for number, text in enumerate(damaged(MEASUREMENT, 200, seed=2)):
        path = folder / "measurements" / f"{number}.json"
        path.write_text(text)
        try:
            load_measurement(path)
            kept += 1
        except UsageError as error:
            refused.append(str(error))
    assert all("is not a readable measurement" in problem for problem in refused)
    page = report(folder, folder / "page.html")
    assert len(page.problems) == 210 - kept > 100
    assert_whole(page.path.read_text())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"seeds": 1e30}, "seeds must be a whole number from 1 to 1000, got 1e+30"),
        ({"seeds": 10**30}, "seeds must be a whole number from 1 to 1000"),
        ({"seeds": True}, "seeds must be a whole number"),
        ({"budget": 1.5}, "budget must be a share above 0 and up to 1, got 1.5"),
        ({"budget": float("nan")}, "budget must be a share"),
        ({"recipe": "table9"}, "the recipe must be one of"),
        ({"recipe": ["table3"]}, "recipe must be a text"),
        ({"dataset": "mnist"}, "dataset must be one of"),
        ({"changes": {"width": 2.5}}, "changes: width must be a whole number, got '2.5'"),
        ({"changes": {"width": 10**30}}, "changes: width must be at most 1,000,000,000"),
        ({"changes": {"lr": float("inf")}}, "changes: lr must be a finite number"),
        ({"changes": {"seed": 1}}, "seed is what the recipe compares"),
        ({"changes": {"with": 1}}, "with is not a part of a run's configuration"),
        ({"changes": [1]}, "changes must be fields"),
        ({"more": 1}, "unexpected keyword argument 'more'"),
    ],
)
def test_a_request_is_checked_field_by_field(changes: dict[str, Any], expected: str, tmp_path: Path) -> None:
    path = tmp_path / "request.json"
    path.write_text(json.dumps({**REQUEST, **changes}))
    with pytest.raises(UsageError, match=re.escape(expected)):
        load_request(path)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"strides": [[2.0, 0.5]] * 3}, "strides must be in [1, 1e+06], got 0.5"),
        ({"strides": [[2.0, 2.0]]}, "strides must have 3 pairs"),
        ({"strides": [[2.0, float("nan")]] * 3}, "strides must be a finite number, got nan"),
        ({"map_sizes": [[32, 0]]}, "map_sizes must be a whole number of at least 1, got 0"),
        ({"map_sizes": [[32, 32], [16]]}, "map_sizes must have the sizes of each stage"),
        ({"epochs": [{"train_loss": 1.0}]}, "epoch 1 must have strides"),
        ({"epochs": [1]}, "epoch 1 must have strides, got 1"),
        ({"multiply_accumulates": 10**400}, "multiply_accumulates must be a whole number"),
        ({"seconds": {"train": "long", "total": 1.0}}, "seconds of train must be a finite number, got 'long'"),
        ({"configuration": {**RUN.to_json(), "model": "resnet"}}, "model must be one of resnet18"),
        ({"configuration": {**RUN.to_json(), "width": "8"}}, "width has the value '8'"),
        ({"validation_accuracy": 50.0}, "validation_accuracy must be in [0, 1], got 50.0"),
    ],
)
def test_a_record_is_checked_field_by_field(changes: dict[str, Any], expected: str, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text(json.dumps({**fabricated(RUN).to_json(), **changes}))
    with pytest.raises(UsageError, match=re.escape(expected)):
        load(path)


def test_the_command_lists_what_cannot_be_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "bad").mkdir()
    (folder / "bad" / "record.json").write_text("{")
    (folder / "pipe").mkdir()
    os.mkfifo(folder / "pipe" / "record.json")
    (folder / "gone").mkdir()
    (folder / "gone" / "record.json").symlink_to(folder / "nowhere")
    (folder / "going-on").mkdir()
    write(RUN.to_json(), folder / "going-on" / "configuration.json")
    assert cli.main(["report", str(folder)]) == 1
    printed = capsys.readouterr().out.splitlines()
    assert [line.partition(" could")[0] for line in printed[:3]] == [
        f"{n}/record.json" for n in ("bad", "gone", "pipe")
    ]
    assert printed[3].startswith("3 runs have ended, 1 have not, 3 files could not be read. The page is ")
    assert len(printed) == 4


def test_a_thousand_seeds_are_listed_in_bounded_time(folder: Path) -> None:
    (folder / "grids" / "many.json").write_text(json.dumps({**REQUEST, "seeds": 1000}))
    page = report(folder, folder / "page.html")
    assert page.problems == ()
    assert "3 of 24000 runs." in page.path.read_text()
