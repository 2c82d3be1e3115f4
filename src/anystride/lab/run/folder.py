"""The folder of a run: what lies in it, whose it is, and what another command may do with it."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from anystride.lab.errors import UsageError
from anystride.lab.files import remove_leftovers
from anystride.lab.record import write
from anystride.lab.run.checkpoint import saved_configuration
from anystride.lab.run.checkpoint_checks import configuration
from anystride.lab.run.config import RunConfig, difference
from anystride.lab.run.record import Record, load

RECORD = "record.json"
CHECKPOINT = "last.ckpt"
BEST = "best.ckpt"
CONFIGURATION = "configuration.json"
LOG = "tensorboard"
MADE_OF_IT = (
    "strides.png", "windows.png", "maps.png", "examples.png", "model.onnx", "model.pt2", "predictions.*",
    "evaluation-*",
)  # fmt: skip
"""What commands add to a run's folder later; it would be taken for that of a new run."""

Mode = Literal["new", "resume", "continue", "overwrite"]
"""What a command asks for. "continue" resumes what can be resumed, and starts over otherwise."""
Action = Literal["start", "resume", "show"]
"""What is to be done: train from the start, train on from the checkpoint, or nothing, as the run is finished."""


REMEDIES = {
    "new": "add --overwrite, which removes it with its pictures and exports",
    "continue": "remove that folder",
}
"""What helps, besides another folder, where a folder holds another run."""


@dataclass(frozen=True)
class Found:
    """What lies in a folder.

    Args:
        config: the configuration of its run; None where there is no run.
        record: of a finished run of this configuration.
        resumable: whether there is a checkpoint of this configuration, or of one that differs in its epochs.
        damage: what cannot be read, in words.
    """

    config: RunConfig | None = None
    record: Record | None = None
    resumable: bool = False
    damage: str = ""


def inspect(folder: Path) -> Found:
    """Look at a folder; nothing in it changes.

    Raises:
        UsageError: it is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out must be a folder, got {str(folder)!r}, which is a file")
    damage = []
    record = saved = config = None
    try:
        if (folder / RECORD).is_file():
            record = load(folder / RECORD)
    except UsageError as error:
        damage.append(str(error))
    try:
        saved = saved_configuration(folder / CHECKPOINT)
    except UsageError as error:
        damage.append(str(error))
    try:
        config = _configuration(folder / CONFIGURATION)
    except UsageError as error:
        damage.append(str(error))
    # Runs of earlier versions have no file of their own for the configuration.
    config = config or (record.config if record else None) or saved
    finished = record if record and record.config == config else None
    resumable = saved is not None and config is not None and replace(saved, epochs=config.epochs) == config
    return Found(config, finished, resumable, "; ".join(damage))


def decide(config: RunConfig, folder: Path, mode: Mode) -> Action:
    """What a command may do in a folder.

    Args:
        config: the run that is asked for.
        folder: where.
        mode: how it is asked for.

    Raises:
        UsageError: the folder holds something else than the command can go on with; the message says what helps.
    """
    found = inspect(folder)
    if mode == "overwrite":
        return "start"
    if mode == "continue" and found.config in (None, config):
        if found.record:
            return "show"
        if (folder / RECORD).is_file() and found.damage:
            raise UsageError(found.damage)  # what was finished is not made again unasked
        return "resume" if found.resumable else "start"
    if found.damage:
        raise UsageError(f"{found.damage}; --overwrite removes the run in {str(folder)!r} and starts over")
    if found.config is None:
        if mode == "resume":
            raise UsageError(f"--resume finds no run in {str(folder)!r}; leave it out to start a new one")
        return "start"
    if found.config == config:
        if found.record:
            return "show"
        if mode == "resume":
            return "resume" if found.resumable else "start"
        raise UsageError(
            f"--out {str(folder)!r} holds this run, interrupted; --resume goes on, --overwrite starts over"
        )
    changed = difference(config, found.config)
    if mode == "resume" and replace(config, epochs=found.config.epochs) == found.config and found.resumable:
        if config.epochs > found.config.epochs:
            return "resume"
        raise UsageError(f"--resume can add epochs and not take them away, got {changed}")
    if mode == "resume":
        raise UsageError(
            f"--resume goes on with the run in {str(folder)!r} as it was, apart from --epochs, got {changed}; "
            "repeat its options, or give --out and no other option"
        )
    state = "a finished" if found.record else "an interrupted"
    raise UsageError(
        f"--out {str(folder)!r} holds {state} run with {difference(found.config, config)}; choose another --out, or "
        f"{REMEDIES[mode]}"
    )


def begin(config: RunConfig, folder: Path, action: Action) -> None:
    """Make a folder ready for a run, under its lock.

    At a start everything that an earlier run left is removed, other files stay. Otherwise what was made stays until
    the run replaces it.
    """
    remove_leftovers(folder, ours=True)
    if action == "start":
        remove_run(folder)
    write(config.to_json(), folder / CONFIGURATION)


def remove_run(folder: Path) -> None:
    """Remove what runs leave in a folder; other files stay."""
    for pattern in (RECORD, CHECKPOINT, BEST, CONFIGURATION, *MADE_OF_IT):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)
    shutil.rmtree(folder / LOG, ignore_errors=True)


def finished(config: RunConfig, folder: Path) -> Record | None:
    """The record of a finished run of this configuration; None where there is none.

    Raises:
        UsageError: there is a record that cannot be read.
    """
    if not (folder / RECORD).is_file():
        return None
    record = load(folder / RECORD)
    return record if record.config == config else None


def readable(config: RunConfig, folder: Path) -> Record | None:
    """As `finished`, and None for a record that cannot be read: the job of that run says why."""
    try:
        return finished(config, folder)
    except UsageError:
        return None


def _configuration(path: Path) -> RunConfig | None:
    if not path.is_file():
        return None
    try:
        return configuration(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UsageError(f"{str(path)!r} is not a readable configuration ({error})") from None
