"""One run as a job for any process. No job is done twice, and an interrupted one goes on where it stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from anystride.lab.errors import BusyError, UsageError
from anystride.lab.run.config import RunConfig
from anystride.lab.run.environment import RunEnvironment
from anystride.lab.run.experiment import run
from anystride.lab.run.folder import Mode
from anystride.lab.run.progress import ProgressUpdate, RunProgress
from anystride.lab.run.ranks import launched
from anystride.lab.run.record import Record

BUSY = "another worker has it"


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
    """The record of a job, or why there is none; `busy` where another worker makes it at this time."""

    job: Job
    record: Record | None = None
    problem: str = ""
    busy: bool = False


def run_job(job: Job, send: Callable[[ProgressUpdate], None]) -> Outcome:
    """Make the run of a job, unless it is finished or another worker has it.

    An interrupted run goes on from its checkpoint, and starts over where that is damaged. An error becomes the problem
    of this outcome: one failing run does not end the others.

    Args:
        job: the run.
        send: is called with each update of the progress.
    """
    progress = RunProgress(job.label, send)
    mode: Mode = "overwrite" if job.fresh else "continue"
    try:
        made = run(job.config, job.folder, mode=mode, environment=job.environment, callbacks=(progress,))
    except BusyError:
        return Outcome(job, problem=BUSY, busy=True)
    except UsageError as error:
        return Outcome(job, problem=str(error))
    except Exception as error:
        if launched():
            raise  # the other processes of this run wait for this one: their launcher must end them all
        return Outcome(job, problem=described(error))
    return Outcome(job, made)


def described(error: BaseException) -> str:
    """An error in one line: its kind, and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
