"""The package's names are imported when they are first used, and behave as if they had been there from the start."""

import ast
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import anystride


def fresh(code):
    """What a new interpreter prints."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def for_type_checkers():
    """File and name of each import in the block that only type checkers read."""
    tree = ast.parse(Path(anystride.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    return {(node.module.removeprefix("anystride"), alias.name) for node in block.body for alias in node.names}


def test_type_checkers_see_what_is_imported():
    table = {(f".{file}", name) for file, names in anystride._FILES.items() for name in names}
    assert for_type_checkers() == table | {("", "functional")}
    assert sorted(name for _, name in for_type_checkers()) == sorted(anystride.__all__)


def test_nothing_is_imported_before_it_is_used():
    told = fresh("import sys, anystride; print('torch' in sys.modules, anystride.__version__)")
    assert told == f"False {anystride.__version__}"


@pytest.mark.parametrize("name", anystride.__all__)
def test_names_are_those_of_their_files(name):
    found = getattr(anystride, name)
    assert name in vars(anystride)
    assert getattr(found, "__module__", "anystride.functional").startswith("anystride.")
    if isinstance(found, type):
        assert pickle.loads(pickle.dumps(found)) is found


def test_every_way_to_import():
    assert fresh("from anystride import DiffStride2d; print(DiffStride2d(2.0).stride.tolist())") == "[2.0, 2.0]"
    assert fresh("import anystride; print(anystride.functional.diffstride.__name__)") == "diffstride"
    assert fresh("import anystride; print(anystride.checkpoint.save is anystride.save)") == "True"
    assert fresh("import anystride; print(anystride.convert.plan.Plan is anystride.Plan)") == "True"
    assert fresh("import anystride.layers; print(anystride.DiffStride1d is anystride.layers.DiffStride1d)") == "True"
    assert fresh("from anystride import *; print(macs.__module__, functional.__name__)").startswith("anystride.")
    assert fresh("from anystride.convert import convert_; import anystride as a; print(a.convert_ is convert_)")


def test_dir_names_the_api():
    assert set(anystride.__all__) <= set(dir(anystride))
    assert fresh("import anystride; print(set(anystride.__all__) <= set(dir(anystride)))") == "True"


def test_an_unknown_name():
    with pytest.raises(AttributeError, match="module 'anystride' has no attribute 'DiffStride4d'"):
        anystride.DiffStride4d  # noqa: B018
    assert not hasattr(anystride, "__wrapped__")
    with pytest.raises(ImportError):
        exec("from anystride import DiffStride4d")


def test_no_file_has_the_name_of_a_function():
    """Importing it would put the file in the place of the function."""
    files = {path.stem for path in Path(anystride.__file__).parent.iterdir()} - {"functional"}
    assert not files & set(anystride.__all__)
