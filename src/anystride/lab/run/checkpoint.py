"""Checkpoints: the only place that opens them. A file may come from anywhere: it is read without trust, and checked."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from anystride.lab.errors import UsageError
from anystride.lab.files import is_file
from anystride.lab.run.checkpoint_checks import check, check_training
from anystride.lab.run.config import RunConfig

SHOWN = 160
"""Characters of a reason that a message repeats."""


def read_checkpoint(path: Path, *, resumable: bool = False) -> dict[str, Any]:
    """What a checkpoint holds, on the CPU, after all of it was checked.

    The weights have the names, shapes and types of the network that the configuration names; they may be infinite or
    not a number, see `diverged`. Code in a file is never run. The random state stays as it is.

    Args:
        path: of the file.
        resumable: whether the state of the training must be there and fit, so that it can go on.

    Returns:
        The entries of the file; "hyper_parameters" has "config", "heads", "shape" and "preprocessing".

    Raises:
        UsageError: the file is absent, damaged, or nothing that this lab wrote.
    """
    if not is_file(path):
        raise UsageError(f"{str(path)!r} must be a checkpoint that 'anystride train' wrote, and is no file")
    try:
        saved = _load(path)
        model = check(saved)
        if resumable:
            check_training(saved, model)
    except PermissionError as error:
        raise UsageError(f"{str(path)!r} cannot be read ({error.strerror})") from None
    except Exception as error:  # torch, zipfile and pickle raise whatever they meet in a damaged file
        reason = " ".join(str(error).split())[:SHOWN] or type(error).__name__
        raise UsageError(
            f"{str(path)!r} is not a checkpoint that 'anystride train' wrote, or it is damaged ({reason})"
        ) from None
    saved["hyper_parameters"].setdefault("preprocessing", {})
    return saved  # type: ignore[no-any-return]  # what is read is checked above


def _load(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        if damaged := archive.testzip():  # torch reads what has a wrong checksum without a word
            raise ValueError(f"{damaged} has a wrong checksum")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about contents that are refused anyway
        return torch.load(path, map_location="cpu", weights_only=True)


def saved_configuration(path: Path) -> RunConfig | None:
    """The configuration of a checkpoint that a training can go on from; None where there is no checkpoint.

    Raises:
        UsageError: as `read_checkpoint`.
    """
    if not path.exists():
        return None
    return RunConfig.from_json(read_checkpoint(path, resumable=True)["hyper_parameters"]["config"])


def diverged(saved: dict[str, Any]) -> str:
    """What to tell about weights that are infinite or not a number; empty where all are finite."""
    values = {name: value for name, value in saved["state_dict"].items() if value.is_floating_point()}
    bad = [name for name, value in values.items() if not torch.isfinite(value).all()]
    if not bad:
        return ""
    return f"{len(bad)} of {len(values)} weights hold values that are not finite, as {bad[0]}: the training diverged"
