"""The demonstration: four downsamplers from good and from poor strides, the paper's Table 3 in minutes."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rich.console import Console

from anystride.lab.paper.recipe import METHODS
from anystride.lab.report.gallery import draw_demo
from anystride.lab.report.terminal import group, results_table, summary
from anystride.lab.run.config import RunConfig, Strides
from anystride.lab.run.folder import readable
from anystride.lab.run.job import Job
from anystride.lab.run.local import run_all
from anystride.lab.run.progress import Display
from anystride.lab.run.record import Record

STARTS: tuple[Strides, ...] = (((2.0, 2.0), (2.0, 2.0), (2.0, 2.0)), ((3.0, 3.0), (2.0, 2.0), (3.0, 3.0)))
"""The paper's baseline and, of its six starts, the one from which strided convolutions fall furthest (Table 3)."""

NOT_A_RESULT = (
    "With --quick the networks are too small and train too briefly to learn, and which method comes first here is "
    "noise: the same command without --quick compares them, in about ten minutes on a CPU."
)
ONE_SEED = "One seed: differences of a few points may be chance; --seeds 3 shows the spread."
SEVERAL = "{} seeds: differences that are not much larger than the deviations (±) may be chance."
AGAIN = "The same command tries them again; the others are kept."


@dataclass(frozen=True)
class Demo:
    """A comparison of all methods from all `STARTS`.

    Args:
        base: the configuration that all runs share.
        seeds: number of seeds, from that of `base` on.
        folder: where the runs lie.
        fresh: whether finished runs are made again.
        quick: whether this only shows that everything runs.
    """

    base: RunConfig
    seeds: int
    folder: Path
    fresh: bool
    quick: bool = False

    def configurations(self) -> list[RunConfig]:
        """All runs, ordered such that each seed completes the comparison before the next one starts."""
        return [
            replace(self.base, method=method, strides=strides, seed=self.base.seed + seed)
            for seed in range(self.seeds)
            for strides in STARTS
            for method in METHODS
        ]


def demonstrate(demo: Demo, console: Console) -> int:
    """Run what is not finished yet, then print the table, and save the pictures.

    Returns:
        0, or 1 if some runs could not be made: there is no table then.
    """
    started = time.perf_counter()
    if demo.quick:
        console.print(NOT_A_RESULT, highlight=False)
    configurations = demo.configurations()
    records: dict[RunConfig, Record] = {}
    jobs = []
    with Display(console) as display:
        for number, config in enumerate(configurations, start=1):
            folder = demo.folder / config.name
            label = f"[{number}/{len(configurations)}] {config.name}"
            record = None if demo.fresh else readable(config, folder)
            if record is not None:
                display.print_line(f"{label}  finished before, {100 * record.accuracy:.1f} %; --fresh repeats it")
                records[config] = record
            else:
                jobs.append(Job(label, config, folder, fresh=demo.fresh))
        # Runs of the outer ramp have the largest maps. They start first, or one core would wait for another at the end.
        jobs.sort(key=lambda job: (job.config.seed, job.config.method != "outer"))
        problems = []
        for outcome in run_all(jobs, display):
            if outcome.record is None:
                problems.append(outcome)
                display.print_line(f"{outcome.job.label}  NOT MADE: {outcome.problem}")
            else:
                records[outcome.job.config] = outcome.record
    if problems:
        console.print(f"{len(problems)} of {len(configurations)} runs were not made, see above. {AGAIN}")
        return 1

    groups = group([records[config] for config in configurations])
    console.print()
    console.print(results_table(groups))
    console.print(NOT_A_RESULT if demo.quick else summary(groups), highlight=False)
    if not demo.quick:
        console.print(ONE_SEED if demo.seeds == 1 else SEVERAL.format(demo.seeds), highlight=False)
    pictures = draw_demo(groups, demo.folder, partial(console.print, highlight=False, markup=False))
    console.print(f"{len(jobs)} runs in {time.perf_counter() - started:.0f} s. Pictures:", highlight=False)
    for picture in pictures:
        console.print(f"  {picture}", highlight=False, soft_wrap=True)
    return 0
