"""The house's rules that a machine can hold: who imports whom, and what the core may need."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import anystride

SOURCE = Path(anystride.__file__).parent
# Import only leftwards; names in one set stand beside each other and do not import each other.
FLOORS = [
    {"ops.window", "ops.cache", "ops.costs"},
    {"ops.fourier"},
    {"ops.matrix"},
    {"ops.separable"},
    {"ops.fusion"},
    {"ops.autograd"},
    {"checks", "convolution", "stride"},
    {"functional"},
    {"layers"},
    {"resample"},
    {"execution", "hosts"},
    {"counting.labels", "convert.fx", "convert.plan", "convert.sites", "optim", "frozen"},
    {"counting.counter", "convert.ties"},
    {"convert.planner", "convert.surgery"},
    {"budget", "convert", "freeze"},
    {"checkpoint"},
]
PACKAGES = {"ops", "counting"}  # their __init__ holds nothing
CORE = sorted(
    path
    for path in SOURCE.rglob("*.py")
    if "lab" not in path.parts[len(SOURCE.parts) :] and path != SOURCE / "__init__.py"
)


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
    """The floor of a file, or of the file that a dotted name is in."""
    while name:
        for number, names in enumerate(FLOORS):
            if name in names:
                return number
        name = name.rpartition(".")[0]
    return -1


def test_every_core_file_has_a_floor():
    assert {name_of(path) for path in CORE} - PACKAGES == set().union(*FLOORS)


@pytest.mark.parametrize("path", CORE, ids=name_of)
def test_core_imports_torch_the_standard_library_and_floors_below(path):
    for module in imports(path):
        top, *rest = module.split(".")
        if (name_of(path), top) == ("checkpoint", "safetensors"):
            continue  # imported when a file is written or read; a file format is no part of the layer
        assert top in {"torch", "anystride"} or top in sys.stdlib_module_names, f"{path.stem} imports {module}"
        if top == "anystride" and rest:
            own = name_of(path)
            within = own in PACKAGES or floor(".".join(rest)) < floor(own)
            assert within or ".".join(rest) in own, f"{own} imports {module}"


@pytest.mark.parametrize("path", sorted((SOURCE / "lab").rglob("*.py")), ids=lambda path: path.stem)
def test_lab_uses_public_names_of_the_core(path):
    for module in imports(path):
        top, *rest = module.split(".")
        if top == "anystride" and rest and rest[0] != "lab":
            assert not any(part.startswith("_") and part != "__version__" for part in rest), (
                f"{path.stem} imports {module}"
            )


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
