"""Processes that a test has started: which there are, and whether they live."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path


def wait_for(path: Path, seconds: float = 300) -> None:
    """Wait for a file, long enough for a machine that has other work."""
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, path
        time.sleep(0.1)


def children(process: int) -> set[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process)], capture_output=True, text=True, check=False)
    mine = {int(line) for line in found.stdout.split()}
    return mine.union(*(children(child) for child in mine)) if mine else mine


def alive(process: int) -> bool:
    state = Path(f"/proc/{process}/stat")
    return state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z"
