"""What the fields of a plan must agree on, as data where that can be said of a single change."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from anystride.calls import ENTRY, EVERY, INPUT, OWN, place_of
from anystride.checks import cosine_ramp
from anystride.convert.schema import CALLS, HOWS, KINDS, MODES, shown
from anystride.geometry import SizeRule

_WINDOWS = ("convolution", "blur pooling", "max pooling", "average pooling")
_POINTS = ("a slice with a step", "space to depth", "pixel shuffle", "interpolation", "output")
_LEARNS, _TIED = ("learn", "share"), ("share", "follow")


class Agreement(NamedTuple):
    """What the fields of a change must agree on.

    Attributes:
        field: to blame where they do not.
        says: what it must be, in words.
        holds: whether it is, for a change.
    """

    field: str
    says: str
    holds: Callable[[Any], bool]


def _pooled(c: Any) -> list[int]:
    """The axes that a place's role resamples by itself."""
    axes = range(len(c.stride)) if c.axes is None else c.axes
    return [axis for axis in axes if c.rules is None or c.rules[axis] is None]


def _has_one_length(c: Any) -> bool:
    each = (c.span, c.padding, *c.before, c.after, c.shift, c.rules)
    return all(len(values) == len(c.stride) for values in each if values is not None)


def _follows_from_window(c: Any) -> bool:
    """Whether a window of that span, stride and padding takes the input's size to the output's."""
    each_axis = zip(*c.before, c.stride, c.span, c.padding, strict=True)
    for n, h, s, k, p in each_axis if c.kind in _WINDOWS else ():
        found = (n + 2 * p - k + (s - 1 if c.ceil else 0)) // s + 1
        if h not in (found, found - 1 if c.ceil and (found - 1) * s >= n + p else found):
            return False
    return True


def _rules_hold(c: Any) -> bool:
    """Whether each rule gives the size that the network had."""
    for rule, size in zip(c.rules or (), c.before[1], strict=False):
        if isinstance(rule, tuple):
            made = SizeRule(*rule)
            if made.example and made.apply(made.example[made.axis]) != size:
                return False
        elif rule not in (None, size):
            return False
    return True


AGREEMENTS = (
    Agreement("stride", "as long as span, padding, before, after, shift and rules are", _has_one_length),
    Agreement("how", "a way that fits the role", lambda c: c.how in HOWS[c.role]),
    Agreement("grows", "what the kind says", lambda c: c.grows in KINDS[c.kind] or not c.grows),
    Agreement("kind", "'output' where, and only where, index is -1", lambda c: (c.kind == "output") == (c.index == -1)),
    Agreement("kind", "one that is learned, not one that enlarges", lambda c: c.group is None or not _enlarges(c)),
    Agreement("group", "a number for what learns, else null", lambda c: (c.group is None) != (c.role in _LEARNS)),
    Agreement("leader", "a place for what is tied, else null", lambda c: (c.leader is None) != (c.role in _TIED)),
    Agreement("turns", "[] but for what follows", lambda c: not c.turns or (c.role == "follow" and len(c.turns) > 1)),
    Agreement("turns", "a list that starts with the leader", lambda c: not c.turns or c.turns[0] == c.leader),
    Agreement("shift", "null but for what follows a place", lambda c: c.shift is None or _follows_a_place(c)),
    Agreement("axes", "numbers of the axes, each once", lambda c: c.axes is None or _are_axes(c.axes, c.stride)),
    Agreement("axes", "null, or with an axis that is learned", lambda c: c.group is None or bool(_pooled(c))),
    Agreement(
        "rules",
        "null along axes that do not change",
        lambda c: all(rule is None or c.axes is None or axis in c.axes for axis, rule in enumerate(c.rules or ())),
    ),
    Agreement("rules", "such that they give the size in before", _rules_hold),
    Agreement(
        "rules",
        "a size along each axis that is kept",
        lambda c: c.role != "keep" or c.rules is None or not _pooled(c),
    ),
    Agreement("before", "sizes that stride, span and padding lead from one to the other", _follows_from_window),
    Agreement(
        "padding", "0 on all axes, beside a span of 1, for this kind", lambda c: c.kind not in _POINTS or _is_point(c)
    ),
    Agreement("call", "'' but for a call", lambda c: not c.call or c.how in (*CALLS, "note")),
    Agreement("mode", "null but for a size that is followed or kept", lambda c: c.mode is None or _may_have_mode(c)),
    Agreement("mode", "one for this number of axes", lambda c: c.mode is None or len(c.stride) in MODES[c.mode]),
    Agreement("mode", "a mode for what interpolates", lambda c: c.mode is not None or not _interpolates(c)),
    Agreement(
        "align_corners",
        "null but for a linear or cubic mode",
        lambda c: c.align_corners is None or (c.mode or "").endswith(("linear", "cubic")),
    ),
    Agreement("how", "'output' for what enlarges without a mode", lambda c: c.how != "output" or _has_output(c)),
    Agreement("how", "a way for what does not enlarge", lambda c: c.how not in ("stride", "replace") or _shrinks(c)),
    Agreement("how", "'replace' for blur pooling alone", lambda c: c.how != "replace" or c.kind == "blur pooling"),
    Agreement("ceil", "false but for a pooling", lambda c: not c.ceil or c.kind in ("max pooling", "average pooling")),
)


