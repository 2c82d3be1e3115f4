"""The pictures of a run show images as they look, not as the network sees them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("lightning", reason="needs the extra 'lab'")

from anystride.lab.cli import main
from anystride.lab.report import pictures


def test_images_are_shown_without_their_normalisation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("dark", 51), ("light", 204)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(10):
            Image.new("RGB", (20, 30), (value, value, value)).save(tmp_path / "data" / name / f"{number}.png")
    sheets, maps = [], []
    monkeypatch.setattr(pictures, "image_sheet", lambda images, classes, *_: sheets.append((images, classes)))
    monkeypatch.setattr(pictures, "feature_maps", lambda image, *_: maps.append(image))
    arguments = f"train --data {tmp_path / 'data'} --out {tmp_path / 'out'} --image-size 16 --width 2 --epochs 1"
    assert main([*arguments.split(), "--batch-size", "8", "--strides", "2,2,2", "--method", "inner"]) == 0
    ((images, classes),) = sheets
    expected = [{"dark": 0.2, "light": 0.8}[name] for name in classes]
    np.testing.assert_allclose(images.mean(axis=(1, 2, 3)), expected, atol=1e-3)
    np.testing.assert_allclose(maps[0], np.full((16, 16, 3), expected[0]), atol=1e-3)
