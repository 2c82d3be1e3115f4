"""`--data` with names that no folder has: one line each."""

import pytest

from anystride.lab.cli import main
from anystride.lab.data.catalogue import open_source
from anystride.lab.errors import UsageError
from anystride.lab.run.config import RunConfig

NAMES = {"long": "x" * 5000, "deep": "x/" * 2100, "nul": "a\0b", "bytes": "\udcff", "absent": "absent"}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_name_that_no_folder_has_is_one_line(tmp_path, name):
    with pytest.raises(UsageError, match="--data") as caught:
        open_source(RunConfig(data=name), tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_training_on_it_leaves_nothing(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--data", name]) == 2
    assert capsys.readouterr().err.count("error: ") == 1
    assert not list(tmp_path.iterdir())