def _follows_a_place(c: Any) -> bool:
    return (
        c.role == "follow" and c.leader.partition(":")[0] != INPUT and c.leader != OWN and not c.leader.endswith(ENTRY)
    )


def _is_point(c: Any) -> bool:
    return set(c.padding) == {0} and set(c.span) == {1}


def _are_axes(axes: Sequence[int], stride: Sequence[int]) -> bool:
    return len(set(axes)) == len(axes) and set(axes) <= set(range(len(stride)))


def _may_have_mode(c: Any) -> bool:
    return c.how in ("enlarge", *CALLS) and c.role in ("follow", "keep")


def _interpolates(c: Any) -> bool:
    return c.how == "enlarge" or (c.kind == "interpolation" and c.how in ("stride", "replace", "output", *CALLS))


def _has_output(c: Any) -> bool:
    return c.index == -1 or c.kind in ("transposed convolution", "pixel shuffle")


def _enlarges(c: Any) -> bool:
    return bool(c.grows) or KINDS[c.kind] == (True,)


def _shrinks(c: Any) -> bool:
    return not KINDS[c.kind][-1] and c.index != -1


def check_plan(plan: Any) -> None:
    """Raise a ValueError unless the fields of a plan, each of which has one of its values, fit each other."""
    try:
        cosine_ramp(plan.ramp, plan.rolloff, plan.tolerance, plan.padding_mode)
    except ValueError as error:
        raise ValueError(f"in the plan, {error}") from None
    for change in plan.changes:
        for field, says, holds in AGREEMENTS:
            if not holds(change):
                _refuse(change, field, says)
    keys = [change.key for change in plan.changes]
    calls = [(change.name, change.call) for change in plan.changes if change.call]
    for number, change in enumerate(plan.changes):
        if change.key in keys[:number]:
            _refuse(change, "name", "one that no other change has")
        if change.call and calls.count((change.name, change.call)) > 1:
            _refuse(change, "call", "one that no other change has")
        for leader in dict.fromkeys([*([] if change.leader is None else [change.leader]), *change.turns]):
            _check_leader(plan, number, change, leader)
    _check_groups(plan)
    _check_inputs(plan)


def _check_leader(plan: Any, number: int, change: Any, leader: str) -> None:
    field = "leader" if leader == change.leader else "turns"
    before = {other.key: other for other in plan.changes if other.how and other is not change}
    key = leader if leader in before else place_of(leader)
    if change.role == "share":
        other = before.get(leader)
        if other is None or other.role != "learn" or other.group != change.group:
            _refuse(change, field, "the place that learns its stride", leader)
        elif (other.stride, other.axes, other.before[1]) != (change.stride, change.axes, change.before[1]):
            _refuse(change, field, "a place of its own stride, axes and size", leader)
        return
    if leader == OWN:
        if not _enlarges(change) or [n * s for n, s in zip(change.before[0], change.stride, strict=True)] != [
            *change.before[1]
        ]:
            _refuse(change, field, "another place than itself, as it does not enlarge by its stride", leader)
        return
    if leader.partition(":")[0] == INPUT and key not in before:
        return
    if key not in before or (key != leader and leader[len(key) :] != ENTRY and not leader[len(key) + 1 :].isdecimal()):
        _refuse(change, field, "a place of the plan that is converted", leader)
    if leader != change.leader or EVERY in leader[len(key) :]:
        return  # what that call gave stands nowhere
    if plan.changes.index(before[key]) > number:
        _refuse(change, field, "a place that runs before it", leader)
    size = before[key].before[0 if leader[len(key) :] == ENTRY else 1]
    if len(size) != len(change.stride) or change.before[1] != tuple(
        [n + more for n, more in zip(size, change.shift or [0] * len(size), strict=True)]
    ):
        _refuse(change, field, f"a place whose size, {size}, and shift give its own, {change.before[1]}", leader)


def _check_groups(plan: Any) -> None:
    """All places that share an operator have as many axes that it resamples, and the same strides along them."""
    strides: dict[int, list[int]] = {}
    for change in plan.changes:
        if change.group is not None:
            own = [change.stride[axis] for axis in _pooled(change)]
            if strides.setdefault(change.group, own) != own:
                _refuse(change, "group", "a number of places with the same strides")


def _check_inputs(plan: Any) -> None:
    """All that follows one input has its size."""
    sizes: dict[tuple[str, int], tuple[int, ...]] = {}
    for change in plan.changes:
        found = [(rule[0], rule[4]) for rule in change.rules or () if isinstance(rule, tuple) and len(rule) > 4]
        if change.role == "follow" and (change.leader or "").partition(":")[0] == INPUT and not change.rules:
            found.append((change.leader, change.before[1]))
        for leader, size in found:
            if sizes.setdefault((leader, len(size)), size) != size:
                _refuse(change, "leader" if change.leader else "rules", f"an input of size {size}", leader)


def _refuse(change: Any, field: str, says: str, *value: Any) -> None:
    got = value[0] if value else getattr(change, field)
    raise ValueError(f"in the change {change.key!r}, {field!r} must be {says}, got {shown(got)}")
