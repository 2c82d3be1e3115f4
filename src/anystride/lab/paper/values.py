"""What a cell takes from the records of its runs.

accuracy            test accuracy in %, over all tasks
accuracy:TASK       test accuracy in % of one task
accuracies          test accuracies in %, one per task
validation          validation accuracy in %, of the best epoch
top5                top-5 test accuracy in %
stride:LAYER:AXIS   the stride at the end; layers and axes count from 0, the axes being (vertical, horizontal) or
                    (time, frequency)
cutoff:LAYER:AXIS   the same as a cut-off frequency, Hz in time and cycles per mel band (see `cutoff`)
striding            the global striding factor: the product of all strides, over layers and axes (Figure 3c)
complexity          J of Eq. 6 at the end
macs                multiply-accumulates per example at the end
mmacs               the same in millions
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from anystride.lab.errors import UsageError
from anystride.lab.paper.cutoff import cutoff
from anystride.lab.paper.recipe import Cell, is_own
from anystride.lab.run.config import RunConfig
from anystride.lab.run.record import Record


@dataclass(frozen=True)
class Measured:
    """A cell's value: `numbers` has one entry per run, or per run and task, of those that have a record."""

    numbers: tuple[float, ...]
    expected: int

    @property
    def complete(self) -> bool:
        """Whether all runs of the cell have ended."""
        return len(self.numbers) == self.expected

    @property
    def mean(self) -> float | None:
        """None without a number."""
        return statistics.fmean(self.numbers) if self.numbers else None

    @property
    def sd(self) -> float | None:
        """The sample's standard deviation; None for fewer than two numbers."""
        return statistics.stdev(self.numbers) if len(self.numbers) > 1 else None


def measured(cell: Cell, record_of: Callable[[RunConfig], Record | None]) -> Measured:
    """The cell's value from the records there are; `record_of` gives None for a run without one."""
    found = [(run, record_of(run)) for run in cell.runs]
    numbers = [number for _, record in found if record is not None for number in numbers_of(cell.value, record)]
    per_run = (
        max([len([run.data] if is_own(run.data) else run.data.split("+")) for run in cell.runs], default=1)
        if cell.value == "accuracies"
        else 1
    )
    return Measured(tuple(numbers), per_run * max(len(cell.runs), len(cell.follows)))


def difference(cell: Cell, value: Measured) -> float | None:
    """Our mean minus the published one, in the cell's unit; None where either is missing."""
    return None if cell.published is None or value.mean is None else value.mean - cell.published.mean


def numbers_of(value: str, record: Record) -> tuple[float, ...]:
    """What `value` names in a record: one number, or one per task for "accuracies".

    Raises:
        UsageError: the record does not have it, or `value` is none of those listed above.
    """
    kind, _, rest = value.partition(":")
    strides = record.strides
    if kind == "accuracy":
        return (100 * (_task(record, rest) if rest else record.accuracy),)
    if kind == "accuracies":
        return tuple(100 * share for share in (record.accuracies or {"": record.accuracy}).values())
    if kind == "validation":
        if record.validation_accuracy is None:
            raise UsageError("value validation is not in a record without validation examples; run it again")
        return (100 * record.validation_accuracy,)
    if kind == "top5":
        if record.top5 is None:
            raise UsageError(f"value top5 is not in the record of {record.config.data!r}; run it again")
        return (100 * record.top5,)
    if kind in ("stride", "cutoff"):
        layer, axis = map(int, rest.split(":"))
        stride = strides[layer][axis]
        return (stride if kind == "stride" else cutoff(stride, axis),)
    if kind == "striding":
        return (math.prod(stride for pair in strides for stride in pair),)
    if kind == "complexity":
        return (complexity_of(strides),)
    if kind == "macs":
        return (float(record.multiply_accumulates),)
    if kind == "mmacs":
        return (record.multiply_accumulates / 1e6,)
    raise UsageError(f"value must be one of those that lab.paper.values lists, got {value!r}")


def _task(record: Record, task: str) -> float:
    accuracies = record.accuracies or {}
    if task not in accuracies:
        known = ", ".join(accuracies) or "none"
        raise UsageError(f"value accuracy:{task} is not in a record with the tasks {known}; run it again")
    return float(accuracies[task])


def complexity_of(strides: Iterable[Sequence[float]]) -> float:
    """J of Eq. 6 for strides per layer, in their order.

    Example:
        >>> complexity_of([(2, 2), (2, 2)])
        0.3125
    """
    total, share = 0.0, 1.0
    for pair in strides:
        share /= math.prod(pair)
        total += share
    return total
