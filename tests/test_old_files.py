"""Files that version 0.1.0 wrote load and say the same: one of each kind is kept in tests/data/v0.1.0.

They are of `EveryRole` in tests/networks.py with moved strides, made with `anystride.save`, `Plan.to_json` and
`torch.save` of state dicts, beside an input and the output that it had.
"""

from pathlib import Path

import pytest
import torch

import anystride
from anystride import DiffStride2d, Plan
from networks import EveryRole

OLD = Path(__file__).parent / "data" / "v0.1.0"


def load(name):
    return torch.load(OLD / name, weights_only=True)


def check(model):
    example = load("example.pt")
    torch.testing.assert_close(model.eval()(example["x"]), example["y"], rtol=1e-5, atol=1e-6)


def test_a_saved_network():
    model = EveryRole()
    anystride.load_(model, OLD / "converted.safetensors")
    check(model)


def test_a_plan_and_a_state_dict():
    model = EveryRole()
    anystride.apply_(model, Plan.from_json((OLD / "plan.json").read_text()))
    assert list(model.state_dict()) == list(load("converted.pt"))
    model.load_state_dict(load("converted.pt"))
    check(model)


def test_the_plan_is_still_found():
    """The same search on the same network: what is written more is where followers and leaders meet."""
    old = Plan.from_json((OLD / "plan.json").read_text())
    new = anystride.convert_(EveryRole().eval(), load("example.pt")["x"], ramp="inner")
    assert [(c.key, c.role, c.leader, c.after) for c in new.changes] == [
        (c.key, c.role, c.leader, c.after) for c in old.changes
    ]
    assert new.macs == old.macs


def test_a_spectral_plan():
    model = EveryRole().eval()
    anystride.apply_(model, Plan.from_json((OLD / "plan-spectral.json").read_text()))
    assert model(load("example.pt")["x"]).shape == (2, 4)


def test_a_state_dict_of_a_frozen_network():
    model, x = EveryRole().eval(), load("example.pt")["x"]
    anystride.load_(model, OLD / "converted.safetensors")
    anystride.freeze_(model, x)
    assert set(model.state_dict()) == set(load("frozen.pt"))
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.zero_()
    model.load_state_dict(load("frozen.pt"))
    check(model)


def test_a_layer():
    pool = DiffStride2d(ramp="inner")
    pool.load_state_dict(load("pool.pt"))
    assert pool.stride.tolist() == pytest.approx([1.5, 2.5])
