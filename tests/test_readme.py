"""What the README shows is run as it stands there."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL))
def test_code(code, capsys):
    exec(compile(code, str(README), "exec"), {})
    assert "1.stride" in capsys.readouterr().out


def test_files_exist():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README.read_text()):
        assert (README.parent / target).exists(), f"README.md names {target}"
