"""What all records have in common: where a number was made, and a file that is never half written."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import anystride
from anystride.lab.files import replacing


def write(values: dict[str, Any], path: Path) -> None:
    """Write a JSON file. At any time `path` holds either the old file or the complete new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(values, indent=1, allow_nan=False) + "\n"
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def run_example(main: Callable[[bool], dict[str, Any]], file: str, description: str | None) -> None:
    """The command line of a file of `examples/`: `--quick`, and `--out` for a record of the figures that it returns."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="less data, fewer epochs and seeds")
    parser.add_argument("--out", type=Path, help="keep the figures as a record")
    options = parser.parse_args()
    figures = main(options.quick)
    if options.out:
        command = f"python examples/{Path(file).name} --out {options.out.name}" + " --quick" * options.quick
        write({"command": command, **provenance(), **figures}, options.out)


def finite_or_none(value: Any) -> Any:
    """The same nested value with None for numbers that JSON cannot hold: a diverged run leaves a record, too."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [finite_or_none(item) for item in value]
    if isinstance(value, dict):
        return {name: finite_or_none(item) for name, item in value.items()}
    return value


def provenance() -> dict[str, Any]:
    """Commit, versions and hardware: the fields that describe where a number is made."""
    return {**_commit(), "versions": _versions(), "hardware": _hardware()}


def _commit() -> dict[str, Any]:
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
