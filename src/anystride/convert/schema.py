"""What may stand in a plan, as data: the values of each field.

A plan may come from a file that was edited or damaged. What passes here prints; what its fields must agree on stands in
`agreements`, and whether it fits a model in `fit`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from anystride.calls import INPUT
from anystride.checks import SMOOTHNESS
from anystride.ops.cosine import BORDERS
from anystride.ops.window import RAMPS

SCHEMA = 3
METHODS = ("diffstride", "spectral")
CALLS = ("call", "graph")
# By role, the ways in which a place can be replaced.
HOWS: dict[str, tuple[str, ...]] = {
    "learn": ("stride", "replace", *CALLS, "output"),
    "share": ("stride", "replace", *CALLS, "output"),
    "follow": ("stride", "replace", *CALLS, "output", "enlarge"),
    "keep": ("stride", "replace", *CALLS, "output", "enlarge"),
    "stay": ("", "note"),
}
# What a place can be, and whether it enlarges the map; a mask that is sliced is enlarged like the map that it is for.
KINDS: dict[str, tuple[bool, ...]] = {
    **dict.fromkeys(("convolution", "deformable convolution", "blur pooling", "output"), (False,)),
    **dict.fromkeys(("max pooling", "average pooling", "adaptive pooling", "space to depth"), (False,)),
    **dict.fromkeys(("transposed convolution", "pixel shuffle", "interpolation"), (True,)),
    "a slice with a step": (False, True),
}
# By mode of an interpolation, the numbers of axes that it takes.
MODES = {
    **dict.fromkeys(("nearest", "nearest-exact", "area"), (1, 2, 3)),
    **{"linear": (1,), "bilinear": (2,), "bicubic": (2,), "trilinear": (3,)},
}
_MOST = 2**31 - 1


class Values(NamedTuple):
    """The values of a field.

    Attributes:
        says: what they must be, in words.
        fits: whether a value is one of them.
        since: the schema from which on a plan must have the field.
    """

    says: str
    fits: Callable[[Any], bool]
    since: int = 1


def _is_whole(value: Any, low: int = 1, high: int = _MOST) -> bool:
    return type(value) is int and low <= value <= high


def _is_number(value: Any, low: float, high: float) -> bool:
    return type(value) in (int, float) and low <= value <= high


def _are(value: Any, fits: Callable[[Any], bool]) -> bool:
    return isinstance(value, tuple) and all(map(fits, value))


def _one_of(choices: Sequence[Any], since: int = 1) -> Values:
    said = ", ".join("null" if choice is None else repr(choice) for choice in choices)
    return Values(f"one of {said}", lambda value: any(type(value) is type(c) and value == c for c in choices), since)


def _wholes(low: int, since: int = 1) -> Values:
    says = f"a list of whole numbers of at least {low}, one per axis"
    return Values(says, lambda value: _are(value, lambda n: _is_whole(n, low)), since)


def _or_null(values: Values) -> Values:
    return values._replace(says=f"null or {values.says}", fits=lambda value: value is None or values.fits(value))


def _is_call(value: Any) -> bool:
    method, _, number = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    return value == "" or (method.isidentifier() and number.isdecimal() and number.isascii() and len(number) < 6)


def _is_rule(value: Any) -> bool:
    """Whether it is the arguments of a `SizeRule`."""
    if value is None or _is_whole(value):
        return True
    if not isinstance(value, tuple) or len(value) not in (4, 5) or not isinstance(value[0], str):
        return False
    leader, axis, axes, steps, size = (*value, ())[:5]
    known = leader.partition(":")[0] == INPUT and _is_whole(axes, 1, 3) and _is_whole(axis, 0, axes - 1)
    return known and _are(steps, _is_step) and _are(size, _is_whole) and (len(value) == 4 or len(size) == axes)


def _is_step(value: Any) -> bool:
    whole = isinstance(value, tuple) and len(value) == 3 and _is_whole(value[1], -_MOST)
    return whole and _is_whole(value[0]) and _is_whole(value[2])


_TEXT = Values("a text", lambda value: isinstance(value, str))
_TEXTS = Values("a list of texts", lambda value: _are(value, lambda one: isinstance(one, str)))
_FLAG = _one_of((True, False))
_SIZES = Values(
    "the sizes of input and output, each of at least 1",
    lambda value: _are(value, lambda size: _are(size, _is_whole)) and len(value) == 2,
)

CHANGE: dict[str, Values] = {
    "name": _TEXT,
    "index": Values("a whole number of at least -1", lambda value: _is_whole(value, -1)),
    "kind": _one_of(tuple(KINDS)),
    "role": _one_of(tuple(HOWS)),
    "how": _one_of(tuple(dict.fromkeys(how for hows in HOWS.values() for how in hows))),
    "stride": Values(
        "a list of 1 to 3 whole numbers of at least 1", lambda value: _are(value, _is_whole) and 1 <= len(value) <= 3
    ),
    "span": _wholes(1),
    "padding": _wholes(0),
    "before": _SIZES,
    "leader": _or_null(_TEXT),
    "group": _or_null(Values("a whole number of at least 0", lambda value: _is_whole(value, 0))),
    "same": _FLAG,
    "ceil": _FLAG,
    "after": _or_null(_wholes(1)),
    "why": _TEXT,
    "mode": _one_of((*MODES, None)),
    "align_corners": _one_of((True, False, None)),
    "copies": _FLAG,
    "scope": _TEXT._replace(since=2),
    "call": Values("a method's name and a number, as 'forward:3', or ''", _is_call, 2),
    "axes": _or_null(Values("a list of whole numbers from 0", lambda value: _are(value, lambda n: _is_whole(n, 0)), 2)),
    "rules": _or_null(
        Values(
            "a size, null or [input, axis, axes, [[factor, offset, divisor], ...], sizes] per axis, with numbers of at "
            "least 1 but for axis and offset",
            lambda value: _are(value, _is_rule),
            2,
        )
    ),
    "shift": _or_null(_wholes(-_MOST, 2)),
    "turns": _TEXTS._replace(since=2),
    "grows": _FLAG._replace(since=2),
}
PLAN: dict[str, Values] = {
    "changes": Values("a list of changes", lambda value: _are(value, lambda one: isinstance(one, dict))),
    "method": _one_of(METHODS),
    "ramp": _one_of(RAMPS),
    "smoothness": Values(
        f"a number from {SMOOTHNESS[0]:g} to {SMOOTHNESS[1]:g}", lambda value: _is_number(value, *SMOOTHNESS)
    ),
    "shared": _FLAG,
    "grid": Values(
        "'free', 'fixed' or a whole number of at least 1", lambda value: value in ("free", "fixed") or _is_whole(value)
    ),
    "whole": _FLAG._replace(since=2),
    "macs": _or_null(
        Values(
            "two whole numbers of at least 0",
            lambda value: _are(value, lambda n: _is_whole(n, 0, 2**63)) and len(value) == 2,
        )
    ),
    "notes": _TEXTS,
    "rolloff": Values("a number above 0 and at most 1", lambda value: _is_number(value, 0, 1) and value > 0, 2),
    "tolerance": Values("a number from 0.0001 to 0.2", lambda value: _is_number(value, 1e-4, 0.2), 2),
    "padding_mode": _one_of((*(border for border in BORDERS if border != "zeros"), None), 2),
    "batch": _or_null(Values("a whole number of at least 1", _is_whole, 3)),
}


def check_fields(data: Any, fields: Mapping[str, Values], where: str, schema: int = SCHEMA) -> None:
    """Raise a ValueError unless an object has the fields of a schema, each with one of its values.

    Args:
        data: names and values; lists are tuples.
        fields: `PLAN` or `CHANGE`.
        where: what the object is, for the message.
        schema: number of the plan's schema.
    """
    if not isinstance(data, dict):
        raise ValueError(f"{where} must be an object, got {shown(data)}")
    if unknown := [name for name in data if name not in fields]:
        raise ValueError(f"{where} has a field {shown(unknown[0])}, which no plan has; remove it")
    if missing := [name for name, values in fields.items() if name not in data and values.since <= schema]:
        raise ValueError(f"{where} lacks the field {missing[0]!r}; it must be {fields[missing[0]].says}")
    for name, value in data.items():
        if not fields[name].fits(value):
            raise ValueError(f"{where}, {name!r} must be {fields[name].says}, got {shown(value)}")


def shown(value: Any) -> str:
    """A value in a message, on one line and not too long."""
    if isinstance(value, int) and abs(value) > 10**60:
        return f"a number of {int(math.log10(abs(value))) + 1} digits"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
