"""Fine-tuning: a network that starts from the weights of another run."""

from __future__ import annotations

from pathlib import Path

import torch

from anystride.lab.errors import UsageError
from anystride.lab.run.checkpoint import read_checkpoint
from anystride.lab.run.config import RunConfig
from anystride.lab.run.folder import BEST, CHECKPOINT
from anystride.lab.run.training import Classifier

STRIDE = ".stride"
HEAD = "model.classify."


def start_from(classifier: Classifier, folder: Path) -> None:
    """Give a classifier the weights of the run in a folder, of its best epoch where there is one.

    The last layer starts anew where the classes are others. Learned strides are taken over where both configurations
    have the same initial strides; other initial strides are kept.

    Args:
        classifier: it changes in place.
        folder: of the run.

    Raises:
        UsageError: the folder holds no run, or one with another network.
    """
    checkpoint = next((folder / name for name in (BEST, CHECKPOINT) if (folder / name).is_file()), None)
    if checkpoint is None:
        raise UsageError(f"--init must be the folder of a run, with its {CHECKPOINT}, got {str(folder)!r}")
    saved = read_checkpoint(checkpoint)
    theirs = {name: value for name, value in saved["state_dict"].items() if name.startswith("model.")}
    config = RunConfig.from_json(saved["hyper_parameters"]["config"])
    mine = {name: value for name, value in classifier.state_dict().items() if name.startswith("model.")}
    same_head = all(name in theirs and theirs[name].shape == mine[name].shape for name in mine if _is_head(name))
    same_classes = same_head and saved["hyper_parameters"]["heads"] == classifier.hparams["heads"]
    other_strides = config.strides != classifier.config.strides
    kept = {name for name in mine if (_is_head(name) and not same_classes) or (other_strides and name.endswith(STRIDE))}
    for name in sorted(set(mine) | set(theirs)):
        if _is_head(name) or (name.endswith(STRIDE) and (name in mine) != (name in theirs)):
            continue
        here, there = (tuple(part[name].shape) if name in part else "absent" for part in (mine, theirs))
        if here != there:
            raise UsageError(
                f"--init {str(folder)!r} has another network: {name.removeprefix('model.')} is {there} there and "
                f"{here} here; repeat its --model, --width and --method"
            )
    with torch.no_grad():
        for name, value in mine.items():
            if name not in kept and name in theirs:
                value.copy_(theirs[name])


def _is_head(name: str) -> bool:
    return name.startswith(HEAD)
