"""The package as it is released: what a package index shows, and what lies in the wheel."""

import email
import re
import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import anystride

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\]\(([^)]+)\)")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A wheel and a source distribution, made from a copy."""
    folder = tmp_path_factory.mktemp("package")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    call = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", folder]
    done = subprocess.run(call, capture_output=True, text=True)
    assert not done.returncode, done.stdout + done.stderr
    return sorted((folder / "dist").iterdir())


@pytest.mark.slow
def test_an_index_takes_the_package(built):
    call = [sys.executable, "-m", "twine", "check", "--strict", *built]
    done = subprocess.run(call, capture_output=True, text=True)
    assert not done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_what_an_index_shows_leads_back_to_the_project(built):
    with zipfile.ZipFile(built[0]) as wheel:
        [name] = [name for name in wheel.namelist() if name.endswith("METADATA")]
        metadata = email.message_from_bytes(wheel.read(name))
    text = metadata.get_payload()
    links = LINK.findall(text)
    assert len(links) == len(LINK.findall((ROOT / "README.md").read_text())) > 10
    assert all(link.startswith("https://") for link in links), links
    assert metadata["Version"] == anystride.__version__
    assert {line.split(",")[0] for line in metadata.get_all("Project-URL")} >= {"Source", "Documentation", "Changelog"}


@pytest.mark.slow
def test_a_wheel_has_all_files_of_the_package(built):
    with zipfile.ZipFile(built[0]) as wheel:
        held = {name for name in wheel.namelist() if name.startswith("anystride/")}
    here = (ROOT / "src").rglob("*")
    files = {
        path.relative_to(ROOT / "src").as_posix() for path in here if path.is_file() and "__pycache__" not in path.parts
    }
    assert held == {name for name in files if name.startswith("anystride/")}


def test_addresses_agree():
    addresses = set(re.findall(r'https://[^"\s]+/anystride/anystride', (ROOT / "setup.py").read_text()))
    source = re.search(r'Source = "([^"]+)"', (ROOT / "pyproject.toml").read_text())[1]
    assert source in addresses


@pytest.mark.slow
def test_what_is_installed_works():
    runpy.run_path(str(ROOT / "tests" / "smoke.py"))


def test_changes_begin_with_this_version():
    first = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1]
    assert first == anystride.__version__
