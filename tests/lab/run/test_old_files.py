"""A run of version 0.1.0 is kept in tests/data: its record, checkpoint and grid file are still read."""

import json
import shutil
from pathlib import Path

import torch

from anystride.lab.cli import main
from anystride.lab.run.checkpoint import saved_configuration
from anystride.lab.run.folder import finished
from anystride.lab.run.record import Record

OLD = Path(__file__).parents[2] / "data" / "v0.1.0"


def test_its_record_is_finished_work():
    data = json.loads((OLD / "run" / "record.json").read_text())
    record = Record.from_json(data)
    assert record.to_json() == data
    config = saved_configuration(OLD / "run" / "last.ckpt")
    assert config is not None
    assert finished(config, OLD / "run") == record


def test_its_checkpoint_is_frozen_and_exported(tmp_path, capsys):
    shutil.copytree(OLD / "run", tmp_path / "run")
    assert main(["export", str(tmp_path / "run"), "--to", "pt2"]) == 0
    assert "differs from PyTorch" in capsys.readouterr().out
    assert torch.export.load(tmp_path / "run" / "model.pt2").module()(torch.zeros(2, 1, 32, 32)).shape[0] == 2


def test_its_grid_is_shown(tmp_path, capsys):
    shutil.copytree(OLD / "grids", tmp_path / "grids")
    assert main(["report", str(tmp_path)]) == 0
