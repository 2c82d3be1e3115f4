"""Names in pictures, in any script: fonts that have the letters, and what is shown where none has them."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Sequence
from functools import cache

from matplotlib import font_manager, ft2font

FIRST = "DejaVu Sans"
"""Matplotlib's own font."""
PREFERRED = (
    "Noto Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Noto Sans JP", "Noto Sans KR",
    "Source Han Sans SC", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "PingFang SC", "Hiragino Sans",
    "Apple SD Gothic Neo", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "Nirmala UI", "Segoe UI",
    "Arial Unicode MS",
)  # fmt: skip
"""Fonts of other scripts on Linux, macOS and Windows; those that are installed are asked first, then all others."""
NOT_FOR_NAMES = ("Last Resort", "cm", "STIX", "DejaVu Sans Display", "DejaVu Serif Display")
"""How the names of fonts begin that have signs of mathematics, or boxes, in the place of letters."""
REGULAR = (400, "normal", "regular", "book")
"""Weights of fonts: of others, matplotlib warns."""
LONGEST = 18
"""Characters of a name in a picture."""
NOTE = "class N is the Nth of the classes in record.json: no installed font has the letters of its name"
"""What to write beside names of which `shown` made numbers."""
SHAPES_LETTERS = hasattr(ft2font, "__libraqm_version__")
"""Whether matplotlib joins letters and writes from right to left where a script asks for it; before 3.11 it cannot."""
SHAPED = ("ARABIC", "HEBREW", "SYRIAC", "DEVANAGARI", "BENGALI", "TAMIL", "TELUGU", "KANNADA", "MALAYALAM", "GUJARATI",
          "GURMUKHI", "KHMER", "MYANMAR", "SINHALA", "TIBETAN")  # fmt: skip
"""Scripts that cannot be read without that, as Unicode's names of letters begin."""


@cache
def _installed() -> dict[str, str]:
    """The files of all fonts with letters, by name, in the order in which they are asked for a letter."""
    files = {
        font.name: font.fname
        for font in font_manager.fontManager.ttflist
        if font.weight in REGULAR and font.style == "normal" and not font.name.startswith(NOT_FOR_NAMES)
    }
    preferred = [name for name in (FIRST, *PREFERRED) if name in files]
    return {name: files[name] for name in dict.fromkeys([*preferred, *sorted(files)])}


@cache
def _letters(path: str) -> frozenset[int]:
    try:
        return frozenset(ft2font.FT2Font(path).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()  # a font that cannot be read


@cache
def _font_of(letter: str) -> str | None:
    """The first font that has a letter; None where none has it, or where matplotlib cannot write its script."""
    if not SHAPES_LETTERS and unicodedata.name(letter, "").startswith(SHAPED):
        return None
    return next((family for family, path in _installed().items() if ord(letter) in _letters(path)), None)


def families(text: str) -> tuple[str, ...]:
    """The fonts that a text needs, in the order in which matplotlib is to ask them for a letter."""
    found = (_font_of(letter) for letter in text if not letter.isspace())
    return tuple(dict.fromkeys([FIRST, *(family for family in found if family is not None)]))


def can_show(text: str) -> bool:
    """Whether each letter of a text can be shown."""
    return all(letter == " " or _font_of(letter) is not None for letter in text)


def shown(classes: Sequence[str], longest: int = LONGEST, width: int = 0) -> list[str]:
    """The names of classes as pictures show them: cut where they are long, numbered where no font has their letters.

    Args:
        classes: their names.
        longest: characters that have room.
        width: characters of a line; 0 for one line.

    Returns:
        One text per class, of which matplotlib makes no formula.

    Example:
        >>> shown(["cat", "a very long name of a class", "$5"])
        ['cat', 'a very long name …', '\\\\$5']
    """
    return [_shown(name, number, longest, width) for number, name in enumerate(classes, start=1)]


def note(classes: Sequence[str]) -> str:
    """`NOTE` where the name of a class has letters that no font has; empty otherwise."""
    return "" if all(can_show(_line(name)) for name in classes) else NOTE


def _shown(name: str, number: int, longest: int, width: int) -> str:
    name = _line(name)
    if not name or not can_show(name):
        return f"class {number}"
    name = name if len(name) <= longest else f"{name[: longest - 1]}…"
    lines = textwrap.wrap(name, width) if width else [name]
    return "\n".join(lines).replace("$", r"\$")


def _line(name: str) -> str:
    return " ".join(unicodedata.normalize("NFC", name).split())
