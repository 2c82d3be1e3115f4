"""A converted network in one file."""

import sys

import pytest
import torch
from torch import nn

from anystride import DiffStride2d, convert_, learned_strides
from anystride.checkpoint import load_, save
from anystride.freeze import freeze_

X = torch.randn(2, 3, 32, 24, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    """Tied layers, a tied weight and a buffer that is a part of another tensor."""

    def __init__(self, width=6):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, width, 3, stride=2, padding=1), nn.BatchNorm2d(width)
        self.deep, self.shortcut = nn.Conv2d(width, 8, 3, stride=2, padding=1), nn.Conv2d(width, 8, 1, stride=2)
        self.head, self.again = nn.Linear(8, 8), nn.Linear(8, 8)
        self.again.weight = self.head.weight
        self.register_buffer("table", torch.arange(12.0).reshape(3, 4))
        self.register_buffer("part", self.table[1:])

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        return self.again(self.head((self.deep(x) + self.shortcut(x)).mean((2, 3))))


@pytest.fixture
def saved(tmp_path):
    pytest.importorskip("safetensors")
    model = Block()
    plan = convert_(model, X)
    model(X)
    with torch.no_grad():
        model.stem.resample.pool.stride.copy_(torch.tensor([1.7, 2.4]))
    path = tmp_path / "model.safetensors"
    save(model, plan, path)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    return model.eval(), plan, path


def test_a_fresh_network_becomes_the_saved_one(saved):
    model, plan, path = saved
    fresh = Block().eval()
    assert load_(fresh, path) == plan
    assert torch.equal(fresh(X), model(X))
    assert fresh.again.weight is fresh.head.weight
    assert fresh.deep.resample.pool is fresh.shortcut.resample.pool
    assert learned_strides(fresh)["stem.resample.pool.stride"].tolist() == pytest.approx([1.7, 2.4])
    untied = Block().eval()
    untied.again.weight = nn.Parameter(torch.zeros(8, 8))
    load_(untied, path)
    assert torch.equal(untied(X), model(X))
    double = Block().double().eval()
    load_(double, path)
    assert double(X.double()).dtype == torch.float64


def test_a_file_is_replaced_whole_or_not_at_all(saved, monkeypatch):
    import safetensors.torch

    model, plan, path = saved
    before = path.read_bytes()

    def fail(tensors, filename, metadata):
        with open(filename, "wb") as file:  # noqa: PTH123 - as it would be left behind
            file.write(b"half")
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(safetensors.torch, "save_file", fail)
        with pytest.raises(OSError, match="No space"):
            save(model, plan, path)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    save(model, plan, str(path))


def test_a_file_that_does_not_fit_changes_nothing(saved):
    path = saved[-1]

    class More(Block):
        def __init__(self):
            super().__init__()
            self.extra = nn.Linear(2, 2)

    class Less(Block):
        def __init__(self):
            super().__init__()
            self.head = nn.Identity()

    class Other(Block):
        def __init__(self):
            super().__init__()
            self.shortcut = None

    for make, message in (
        (More, r"file does not fit the model: it lacks 'extra\.weight', 'extra\.bias'"),
        (Less, r"the model has no 'head\.(weight|bias)'"),
        (lambda: Block(width=5), r"'stem\.weight \(6, 3, 3, 3\) for \(5, 3, 3, 3\)', .* differ in shape$"),
        (Other, "'shortcut'"),
    ):
        model = make()
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        modules = list(model.named_modules())
        with pytest.raises(ValueError, match=message):
            load_(model, path)
        assert list(model.named_modules()) == modules
        assert model.stem.stride == (2, 2)
        assert not model.stem._forward_hooks
        assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_other_files_are_refused(saved, tmp_path):
    import safetensors.torch

    path = tmp_path / "other"
    with pytest.raises(FileNotFoundError, match="path must be a file that anystride"):
        load_(Block(), path)
    path.write_bytes(b"something else")
    with pytest.raises(ValueError, match="path must be a safetensors file"):
        load_(Block(), path)
    safetensors.torch.save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="without a plan"):
        load_(Block(), path)


def test_models_that_their_plan_does_not_fit_are_not_written(saved, tmp_path):
    model, plan, _ = saved
    path = tmp_path / "new"
    with pytest.raises(ValueError, match=r"which has no 'stem'.*save what is inside"):
        save(nn.ModuleDict({"module": model}), plan, path)

    class Extra(nn.Module):
        def get_extra_state(self):
            return {"a": 1}

    model.add_module("extra", Extra())
    with pytest.raises(ValueError, match=r"hold tensors only, got dict at 'extra\._extra_state'"):
        save(model, plan, path)
    del model.extra
    with pytest.raises(ValueError, match="model is frozen"):
        save(freeze_(model, X), plan, path)
    assert not path.exists()


def test_the_extra_is_named_where_it_is_missing(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'anystride\[export\]'"):
        load_(nn.Sequential(DiffStride2d()), tmp_path / "x")
