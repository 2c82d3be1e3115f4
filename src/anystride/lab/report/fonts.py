"""Names in pictures, in any script: fonts that have the letters, and what is shown where none has them."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

FIRST = "DejaVu Sans"
"""Matplotlib's own font."""
OTHERS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Noto Sans JP", "Noto Sans KR", "Source Han Sans SC",
    "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback", "Unifont", "PingFang SC", "Hiragino Sans",
    "Apple SD Gothic Neo", "Arial Unicode MS", "Microsoft YaHei", "SimHei", "Yu Gothic", "Malgun Gothic",
    "Noto Sans", "Noto Sans Arabic", "Noto Sans Devanagari", "Noto Sans Hebrew", "Noto Sans Thai", "Nirmala UI",
    "Segoe UI",
)  # fmt: skip
"""Fonts of other scripts on Linux, macOS and Windows; those that are installed are asked in this order."""
LONGEST = 18
"""Characters of a name in a picture."""


@cache
def families() -> tuple[str, ...]:
    """The installed fonts, in the order in which matplotlib asks them for a letter."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return (FIRST, *(name for name in OTHERS if name in installed))


@cache
def _letters(family: str) -> frozenset[int]:
    return frozenset(FT2Font(font_manager.findfont(family)).get_charmap())


def can_show(text: str) -> bool:
    """Whether an installed font has each letter of a text."""
    return all(any(ord(letter) in _letters(family) for family in families()) for letter in text)


def shown(classes: Sequence[str], longest: int = LONGEST) -> list[str]:
    """The names of classes as pictures show them: cut where they are long, numbered where no font has their letters.

    Args:
        classes: their names.
        longest: characters that have room.

    Returns:
        One text per class, of which matplotlib makes no formula.

    Example:
        >>> shown(["cat", "a very long name of a class", "$5"])
        ['cat', 'a very long name …', '\\\\$5']
    """
    return [_shown(name, number, longest) for number, name in enumerate(classes)]


def _shown(name: str, number: int, longest: int) -> str:
    name = " ".join(unicodedata.normalize("NFC", name).split())
    if not can_show(name):
        return f"class {number + 1}"
    return (name if len(name) <= longest else f"{name[: longest - 1]}…").replace("$", r"\$")
