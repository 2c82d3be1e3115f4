"""Type checkers and help on what a user writes: they find nothing where it is right, and each mistake elsewhere."""

import inspect
import json
import os
import pydoc
import re
import subprocess
import sys
from pathlib import Path

import pytest

import anystride

HERE = Path(__file__).parent / "typing"
SOURCE = Path(anystride.__file__).parents[1]
MISTAKES = [n for n, line in enumerate((HERE / "mistakes.py").read_text().splitlines(), 1) if "# mistake" in line]
TRIOS = ("DiffStride", "SpectralPool", "SpectralUpsample", "ParallelScales", "PerExampleStride")


def mypy(script):
    """Lines at which mypy finds something."""
    call = [sys.executable, "-m", "mypy", "--strict", "--config-file=", HERE / script]
    done = subprocess.run(
        call, capture_output=True, text=True, env={**os.environ, "MYPYPATH": str(SOURCE)}, cwd=HERE.parents[1]
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return [int(found) for found in re.findall(rf"{script}:(\d+): error", done.stdout)], done.stdout


def pyright(script, folder):
    """Lines at which pyright finds something."""
    project = folder / "pyrightconfig.json"
    settings = {"include": [str(HERE / script)], "extraPaths": [str(SOURCE)], "typeCheckingMode": "standard"}
    project.write_text(json.dumps(settings))
    call = ["-m", "basedpyright", "--project", project, "--pythonpath", sys.executable, "--outputjson"]
    done = subprocess.run([sys.executable, *call], capture_output=True, text=True)
    found = json.loads(done.stdout)["generalDiagnostics"]
    return [each["range"]["start"]["line"] + 1 for each in found if each["severity"] == "error"], done.stdout


@pytest.mark.slow
def test_mypy_reads_a_users_script():
    lines, output = mypy("script.py")
    assert not lines, output
    lines, output = mypy("mistakes.py")
    assert lines == MISTAKES, output


@pytest.mark.slow
def test_pyright_reads_a_users_script(tmp_path):
    lines, output = pyright("script.py", tmp_path)
    assert not lines, output
    lines, output = pyright("mistakes.py", tmp_path)
    assert sorted(set(lines)) == MISTAKES, output


@pytest.mark.slow
def test_a_users_script_runs():
    subprocess.run([sys.executable, HERE / "script.py"], check=True, env={**os.environ, "PYTHONPATH": str(SOURCE)})


@pytest.mark.parametrize("name", [f"{trio}{axes}d" for trio in TRIOS for axes in (1, 2, 3)])
def test_the_class_that_a_user_writes_tells_its_arguments(name):
    layer = getattr(anystride, name)
    doc = inspect.cleandoc(layer.__doc__)
    told = doc[doc.index("Args:") : re.search("Shape:|Attributes:", doc).start()]
    for argument in list(inspect.signature(layer.__init__).parameters)[1:]:
        assert re.search(rf"\b{argument}\b[^\n]*:", told), argument
    for part in ("Shape:", "Raises:", "Example:"):
        assert part in doc
    shown = pydoc.render_doc(layer, renderer=pydoc.plaintext)
    assert "Args:" in "".join(shown.splitlines(keepends=True)[:40])


@pytest.mark.parametrize("trio", TRIOS)
def test_the_three_say_the_same_but_for_their_axes(trio):
    docs = [getattr(anystride, f"{trio}{axes}d").__doc__ for axes in (1, 2, 3)]
    arguments = {doc[doc.index("Args:") : re.search("Shape:|Attributes:", doc).start()] for doc in docs}
    arguments = {re.sub(r"(?<=[nN], C, )(D, H, W|H, W|L)(?=\))", "*spatial", each) for each in arguments}
    assert len(arguments) == 1, arguments
