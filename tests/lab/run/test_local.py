"""Runs side by side: the same records as one after the other, and news from every one of them."""

from pathlib import Path

import pytest
import torch
from rich.console import Console

from anystride.lab.errors import UsageError
from anystride.lab.run.job import Job
from anystride.lab.run.local import run_all
from anystride.lab.run.progress import Display

from ..conftest import tiny

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU takes its runs in turn")


@pytest.mark.slow
def test_processes_give_the_records_of_runs_in_turn(tmp_path: Path) -> None:
    def jobs(folder: Path) -> list[Job]:
        return [Job(f"run {seed}", tiny(epochs=1, seed=seed), folder / str(seed)) for seed in (0, 1)]

    def outcome(folder: Path, threads: int) -> tuple[list[tuple[int, float, list[list[float]]]], str]:
        torch.set_num_threads(threads)
        console = Console(record=True, width=160)
        with Display(console) as display:
            records = [outcome.record for outcome in run_all(jobs(folder), display)]
        made = sorted((record.seed, record.loss, record.strides) for record in records if record)
        return made, console.export_text()

    in_turn, _ = outcome(tmp_path / "in turn", threads=1)
    together, shown = outcome(tmp_path / "together", threads=2)
    assert together == in_turn
    assert "run 0  epoch 1/1" in shown
    assert "run 1  epoch 1/1" in shown


@pytest.mark.slow
def test_an_error_of_a_process_is_the_users_to_read(tmp_path: Path) -> None:
    torch.set_num_threads(2)
    bad = [Job(name, tiny(batch_size=1000), tmp_path / name) for name in ("a", "b")]
    with Display(Console(record=True)) as display, pytest.raises(UsageError, match="--batch-size"):
        list(run_all(bad, display))
