"""The site builds: no warning, no broken link, and every cell of a tutorial runs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import anystride

ROOT = Path(__file__).parents[1]
SOURCE = Path(anystride.__file__).parents[1]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("myst_nb")
    call = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "-q", ROOT / "docs", tmp_path]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    values = {**os.environ, "PATH": path, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run(call, capture_output=True, text=True, env=values)
    assert not done.returncode, done.stdout + done.stderr
    finetune = (tmp_path / "tutorials" / "finetune.html").read_text()
    assert "<img" in finetune
    reached = [float(value) for value in re.findall(r"([\d.]+) % at ", finetune)]
    assert reached[-1] > 85
    assert "MatMul" in (tmp_path / "tutorials" / "onnx.html").read_text()
    for page in tmp_path.rglob("*.html"):
        assert str(ROOT) not in page.read_text(), f"{page.name} names a folder of this machine"
