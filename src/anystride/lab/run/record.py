"""The record of one run: one JSON file that says what was run, where, and what came out."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from anystride.lab.errors import UsageError
from anystride.lab.record import write
from anystride.lab.run.config import RunConfig
from anystride.lab.run.record_checks import check

SCHEMA = 1
LARGEST_FILE = 2**26
"""Bytes: an epoch takes about 500."""
OPTIONAL = (
    "devices", "examples", "input_shape", "top5", "accuracies", "validation_accuracy", "best_epoch", "extended",
    "counter",
)  # fmt: skip
"""Fields that older records lack; a file has no entry for one that is None."""
JSON_TYPES: dict[str, type | tuple[type, ...]] = {
    "command": list,
    "configuration": dict,
    "seed": int,
    "commit": (str, type(None)),
    "uncommitted_changes": (bool, type(None)),
    "versions": dict,
    "hardware": dict,
    "classes": list,
    "accuracy": float,
    "loss": (float, type(None)),
    "start_strides": list,
    "strides": list,
    "start_map_sizes": list,
    "map_sizes": list,
    "start_multiply_accumulates": int,
    "multiply_accumulates": int,
    "parameters": int,
    "epochs": list,
    "seconds": dict,
}
"""The type of each field in a file, of those that a file must have."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """What one run left, in the order of the file.

    Args:
        command: the command line.
        configuration: `RunConfig` as JSON values; see `config`.
        seed: the seed of the configuration.
        commit: the commit of the code; None outside of its repository.
        uncommitted_changes: whether the code differed from that commit; None outside of its repository.
        versions: of Python and of packages.
        hardware: processor, threads, GPU and operating system.
        devices: the number of processes.
        classes: names of the classes, task after task.
        examples: one line about the data.
        input_shape: (C, H, W) of one input, (C, T) of a series.
        accuracy: on the test images after the last epoch, a fraction; the mean over tasks.
        top5: the share of test images whose class is among the five best guesses, where there are more classes.
        accuracies: the accuracy of each task.
        loss: the mean cross-entropy on the test images; None if it diverged.
        validation_accuracy: the same on the validation examples, of the best epoch; None without such examples.
        best_epoch: the epoch that was best on them, from 1 on: its weights are tested, and kept in best.ckpt.
        extended: numbers of epochs at which the run was to end before it was given more; its learning rate followed
            the earlier schedule until then.
        start_strides: a pair (vertical, horizontal) per downsampler, as configured: before a budget moves them, and
            before training. So are the next two.
        start_map_sizes: (H, W) per stage, before training.
        start_multiply_accumulates: per image, before training.
        strides: the same pairs after training.
        map_sizes: the same sizes after training.
        multiply_accumulates: per image, after training.
        counter: the version of what counted these, `models.measure.COUNTER`.
        parameters: the number of trained values.
        epochs: one entry per epoch: losses, accuracy, strides and seconds.
        seconds: of the training (`train`) and of the whole run (`total`).
    """

    command: list[str]
    configuration: dict[str, Any]
    seed: int
    commit: str | None
    uncommitted_changes: bool | None
    versions: dict[str, str]
    hardware: dict[str, Any]
    devices: int | None = None
    classes: list[str]
    examples: str | None = None
    input_shape: list[int] | None = None
    accuracy: float
    top5: float | None = None
    accuracies: dict[str, float] | None = None
    loss: float | None
    validation_accuracy: float | None = None
    best_epoch: int | None = None
    extended: list[int] | None = None
    start_strides: list[list[float]]
    start_map_sizes: list[list[int]]
    start_multiply_accumulates: int
    strides: list[list[float]]
    map_sizes: list[list[int]]
    multiply_accumulates: int
    counter: int | None = None
    parameters: int
    epochs: list[dict[str, Any]]
    seconds: dict[str, float]

    @property
    def config(self) -> RunConfig:
        """The configuration as a `RunConfig`."""
        return RunConfig.from_json(self.configuration)

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values."""
        values = asdict(self)
        kept = {name: value for name, value in values.items() if value is not None or name not in OPTIONAL}
        return {"schema": SCHEMA, **kept}

    @classmethod
    def from_json(cls, values: object, name: str = "the record") -> Record:
        """The inverse of `to_json`. Entries that are no field are left out.

        Args:
            values: what a file holds.
            name: of the file, for the message of an error.

        Raises:
            UsageError: the values are no record of this schema, a field is absent or has the wrong type, or a value is
                one that no run leaves.
        """
        if not isinstance(values, dict) or values.get("schema") != SCHEMA:
            raise UsageError(f"{name!r} is not a record of schema {SCHEMA}; remove it and run again")
        wrong = [
            field for field, kind in JSON_TYPES.items() if field not in values or not isinstance(values[field], kind)
        ]
        if wrong:
            raise UsageError(f"{name!r} is not a complete record, see {', '.join(wrong)}; remove it and run again")
        try:
            check(values)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{name!r} is not a valid record: {error}; remove it and run again") from None
        return cls(**{field.name: values[field.name] for field in fields(cls) if field.name in values})


def save(record: Record, path: Path) -> None:
    """Check a record and write it.

    Raises:
        UsageError: as `Record.from_json`.
    """
    values = record.to_json()
    Record.from_json(values, str(path))
    write(values, path)


def load(path: Path) -> Record:
    """Read a record.

    Raises:
        UsageError: the file is no record; the message says what is wrong with it.
    """
    try:
        if path.exists() and not path.is_file():
            raise ValueError("no regular file")  # reading a pipe would wait for ever
        if path.stat().st_size > LARGEST_FILE:
            raise ValueError(f"more than {LARGEST_FILE:,} bytes")
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{str(path)!r} is not a readable record ({error}); remove it and run again") from error
    return Record.from_json(values, str(path))
