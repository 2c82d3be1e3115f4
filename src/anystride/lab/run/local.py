"""Several runs at once on this machine. Small networks use many threads badly: each run gets a core of its own."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing.connection import Connection

import torch

from anystride.lab.errors import BusyError
from anystride.lab.machine import processors
from anystride.lab.record import write
from anystride.lab.run.environment import PARENT
from anystride.lab.run.folder import CONFIGURATION, decide, finished, inspect
from anystride.lab.run.job import BUSY, Job, Outcome, described, run_job
from anystride.lab.run.progress import Display, ProgressUpdate
from anystride.lab.run.ranks import end_with_parent


def run_all(jobs: Sequence[Job], display: Display) -> Iterator[Outcome]:
    """The outcomes of all jobs as they come.

    On a CPU as many runs go at once as there are processors for their threads; on a GPU they run in turn. A process
    that is killed costs its own run only.
    """
    threads = max((job.config.threads for job in jobs), default=1)
    count = 1 if torch.cuda.is_available() else min(processors() // threads, len(jobs))
    if count < 2:
        yield from run_in_turn(jobs, display)
        return
    # A pool of one process for each place: when a process dies, its pool is broken and the others are not.
    free = [_Place(display) for _ in range(count)]
    busy: dict[Future[Outcome], tuple[_Place, Job]] = {}
    waiting = list(reversed(jobs))
    try:
        while waiting or busy:
            while waiting and free:
                place, job = free.pop(), waiting.pop()
                busy[place.submit(job)] = place, job
            done, _ = wait(busy, return_when=FIRST_COMPLETED)
            for future in done:
                place, job = busy.pop(future)
                free.append(place)
                yield place.outcome(job, future)
    finally:
        for place in [*free, *(place for place, _ in busy.values())]:
            place.close()
        for process in multiprocessing.active_children() if busy else []:
            process.terminate()  # an interruption; what they did up to their latest epoch is kept


class _Place:
    """A process that makes one run at a time, and its way to the display; another one follows it when it dies."""

    def __init__(self, display: Display) -> None:
        self.display = display
        self._open()

    def _open(self) -> None:
        context = multiprocessing.get_context("spawn")
        # Not a queue that all share: a process that is killed while it writes would lock the others out.
        reader, self.writer = context.Pipe(duplex=False)
        self.pool = ProcessPoolExecutor(1, context, initializer=_prepare, initargs=(self.writer, os.getpid()))
        threading.Thread(target=_listen, args=(reader, self.display), daemon=True).start()

    def submit(self, job: Job) -> Future[Outcome]:
        future = self.pool.submit(_run_in_process, job)
        self.writer.close()  # the process has it now; the reader sees the end when the process ends
        return future

    def outcome(self, job: Job, future: Future[Outcome]) -> Outcome:
        try:
            return future.result()
        except BrokenProcessPool:
            self._open()
            return Outcome(job, problem="its process was killed; was there too little memory?")
        except Exception as error:  # such as one that cannot be sent between processes
            return Outcome(job, problem=described(error))

    def close(self) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)
        self.writer.close()


def run_in_turn(jobs: Sequence[Job], display: Display) -> Iterator[Outcome]:
    """The outcomes of jobs made one after the other in this process."""
    yield from (run_job(job, display.show) for job in jobs)


def run_each_alone(jobs: Sequence[Job], display: Display) -> Iterator[Outcome]:
    """The outcomes of jobs made one after the other, each by a command that starts the processes it needs itself."""
    for job in jobs:
        try:
            yield _run_alone(job)
        except (OSError, ValueError) as error:
            yield Outcome(job, problem=described(error))


def _run_alone(job: Job) -> Outcome:
    if record := finished(job.config, job.folder):
        return Outcome(job, record)
    # The command reads the configuration from a file; the run's folder stays as it is until the run has its lock.
    request = job.folder.parent / f".{job.folder.name}.{CONFIGURATION}"
    write(job.config.to_json(), request)
    command = [sys.executable, "-m", "anystride.lab.cli", "train", "--config", str(request)]
    command += ["--out", str(job.folder), "--devices", str(job.environment.devices)]
    command += ["--root", str(job.environment.root)] if job.environment.root else []
    command += ["--download"] if job.environment.download else []
    known = inspect(job.folder).config == job.config
    if decide(job.config, job.folder, "continue") == "resume":
        command += ["--resume"]
    elif known:
        command += ["--overwrite"]  # its checkpoint is damaged, or it has none yet
    try:
        done = subprocess.run(command, check=False, env={**os.environ, PARENT: str(os.getpid())})
    finally:
        request.unlink(missing_ok=True)
    record = finished(job.config, job.folder)
    if record is None and done.returncode == BusyError.exit_code:
        return Outcome(job, problem=BUSY, busy=True)
    return Outcome(job, record, "" if record else f"its processes ended with exit code {done.returncode}")


def _listen(reader: Connection, display: Display) -> None:
    with suppress(EOFError, OSError):
        while True:
            display.show(reader.recv())


_outbox: Connection | None = None
"""A worker's way to its parent; a connection cannot travel with a job, only with the process."""


def _prepare(writer: Connection, parent: int) -> None:
    global _outbox
    _outbox = writer
    end_with_parent(parent)  # by its number: it may have been killed while this process was starting


def _run_in_process(job: Job) -> Outcome:
    return run_job(job, _send)


def _send(update: ProgressUpdate) -> None:
    assert _outbox is not None
    with suppress(OSError):  # nobody looks any more; the run is worth more than its bar
        _outbox.send(update)
