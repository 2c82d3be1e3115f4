"""Series of numbers with one label each, (N, C, T): a folder of files, or tables with a series per row.

All series get the length that is the median of the training series. Longer ones keep their middle, shorter ones are
filled up at the end with the mean of their channel, which is 0 after standardising. They are not stretched: that would
move frequencies, by which many classes differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anystride.lab.data.series_files import Array, UnreadableError, read_series
from anystride.lab.data.series_folder import Example, Found, channels_text, find, row_of
from anystride.lab.data.source import Batch, Source
from anystride.lab.errors import UsageError
from anystride.lab.run.config import RunConfig

SHIFT = 1 / 8
"""The largest shift of a training series, as a share of its length: as much as CIFAR's images are shifted."""
CONSTANT = 1e-12
"""A channel whose deviation is a smaller share of its mean is constant, and its deviation a rounding error."""
Part = tuple[Tensor, Tensor]
"""Standardised series (n, C, T) float32 and their labels (n,) int64."""


class SeriesSource(Source):
    """Series that all lie in the device's memory.

    Args:
        parts: `train` and `test`, and `validation` where the data set examples aside.
        classes: their names.
        preprocessing: see `read_inputs`.
        augment: whether training series are shifted, by up to `SHIFT` of their length to both sides; their first or
            last sample fills the gap.
    """

    def __init__(
        self, parts: Mapping[str, Part], classes: Sequence[str], preprocessing: Mapping[str, Any], augment: bool
    ) -> None:
        self.parts, self.augment = dict(parts), augment
        self.heads = {"class": tuple(classes)}
        self.preprocessing = dict(preprocessing)
        self.train_labels = parts["train"][1]
        self.train_length, self.test_length = len(parts["train"][1]), len(parts["test"][1])
        self.validation_length = len(parts["validation"][1]) if "validation" in parts else 0
        self.example = parts["test"][0][:1]

    def to(self, device: torch.device) -> SeriesSource:
        moved = super().to(device)
        moved.parts = {name: (series.to(device), labels.to(device)) for name, (series, labels) in self.parts.items()}
        return moved

    def train_batch(self, rows: Tensor, generator: torch.Generator) -> Batch:
        series, labels = self._batch("train", rows)
        return shifted(series, generator) if self.augment else series, labels

    def plain_batch(self, rows: Tensor) -> Batch:
        return self._batch("train", rows)

    def test_batch(self, rows: Tensor) -> Batch:
        return self._batch("test", rows)

    def validation_batch(self, rows: Tensor) -> Batch:
        return self._batch("validation", rows)

    def _batch(self, part: str, rows: Tensor) -> tuple[Tensor, Tensor]:
        series, labels = self.parts[part]
        rows = rows.to(self.device)
        return series[rows], labels[rows]


def shifted(series: Tensor, generator: torch.Generator) -> Tensor:
    """Each series (N, C, T), moved by up to `SHIFT` of its length to either side; its border goes on."""
    count, channels, length = series.shape
    most = int(SHIFT * length)
    moves = torch.randint(-most, most + 1, (count, 1), generator=generator)
    rows = (torch.arange(length) + moves).clamp(0, length - 1).to(series.device)
    return series.gather(2, rows[:, None].expand(-1, channels, -1))


def series_folder(config: RunConfig) -> Source:
    """Read all series that `config.data` holds.

    It is a folder as `tree.read_tree` reads it; a folder with tables named `train`, `test` and `val`; or one table, of
    which a fifth is split off for testing. See `series_files` for what files hold.

    Raises:
        UsageError: there are no such series, some cannot be read (one message names them all), or a class has none.
    """
    found = find(Path(config.data), config)
    examples = found.parts
    for name in found.classes:
        if not any(example.label == name for example in examples["train"]):
            raise UsageError(f"--data has no readable training series of class {name!r}; repair or add some")
    if not examples["test"]:
        raise UsageError("--data has no readable test series; repair or add some")
    lengths = sorted(example.values.shape[1] for example in examples["train"])
    mean, sd = _statistics([example.values for example in examples["train"]])
    preprocessing = {
        "kind": "series",
        "channels": len(mean),
        "length": lengths[(len(lengths) - 1) // 2],
        "mean": mean.tolist(),
        "sd": sd.tolist(),
        "label_column": config.label_column if found.unit == "row" else "",
    }
    parts = {part: _part(those, found.classes, preprocessing) for part, those in examples.items() if those}
    source = SeriesSource(parts, found.classes, preprocessing, augment=config.augment != "none")
    source.counts = _counts(source, found)
    return source


def read_inputs(path: Path, preprocessing: Mapping[str, Any]) -> Tensor:
    """The one series of a file as a network sees test examples: (1, C, T) float32.

    A `.csv` for a network that learned from a table may have the table's form, with a single series; its label, if it
    has one, is not used.

    Args:
        path: a `.npy`, `.npz` or `.csv`.
        preprocessing: the `SeriesSource.preprocessing` of the training.

    Raises:
        UsageError: the file holds no series, or one with other channels.
    """
    try:
        values = row_of(path, preprocessing["label_column"]) if preprocessing["label_column"] else read_series(path)
    except UnreadableError as error:
        raise UsageError(f"{str(path)!r} is not a readable series: {error}") from None
    if len(values) != preprocessing["channels"]:
        raise UsageError(
            f"{str(path)!r} has {channels_text(len(values))}, the network learned from {preprocessing['channels']}"
        )
    return _prepared(values, preprocessing)[None]


def _part(examples: Sequence[Example], classes: Sequence[str], preprocessing: Mapping[str, Any]) -> Part:
    series = torch.stack([_prepared(example.values, preprocessing) for example in examples])
    return series, torch.tensor([classes.index(example.label) for example in examples])


def _prepared(values: Array, preprocessing: Mapping[str, Any]) -> Tensor:
    """A series (C, T) standardised, in the length of all: (C, length) float32."""
    mean, sd = (np.array(preprocessing[name])[:, None] for name in ("mean", "sd"))
    length = preprocessing["length"]
    first = max(0, (values.shape[1] - length) // 2)
    standard = ((values - mean) / sd)[:, first : first + length]
    padded = np.pad(standard, ((0, 0), (0, length - standard.shape[1])))
    return torch.from_numpy(padded.astype(np.float32))


def _statistics(series: Sequence[Array]) -> tuple[Array, Array]:
    """The mean and the standard deviation of each channel over all samples of all series; 1 for a constant channel."""
    count = sum(values.shape[1] for values in series)
    mean = sum(values.sum(axis=1, dtype=np.float64) for values in series) / count
    variance = sum(((values - mean[:, None]) ** 2).sum(axis=1, dtype=np.float64) for values in series) / count
    sd = np.sqrt(variance)
    return mean, np.where(sd > CONSTANT * np.maximum(np.abs(mean), 1e-300), sd, 1.0)


def _counts(source: SeriesSource, found: Found) -> str:
    lengths = [example.values.shape[1] for part in found.parts.values() for example in part]
    channels, length = source.example.shape[1:]
    aside = f", {source.validation_length:,} validation" if source.validation_length else ""
    text = (
        f"{source.train_length:,} training{aside} and {source.test_length:,} test series, {len(found.classes)} classes"
    )
    text += f", {channels_text(channels)} of {length:,} samples"
    cut, filled = sum(each > length for each in lengths), sum(each < length for each in lengths)
    if cut or filled:
        text += f" (the median: {cut:,} longer ones are cut, {filled:,} shorter ones filled up)"
    if found.left_out:
        text += f"; {found.left_out:,} unreadable left out"
    return text + found.note
