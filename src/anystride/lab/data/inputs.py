"""How one file becomes inputs of a trained network, by the `preprocessing` that its run kept."""

from __future__ import annotations

import importlib
import tempfile
import wave
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from anystride.lab.errors import UsageError

READERS = {
    "image": "anystride.lab.data.images",
    "sound": "anystride.lab.data.audio.folder",
    "series": "anystride.lab.data.series",
}
"""The file of each kind that has `read_inputs(path, preprocessing)`; imported when it is needed."""
SOUND_RATE = 16_000
"""Samples per second of an array that is a sound."""


def kind(preprocessing: Mapping[str, Any]) -> str:
    """The kind of files that a run learned from, of `READERS`.

    Raises:
        UsageError: it did not learn from files, or the kind is unknown.
    """
    if not preprocessing:
        raise UsageError(
            "RUN_DIR holds a run that keeps no way from a file to an input: its data were a named data set, or it is "
            "of an earlier version; train on a folder, or give tensors to the model of anystride.lab.load"
        )
    name = preprocessing.get("kind")
    if not isinstance(name, str) or name not in READERS:
        raise UsageError(f"RUN_DIR holds a run on files of the kind {name!r}; this version reads {', '.join(READERS)}")
    return name


def read_inputs(path: Path, preprocessing: Mapping[str, Any]) -> Tensor:
    """Read one file as test examples are read.

    Args:
        path: of an image, a sound or a series.
        preprocessing: as `Source.preprocessing`; a file may have changed it, thus nothing in it is trusted.

    Returns:
        (M, C, ...) float32; M is 1, or the number of windows of a sound, whose logits are averaged.

    Raises:
        UsageError: the file cannot be read, or `preprocessing` does not fit its kind.
    """
    reader = importlib.import_module(READERS[kind(preprocessing)])
    try:
        inputs: Tensor = reader.read_inputs(path, preprocessing)
    except UsageError:
        raise
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UsageError(f"{str(path)!r} cannot be read as the run's preprocessing says ({reason})") from error
    except OSError as error:
        raise UsageError(f"{str(path)!r} cannot be read ({error.strerror or error})") from None
    if not isinstance(inputs, Tensor) or inputs.dtype != torch.float32 or not len(inputs):
        raise UsageError(f"{str(path)!r} gives no inputs as the run's preprocessing says")
    return inputs


@contextmanager
def as_file(example: Any, name: str) -> Iterator[Path]:
    """A file that holds `example`: thus it is treated exactly as a file of that kind is.

    Args:
        example: a path, which is taken as it is; an image of Pillow; or an array or tensor: an image (H, W) or
            (H, W, 3) uint8, a sound (samples,) of `SOUND_RATE` with values in [-1, 1], a series (C, T) or (T,).
        name: the kind, of `READERS`.

    Raises:
        UsageError: the example is nothing of that.
    """
    if isinstance(example, (str, Path)):
        yield Path(example)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / {"image": "example.tiff", "sound": "example.wav", "series": "example.npy"}[name]
        try:
            _write(example, name, path)
        except (AttributeError, OSError, TypeError, ValueError) as error:
            got = f"{type(example).__name__} of shape {tuple(getattr(example, 'shape', ()))}"
            raise UsageError(f"an example must be a file or an array of one {name}, got {got} ({error})") from None
        yield path


def _write(example: Any, name: str, path: Path) -> None:
    if name == "image":
        image = example if isinstance(example, Image.Image) else Image.fromarray(np.asarray(example))
        ImageOps.exif_transpose(image).save(path)
        return
    values = np.asarray(example)
    if name == "series":
        np.save(path, values, allow_pickle=False)
        return
    if values.ndim != 1 or not np.isfinite(values).all() or np.abs(values).max(initial=0) > 1:
        raise ValueError("a sound is (samples,) with values in [-1, 1]")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SOUND_RATE)
        file.writeframes(np.rint(values * (2**15 - 1)).astype("<i2").tobytes())
