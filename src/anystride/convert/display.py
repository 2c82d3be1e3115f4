"""How a plan is shown: as text of at most 80 columns, and as HTML for notebooks.

Places are told in groups: one block per learned stride, one per size that is followed, one per reason to keep a size or
to stay. A reason is told once, and names that differ in one number are drawn together (`layers.0-3.pool`).
"""

import html
import math
import re
from collections.abc import Iterable, Sequence

from anystride.columns import Columns, size_of, wrapped
from anystride.convert.change import Change

_NUMBER = 3
"""Columns of a stride's number."""
_BAR = 160
"""Pixels of the longest bar in HTML."""


def text(changes: Sequence[Change], below: Iterable[str]) -> str:
    """Lines of at most 80 columns, which only a longer name exceeds; sentences that stand `below` the places."""
    blocks = groups(changes)
    tables = {key: _table(found) for key, found in blocks.items() if key[0] == "learn"}
    columns = Columns(("layer", "was", "size"), [row for rows in tables.values() for row in rows], _NUMBER)
    lines = [*columns.head] if tables else []
    for number, ((role, about, why), found) in enumerate(blocks.items(), 1):  # those that learn come first
        if role == "learn":
            rows = tables[role, about, why]
            lines.extend(columns.row(row, "" if at else str(number)) for at, row in enumerate(rows))
            if why:
                lines.append(wrapped(f"one stride, as they meet: {why}", *[" " * columns.label] * 2))
        else:
            told = {"follow": f"follow the size of {about}", "keep": "keep their size", "stay": "stay"}[role]
            listed = ", ".join(_drawn_together([_name(one) for one in found]))
            lines.append(wrapped(f"{told}: {listed}{f' ({why})' if why else ''}"))
    return "\n".join([*lines, *map(wrapped, below)])


def page(changes: Sequence[Change], below: Iterable[str]) -> str:
    """HTML: the places in the order of execution, with a bar for each size on a logarithmic scale, and `below` them."""
    longest = math.log(1 + max((max(side) for one in changes for side in one.before), default=1))
    cell = "padding:1px 10px 1px 0;text-align:left;vertical-align:top;white-space:"
    becomes: dict[str, str] = {}
    why: dict[str, str] = {}
    number = 0
    for (role, about, reason), found in groups(changes).items():
        number += role == "learn"
        told = {"learn": f"stride {number}", "follow": f"follows {about}", "keep": "keeps its size", "stay": "stays"}
        becomes |= {one.key: told[role] for one in found}
        why[found[0].key] = reason
    rows = [_cells("th", cell + "nowrap", ("layer", "was", "size", "", "becomes", "why"))]
    for one in changes:
        share = math.log(1 + max(one.before[1] if one.after is None else one.after)) / longest
        colour = "#2a78b5" if one.role in ("learn", "share") else "#999"
        bar = f'<div style="background:{colour};height:0.7em;width:{max(2, round(_BAR * share))}px"></div>'
        first, last = (*map(html.escape, (_name(one), _was(one), _sizes(one))), bar), why.get(one.key, "")
        kept = _cells("td", cell + "nowrap", (*first, html.escape(becomes[one.key])))
        rows.append(kept + _cells("td", cell + "normal", (html.escape(last),)))
    table = f'<table style="border-collapse:collapse">{"".join(f"<tr>{row}</tr>" for row in rows)}</table>'
    return table * bool(changes) + "".join(f"<div>{html.escape(each)}</div>" for each in below)


def _cells(tag: str, style: str, values: Iterable[str]) -> str:
    return "".join(f'<{tag} style="{style}">{value}</{tag}>' for value in values)


def groups(changes: Sequence[Change]) -> dict[tuple[str, str, str], list[Change]]:
    """The places of a plan by what they share, (role, of whom, why): in the order of execution, learned ones first."""
    found: dict[tuple[str, str, str], list[Change]] = {}
    leaders: dict[object, tuple[str, str, str]] = {}
    for one in changes:
        if one.role in ("learn", "share"):
            key = leaders.setdefault(one.key if one.group is None else one.group, ("learn", one.key, one.why))
        else:
            key = (one.role, one.leader or "", one.why)
        found.setdefault(key, []).append(one)
    order = {"learn": 0, "follow": 1, "keep": 2, "stay": 3}
    return dict(sorted(found.items(), key=lambda item: order[item[0][0]]))


def _name(one: Change) -> str:
    return "(model)" * (one.name == "") + one.key


def _was(one: Change) -> str:
    strided = max(one.stride) > 1 or one.how == "output"
    return f"{one.kind} {size_of(one.stride)}" if strided else one.kind


def _sizes(one: Change) -> str:
    now = "" if one.after in (None, one.before[1]) or one.role == "stay" else f", now {size_of(one.after or ())}"
    return f"{size_of(one.before[0])} -> {size_of(one.before[1])}{now}"


def _table(found: Sequence[Change]) -> list[tuple[str, str, str]]:
    """The layers of one stride, the leader first: name, what it was, sizes; names are drawn together."""
    alike: dict[tuple[str, str], list[str]] = {}
    for one in found[1:]:
        alike.setdefault((_was(one), _sizes(one)), []).append(_name(one))
    tied = [(name, *like) for like, names in alike.items() for name in _drawn_together(names)]
    return [(_name(found[0]), _was(found[0]), _sizes(found[0])), *tied]


def _drawn_together(names: Sequence[str]) -> list[str]:
    """Names that differ in one number, in a row of following ones, as one name: a.0.b, a.1.b, a.2.b as a.0-2.b."""
    left, told = list(names), []
    while left:
        first = left.pop(0)
        best: list[str] = []
        for digits in re.finditer(r"\d+", first):
            run, at = [first], int(digits[0])
            while (name := f"{first[: digits.start()]}{at + 1}{first[digits.end() :]}") in left:
                run.append(name)
                at += 1
            if len(run) > max(2, len(best)):
                best, shown = run, f"{first[: digits.start()]}{digits[0]}-{at}{first[digits.end() :]}"
        if best:
            left = [name for name in left if name not in best]
            told.append(shown)
        else:
            told.append(first)
    return told
