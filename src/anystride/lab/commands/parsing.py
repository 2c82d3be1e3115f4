"""Parsing of the command line's values: each parser names what it wanted. Imports nothing that is slow."""

from __future__ import annotations

import argparse
import difflib
import math
import re
import shutil
import textwrap
import warnings
from collections.abc import Callable
from typing import Any

from anystride.lab.run.config import STRIDED

WIDEST = 100
"""Columns of a help text at most: longer lines are hard to read."""


def whole(low: int) -> Callable[[str], int]:
    """A parser of whole numbers of at least `low`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be a whole number, got {text!r}") from None
        if value < low:
            raise argparse.ArgumentTypeError(f"must be at least {low}, got {value}")
        return value

    return parse


def number(low: float, *, above: bool = False, below: float = float("inf")) -> Callable[[str], float]:
    """A parser of numbers below `below` of at least `low`, or greater than it where `above`."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be a number, got {text!r}") from None
        if not (low < value < below if above else low <= value < below):
            bound = f"greater than {low:g}" if above else f"at least {low:g}"
            bound += "" if below == float("inf") else f" and below {below:g}"
            raise argparse.ArgumentTypeError(f"must be a finite number {bound}, got {text}")
        return value

    return parse


def strides(text: str) -> tuple[tuple[float, float], ...]:
    """Strides, one per downsampler: `3,2,3` or with a (vertical x horizontal) pair, `3x2,2,3`."""
    stages = [[_stride(value, text) for value in stage.split("x")] for stage in text.strip("() ").split(",")]
    if any(len(stage) > 2 for stage in stages):
        raise argparse.ArgumentTypeError(f"must be strides such as 3,2,3 or 3x2,2,3, got {text!r}")
    return tuple((stage[0], stage[-1]) for stage in stages)


def _stride(value: str, text: str) -> float:
    try:
        stride = float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be strides such as 3,2,3 or 3x2,2,3, got {text!r}") from None
    if not 1 <= stride < float("inf"):
        raise argparse.ArgumentTypeError(f"must be finite strides of at least 1, got {value.strip()} in {text!r}")
    return stride


def share(text: str) -> float:
    """A share of a whole, above 0 and up to 1: `5%` or `0.05`."""
    value = _share(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"must be a share above 0 and up to 1 such as 5% or 0.05, got {text!r}")
    return value


def part(text: str) -> float:
    """As `share`, or 0."""
    value = _share(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be a share from 0 to 1 such as 50% or 0.5, got {text!r}")
    return value


def _share(text: str) -> float:
    """A number, or a percentage; NaN for any other text."""
    try:
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        return math.nan


def grid(text: str) -> int | str:
    """How map sizes follow strides: `free`, `fixed` or a whole number."""
    if text in ("free", "fixed"):
        return text
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be free, fixed or a whole number of at least 1, got {text!r}")
    return int(text)


def budget(text: str) -> str:
    """A limit of multiply-accumulates: `40e6`, a multiple of the start's, `0.5x`, `strided:2,2,2`; empty for none."""
    if text.startswith(STRIDED):
        given = strides(text.removeprefix(STRIDED))
        if any(value != round(value) for pair in given for value in pair):
            raise argparse.ArgumentTypeError(f"must have whole strides behind {STRIDED!r}, got {text!r}")
        return text
    try:
        value = float(text.removesuffix("x")) if text else 1.0
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(
            "must be a number of multiply-accumulates such as 40e6, a multiple of those at the start such as 0.5x, or "
            f"those of strided convolutions such as strided:2,2,2, got {text!r}"
        )
    return text


def pattern(text: str) -> str:
    """A regular expression with one group, or with a group `label`; empty for none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what may mean something else in a later Python
            compiled = re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"must be a regular expression, got {text!r} ({error})") from None
    if text and compiled.groups != 1 and "label" not in compiled.groupindex:
        raise argparse.ArgumentTypeError(
            rf"must have one group in parentheses, or one that is named label, as in '(\d)_.*', got {text!r}"
        )
    return text


class Help(argparse.HelpFormatter):
    """Help texts as argparse formats them, with a line of its own for what follows a line break."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=min(shutil.get_terminal_size().columns, WIDEST) - 2)

    def _split_lines(self, text: str, width: int) -> list[str]:
        first, *others = text.splitlines()
        wrapped = [textwrap.wrap(line, width, initial_indent="  ", subsequent_indent="    ") for line in others]
        return super()._split_lines(first, width) + [line for lines in wrapped for line in lines]


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line (exit code 2), without the usage in front of it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{"formatter_class": Help, **options})

    def parse_known_args(self, *arguments: Any, **options: Any) -> Any:
        """As argparse's, but a command speaks of its own options, and of what is near to a misspelt one."""
        found, unknown = super().parse_known_args(*arguments, **options)
        if unknown:
            near = difflib.get_close_matches(unknown[0].partition("=")[0], self._option_string_actions, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        return found, unknown

    def error(self, message: str) -> None:  # type: ignore[override]  # argparse's says NoReturn, and so does exit
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")
