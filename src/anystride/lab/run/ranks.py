"""The processes of one run: what one of them finds out, all of them must act upon."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import distributed

from anystride.lab.errors import UsageError
from anystride.lab.run.environment import STARTED_BY, RunEnvironment

DECISION = "ANYSTRIDE_DECISION"
"""The environment variable in which the first process tells those that it starts what it decided."""
WATCH = 1.0
"""Seconds between two looks whether the parent process still lives."""

T = TypeVar("T")


def launched() -> bool:
    """Whether torchrun or SLURM started this process as one of several, all at once."""
    return "TORCHELASTIC_RUN_ID" in os.environ or int(os.environ.get("SLURM_NTASKS", "1")) > 1


def first_decides(environment: RunEnvironment, decide: Callable[[], str]) -> str:
    """What the first process of a run decides, in all of its processes.

    Args:
        environment: of the run.
        decide: is called in the first process; a UsageError of it is raised in all.
    """
    if environment.world == 1:
        return decide()
    if not launched():  # Lightning starts the other processes later, from the first one
        if environment.is_first:
            os.environ[DECISION] = decide()
        return os.environ[DECISION]
    message: list[tuple[str, str]] = [("", "")]
    if environment.is_first:
        try:
            message = [("decided", decide())]
        except UsageError as error:
            message = [("refused", str(error))]
    _join()
    distributed.broadcast_object_list(message, src=0)
    kind, text = message[0]
    if kind == "refused":
        raise UsageError(text)
    return text


def all_prepare(environment: RunEnvironment, prepare: Callable[[], T]) -> T:
    """What `prepare` gives in this process, if it succeeds in all processes of a run.

    Raises:
        UsageError: that of the first process that raised one, in all of them.
    """
    if environment.world == 1 or not launched():
        return prepare()
    made, problem = None, ""
    try:
        made = prepare()
    except UsageError as error:
        problem = str(error)
    _join()
    problems: list[str] = [""] * distributed.get_world_size()
    distributed.all_gather_object(problems, problem)
    found = next((each for each in problems if each), "")
    if found or made is None:
        raise UsageError(found)
    return made


def _join() -> None:
    """Make the group of all processes; Lightning takes it over."""
    if distributed.is_initialized():
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    if "TORCHELASTIC_RUN_ID" in os.environ:
        distributed.init_process_group(backend)
        return
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

    slurm = SLURMEnvironment()
    distributed.init_process_group(
        backend,
        init_method=f"tcp://{slurm.main_address}:{slurm.main_port}",
        rank=slurm.global_rank(),
        world_size=slurm.world_size(),
    )


_watched: set[int] = set()


def end_with_parent(parent: int | None = None) -> None:
    """End this process, at once, when its parent process has ended.

    Args:
        parent: the number of that process, which may have ended already; None for the one that started this process.
    """
    expected = STARTED_BY if parent is None else parent
    if expected in _watched:
        return
    _watched.add(expected)

    def watch() -> None:
        while os.getppid() == expected:
            time.sleep(WATCH)
        os.kill(os.getpid(), signal.SIGKILL)  # an exit would wait for the others

    threading.Thread(target=watch, daemon=True, name="end with parent").start()
