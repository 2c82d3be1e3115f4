"""A table of `anystride bench`: a measurement, and how its record is shown."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from anystride.lab.bench.record import BenchRecord
from anystride.lab.bench.sheet import Sheet
from anystride.lab.bench.timing import SEED, WARM_UP
from anystride.lab.record import provenance
from anystride.lab.report.text import counted

QUICK_REPEATS = 2


def _silent(_done: int, _total: int, _what: str) -> None:
    pass


@dataclass(frozen=True)
class Setup:
    """How to measure.

    Args:
        device: what is measured.
        repeats: rounds of a comparison.
        quick: whether to measure a few tiny cases, which only show that it works.
        compiled: whether to measure `torch.compile` beside eager mode.
        announce: is called before each case with the number of finished cases, the number of all, and the next one.
    """

    device: torch.device
    repeats: int
    quick: bool = False
    compiled: bool = False
    announce: Callable[[int, int, str], None] = _silent

    @property
    def on_cpu(self) -> bool:
        return self.device.type == "cpu"


@dataclass(frozen=True)
class Bench:
    """A table of `anystride bench`.

    Args:
        name: of the table.
        measure: returns `settings`, `rows` and what follows from them, as JSON values.
        sheets: how a record of the table is shown.
        repeats: the usual number of rounds, by the type of a device.
    """

    name: str
    measure: Callable[[Setup], dict[str, Any]]
    sheets: Callable[[BenchRecord], list[Sheet]]
    repeats: Mapping[str, int]

    def rounds(self, device: torch.device, quick: bool, asked: int | None = None) -> int:
        """The number of rounds: the one that was asked for, or the usual one."""
        return asked or (QUICK_REPEATS if quick else self.repeats[device.type])

    def record(self, setup: Setup) -> BenchRecord:
        """Measure, and record what was measured and where."""
        found = self.measure(setup)
        gpu = torch.cuda.get_device_name(setup.device) if setup.device.type == "cuda" else None
        shared = {"quick": setup.quick, "repeats": setup.repeats, "warm_up": WARM_UP, "seed": SEED, "gpu": gpu}
        return BenchRecord(
            table=self.name,
            device=setup.device.type,
            command=["anystride", *sys.argv[1:]],
            found={**found, "settings": {**found["settings"], **shared}},
            provenance=provenance(),
        )

    def render(self, record: BenchRecord) -> str:
        """A record in Markdown, with a last line that says where it comes from."""
        return "\n\n".join([*(sheet.markdown() for sheet in self.sheets(record)), source(record)])


def source(record: BenchRecord) -> str:
    """Hardware, threads, version and commit of a record, in one line."""
    made, settings = record.provenance, record.settings
    hardware = made["hardware"]
    where = settings["gpu"] or f"{hardware['processor']}, {counted(hardware['threads'], 'thread')}"
    commit = (made["commit"] or "unknown")[:10] + (" and changes" if made["uncommitted_changes"] else "")
    rounds = f"medians, rounds: {settings['repeats']}"
    warning = "; **a quick look, no measurement**" if settings["quick"] else ""
    return f"{where}; torch {made['versions']['torch']}; commit {commit}; {rounds}{warning}"
