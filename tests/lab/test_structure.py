"""The rules of the lab's house that a machine can hold: what it takes from the core, and how long a file may be."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import anystride

LAB = Path(anystride.__file__).parent / "lab"
FILES = sorted(LAB.rglob("*.py"))
NAMES = [path.relative_to(LAB).as_posix() for path in FILES]
FROM_THE_CORE = {
    "anystride": set(anystride.__all__) | {"__version__"},
    "anystride.functional": {"diffstride", "resampling_matrix", "spectral_pool"},
    "anystride.ops.window": {"band", "output_length", "stride_bounds", "window"},
}
"""All that the lab may import from the core: the public names, and pure functions."""


def imported(path: Path) -> Iterator[tuple[str, str]]:
    """Module and name of each import of the project."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "anystride":
            yield from ((str(node.module), alias.name) for alias in node.names)
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.partition(".")[0] == "anystride")


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_the_lab_takes_public_names_from_the_core(path: Path) -> None:
    for module, name in imported(path):
        if not module.startswith("anystride.lab"):
            assert not name or name in FROM_THE_CORE[module], f"{name} of {module}"


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 60, node.name


def test_the_paper_does_not_know_what_measures_it() -> None:
    for path in (LAB / "paper").glob("*.py"):
        assert not any(module.startswith("anystride.lab.bench") for module, _ in imported(path)), path.name


def test_nothing_private_of_another_object_is_used() -> None:
    private = re.compile(r"\b(?!self\b|cls\b|argparse\b|torch\b)[a-z]\w*\._[a-z]")
    found = [
        f"{name}: {line.strip()}"
        for path, name in zip(FILES, NAMES, strict=True)
        for line in path.read_text().splitlines()
        if private.search(line)
    ]
    assert found == []
