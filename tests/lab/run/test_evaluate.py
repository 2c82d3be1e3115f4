"""`anystride evaluate`: the numbers of the training, classes matched by name, a picture for any number of them."""

from __future__ import annotations

import json
import shutil
import unicodedata
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("lightning", reason="needs the extra 'lab'")

from anystride.lab import cli
from anystride.lab.data.catalogue import open_source
from anystride.lab.data.inputs import SOUND_RATE, as_file
from anystride.lab.report.confusion import draw
from anystride.lab.run.defaults import STRIDES
from anystride.lab.run.environment import RunEnvironment
from anystride.lab.run.evaluate import measure
from anystride.lab.run.experiment import run as train
from anystride.lab.run.labelled import Labelled
from anystride.lab.run.training import Classifier
from anystride.lab.trained import open_run

from ..conftest import tiny
from ..trained import images, save, untrained, use_fake_reader


def evaluate(*arguments: object) -> int:
    return cli.main(["evaluate", *map(str, arguments)])


def numbers(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values


def test_the_test_examples_of_a_run_have_the_accuracy_of_its_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = train(tiny(method="inner", validation=0.2), tmp_path / "run")
    assert evaluate(tmp_path / "run") == 0
    found = numbers(tmp_path / "run" / "evaluation-scenes.json")
    assert found["accuracy"] == pytest.approx(record.accuracy)
    assert found["top5"] == pytest.approx(record.top5)
    assert found["checkpoint"] == "best.ckpt"
    assert found["epoch"] == record.best_epoch
    assert (tmp_path / "run" / "evaluation-scenes.png").stat().st_size > 1000
    matrix = np.array(found["confusion_matrix"])
    assert matrix.sum() == found["examples"] == record.config.test_size
    assert np.trace(matrix) / matrix.sum() == pytest.approx(record.accuracy)
    printed = capsys.readouterr()
    assert printed.err == ""
    assert f"scenes: {100 * record.accuracy:.1f} % of 64 examples right" in printed.out
    assert evaluate(tmp_path / "run", "scenes") == 0  # by its name, and in place of the first one


@pytest.mark.slow
def test_files_are_seen_as_the_training_saw_them(tmp_path: Path) -> None:
    """The reader of single files and that of a training agree, in shape, in values and in what comes out."""
    values = np.random.default_rng(0)
    for part, count in (("train", 12), ("test", 8)):
        for name, level in (("dark", 60), ("light", 180)):
            (tmp_path / "data" / part / name).mkdir(parents=True)
            for number in range(count):
                noise = values.integers(0, 70, (30, 41, 3), dtype=np.uint8)
                Image.fromarray(noise + np.uint8(level)).save(tmp_path / "data" / part / name / f"{number}.png")
    config = tiny(data=str(tmp_path / "data"), image_size=16, batch_size=8, epochs=1)
    record = train(config, tmp_path / "run")
    shutil.copytree(tmp_path / "data" / "test", tmp_path / "again")
    assert evaluate(tmp_path / "run") == 0
    assert evaluate(tmp_path / "run", tmp_path / "again") == 0
    own, again = (numbers(tmp_path / "run" / f"evaluation-{name}.json") for name in ("data", "again"))
    assert own["confusion_matrix"] == again["confusion_matrix"]
    assert own["accuracy"] == pytest.approx(record.accuracy)
    trained = open_run(tmp_path / "run")
    source = open_source(config)
    inputs, labels = source.test_batch(torch.arange(16))
    for row, path in ((0, "dark/0.png"), (15, "light/7.png")):
        torch.testing.assert_close(trained.preprocess(tmp_path / "again" / path)[0], inputs[row])
        assert source.classes[labels[row]] == path.partition("/")[0]


@pytest.mark.slow
def test_sounds_are_heard_as_the_training_heard_them(tmp_path: Path) -> None:
    """Sounds of one window and of several, whose logits are averaged in both."""
    random = np.random.default_rng(0)
    for part, count in (("train", 8), ("test", 5)):
        for name, pitch in (("low", 300), ("high", 2000)):
            (tmp_path / "data" / part / name).mkdir(parents=True)
            for number in range(count):
                time = np.arange(int(SOUND_RATE * random.uniform(0.7, 3.4))) / SOUND_RATE
                sound = 0.4 * np.sin(2 * np.pi * pitch * time) + 0.05 * random.normal(size=len(time))
                with as_file(sound.clip(-1, 1), "sound") as path:
                    shutil.copy(path, tmp_path / "data" / part / name / f"{number}.wav")
    strides = STRIDES["audio"]
    config = tiny(data=str(tmp_path / "data"), model="audio", strides=strides, batch_size=8, epochs=1, method="cosine")
    record = train(config, tmp_path / "run", environment=RunEnvironment(root=tmp_path / "root"))
    shutil.copytree(tmp_path / "data" / "test", tmp_path / "again")
    assert evaluate(tmp_path / "run", "--root", tmp_path / "root") == 0
    assert evaluate(tmp_path / "run", tmp_path / "again") == 0
    own, again = (numbers(tmp_path / "run" / f"evaluation-{name}.json") for name in ("data", "again"))
    assert own["confusion_matrix"] == again["confusion_matrix"]
    assert own["accuracy"] == pytest.approx(record.accuracy)
    assert max(len(open_run(tmp_path / "run").preprocess(path)) for path in (tmp_path / "again" / "low").iterdir()) > 1


def test_a_folder_is_matched_by_the_names_of_its_classes(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    images(data / "light", ("a.png", "b.png", "c.png"), value=200)
    images(data / "between", ("a.png", "b.png"))
    (data / "light" / "d.png").write_bytes(b"no image")
    assert evaluate(run, data) == 1
    found = numbers(run / "evaluation-data.json")
    expected = [each.label for each in open_run(run).predict(sorted((data / "light").glob("[abc].png")))]
    assert found["accuracy"] == pytest.approx(expected.count("light") / 3)
    assert found["confusion_matrix"] == [[0, 0], [expected.count("dark"), expected.count("light")]]
    assert [entry["accuracy"] for entry in found["classes"]] == [None, pytest.approx(expected.count("light") / 3)]
    assert found["left_out"] == {"between": 2}
    assert found["missing"] == ["dark"]
    assert len(found["problems"]) == 1
    printed = capsys.readouterr().out
    assert "Classes that the run does not know, whose examples are left out: between (2)" in printed
    assert "Classes of the run without an example: dark" in printed
    assert "1 files could not be read:" in printed
    assert "d.png' is not a readable image" in printed


def test_the_test_part_of_a_folder_is_taken(run: Path, tmp_path: Path) -> None:
    for part, count in (("train", 4), ("test", 2), ("val", 3)):
        for name in ("dark", "light"):
            images(tmp_path / "data" / part / name, tuple(f"{number}.png" for number in range(count)))
    assert evaluate(run, tmp_path / "data") == 0
    assert numbers(run / "evaluation-data.json")["examples"] == 4


def test_classes_by_the_names_of_files(run: Path, tmp_path: Path) -> None:
    images(tmp_path / "data", ("dark_1.png", "light_1.png", "light_2.png"))
    assert evaluate(run, tmp_path / "data", "--label-pattern", "([a-z]+)_") == 0
    assert [entry["examples"] for entry in numbers(run / "evaluation-data.json")["classes"]] == [1, 2]


def test_accents_are_matched_however_they_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_fake_reader(monkeypatch)
    save(untrained(classes=("café", "thé")), tmp_path / "run" / "last.ckpt")
    for name in ("café", "thé"):
        images(tmp_path / "data" / unicodedata.normalize("NFD", name), ("a.png",))
    assert evaluate(tmp_path / "run", tmp_path / "data") == 0
    found = numbers(tmp_path / "run" / "evaluation-data.json")
    assert (found["examples"], found["left_out"], found["missing"]) == (2, {}, [])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("nowhere data", "the folder of a run must hold last.ckpt"),
        ("run nowhere", "DATA must be a data set or a folder, got 'nowhere', which is neither"),
        ("run table.csv", "got the file 'table.csv'; put its examples into files"),
        ("run empty", "DATA must have a folder for each class, with image files in it, got 'empty'"),
        ("run others", "DATA has no class that the run knows: it has a, b, and the run dark, light"),
        ("run untested", "has train/ but neither test/ nor val/"),
        ("run damaged", "DATA has no file that can be read: 'damaged/dark/a.png' is not a readable image"),
        ("run scenes", "'scenes' has inputs of shape (1, 32, 32), and the network learned from (3, 16, 16)"),
        ("run others --out x.csv", "--out must end in .json, got 'x.csv'"),
        ("run others --out other.json", "'other.json' exists and holds something else"),
        ("run others --out new.json", "'new.png' exists and holds something else"),
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
    save(untrained(data="somewhere"), run / "last.ckpt")
    for name in ("a", "b"):
        images(Path("others", name), ("a.png",))
    Path("empty").mkdir()
    Path("untested", "train").mkdir(parents=True)
    Path("damaged", "dark").mkdir(parents=True)
    Path("damaged", "dark", "a.png").write_bytes(b"no image")
    for name in ("table.csv", "other.json", "new.png"):
        Path(name).write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    assert evaluate(*arguments.split()) == 2
    printed = capsys.readouterr().err
    assert expected in printed
    assert printed.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_each_task_is_measured_on_its_own_classes() -> None:
    logits = torch.tensor([[0.0, 1, 9, 9, 9], [2, 1, 9, 9, 9], [9, 9, 1, 0, 0], [9, 9, 0, 1, 0]])
    found = Labelled(logits, torch.tensor([1, 1, 2, 3]), {}, ())
    measures = measure(found, {"a": ("p", "q"), "b": ("r", "s", "t")})
    assert measures.by_task == {"a": 0.5, "b": 1.0}
    assert measures.accuracy == 0.75
    assert measures.top5 is None
    assert measures.confusion[1].tolist() == [1, 1, 0, 0, 0]
    assert measures.by_class[1:4] == [0.5, 1.0, 1.0]


def test_the_five_best_guesses() -> None:
    logits = torch.arange(8.0).expand(3, 8)
    measures = measure(Labelled(logits, torch.tensor([7, 3, 2]), {}, ()), {"class": tuple("abcdefgh")})
    assert measures.accuracy == pytest.approx(1 / 3)
    assert measures.top5 == pytest.approx(2 / 3)


def test_a_network_that_diverged_is_measured_and_told(run: Path, tmp_path: Path, capsys: Any) -> None:
    classifier: Classifier = untrained()
    torch.nn.init.constant_(classifier.model.classify.weight, float("nan"))
    save(classifier, run / "last.ckpt")
    images(tmp_path / "data" / "light", ("a.png",))
    assert evaluate(run, tmp_path / "data") == 0
    assert "the training diverged" in capsys.readouterr().out


@pytest.mark.parametrize("count", [1, 2, 20, 21, 130])
def test_a_picture_of_any_number_of_classes_without_a_warning(count: int, tmp_path: Path) -> None:
    matrix = np.eye(count, dtype=np.int64) * 1234
    names = ["$x$", "猫 и кошка", "a" * 80, "[b]_{2}", *(f"class {number}" for number in range(count))][:count]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw(matrix, names, "all right", tmp_path / "matrix.png")
    with Image.open(tmp_path / "matrix.png") as picture:
        assert max(picture.size) < 4000
        colours = np.asarray(picture.convert("RGB"), dtype=int)
    blue = (colours[..., 2] - colours[..., 0] > 60).mean()
    assert blue > 0.005
