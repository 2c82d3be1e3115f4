"""A run on images without training, and a reader of images: what tests of using a network need."""

from __future__ import annotations

import sys
import types
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from anystride.lab.data import inputs
from anystride.lab.errors import UsageError
from anystride.lab.run.config import RunConfig
from anystride.lab.run.defaults import STRIDES
from anystride.lab.run.training import Classifier

CLASSES = ("dark", "light")
PREPROCESSING = {"kind": "image", "size": 16}
FAKE = "fake_reader_of_tests"


def read_inputs(path: Path, preprocessing: Mapping[str, Any]) -> Tensor:
    """An image as (M, 3, size, size) in [0, 1]; a name that begins with "two" has two windows, the second one black."""
    try:
        with Image.open(path) as opened:
            image = opened.convert("RGB").resize((preprocessing["size"],) * 2)
    except OSError as error:
        raise UsageError(f"{str(path)!r} is not a readable image; repair or remove it") from error
    values = torch.from_numpy(np.array(image, dtype=np.float32) / 255).permute(2, 0, 1)[None]
    return torch.cat([values, torch.zeros_like(values)]) if path.name.startswith("two") else values


def use_fake_reader(monkeypatch: pytest.MonkeyPatch, kind: str = "image", reader: Any = read_inputs) -> None:
    """Let `reader` read the files of a kind."""
    module = types.ModuleType(FAKE)
    module.read_inputs = reader  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, FAKE, module)
    monkeypatch.setitem(inputs.READERS, kind, FAKE)


def untrained(
    classes: tuple[str, ...] = CLASSES,
    shape: tuple[int, ...] = (3, 16, 16),
    preprocessing: Mapping[str, Any] = PREPROCESSING,
    **changes: Any,
) -> Classifier:
    """A classifier of random weights."""
    config = replace(RunConfig(width=2, method="cosine"), **changes)
    config = replace(config, strides=changes.get("strides", STRIDES[config.model]))
    torch.manual_seed(0)
    return Classifier(config, {"class": classes}, shape, preprocessing)


def save(classifier: Classifier, path: Path, epoch: int = 2) -> Path:
    """Write a checkpoint that a finished epoch would leave, without what a training needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    saved = {
        "epoch": epoch,
        "global_step": 10,
        "state_dict": classifier.state_dict(),
        "hyper_parameters": dict(classifier.hparams),
    }
    torch.save(saved, path)
    return path


def images(folder: Path, names: tuple[str, ...], value: int = 40) -> list[Path]:
    """Some grey images of 20 x 30 pixels, each a bit lighter than the one before."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in names]
    for number, path in enumerate(paths):
        Image.new("RGB", (20, 30), (value + 5 * number,) * 3).save(path)
    return paths
