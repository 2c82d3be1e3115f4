"""Checkpoints: reading them without trust, writing them whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from anystride.lab.errors import UsageError
from anystride.lab.run.config import RunConfig


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What a checkpoint holds, on the CPU.

    Raises:
        UsageError: the file is damaged, or nothing that this lab wrote.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        RunConfig.from_json(saved["hyper_parameters"]["config"])
    except Exception as error:  # torch, zipfile and pickle raise whatever they meet in a damaged file
        reason = (str(error).splitlines() or [""])[0][:120]
        raise UsageError(
            f"{str(path)!r} is not a checkpoint that 'anystride train' wrote, or it is damaged "
            f"({type(error).__name__}: {reason})"
        ) from None
    return saved  # type: ignore[no-any-return]  # what is read is checked above


def saved_configuration(path: Path) -> RunConfig | None:
    """The configuration that a checkpoint was made with; None where there is no checkpoint.

    Raises:
        UsageError: as `read_checkpoint`.
    """
    if not path.exists():
        return None
    return RunConfig.from_json(read_checkpoint(path)["hyper_parameters"]["config"])
