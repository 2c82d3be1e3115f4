"""Pictures of any run: every number of strides, every kind of data, any script; and one that fails costs nothing."""

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from anystride.lab.data.catalogue import open_source
from anystride.lab.models.registry import ARCHITECTURES
from anystride.lab.report import confusion, examples, figure, fonts, gallery, maps, pictures
from anystride.lab.report.fonts import can_show, shown
from anystride.lab.report.terminal import group
from anystride.lab.run.defaults import STRIDES
from anystride.lab.run.experiment import run

from ..conftest import tiny
from ..records import fabricated
from ..trained import save, untrained

CHANGES: dict[str, dict[str, Any]] = {
    "resnet18": {},
    "resnet18-imagenet": {"image_size": 48},
    "resnet18-release": {},
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

    for module in (pictures, examples, maps, confusion):
        monkeypatch.setattr(module, "save_figure", inspected)
    return found


@pytest.fixture
def font(tmp_path: Path) -> Iterator[None]:
    """A font that is installed for a test: its only letter is a Chinese one, 猫, drawn as a square."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for point in ((0, 800), (800, 800), (800, 0)):
        pen.lineTo(point)
    pen.closePath()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "cat"])
    builder.setupCharacterMap({ord("猫"): "cat"})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "cat": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "cat": (1000, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "A Chinese Font", "styleName": "Regular"})
    builder.setupOS2(usWeightClass=400)
    builder.setupPost()
    builder.save(tmp_path / "font.ttf")
    before = list(font_manager.fontManager.ttflist)
    font_manager.fontManager.addfont(tmp_path / "font.ttf")
    forget()
    yield
    font_manager.fontManager.ttflist[:] = before
    forget()


def forget() -> None:
    """Let the fonts that are installed be looked for again."""
    fonts._installed.cache_clear()
    fonts._font_of.cache_clear()


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
    assert problems == ["picture strides.png could not be drawn: IndexError: index 2 is out of bounds"]


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


def test_names_whose_letters_no_font_has_are_told_in_a_line(tmp_path: Path, texts: dict[str, list[str]]) -> None:
    classes = ("\U000e0fff", "dog")  # no font has what is no letter
    sheet = examples.Sheet([torch.rand(8, 8).numpy()] * 2, [0, 1], [0, 0], classes)
    examples.draw(sheet, tmp_path / "examples.png")
    assert {"class 1", "dog", "✓ class 1", "✗ class 1", fonts.NOTE} <= set(texts["examples.png"])


def test_an_installed_font_that_has_the_letters_is_used(
    tmp_path: Path, font: None, texts: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fonts, "PREFERRED", ())
    assert fonts.shown(["猫", "a猫"]) == ["猫", "a猫"]
    assert fonts.families("a猫") == (fonts.FIRST, "A Chinese Font")
    assert fonts.families("cat") == (fonts.FIRST,)
    sheet = examples.Sheet([torch.rand(8, 8).numpy()] * 2, [0, 1], [0, 0], ("猫", "dog"))
    examples.draw(sheet, tmp_path / "examples.png")  # a warning of a letter that is missing would fail
    assert {"猫", "✓ 猫", "✗ 猫"} <= set(texts["examples.png"])
    confusion.draw(np.eye(2, dtype=np.int64), ("猫", "dog"), "two", tmp_path / "confusion.png")
    assert "猫" in texts["confusion.png"]


def test_scripts_whose_letters_join_need_a_matplotlib_that_joins_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "SHAPES_LETTERS", False)
    forget()
    assert shown(["قطة", "кошка"]) == ["class 1", "кошка"]
    forget()


def test_series_are_lines(tmp_path: Path, texts: dict[str, list[str]]) -> None:
    rng = np.random.default_rng(0)
    for name, period in (("slow", 16), ("fast", 4)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(8):
            wave = np.sin(2 * np.pi * np.arange(48) / period + rng.uniform(0, 6, (2, 1)))
            np.save(tmp_path / "data" / name / f"{number}.npy", wave)
    config = tiny(data=str(tmp_path / "data"), model="series", method="inner", epochs=1, batch_size=4)
    problems: list[str] = []
    drawn = gallery.draw_run(run(config, tmp_path / "run"), tmp_path / "run", None, problems.append)
    assert problems == []
    assert [path.name for path in drawn] == ["strides.png", "windows.png", "maps.png", "examples.png"]
    assert {"stride 1", "stride 3"} <= set(texts["strides.png"])
    assert "time" not in texts["strides.png"]  # one axis needs no legend
    assert any(text.startswith("stride 3, time: 2.00 to ") for text in texts["windows.png"])
    assert {"series\n48", "spectral pooling\n24", "spectral pooling\n16"} <= set(texts["maps.png"])
    assert any(text.startswith("Test series: ") for text in texts["examples.png"])


def test_a_picture_that_is_left_out_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "SMALLEST", 1000)
    problems: list[str] = []
    drawn = gallery.draw_run(run(tiny(method="strided", epochs=1), tmp_path), tmp_path, None, problems.append)
    assert [path.name for path in drawn] == ["examples.png"]
    assert problems == [
        "picture maps.png is left out: the map before the first downsampler has 32 x 32 samples, too few to compare"
    ]


def test_the_weights_are_those_of_the_best_epoch(tmp_path: Path) -> None:
    classifier = untrained()
    record = fabricated(tiny())
    save(classifier, tmp_path / "last.ckpt")
    name, last = next(iter(classifier.model.state_dict().items()))
    assert torch.equal(gallery.TrainedRun(record, tmp_path).classifier.model.state_dict()[name], last)
    with torch.no_grad():
        last.add_(1)
    save(classifier, tmp_path / "best.ckpt")
    assert torch.equal(gallery.TrainedRun(record, tmp_path).classifier.model.state_dict()[name], last)


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
