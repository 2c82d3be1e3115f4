"""The record of one run: one JSON file that says what was run, where, and what came out."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

import anystride
from anystride.lab.errors import UsageError

SCHEMA = 1
FIELDS: dict[str, type | tuple[type, ...]] = {
    "schema": int,
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
"""What a record holds. ``accuracy`` is a fraction and ``loss`` the mean cross-entropy (null if it diverged), on
the test images after the last epoch; ``strides`` has (vertical, horizontal) per shortcut block and ``map_sizes`` (H, W)
per stage; ``multiply_accumulates`` is per image; ``seconds`` has ``train`` and ``total``. Newer records also hold
``accuracies`` per task, whose mean ``accuracy`` is; ``top5`` where there are more than five classes; ``examples``, a
line about the data; and ``devices``, the number of processes."""

Record = dict[str, Any]


def save(record: Record, path: Path) -> None:
    """Check and write the record of one run."""
    _check(record, str(path))
    write(record, path)


def write(values: dict[str, Any], path: Path) -> None:
    """Write JSON so that ``path`` holds, at any time, either the old file or the complete new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_text(json.dumps(values, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def load(path: Path) -> Record:
    """Read a record; a UsageError says what is wrong with a file that is none."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{str(path)!r} is not a readable record ({error}); remove it and run again") from error
    _check(record, str(path))
    return record  # type: ignore[no-any-return]  # json gives Any; it was checked a line above


def _check(record: object, name: str) -> None:
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise UsageError(f"{name!r} is not a record of schema {SCHEMA}; remove it and run again")
    wrong = [field for field, kind in FIELDS.items() if field not in record or not isinstance(record[field], kind)]
    if wrong:
        raise UsageError(f"{name!r} is not a complete record, see {', '.join(wrong)}; remove it and run again")
    if not (0 <= record["accuracy"] <= 1):
        raise UsageError(f"{name!r} has accuracy {record['accuracy']}, it must be in [0, 1]; remove it and run again")


def finite_or_none(value: Any) -> Any:
    """The same nested value with None for numbers that JSON cannot hold: a diverged run must leave a record, too."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [finite_or_none(item) for item in value]
    if isinstance(value, dict):
        return {name: finite_or_none(item) for name, item in value.items()}
    return value


def provenance() -> Record:
    """Commit, versions and hardware: the fields that describe where a run takes place."""
    return {**_commit(), "versions": _versions(), "hardware": _hardware()}


def _commit() -> Record:
    here = Path(__file__).parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.strip()

    # An installed package may lie inside somebody else's repository: only a tracked file says that this one is ours.
    tracked = git("ls-files", "--error-unmatch", __file__) is not None
    changes = git("status", "--porcelain", "--untracked-files=no") if tracked else None
    return {
        "commit": git("rev-parse", "HEAD") if tracked else None,
        "uncommitted_changes": None if changes is None else bool(changes),
    }


def _versions() -> dict[str, str]:
    packages = ("torch", "lightning", "torchmetrics", "scikit-learn", "numpy")
    installed = {package: importlib.metadata.version(package) for package in packages}
    return {"python": platform.python_version(), "anystride": anystride.__version__, **installed}


def _hardware() -> dict[str, str | int]:
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {"processor": _processor(), "threads": torch.get_num_threads(), "gpu": gpu, "system": platform.platform()}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
