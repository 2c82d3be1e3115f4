"""How a plan is shown: as text of at most 80 columns, and as HTML for notebooks.

Places are told in groups: one block per learned stride, one per size that is followed, one per reason to keep a size or
to stay. A reason is told once, and names that differ in one number are drawn together (`layers.0-3.pool`).
"""

import html
import math
import re
import textwrap
from collections.abc import Iterable, Sequence

from anystride.convert.change import Change

WIDTH = 80
_NUMBER = 3
"""Columns of a stride's number."""
_BAR = 160
"""Pixels of the longest bar in HTML."""


def text(changes: Sequence[Change], below: Iterable[str]) -> str:
    """Lines of at most `WIDTH` columns, which only a longer name exceeds; sentences that stand `below` the places."""
    blocks = groups(changes)
    rows = [(_name(one), _was(one), _sizes(one)) for found in blocks.values() for one in found if _has_row(one)]
    if rows:
        was, sizes = (max(len(row[i]) for row in rows) for i in (1, 2))
        names = min(max(len("layer"), *(len(row[0]) for row in rows)), max(WIDTH - _NUMBER - was - sizes - 6, 8))
        was, sizes = max(was, len("was")), max(sizes, len("size"))
        lines = [_row("", "layer", "was", "size", names, was)]
        lines.append("  ".join("-" * each for each in (_NUMBER, names, was, sizes)))
    else:
        names, was, lines = 0, 0, []
    number = 0
    for (role, about, why), found in blocks.items():
        if role == "learn":
            number += 1
            leader, *tied = found
            lines.extend(_row(str(number), _name(leader), _was(leader), _sizes(leader), names, was).split("\n"))
            for (kind, sizes_), same in _by((_was(one), _sizes(one)) for one in tied).items():
                members = _drawn_together([_name(tied[at]) for at in same])
                for member in members:
                    lines.extend(_row("", member, kind, sizes_, names, was).split("\n"))
            if why:
                lines.append(_wrapped(f"one stride, as they meet: {why}", " " * (_NUMBER + 2)))
        else:
            head = {"follow": f"follow the size of {about}", "keep": "keep their size", "stay": "stay"}[role]
            listed = ", ".join(_drawn_together([_name(one) for one in found]))
            reason = f" ({why})" if why else ""
            lines.append(_wrapped(f"{head}: {listed}{reason}", "", "  "))
    return "\n".join([*lines, *(_wrapped(each, "", "  ") for each in below)])


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


def shortly(value: float) -> str:
    """A number of operations."""
    return f"{value / 1e6:,.1f} M" if value >= 1e6 else f"{value:,.0f}"


def groups(changes: Sequence[Change]) -> dict[tuple[str, str, str], list[Change]]:
    """The places of a plan by what they share, (role, of whom, why): in the order of execution, learned ones first."""
    found: dict[tuple[str, str, str], list[Change]] = {}
    leaders: dict[object, tuple[str, str, str]] = {}
    for one in changes:
        if one.role in ("learn", "share"):
            key = leaders.setdefault(one.key if one.group is None else one.group, ("learn", one.key, one.why))
            if one.why and not key[2]:  # the leader itself may not name what ties it
                found = {(*old[:2], one.why) if old == key else old: members for old, members in found.items()}
                key = leaders[one.key if one.group is None else one.group] = (*key[:2], one.why)
        else:
            key = (one.role, one.leader or "", one.why)
        found.setdefault(key, []).append(one)
    order = {"learn": 0, "follow": 1, "keep": 2, "stay": 3}
    return dict(sorted(found.items(), key=lambda item: order[item[0][0]]))


def _has_row(one: Change) -> bool:
    return one.role in ("learn", "share")


def _name(one: Change) -> str:
    return one.key or "(model)"


def _was(one: Change) -> str:
    strided = max(one.stride) > 1 or one.how == "output"
    return f"{one.kind} {_size(one.stride)}" if strided else one.kind


def _sizes(one: Change) -> str:
    now = "" if one.after in (None, one.before[1]) or one.role == "stay" else f", now {_size(one.after or ())}"
    return f"{_size(one.before[0])} -> {_size(one.before[1])}{now}"


def _size(size: Sequence[int]) -> str:
    return "x".join(map(str, size))


def _row(number: str, name: str, was: str, size: str, names: int, kinds: int) -> str:
    """A row of the table; a long name has a line of its own."""
    number = number.rjust(_NUMBER)
    if len(name) > names:
        return f"{number}  {name}\n{'':{_NUMBER}}  {'':{names}}  {was.ljust(kinds)}  {size}".rstrip()
    return f"{number}  {name.ljust(names)}  {was.ljust(kinds)}  {size}".rstrip()


def _wrapped(words: str, first: str = "", other: str | None = None) -> str:
    return textwrap.fill(
        words,
        WIDTH,
        initial_indent=first,
        subsequent_indent=first if other is None else other,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _by(keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], list[int]]:
    found: dict[tuple[str, str], list[int]] = {}
    for at, key in enumerate(keys):
        found.setdefault(key, []).append(at)
    return found


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
