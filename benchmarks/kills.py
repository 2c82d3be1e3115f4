"""Kill runs at random moments, go on with the same command, and compare with undisturbed runs, bit for bit.

    python benchmarks/kills.py --record results/kills.json

A kill is signal 9 to the process that was started: those that it started must notice. After each kill the
same command goes on (`train` with --resume) until it ends. Then strides, losses and weights must be those of a run that
nobody disturbed, no file may be left over, and no process.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from anystride.lab.files import LEFTOVER
from anystride.lab.record import provenance, write

CLI = [sys.executable, "-m", "anystride.lab.cli"]
SMALL = ["--width", "2", "--batch-size", "16"]
TRAIN = [*SMALL, "--scenes", "256", "--epochs", "6", "--threads", "1"]
GRID = ["paper", "table3", "--data", "scenes", "--seeds", "1", "--only", "3x1x3", *SMALL, "--train-size", "256"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "anystride.lab.cli"]

SETTINGS = {
    "train": (30, [*CLI, "train", *TRAIN]),
    "grid": (15, [*CLI, *GRID]),
    "ray": (5, [*CLI, *GRID, "--executor", "ray"]),
    "torchrun": (5, [*TORCHRUN, "train", *TRAIN, "--devices", "2"]),
}
"""By name: how many kills, and the command."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("settings", nargs="*", default=list(SETTINGS), choices=[*SETTINGS, []])
    parser.add_argument("--kills", type=int, help="of each setting (default 30, 15, 5 and 5)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", type=Path)
    options = parser.parse_args()
    found = {}
    for name in options.settings:
        kills, command = SETTINGS[name]
        found[name] = survive(name, command, options.kills or kills, random.Random(options.seed))
        print(name, json.dumps(found[name]), flush=True)
        if options.record:
            write({"schema": 1, "command": sys.argv, **provenance(), "settings": found}, options.record)
    sys.exit(any(each["failures"] for each in found.values()))


def survive(name: str, command: list[str], kills: int, moments: random.Random) -> dict[str, object]:
    """Disturb runs of a command until it was killed `kills` times; each run is compared when it ends."""
    failures: list[str] = []
    done = runs = 0
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder, "whole")
        started = time.monotonic()
        launch([*command, "--out", str(whole)], Path(folder, "whole.log")).wait()
        seconds = time.monotonic() - started
        expected = digits(whole)
        while done < kills:
            broken = Path(folder, f"broken{runs}")
            for _ in range(4):
                if done == kills:
                    break
                done += disturb(name, command, broken, seconds, moments, failures)
            runs += 1
            end = launch(again(name, command, broken), broken.with_suffix(".log"))
            if end.wait():
                failures.append(f"run {runs} ended with exit code {end.returncode}: {tail(broken)}")
            elif digits(broken) != expected:
                failures.append(f"run {runs} has other digits")
            failures += [f"run {runs} left {path.relative_to(broken)}" for path in leftovers(broken)]
            shutil.rmtree(broken, ignore_errors=True)
    return {"kills": done, "runs": runs, "seconds undisturbed": round(seconds, 1), "failures": failures}


def disturb(
    name: str, command: list[str], folder: Path, seconds: float, moments: random.Random, failures: list[str]
) -> int:
    """Start, and kill at a random moment; 1 if it still ran then. All its processes must end."""
    process = launch(again(name, command, folder), folder.with_suffix(".log"))
    # Half of the time is start-up: the moments are those of the whole command.
    end = time.monotonic() + moments.uniform(0.2, 1.0) * seconds
    while time.monotonic() < end and process.poll() is None:
        time.sleep(0.02)
    if process.poll() is not None:
        if process.returncode:
            failures.append(f"exit code {process.returncode} without a kill: {tail(folder)}")
        return 0
    family = list(descendants(process.pid))
    os.kill(process.pid, signal.SIGKILL)  # the parent alone: the others must notice
    process.wait()
    limit = time.monotonic() + 30
    while left := [each for each in family if lives(each)]:
        if time.monotonic() > limit:
            failures.append(f"processes {left} live 30 s after their parent was killed")
            for each in left:
                os.kill(each, signal.SIGKILL)
            break
        time.sleep(0.1)
    return 1


def again(name: str, command: list[str], folder: Path) -> list[str]:
    """The command that begins or goes on: `train` needs --resume once there is a run, a grid goes on by itself."""
    resume = ["--resume"] if name in ("train", "torchrun") and (folder / "configuration.json").exists() else []
    return [*command, "--out", str(folder), *resume]


def launch(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    with log.open("ab") as file:
        return subprocess.Popen(command, stdout=file, stderr=file, env=environment)


def digits(folder: Path) -> dict[str, object]:
    """What must not differ: the numbers of each record, and the weights of each checkpoint."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("record.json")):
        record = json.loads(path.read_text())
        epochs = [{name: value for name, value in epoch.items() if name != "seconds"} for epoch in record["epochs"]]
        found[str(path.relative_to(folder))] = [record["accuracy"], record["loss"], record["strides"], epochs]
    for path in sorted(folder.rglob("*.ckpt")):
        state = torch.load(path, weights_only=True)["state_dict"]
        found[str(path.relative_to(folder))] = {name: value.tolist() for name, value in state.items()}
    return found


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if LEFTOVER.fullmatch(path.name) or path.name.endswith(".part")]


def descendants(process: int) -> Iterator[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process)], capture_output=True, text=True, check=False)
    for child in map(int, listed.stdout.split()):
        if lives(child):
            yield child
            yield from descendants(child)


def lives(process: int) -> bool:
    state = Path(f"/proc/{process}/stat")
    try:
        return state.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def tail(folder: Path) -> str:
    return " | ".join(folder.with_suffix(".log").read_text(errors="replace").splitlines()[-3:])


if __name__ == "__main__":
    main()
