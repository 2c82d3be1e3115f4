"""What this process may use of the machine: processors and memory. Imports nothing slow."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

UNKNOWN_MEMORY = 8 << 30
"""Bytes that a machine is taken to have that does not say."""
CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")


def processors() -> int:
    """Those that this process may use: a container or a scheduler often allows fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine_memory() -> int:
    """Bytes of memory that this machine has, or that its container may use."""
    total = UNKNOWN_MEMORY
    if hasattr(os, "sysconf"):
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # no container, or one without a limit
        total = min(total, int(CONTAINER_LIMIT.read_text()))
    return total
