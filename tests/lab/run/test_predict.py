"""`anystride predict`: every file has its row, whatever the others are; the table is complete and in a file."""

from __future__ import annotations

import csv
import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("lightning", reason="needs the extra 'lab'")

from anystride.lab import cli, files
from anystride.lab.run.training import Classifier
from anystride.lab.trained import open_run

from ..trained import images, save, untrained, use_fake_reader


def predict(*arguments: object) -> int:
    return cli.main(["predict", *map(str, arguments)])


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_table_on_the_screen_and_in_the_run(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = images(tmp_path / "new", ("[b]:smile:.png", "c, d.png"))
    assert predict(run, *paths) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "[b]:smile:.png" in printed.out
    assert "Classes by the last epoch, 3" in printed.out
    assert str(run / "predictions.csv") in printed.out
    found = rows(run / "predictions.csv")
    expected = open_run(run).predict(paths)
    assert [row["file"] for row in found] == [str(path) for path in paths]
    for row, (label, probability, probabilities) in zip(found, expected, strict=True):
        assert row["class"] == label
        assert float(row["probability"]) == pytest.approx(probability, abs=1e-6)
        assert [float(row["p(dark)"]), float(row["p(light)"])] == pytest.approx(probabilities, abs=1e-6)
        assert row["second"] == {"dark": "light", "light": "dark"}[label]
        assert float(row["second_probability"]) == pytest.approx(1 - probability, abs=1e-6)


def test_a_folder_at_any_depth_without_hidden_files(run: Path, tmp_path: Path) -> None:
    images(tmp_path / "new" / "deep", ("b.png", ".hidden.png"))
    images(tmp_path / "new", ("a.png",))
    (tmp_path / "new" / "readme.txt").write_text("x")
    assert predict(run, tmp_path / "new") == 0
    assert [Path(row["file"]).name for row in rows(run / "predictions.csv")] == ["a.png", "b.png"]


def test_unreadable_files_are_listed_and_the_others_have_their_classes(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = tmp_path / "new"
    images(new, ("a.png", "c.png"))
    (new / "b.png").write_bytes(b"no image")
    (new / "broken.png").symlink_to("nowhere")
    os.mkfifo(new / "pipe.png")
    assert predict(run, new, tmp_path / "absent.png") == 1
    printed = capsys.readouterr().out
    assert "4 of 6 files could not be read:" in printed
    found = {Path(row["file"]).name: row for row in rows(run / "predictions.csv")}
    assert [name for name, row in found.items() if row["class"]] == ["a.png", "c.png"]
    assert "not a readable image" in found["b.png"]["problem"]
    assert "broken link" in found["broken.png"]["problem"]
    for name in ("b.png", "absent.png", "broken.png", "pipe.png"):
        assert f"{name}'" in printed.partition("could not be read:")[2]


def test_the_last_table_stays_where_no_file_can_be_read(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images(tmp_path / "new", ("a.png",))
    table = tmp_path / "p.csv"
    assert predict(run, tmp_path / "new", "--out", table) == 0
    before = table.read_text()
    capsys.readouterr()
    assert predict(run, tmp_path / "nofile.png", "--out", table) == 1
    printed = capsys.readouterr().out
    assert f"'{tmp_path / 'nofile.png'}' does not exist" in printed
    assert "Nothing was written." in printed
    assert table.read_text() == before


def test_json(run: Path, tmp_path: Path) -> None:
    (path,) = images(tmp_path / "new", ("a.png",))
    (tmp_path / "new" / "b.png").write_bytes(b"no image")
    out = tmp_path / "p.json"
    for _ in range(2):  # what it wrote itself may be replaced
        assert predict(run, path.parent, "--out", out) == 1
    values: dict[str, Any] = json.loads(out.read_text())
    (prediction,) = values["predictions"]
    assert prediction["file"] == str(path)
    assert sum(prediction["probabilities"].values()) == pytest.approx(1)
    assert [problem["file"] for problem in values["problems"]] == [str(path.with_name("b.png"))]
    assert (values["checkpoint"], values["epoch"], values["classes"]) == ("last.ckpt", 3, ["dark", "light"])


def test_weights_that_are_not_finite(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    classifier = untrained()
    torch.nn.init.constant_(classifier.model.classify.weight, float("nan"))
    save(classifier, run / "last.ckpt")
    assert predict(run, *images(tmp_path / "new", ("a.png",)), "--out", tmp_path / "p.json") == 0
    assert "not finite, as model.classify.weight: the training diverged" in capsys.readouterr().out
    assert json.loads((tmp_path / "p.json").read_text())["predictions"][0]["probability"] is None


def test_many_files_are_many_rows_in_the_file(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images(tmp_path / "new", tuple(f"{number:03}.png" for number in range(70)))
    assert predict(run, tmp_path / "new") == 0
    assert "and 20 more files" in capsys.readouterr().out
    assert len(rows(run / "predictions.csv")) == 70


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("nowhere a.png", "the folder of a run must hold last.ckpt"),
        ("run a.png --out p.txt", "--out must end in .csv or .json, got 'p.txt'"),
        ("run a.png --out absent/p.csv", "--out must be a file in a folder that exists, got 'absent/p.csv'"),
        (f"run a.png --out {'x' * 300}.csv", "--out must be a file in a folder that exists"),
        (f"run a.png --out {'x' * 5000}/p.csv", "--out must be a file in a folder that exists"),
        ("run a.png --out folder.csv", "--out must be a file in a folder that exists"),
        ("run a.png --out notes.csv", "'notes.csv' exists and holds something else; choose another, or add"),
        ("run empty", "'empty' is a folder without image files"),
        ("run", "FILE"),
    ],
)
def test_wrong_input(
    arguments: str,
    expected: str,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    images(tmp_path, ("a.png",))
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "notes.csv").write_text("what,when\n")
    before = sorted(tmp_path.rglob("*"))
    try:
        code = predict(*arguments.split())
    except SystemExit as done:
        code = int(done.code or 0)
    assert code == 2
    printed = capsys.readouterr()
    assert expected in printed.err
    assert printed.err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "notes.csv").read_text() == "what,when\n"


def test_another_file_is_replaced_when_asked(run: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.csv").write_text("what,when\n")
    (path,) = images(tmp_path, ("a.png",))
    assert predict(run, path, "--out", tmp_path / "notes.csv", "--overwrite") == 0
    assert len(rows(tmp_path / "notes.csv")) == 1


def test_a_full_disk_is_one_line(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    assert predict(run, *images(tmp_path, ("a.png",))) == 2
    printed = capsys.readouterr().err
    assert "No space left on device" in printed
    assert printed.count("\n") == 1
    assert [path.name for path in run.iterdir()] == ["last.ckpt"]


def test_a_folder_that_cannot_be_written_to(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(files.os, "access", lambda *_: False)
    assert predict(run, *images(tmp_path, ("a.png",))) == 2
    assert "--out must be in a folder that can be written to" in capsys.readouterr().err


def test_a_run_on_several_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    use_fake_reader(monkeypatch)
    one = untrained()
    heads = {"a": ("x", "y"), "b": ("z", "w", "v")}
    both = Classifier(one.config, heads, one.shape, {"kind": "image", "size": 16})
    save(both, tmp_path / "last.ckpt")
    (path,) = images(tmp_path, ("a.png",))
    assert predict(tmp_path, path) == 2
    assert "a run on several tasks; choose one by --task, or of_task in Python: a, b" in capsys.readouterr().err
    assert predict(tmp_path, path, "--task", "c") == 2
    assert "--task must be one of a, b, got 'c'" in capsys.readouterr().err
    assert predict(tmp_path, path, "--task", "b") == 0
    (row,) = rows(tmp_path / "predictions.csv")
    expected = both.eval().model(open_run(tmp_path).preprocess(path))[0, 2:].double().softmax(0).tolist()
    assert [float(row[f"p({name})"]) for name in "zwv"] == pytest.approx(expected, abs=1e-6)
    assert row["class"] == "zwv"[expected.index(max(expected))]
