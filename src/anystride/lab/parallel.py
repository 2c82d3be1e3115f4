"""Several runs at once. A small network is too little work for many threads: a core each serves several runs better."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing.queues import Queue
from pathlib import Path

import torch

from anystride.lab.config import RunConfig
from anystride.lab.experiment import run
from anystride.lab.progress import Display, News, RunProgress
from anystride.lab.record import Record


@dataclass(frozen=True)
class Job:
    """One run that is to be made: see `experiment.run`."""

    label: str
    config: RunConfig
    folder: Path
    resume: bool


def run_all(jobs: Sequence[Job], display: Display) -> list[Record]:
    """The records of all jobs, in order. On a CPU the jobs share PyTorch's threads; on a GPU they run in turn."""
    threads = torch.get_num_threads()
    count = 1 if torch.cuda.is_available() else min(threads, len(jobs))
    if count < 2:
        return [_run(job, display.show) for job in jobs]

    context = multiprocessing.get_context("spawn")
    news: Queue[News | None] = context.Queue()
    listener = threading.Thread(target=_listen, args=(news, display), daemon=True)
    listener.start()
    executor = ProcessPoolExecutor(count, context, initializer=_prepare, initargs=(news, threads // count))
    try:
        return list(executor.map(_work, jobs))
    finally:
        executor.shutdown(cancel_futures=True)
        news.put(None)
        listener.join()


def _run(job: Job, send: Callable[[News], None]) -> Record:
    return run(job.config, job.folder, resume=job.resume, callbacks=(RunProgress(job.label, send),))


def _listen(news: Queue[News | None], display: Display) -> None:
    while (item := news.get()) is not None:
        display.show(item)


_outbox: Queue[News | None] | None = None
"""A worker's way to its parent; a queue cannot travel with a job, only with the process."""


def _prepare(news: Queue[News | None], threads: int) -> None:
    global _outbox
    _outbox = news
    torch.set_num_threads(threads)


def _work(job: Job) -> Record:
    assert _outbox is not None
    return _run(job, _outbox.put)
