"""The house's rules that a machine can hold: who imports whom, and what the core may need."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import anystride

SOURCE = Path(anystride.__file__).parent
ROOT = Path(__file__).parents[1]
OUTSIDE = ["lab/**/*.py", "integrations/*.py", "__main__.py", "__init__.py"]
CORE = sorted({*SOURCE.rglob("*.py")} - {path for pattern in OUTSIDE for path in SOURCE.glob(pattern)})
LATE = {("checkpoint", "safetensors"), ("plots", "matplotlib")}  # imported when a file is written, a picture drawn
PUBLIC = {"functional", "ops.window"}  # what the lab may open besides the names at the top


def diagram(page):
    """The block that shows who imports whom, in a page."""
    text = (ROOT / page).read_text()
    return next(block for block in text.split("```") if block.startswith("text\nops.cosine"))


# Import only leftwards. Files of one floor stand beside each other; a room (a folder) is one floor, without a cycle.
FLOORS = [[name.strip() for name in part.split(",")] for part in diagram("CONTRIBUTING.md")[5:].split("<-")]


def name_of(path):
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: absolute imports only"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names if node.module.startswith("anystride"))


def floor(name):
    """The floor of a file, or of the file or room that a dotted name is in; -1 for the package itself."""
    while name:
        for number, names in enumerate(FLOORS):
            if name in names:
                return number
        name = name.rpartition(".")[0]
    return -1


def room(name):
    return name.partition(".")[0]


def test_every_core_file_has_a_floor():
    assert all(floor(name_of(path)) >= 0 for path in CORE if name_of(path) != "ops")
    shown = {name for names in FLOORS for name in names} - {"integrations", "lab"}
    assert all(any(name_of(path) == name or room(name_of(path)) == name for path in CORE) for name in shown)


@pytest.mark.parametrize("path", CORE, ids=name_of)
def test_core_imports_torch_the_standard_library_and_floors_below(path):
    own = name_of(path)
    for module in imports(path):
        top, *rest = module.split(".")
        if (own, top) in LATE:
            continue
        assert top in {"torch", "anystride"} or top in sys.stdlib_module_names, f"{own} imports {module}"
        if top == "anystride" and rest:
            other = ".".join(rest)
            beside = floor(other) == floor(own) and room(other) == room(own) and "." in other
            assert floor(other) < floor(own) or beside, f"{own} imports {module}"


@pytest.mark.parametrize("inside", ["convert", "counting"])
def test_a_room_has_no_cycle(inside):
    files = {name_of(path): set(imports(path)) for path in CORE if room(name_of(path)) == inside}
    known = {
        name: {other for other in files if other != inside and f"anystride.{other}" in found}
        for name, found in files.items()
    }
    while known:
        free = [name for name, others in known.items() if not others & known.keys()]
        assert free, known
        for name in free:
            del known[name]


def test_core_files_and_functions_are_short():
    """A file holds one idea, and a function does one thing; docstrings of public functions are not counted."""
    for path in CORE:
        text = path.read_text()
        assert text.count("\n") <= 300, path.name
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                doc = node.body[0] if ast.get_docstring(node) else None
                lines = node.end_lineno - node.lineno + 1 - (doc.end_lineno - doc.lineno + 1 if doc else 0)
                assert lines <= 60, f"{path.name}: {node.name}"


def test_no_forward_is_replaced_on_an_object():
    for path in CORE:
        for node in ast.walk(ast.parse(path.read_text())):
            targets = node.targets if isinstance(node, ast.Assign) else []
            assert not any(isinstance(t, ast.Attribute) and t.attr == "forward" for t in targets), path.name


@pytest.mark.parametrize("path", sorted((SOURCE / "integrations").glob("[a-z]*.py")), ids=name_of)
def test_an_integration_needs_torch_and_its_library_alone(path):
    for module in imports(path):
        top, *rest = module.split(".")
        assert top in {path.stem, "anystride", "torch", *sys.stdlib_module_names}, f"{path.name} imports {module}"
        assert top != "anystride" or not rest or rest[0] in anystride.__all__, f"{path.name} imports {module}"


@pytest.mark.parametrize("path", sorted((SOURCE / "lab").rglob("*.py")), ids=name_of)
def test_lab_uses_public_names_of_the_core(path):
    for module in imports(path):
        top, *rest = module.split(".")
        if top == "anystride" and rest and rest[0] != "lab":
            name = ".".join(rest)
            public = name in (*anystride.__all__, "__version__") or any(name.startswith(known) for known in PUBLIC)
            assert public, f"{name_of(path)} imports {module}"


def test_core_imports_alone():
    """In a fresh interpreter that hides everything but torch and what torch needs, and touches no GPU."""
    script = """
import sys
hidden = ("lightning", "torchvision", "sklearn", "matplotlib", "rich", "tensorboard", "torchmetrics", "safetensors")
sys.modules.update(dict.fromkeys(hidden))  # importing any of them fails
import torch
before = set(sys.modules)
import anystride
new = {name.split(".")[0] for name in set(sys.modules) - before}
assert new <= {"anystride", "torch"} | set(sys.stdlib_module_names), new
assert "torch._dynamo" not in sys.modules, "importing the compiler takes a second"
assert not torch.cuda.is_initialized()
pool = anystride.DiffStride2d(2.0)
x = torch.randn(1, 2, 16, 16, requires_grad=True)
pool(x).sum().backward()
print(tuple(pool(x).shape))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(1, 2, 16, 16)"


def test_public_names_are_documented():
    for name in anystride.__all__:
        assert getattr(anystride, name).__doc__
    assert (SOURCE / "py.typed").exists()
