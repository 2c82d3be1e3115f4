"""What runs need from the machine, which decides no result."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

PARENT = "ANYSTRIDE_PARENT"
"""The environment variable that tells a command the process with which it is to end."""

STARTED_BY = os.getppid()
"""The process that started this one, as it was early on: a parent that ends later leaves its children to another."""


@dataclass(frozen=True)
class RunEnvironment:
    """Data folder and processes of runs.

    With more than one device or node a run is spread by DistributedDataParallel: each process takes its part of every
    step's batch. Batch normalisation sees all parts together on GPUs, and its own part on CPUs.

    Args:
        root: folder of the data sets; None for the usual one.
        download: whether to fetch a data set that is not there.
        devices: GPUs, or processes on CPUs, per node.
        nodes: machines.
    """

    root: Path | None = None
    download: bool = False
    devices: int = 1
    nodes: int = 1

    @property
    def world(self) -> int:
        """The number of processes."""
        return self.devices * self.nodes

    @property
    def is_first(self) -> bool:
        """Whether this process is the only one of a run or the first of several: the one that writes files."""
        ranks = (os.environ.get(name, "0") for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))
        return self.world == 1 or all(rank == "0" for rank in ranks)
