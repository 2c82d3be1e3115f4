"""Sizes that travel with a call: what one place of a converted network needs to know from another.

A module around both opens a record when it is called and closes it when it returns. A thread has records of its own,
and nothing is left for the next call.
"""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from anystride.geometry import Size

INPUT = "input"
"""The leader of places that follow the size of the model's input; INPUT + ":" + path names one input of several."""

# Per name of a place that is followed: the size that it gave in this call, or None before it ran. Under INPUT: the
# sizes of the inputs by their path.
CallRecord = dict[str, Any]


class _Calls(threading.local):
    """The calls that are under way in this thread, the innermost last."""

    records: tuple[CallRecord, ...] = ()


_calls = _Calls()


def open_record(names: Sequence[str], inputs: Mapping[str, Size]) -> tuple[CallRecord, ...]:
    """Open the record of a call of a module that some places and their leaders are in.

    Args:
        names: of the leaders.
        inputs: spatial sizes of the module's inputs, by their path.

    Returns:
        What `close_record` takes.
    """
    before = _calls.records
    record: CallRecord = dict.fromkeys(names)
    record[INPUT] = inputs
    _calls.records = (*before, record)
    return before


def close_record(before: tuple[CallRecord, ...]) -> None:
    """Close the record that was opened last."""
    _calls.records = before


def note_size(name: str, size: Size) -> None:
    """Note what a place gave, in the innermost record that asks for it."""
    for record in reversed(_calls.records):
        if name in record:
            record[name] = size
            break


def size_of(leader: str, follower: str, axes: int, scope: str) -> Size:
    """The size that a place takes from another one, or from an input, in the call that is under way.

    Args:
        leader: name of the other place, or `INPUT`.
        follower: name of the place that asks, for messages.
        axes: number of spatial axes of its map.
        scope: name of the module that must be called as a whole, for messages.

    Raises:
        RuntimeError: it is not known.
    """
    key, _, path = leader.partition(":") if leader.startswith(INPUT + ":") else (leader, "", "")
    whole = f"the module {scope!r}" if scope else "the whole model"
    for record in reversed(_calls.records):
        size = record.get(key)
        if key == INPUT and size is not None:
            sizes: list[Size] = [n for name, n in size.items() if len(n) == axes and path in ("", name)]
            if sizes:
                return sizes[0]
        elif key in record:
            if size is None:
                raise RuntimeError(
                    f"{follower!r} takes its size from {key!r}, which did not run before it in this call of "
                    f"{whole}; convert with filter= so that one of the two stays, if {key!r} is skipped on purpose"
                )
            return size  # type: ignore[no-any-return]
    raise RuntimeError(
        f"{follower!r} takes its size from {leader!r} in the same call of {whole}, which is not under way; "
        f"call {whole}, not a part of it"
    )
