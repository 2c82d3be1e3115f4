"""One run as a job for any process. No job is done twice, and an interrupted one goes on where it stopped."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from anystride.lab.errors import UsageError
from anystride.lab.run.config import RunConfig
from anystride.lab.run.environment import RunEnvironment
from anystride.lab.run.experiment import CHECKPOINT, finished, run, saved_configuration
from anystride.lab.run.lock import claim
from anystride.lab.run.progress import ProgressUpdate, RunProgress
from anystride.lab.run.record import Record


@dataclass(frozen=True)
class Job:
    """One run to make, see `experiment.run`. With `fresh` it is made even if it is finished."""

    label: str
    config: RunConfig
    folder: Path
    environment: RunEnvironment = field(default_factory=RunEnvironment)
    fresh: bool = False


@dataclass(frozen=True)
class Outcome:
    """The record of a job, or why there is none."""

    job: Job
    record: Record | None = None
    problem: str = ""


def run_job(job: Job, send: Callable[[ProgressUpdate], None]) -> Outcome:
    """Make the run of a job, unless it is finished or another worker has it.

    An interrupted run goes on from its checkpoint. An error other than UsageError becomes the problem of this outcome:
    one failing run does not end the others.

    Args:
        job: the run.
        send: is called with each update of the progress.

    Raises:
        UsageError: the user must change something first.
    """
    # The processes of one run are one worker, for which the first one speaks.
    with claim(job.folder) if job.environment.is_first else nullcontext(True) as ours:
        if not ours:
            return Outcome(job, problem="another worker has it")
        if job.fresh:
            (job.folder / CHECKPOINT).unlink(missing_ok=True)
        elif record := finished(job.config, job.folder):
            return Outcome(job, record)
        resume = saved_configuration(job.folder / CHECKPOINT) == job.config
        progress = RunProgress(job.label, send)
        try:
            made = run(job.config, job.folder, resume=resume, environment=job.environment, callbacks=(progress,))
        except UsageError:
            raise
        except Exception as error:
            return Outcome(job, problem=f"{type(error).__name__}: {str(error).strip().splitlines()[0]}")
        return Outcome(job, made)
