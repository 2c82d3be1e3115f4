"""Where in the source of a user's module an operation is called."""

import ast
import functools
import inspect
import sys
import textwrap
from collections.abc import Iterator
from types import CodeType, FrameType, FunctionType
from typing import Any, NamedTuple

from torch import nn


class UnwritableError(Exception):
    """Why a call cannot be replaced."""


class Found(NamedTuple):
    """Where in a module's class an operation was called.

    Attributes:
        call: name of the method and number of the call in it, as "forward:3".
        direct: whether that line calls torch itself, and not a function of the user's in between.
    """

    call: str
    direct: bool


def find(owner: nn.Module) -> Found | None:
    """The call of `owner`'s methods that is under way, by the frames of this very moment; None if there is none."""
    kind: Any = type(owner)
    codes = _codes(kind)
    frame: FrameType | None = sys._getframe(1)
    direct = True
    while frame is not None:
        known = codes.get(frame.f_code)
        if known is not None and _runs_for(frame, known[0], owner):
            number = _number(known[0], frame)
            return None if number is None else Found(f"{known[1]}:{number}", direct)
        if frame.f_globals.get("__name__", "").partition(".")[0] not in ("torch", "anystride"):
            direct = False
        if frame.f_code is nn.Module._call_impl.__code__:
            return None
        frame = frame.f_back
    return None


def _runs_for(frame: FrameType | None, function: FunctionType, owner: nn.Module) -> bool:
    """Whether a frame, of a function or of a comprehension or function within it, runs for this very module."""
    while frame is not None and frame.f_code is not function.__code__:
        frame = frame.f_back
    return frame is not None and frame.f_locals.get(frame.f_code.co_varnames[0]) is owner


def own_function(kind: Any, method: str) -> tuple[FunctionType, type]:
    """What a method of a class is under its decorators, and the class that it stands in."""
    for owner in kind.__mro__:
        if method in vars(owner):
            for function in _under(vars(owner)[method]):
                if function.__name__ == method and _source(function) is not None:
                    return function, owner
            break
    raise UnwritableError(f"the source of its {method!r} is not at hand")


def _under(value: Any, depth: int = 4) -> Iterator[FunctionType]:
    """The functions that a method is made of, the innermost first: what decorators wrap stands in their closures."""
    value = getattr(value, "__func__", getattr(value, "fget", value))
    if not isinstance(value, FunctionType):
        return
    if depth:
        for cell in value.__closure__ or ():
            try:
                yield from _under(cell.cell_contents, depth - 1)
            except ValueError:  # not filled yet
                continue
    yield value


@functools.cache
def _codes(kind: Any) -> dict[CodeType, tuple[FunctionType, str]]:
    """All code that runs as a method of a class, with the function and the name of the method."""
    found: dict[CodeType, tuple[FunctionType, str]] = {}
    for owner in kind.__mro__:
        if owner is nn.Module:
            break
        for name, value in vars(owner).items():
            if getattr(kind, name, None) is None or name in found:
                continue
            if next((k for k in kind.__mro__ if name in vars(k)), None) is not owner:
                continue  # another class of its line has taken its place
            for function in _under(value):
                if function.__name__ == name:
                    for code in _nested(function.__code__):
                        found.setdefault(code, (function, name))
    return found


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


@functools.cache
def _source(function: FunctionType) -> str | None:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        return None


def parsed(function: FunctionType) -> ast.Module:
    """The source of a function, which must be one definition."""
    tree = ast.parse(textwrap.dedent(_source(function) or ""))
    if len(tree.body) != 1 or not isinstance(tree.body[0], ast.FunctionDef):
        raise UnwritableError(f"{function.__name__!r} is not written as one function")
    return tree


def candidates(tree: ast.AST) -> list[ast.Call | ast.Subscript]:
    """All calls and subscripts, in an order that only the source tells."""
    return [node for node in ast.walk(tree) if isinstance(node, (ast.Call, ast.Subscript))]


@functools.cache
def _extents(function: FunctionType) -> list[tuple[int, int, int]]:
    """Of each call and subscript in a function's source: its first line, its last, and the column where it ends."""
    source = _source(function)
    if source is None:
        return []
    try:
        nodes = candidates(parsed(function))
    except (SyntaxError, UnwritableError):
        return []
    before = function.__code__.co_firstlineno - 1
    indent = len(source) - len(source.lstrip())
    ends = [(node.end_lineno or 0, node.end_col_offset or 0) for node in nodes]
    return [(n.lineno + before, line + before, column + indent) for n, (line, column) in zip(nodes, ends, strict=True)]


def _number(function: FunctionType, frame: FrameType) -> int | None:
    """Which of the calls and subscripts in a function's source a frame is at."""
    extents = enumerate(_extents(function))
    if hasattr(frame.f_code, "co_positions"):
        _, line, _, column = list(frame.f_code.co_positions())[frame.f_lasti // 2]
        at = [number for number, extent in extents if extent[1:] == (line, column)]
    else:  # before Python 3.11 only lines are known
        at = [number for number, (first, last, _) in extents if first <= frame.f_lineno <= last]
    return at[0] if len(at) == 1 else None
