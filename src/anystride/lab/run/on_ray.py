"""Runs spread over a Ray cluster, or over the GPUs of one machine. All workers must see the same results folder."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import ray
import torch
from ray.exceptions import RayError
from ray.util.queue import Queue

from anystride.lab.run.job import Job, Outcome, described, run_job
from anystride.lab.run.progress import Display, ProgressUpdate


def run_all_on_ray(jobs: Sequence[Job], display: Display, gpus: float | None = None) -> Iterator[Outcome]:
    """The outcomes of all jobs as they come, each made by a Ray task with a CPU per thread and `gpus` GPUs.

    Joins the cluster that RAY_ADDRESS names, or starts one on this machine. `gpus` may be a fraction: 0.25 puts four
    runs on one GPU; None means 1 where this machine has one, otherwise 0.
    """
    ours = not ray.is_initialized()
    if ours:
        ray.init(log_to_driver=False, include_dashboard=False)
    updates = Queue(actor_options={"num_cpus": 0})
    listener = threading.Thread(target=_listen, args=(updates, display), daemon=True)
    listener.start()
    need = (1.0 if torch.cuda.is_available() else 0.0) if gpus is None else gpus
    threads = max((job.config.threads for job in jobs), default=1)
    task = ray.remote(num_cpus=threads, num_gpus=need, max_retries=0)(_run_in_worker)
    waiting = {task.remote(job, updates): job for job in jobs}
    try:
        while waiting:
            (first,), _ = ray.wait(list(waiting), num_returns=1)
            job = waiting.pop(first)
            try:
                outcome: Outcome = ray.get(first)
            except RayError as error:  # the worker was killed, or its machine left the cluster
                outcome = Outcome(job, problem=described(error))
            yield outcome
    finally:
        for each in waiting:
            ray.cancel(each, force=True)
        updates.put(None)
        listener.join(timeout=5)
        updates.shutdown()
        if ours:
            ray.shutdown()


def _listen(updates: Queue, display: Display) -> None:
    update: ProgressUpdate | None
    while (update := updates.get()) is not None:
        display.show(update)


def _run_in_worker(job: Job, updates: Queue) -> Outcome:
    return run_job(job, updates.put_nowait)
