"""`anystride paper`: lists, plans, and every recipe end to end on the stand-ins, as small as it can be."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console

from anystride.lab import cli
from anystride.lab.errors import UsageError
from anystride.lab.paper.catalogue import MEASUREMENTS, RECIPES
from anystride.lab.paper.grid import GridRequest, record_in, run_folder, save_request, saved_requests
from anystride.lab.paper.show import show
from anystride.lab.paper.values import measured
from anystride.lab.run.record import load

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
        assert "device time" in printed


@pytest.mark.slow
def test_a_plan_counts_what_is_left(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paper(*small("table-a7", out))
    capsys.readouterr()
    assert paper(*small("table-a7", out), "--plan") == 0
    assert "4 runs finished, none left." in capsys.readouterr().out
    assert paper(*small("table-a7", out), "--seeds", "2", "--plan", "--rate", "1") == 0
    assert "8, 4 of them finished; what follows is for the others" in capsys.readouterr().out
    assert paper(*small("table-a7", out), "--seeds", "2", "--plan", "--rate", "1", "--only", "seed1") == 0
    assert "4, 0 of them finished" in capsys.readouterr().out
    assert paper(*small("table-a7", out), "--plan", "--only", "nowhere") == 2
    assert "--only must be a part of a run's name" in capsys.readouterr().err


@pytest.mark.parametrize(("capability", "slow"), [("AVX2", True), ("AVX512", False), ("DEFAULT", False)])
def test_a_precision_that_is_slow_here_is_told(
    capability: str, slow: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    sizes = ["--width", "1", "--train-size", "8", "--test-size", "2", "--batch-size", "8", "--budget", "1%"]
    one = ["table3", "--data", "scenes", *sizes, "--seeds", "1", "--only", "strided-3x2x3", "--out", str(tmp_path)]
    for options in (["--precision", "bf16-mixed", "--plan", "--rate", "1"], ["--precision", "bf16-mixed"], []):
        assert paper(*one, *options) == 0
        printed = " ".join(capsys.readouterr().out.split())
        assert ("with --precision 32-true" in printed) == (slow and bool(options))


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
        (
            "table3 --data mnist",
            "dataset must be one of cifar10, cifar100, cifar10-jpeg, scenes for table3, or a folder of one's own, got",
        ),
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


@pytest.fixture
def own_images(tmp_path: Path) -> Path:
    for name, value in (("dark", 40), ("light", 200)):
        folder = tmp_path / "own+images" / name
        folder.mkdir(parents=True)
        for number in range(15):
            Image.new("RGB", (20, 20), (value, 5 * number, number)).save(folder / f"{number}.png")
    return tmp_path / "own+images"


def test_a_table_of_ones_own_images(own_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--only", "2x2x2", "--seeds", "1", "--budget", "1%", "--width", "2", "--batch-size", "8"]
    options += ["--image-size", "16", "--epochs", "1", "--out", str(tmp_path / "out")]
    assert paper("table3", "--data", str(own_images), *options) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "Own images at the paper's protocol for CIFAR" in printed
    records = [load(path) for path in (tmp_path / "out").glob("runs/*/record.json")]
    assert {record.config.method for record in records} == {"strided", "spectral", "outer", "inner"}
    assert {record.config.data for record in records} == {str(own_images)}
    assert all(record.config.schedule == "step" for record in records)
    assert cli.main(["report", str(tmp_path / "out")]) == 0
    assert "own+images" in (tmp_path / "out" / "report.html").read_text()


def test_a_plan_counts_ones_own_images(own_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--plan", "--seeds", "1", "--width", "2", "--image-size", "16", "--out", str(tmp_path / "out")]
    assert paper("table3", "--data", str(own_images), *options) == 0
    assert "24" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_folders_of_one_name_have_requests_of_their_own(tmp_path: Path) -> None:
    names = set()
    for parent in ("a", "b"):
        (tmp_path / parent / "photos").mkdir(parents=True)
        for pattern in ("(a|b)/.*", "(a-b)/.*"):
            changes = {"label_pattern": pattern}
            names.add(GridRequest("table3", str(tmp_path / parent / "photos"), 1.0, 1, changes).name)
    assert len(names) == 4
    assert all("/" not in name and name.startswith("table3-photos-") for name in names)


@pytest.mark.parametrize("recipe", ["table1", "table2", "table-a7"])
def test_sound_recipes_take_a_folder_of_sounds(recipe: str, tmp_path: Path) -> None:
    grid = RECIPES[recipe].grid(str(tmp_path))
    assert {run.data for run in grid.runs} == {str(tmp_path)}
    assert {run.model for run in grid.runs} == {"audio"}
    assert grid.stands_in_for == "audio"
    assert all(cell.published is None for cell in grid.cells)


@pytest.mark.parametrize("recipe", ["table3", "table4", "figure3", "figure4", "table-a3", "table-a5", "release"])
def test_image_recipes_take_a_folder_at_the_papers_protocol(recipe: str, tmp_path: Path) -> None:
    own, papers = (RECIPES[recipe].grid(data) for data in (str(tmp_path), None))
    assert [replace(run, data="") for run in own.runs] == [replace(run, data="") for run in papers.runs]
    assert own.stands_in_for == papers.dataset


def test_a_recipe_for_sounds_refuses_images(
    own_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert paper("table1", "--data", str(own_images), "--out", str(tmp_path / "out")) == 2
    printed = capsys.readouterr().err
    assert "--data must be a folder of sounds for table1, got" in printed
    assert "of the kind image" in printed
    assert not (tmp_path / "out").exists()


def test_a_folder_is_found_from_everywhere(
    own_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also when it is gone: a page of results does not need the data."""
    monkeypatch.chdir(own_images.parent)
    options = ["--only", "strided-2x2x2", "--seeds", "1", "--width", "1", "--batch-size", "8"]
    options += ["--image-size", "16", "--epochs", "1", "--out", str(tmp_path / "out")]
    assert paper("table3", "--data", own_images.name, *options) == 0
    own_images.rename(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert cli.main(["report", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "At the paper&#x27;s protocol" in page or "At the paper's protocol" in page
    assert "Published values are those of cifar10, for orientation only." in page
    capsys.readouterr()


def test_a_folder_that_is_too_small_for_a_batch_is_one_line(
    own_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert paper("table3", "--data", str(own_images), "--width", "2", "--out", str(tmp_path / "out")) == 2
    printed = capsys.readouterr()
    assert "--batch-size must be at most 24, the training examples, got 256" in printed.err
    assert "NOT MADE" not in printed.out


def test_a_table_without_published_values_promises_none(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for recipe, promised in (("table1", False), ("table3", True)):
        show(RECIPES[recipe].grid(str(tmp_path)), lambda _config: None, Console(width=140))
        assert ("Below each value, in brackets" in capsys.readouterr().out) == promised


def test_a_name_that_is_no_data_set_and_no_folder_is_refused() -> None:
    with pytest.raises(UsageError, match=r"or a folder of one's own, got 'photos'"):
        RECIPES["table3"].grid("photos")


@pytest.mark.slow
def test_a_damaged_record_costs_its_own_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["table3", "--data", "scenes", *TINY, "--only", "2x2x2", "--out", str(tmp_path)]
    assert paper(*arguments) == 0
    damaged, removed, *others = sorted(tmp_path.glob("runs/*/record.json"))
    before = {path: path.read_bytes() for path in others}
    damaged.write_text("{")
    removed.unlink()
    capsys.readouterr()
    assert paper(*arguments) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "1 runs were not made. The same command tries them again; the others are kept." in printed
    assert f"{damaged.parent.name}: " in printed
    assert "is not a readable record" in printed
    assert load(removed)
    assert damaged.read_text() == "{"
    assert all(path.read_bytes() == content for path, content in before.items())


def test_a_grid_that_cannot_begin_leaves_nothing(tmp_path: Path) -> None:
    assert paper("table3", "--data", "cifar10", "--root", str(tmp_path / "none"), "--out", str(tmp_path / "out")) == 2
    assert list(tmp_path.iterdir()) == []
