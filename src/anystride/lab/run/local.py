"""Several runs at once on this machine. Small networks use many threads badly: each run gets a core of its own."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing.queues import Queue

import torch

from anystride.lab.record import write
from anystride.lab.run.experiment import CHECKPOINT, finished, saved_configuration
from anystride.lab.run.job import Job, Outcome, run_job
from anystride.lab.run.progress import Display, ProgressUpdate


def run_all(jobs: Sequence[Job], display: Display) -> Iterator[Outcome]:
    """The outcomes of all jobs as they come. On a CPU the jobs share PyTorch's threads; on a GPU they run in turn."""
    threads = torch.get_num_threads()
    count = 1 if torch.cuda.is_available() else min(threads, len(jobs))
    if count < 2:
        yield from run_in_turn(jobs, display)
        return

    context = multiprocessing.get_context("spawn")
    updates: Queue[ProgressUpdate | None] = context.Queue()
    listener = threading.Thread(target=_listen, args=(updates, display), daemon=True)
    listener.start()
    executor = ProcessPoolExecutor(count, context, initializer=_prepare, initargs=(updates, threads // count))
    try:
        for done in as_completed([executor.submit(_run_in_process, job) for job in jobs]):
            yield done.result()
    finally:
        executor.shutdown(cancel_futures=True)
        updates.put(None)
        listener.join()


def run_in_turn(jobs: Sequence[Job], display: Display) -> Iterator[Outcome]:
    """The outcomes of jobs made one after the other in this process."""
    yield from (run_job(job, display.show) for job in jobs)


def run_each_alone(jobs: Sequence[Job], display: Display) -> Iterator[Outcome]:
    """The outcomes of jobs made one after the other, each by a command that starts the processes it needs itself."""
    for job in jobs:
        configuration = job.folder / "configuration.json"
        write(job.config.to_json(), configuration)
        command = [sys.executable, "-m", "anystride.lab.cli", "train", "--config", str(configuration)]
        command += ["--out", str(job.folder), "--devices", str(job.environment.devices)]
        command += ["--root", str(job.environment.root)] if job.environment.root else []
        command += ["--download"] if job.environment.download else []
        command += ["--resume"] if saved_configuration(job.folder / CHECKPOINT) == job.config else []
        done = subprocess.run(command, check=False)
        record = finished(job.config, job.folder)
        yield Outcome(job, record, "" if record else f"its processes ended with exit code {done.returncode}")


def _listen(updates: Queue[ProgressUpdate | None], display: Display) -> None:
    while (update := updates.get()) is not None:
        display.show(update)


_outbox: Queue[ProgressUpdate | None] | None = None
"""A worker's way to its parent; a queue cannot travel with a job, only with the process."""


def _prepare(updates: Queue[ProgressUpdate | None], threads: int) -> None:
    global _outbox
    _outbox = updates
    torch.set_num_threads(threads)


def _run_in_process(job: Job) -> Outcome:
    assert _outbox is not None
    return run_job(job, _outbox.put)
