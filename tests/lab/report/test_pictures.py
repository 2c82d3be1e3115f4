"""Pictures of any run: every number of strides, every kind of data, any script; and one that fails costs nothing."""

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from anystride.lab.data.catalogue import open_source
from anystride.lab.models.registry import ARCHITECTURES
from anystride.lab.report import examples, figure, gallery, maps, pictures
from anystride.lab.report.fonts import can_show, shown
from anystride.lab.report.terminal import group
from anystride.lab.run.defaults import STRIDES
from anystride.lab.run.experiment import run

from ..conftest import tiny
from ..records import fabricated

CHANGES: dict[str, dict[str, Any]] = {
    "resnet18": {},
    "resnet18-imagenet": {"image_size": 48},
    "densenet-bc": {"width": 4},
    "efficientnet-b0": {"width": 8, "image_size": 48},
    "audio": {"data": "notes-instrument", "width": 4, "train_size": 60},
}


def width_of(path: Path) -> int:
    with Image.open(path) as image:
        return image.width


@pytest.fixture(autouse=True)
def strict() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # a glyph that is missing, values that are clipped
        yield


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """All texts of each figure that is saved, by the picture's name; titles, labels and legends must lie inside."""
    found: dict[str, list[str]] = {}
    save = figure.save_figure

    def inspected(drawn: Figure, path: Path) -> None:
        save(drawn, path)
        page = drawn.bbox
        panels = [text for panel in drawn.axes for text in (panel.title, panel.xaxis.label, panel.yaxis.label)]
        for text in [*panels, *drawn.texts, *(text for legend in drawn.legends for text in legend.get_texts())]:
            box = text.get_window_extent()
            outside = box.x0 < page.x0 - 1 or box.x1 > page.x1 + 1 or box.y0 < page.y0 - 1 or box.y1 > page.y1 + 1
            assert not text.get_text() or not outside, text
        found[path.name] = [text.get_text() for text in drawn.findobj(Text) if isinstance(text, Text)]

    for module in (pictures, examples, maps):
        monkeypatch.setattr(module, "save_figure", inspected)
    return found


@pytest.mark.parametrize("model", CHANGES)
def test_every_network_has_its_pictures(model: str, tmp_path: Path, texts: dict[str, list[str]]) -> None:
    config = tiny(model=model, method="inner", epochs=1, train_size=64, strides=STRIDES[model])
    config = replace(config, **CHANGES[model])
    problems: list[str] = []
    drawn = gallery.draw_run(run(config, tmp_path), tmp_path, None, problems.append)
    assert problems == []
    names = {path.name for path in drawn}
    assert names == {"strides.png", "windows.png", "examples.png", "maps.png"}
    assert all(width_of(path) > 300 for path in drawn)
    count, axes = len(config.strides), ARCHITECTURES[model].axes
    assert {f"stride {number}" for number in range(1, count + 1)} | set(axes) <= set(texts["strides.png"])
    assert f"stride {count + 1}" not in texts["strides.png"]
    for number in range(1, count + 1):
        assert all(any(text.startswith(f"stride {number}, {axis}: ") for text in texts["windows.png"]) for axis in axes)
    source = open_source(config)
    assert set(source.classes) <= set(texts["examples.png"])
    assert any(text.startswith("✗ ") and text[2:] in source.classes for text in texts["examples.png"])
    assert ("spectrogram" in " ".join(texts["examples.png"])) == (model == "audio")


def test_four_strides_of_a_network_with_three_or_four(tmp_path: Path, texts: dict[str, list[str]]) -> None:
    strides = ((1.0, 1.0), *STRIDES["resnet18"])
    gallery.draw_run(run(tiny(method="cosine", epochs=1, strides=strides), tmp_path), tmp_path, None, pytest.fail)
    assert "stride 4" in texts["strides.png"]
    assert {"image\n32 x 32", "DiffStride\nraised cosine\n16 x 16"} <= set(texts["maps.png"])


def test_a_picture_that_fails_costs_neither_the_run_nor_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise IndexError("index 2 is out of bounds\nand more")

    monkeypatch.setattr(pictures, "stride_trajectories", fail)
    record = run(tiny(method="inner", epochs=1), tmp_path)
    problems: list[str] = []
    drawn = gallery.draw_run(record, tmp_path, None, problems.append)
    assert [path.name for path in drawn] == ["windows.png", "maps.png", "examples.png"]
    assert problems == ["The picture strides.png could not be drawn (IndexError: index 2 is out of bounds)."]


def test_strides_of_many_seeds_and_methods_share_a_figure(tmp_path: Path, texts: dict[str, list[str]]) -> None:
    records = [
        fabricated(tiny(method=method, strides=strides, seed=seed))
        for strides in (((2.0, 2.0),) * 3, ((3.0, 3.0), (2.0, 2.0), (3.0, 3.0)))
        for method in ("outer", "inner")
        for seed in (0, 1)
    ]
    pictures.stride_trajectories(group(records), tmp_path / "strides.png")
    assert texts["strides.png"].count("epoch") == 2
    assert "DiffStride, inner, from (3, 2, 3)" in texts["strides.png"]


def test_names_in_any_script_are_shown_or_numbered(tmp_path: Path, texts: dict[str, list[str]]) -> None:
    classes = ("猫", "кошка", "قط", "a$b$c", "an extremely long name of one class", "chat\nnoir")
    names = shown(classes)
    assert all(can_show(name) for name in names)
    assert names[1] == "кошка"
    assert names[0] in ("猫", "class 1")
    assert len(names[4]) == 18
    images = [torch.rand(8, 8, 3).numpy() for _ in classes]
    sheet = examples.Sheet(images, list(range(6)), [0, 1, 2, 3, 4, 0], classes)
    examples.draw(sheet, tmp_path / "examples.png")
    assert "✗ " + names[0] in texts["examples.png"]
    assert "Test images: class above, prediction below; 5 of 6 right" in texts["examples.png"]


def test_photographs_are_shown_as_they_were(tmp_path: Path) -> None:
    for name, colour in (("red", (250, 10, 20)), ("blue", (20, 10, 250))):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(10):
            Image.new("RGB", (32, 32), colour).save(tmp_path / "data" / name / f"{number}.png")
    config = tiny(data=str(tmp_path / "data"))
    source = open_source(config)
    inputs, labels = source.test_batch(torch.arange(4))
    for image, label in zip(examples.displayed(inputs, source, config), labels.tolist(), strict=True):
        expected = (20, 10, 250) if source.classes[label] == "blue" else (250, 10, 20)
        assert (image * 255).round().reshape(-1, 3).tolist() == [list(expected)] * 1024


def test_a_sheet_has_every_class_up_to_a_limit() -> None:
    source = open_source(tiny(test_size=400))
    _, labels = source.test_batch(examples.chosen(source))
    assert torch.bincount(labels, minlength=10).tolist() == [2] * 10
