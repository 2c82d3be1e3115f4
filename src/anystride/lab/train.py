"""The command that trains one network: a run, its pictures, and a few lines about them."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from anystride.lab.report.gallery import draw_run
from anystride.lab.report.terminal import group, results_table
from anystride.lab.run.config import RunConfig
from anystride.lab.run.environment import RunEnvironment
from anystride.lab.run.experiment import CHECKPOINT, RECORD, run
from anystride.lab.run.progress import Display, RunProgress


def train(config: RunConfig, folder: Path, resume: bool, environment: RunEnvironment, console: Console) -> None:
    """Run ``config`` in ``folder`` and show what came out; of several processes only the first one shows."""
    if not environment.is_first:
        run(config, folder, resume=resume, environment=environment)
        return
    with Display(console) as display:
        record = run(
            config, folder, resume=resume, environment=environment, callbacks=(RunProgress(config.name, display.show),)
        )
    console.print(results_table(group([record])))
    drawn = draw_run(record, folder, environment.root)
    console.print(f"{record.seconds['train']:.0f} s of training. In {folder}:", highlight=False)
    for path in (folder / RECORD, folder / CHECKPOINT, *drawn):
        console.print(f"  {path.name}", highlight=False)
    console.print(f"Curves: tensorboard --logdir {folder}", highlight=False, soft_wrap=True)
