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
EVERY, TURNS, ENTRY = "@", "()", "<"
OWN = "(itself)"
"""The leader of a place that enlarges by the factor that it always had."""

# Per name of a place that is followed: the size that it gave last in this call, or None before it ran; under the name
# and "@", all sizes that it gave, where it runs several times. Under a follower's name and "()": how often it ran.
# Under INPUT: the shapes of the inputs by their path.
CallRecord = dict[str, Any]


class _Calls(threading.local):
    """The calls that are under way in this thread, the innermost last."""

    records: tuple[CallRecord, ...] = ()


_calls = _Calls()


def open_record(names: Sequence[str], inputs: Mapping[str, Size]) -> tuple[CallRecord, ...]:
    """Open the record of a call of a module that some places and their leaders are in.

    Args:
        names: of the leaders.
        inputs: shapes of the maps that the module is given, by their path.

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
    """Note what a place gave (with "<" after its name: what its layer was given) in the innermost record that asks."""
    every = name + EVERY
    for record in reversed(_calls.records):
        if name in record or every in record:
            if name in record:
                record[name] = size
            if every in record:
                record[every] = (*(record[every] or ()), size)
            break


def turn(follower: str) -> int:
    """Which call this is of a place that follows others in turn, within that of the module around them: 0, 1, ..."""
    key = follower + TURNS
    for record in reversed(_calls.records):
        if key in record:
            number = record[key] or 0
            record[key] = number + 1
            return int(number)
    return 0


def place_of(leader: str) -> str:
    """The name of the place that a leader is, without the number of a call, or that it is its layer's input."""
    return leader.removesuffix(ENTRY) if leader.endswith(ENTRY) else _every(leader).removesuffix(EVERY)


def names_for(leaders: Sequence[str], follower: str) -> set[str]:
    """The entries of a record that a follower of these leaders, in turn, needs."""
    names = {_every(leader) for leader in leaders if leader != OWN}
    return names | {follower + TURNS} if len(leaders) > 1 else names


def _every(leader: str) -> str:
    name, at, _ = leader.rpartition(EVERY)
    return name + EVERY if at and not leader.startswith(INPUT) else leader


def size_of(leader: str, follower: str, axes: int, scope: str) -> Size:
    """The size that a place takes from another one, or from an input, in the call that is under way.

    Args:
        leader: name of the other place, with "@" and a number for one of its calls, with "<" for the size that its
            layer is given, or `INPUT`.
        follower: name of the place that asks, for messages.
        axes: number of spatial axes of its map.
        scope: name of the module that must be called as a whole, for messages.

    Raises:
        RuntimeError: it is not known.
    """
    path = leader.partition(":")[2] if leader.startswith(INPUT + ":") else ""
    key = INPUT if path else _every(leader)
    whole = f"the module {scope!r}" if scope else "the whole model"
    for record in reversed(_calls.records):
        found = record.get(key)
        if key == INPUT and found is not None:
            size = _input_size(found, path, axes)
            if size is not None:
                return size
        elif key in record:
            if key != leader:
                number = int(leader.rpartition(EVERY)[2])
                found = found[number] if found is not None and number < len(found) else None
            if found is None:
                raise RuntimeError(
                    f"{follower!r} takes its size from {leader!r}, which did not run before it in this call of "
                    f"{whole}; convert with filter= so that one of the two stays, if {leader!r} is skipped on purpose"
                )
            return found  # type: ignore[no-any-return]
    raise RuntimeError(
        f"{follower!r} takes its size from {leader!r} in the same call of {whole}, which is not under way; "
        f"call {whole}, not a part of it"
    )


def _input_size(shapes: Mapping[str, Size], path: str, axes: int) -> Size | None:
    """The spatial size of the first input that is a map of so many axes, else of the first that lacks only a batch."""
    alone = None
    for name, shape in shapes.items():
        if path in ("", name):
            if len(shape) == axes + 2:
                return shape[2:]
            if len(shape) == axes + 1 and alone is None:
                alone = shape[1:]
    return alone
