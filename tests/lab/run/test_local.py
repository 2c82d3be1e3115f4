"""Runs side by side: the same records as one after the other, whoever is killed, and no process stays."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from rich.console import Console

from anystride.lab.run import local
from anystride.lab.run.config import RunConfig
from anystride.lab.run.folder import CHECKPOINT, RECORD
from anystride.lab.run.job import Job, Outcome
from anystride.lab.run.local import run_all, run_each_alone
from anystride.lab.run.lock import LOCK, claim
from anystride.lab.run.progress import Display, ProgressUpdate
from anystride.lab.run.record import load

from ..conftest import tiny
from .processes import alive, children, wait_for

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU takes its runs in turn")

LONG = tiny(epochs=500)
PARENT = """
import json, sys
from pathlib import Path
from rich.console import Console
from anystride.lab.run import local
from anystride.lab.run.config import RunConfig
from anystride.lab.run.job import Job
from anystride.lab.run.progress import Display

if __name__ == "__main__":
    local.processors = lambda: 2
    config = RunConfig.from_json(json.loads(sys.argv[1]))
    jobs = [Job(str(n), config, Path(sys.argv[2], str(n))) for n in range(2)]
    with Display(Console()) as display:
        list(local.run_all(jobs, display))
"""


def outcomes(jobs: list[Job], processors: int, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Outcome], str]:
    monkeypatch.setattr(local, "processors", lambda: processors)
    console = Console(record=True, width=160)
    with Display(console) as display:
        made = list(run_all(jobs, display))
    return sorted(made, key=lambda outcome: outcome.job.label), console.export_text()


def locks(process: int, folder: Path) -> bool:
    """Whether a process has the lock of a run open."""
    with suppress(OSError):
        return any(path.resolve() == folder / LOCK for path in Path(f"/proc/{process}/fd").iterdir())
    return False


@pytest.mark.slow
def test_a_result_does_not_depend_on_how_many_runs_go_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def made(folder: str, count: int, processors: int) -> tuple[list[tuple[int, object, object]], str]:
        jobs = [Job(f"run {seed}", tiny(epochs=1, seed=seed), tmp_path / folder / str(seed)) for seed in range(count)]
        found, shown = outcomes(jobs, processors, monkeypatch)
        assert all(outcome.record for outcome in found), found
        return [(each.record.seed, each.record.loss, each.record.strides) for each in found if each.record], shown

    in_turn, _ = made("in turn", 3, 1)
    together, shown = made("together", 3, 2)
    alone, _ = made("alone", 1, 2)  # as the last run of a grid, with all processors to itself
    assert together == in_turn
    assert alone == in_turn[:1]
    assert "run 0  1/1" in shown
    assert "run 1  1/1" in shown


@pytest.mark.slow
def test_a_failing_run_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [Job("bad", tiny(batch_size=1000), tmp_path / "bad"), Job("good", tiny(epochs=1), tmp_path / "good")]
    bad, good = outcomes(jobs, 2, monkeypatch)[0]
    assert "--batch-size must be at most" in bad.problem
    assert good.record is not None


@pytest.mark.slow
def test_a_killed_process_costs_its_own_run_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class KillsOne(Display):
        def show(self, update: ProgressUpdate) -> None:
            if update.run == "a" and (tmp_path / "a" / CHECKPOINT).exists():
                for child in children(os.getpid()):
                    if locks(child, tmp_path / "a"):
                        os.kill(child, signal.SIGKILL)

    monkeypatch.setattr(local, "processors", lambda: 2)
    configs = {"a": LONG, "b": tiny(epochs=2), "c": tiny(epochs=1)}
    jobs = [Job(label, config, tmp_path / label) for label, config in configs.items()]
    with KillsOne(Console(record=True)) as display:
        made = {outcome.job.label: outcome for outcome in run_all(jobs, display)}
    assert made["a"].problem == "its process was killed; was there too little memory?"
    assert made["b"].record is not None
    assert made["c"].record is not None


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["while they start", "while they train"])
def test_workers_end_with_their_parent(moment: str, tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    command = [sys.executable, str(script), json.dumps(LONG.to_json()), str(tmp_path)]
    parent = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        if moment == "while they train":
            for name in "01":
                wait_for(tmp_path / name / CHECKPOINT)
        end = time.monotonic() + 300
        while len(workers := children(parent.pid)) < 3:  # two workers, and Python's own tracker of resources
            assert time.monotonic() < end
            time.sleep(0.02)
        time.sleep(0.5)  # the workers have what they need to start, and have not imported everything
    finally:
        parent.kill()
        parent.wait()
    end = time.monotonic() + 120
    while left := [worker for worker in workers if alive(worker)]:
        assert time.monotonic() < end, left
        time.sleep(0.2)


@pytest.mark.slow
def test_a_run_by_a_command_of_its_own_is_claimed_and_resumed(tmp_path: Path) -> None:
    job = Job("a", RunConfig.from_json(tiny(method="strided", epochs=1).to_json()), tmp_path / "a")
    with Display(Console(record=True)) as display:
        with claim(job.folder):
            (busy,) = run_each_alone([job], display)
        (made,) = run_each_alone([job], display)
        (again,) = run_each_alone([job], display)
    assert busy.busy
    assert busy.record is None
    assert made.record == again.record == load(job.folder / RECORD)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
