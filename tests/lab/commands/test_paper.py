"""`anystride paper`: lists, plans, and every recipe end to end on the stand-ins, as small as it can be."""

import json
from pathlib import Path

import pytest

from anystride.lab import cli
from anystride.lab.errors import UsageError
from anystride.lab.paper.catalogue import MEASUREMENTS, RECIPES
from anystride.lab.paper.grid import GridRequest, record_in, run_folder, save_request, saved_requests
from anystride.lab.paper.values import measured

TINY = ["--width", "4", "--train-size", "64", "--test-size", "22", "--budget", "1%", "--seeds", "1"]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One results folder for all recipes: they share their runs, as they do for a user."""
    return tmp_path_factory.mktemp("paper")


def paper(*arguments: str) -> int:
    try:
        return cli.main(["paper", *arguments])
    except SystemExit as done:
        return int(done.code or 0)


def small(name: str, out: Path) -> list[str]:
    recipe = RECIPES[name]
    arguments = [name, "--data", recipe.stand_in, *TINY, "--out", str(out), "--root", str(out / "data")]
    # The networks of these tables are deep: one start shows that they run.
    only = {"table-a3": "-2x2-", "table-a4": "-2x2-", "table-a5": "-1x2x2x2x1x2x1-", "table-a6": "-1x2x2x2x1x2x1-"}
    return [*arguments, *([f"--only={only[name]}"] if name in only else [])]


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_end_to_end(name: str, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert paper(*small(name, out)) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "NOT MADE" not in printed.out
    request = next(request for request in saved_requests(out) if request.recipe == name)
    grid = request.grid().resolve(record_in(out))
    assert grid.pending == ()
    made = [run for run in grid.runs if record_in(out)(run)]
    if any(argument.startswith("--only") for argument in small(name, out)):
        assert len(made) == 4
    else:
        assert made == list(grid.runs)
        assert all(measured(cell, record_in(out)).complete for cell in grid.cells)
    assert all((run_folder(out, run) / "last.ckpt").exists() for run in made)


@pytest.mark.slow
def test_a_finished_recipe_makes_nothing(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paper(*small("table-a7", out))
    before = {path: path.stat().st_mtime_ns for path in out.rglob("record.json")}
    capsys.readouterr()
    assert paper(*small("table-a7", out)) == 0
    assert "4 runs, 4 of them finished before." in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in out.rglob("record.json")} == before


@pytest.mark.slow
@pytest.mark.parametrize("name", [*RECIPES, *MEASUREMENTS])
def test_every_plan_starts_nothing(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["--data", RECIPES[name].stand_in] if name in RECIPES else []
    assert paper(name, "--plan", "--width", "4", *data, "--out", str(tmp_path / "nothing")) == 0
    assert not (tmp_path / "nothing").exists()
    printed = capsys.readouterr().out
    if name in RECIPES:
        runs = RECIPES[name].grid(RECIPES[name].stand_in, width=4).runs
        assert runs[0].key in "".join(printed.split()).replace("│", "")
        assert "device hours" in printed


@pytest.mark.slow
def test_the_papers_own_plan_needs_no_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert paper("table3", "--dataset", "cifar100", "--plan") == 0
    printed = capsys.readouterr().out
    assert "72, 0 of them finished" in printed
    assert "1,440,000,000" in printed  # 72 runs of 400 epochs of 50,000 images


def test_the_list_names_every_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert paper("list") == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in (*RECIPES, *MEASUREMENTS))


def test_a_measurement_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert paper("table-a2", "--width", "1", "--batch-size", "2", "--budget", "5%", "--out", str(tmp_path)) == 0
    kept = json.loads((tmp_path / "measurements" / "table-a2.json").read_text())
    assert kept["ratios"]["training time"]["strided"] == 1
    assert kept["published"]["training memory"]["outer"] == 1.98
    assert kept["hardware"]
    assert "1.98" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("table9", "RECIPE must be list or one of table1"),
        ("table3 --data mnist", "dataset must be one of cifar10, cifar100, scenes for table3, got 'mnist'"),
        (
            "table3 --data scenes --budget 0",
            "--budget: must be a share above 0 and up to 1 such as 5% or 0.05, got '0'",
        ),
        ("table3 --data scenes --only nowhere", "--only must be a part of a run's name"),
        ("table3 --data scenes --executor ray --devices 2", "--executor ray gives each run one device"),
        ("table3 --data scenes --nodes 2", "--nodes 2 needs a launcher"),
        ("table3 --dataset cifar10 --root empty", "--download"),
        ("table1 --dataset nsynth-pitch --root empty", "--download"),
    ],
)
def test_wrong_input(
    arguments: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert paper(*arguments.split()) == 2
    printed = capsys.readouterr().err
    assert expected in printed
    assert printed.count("\n") == 1


def test_more_seeds_replace_fewer_and_a_broken_order_is_named(tmp_path: Path) -> None:
    few, many = (GridRequest("table3", "scenes", 1.0, seeds, {"width": 4}) for seeds in (1, 3))
    for request in (few, many, few):
        save_request(request, tmp_path)
    assert saved_requests(tmp_path) == [many]
    (tmp_path / "grids" / "table3-scenes-width4.json").write_text("{}")
    with pytest.raises(UsageError, match="does not say which table was asked for"):
        saved_requests(tmp_path)
