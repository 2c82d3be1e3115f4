"""A converted network in one file."""

import random
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


class Broken(nn.Parameter):
    """A parameter into which nothing can be copied."""

    def __deepcopy__(self, memo):
        return self

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is torch.Tensor.copy_:
            raise torch.OutOfMemoryError("no memory is left")
        return super().__torch_function__(func, types, args, kwargs or {})


def state_of(model):
    """What loading may change: modules and their classes, attributes of one layer, the values of all tensors."""
    kinds = [(name, type(module)) for name, module in model.named_modules()]
    return kinds, dict(vars(model.stem)), {name: tensor.clone() for name, tensor in model.state_dict().items()}


def check_unchanged(model, before):
    kinds, attributes, tensors = before
    assert [(name, type(module)) for name, module in model.named_modules()] == kinds
    assert vars(model.stem).keys() == attributes.keys()
    assert model.state_dict().keys() == tensors.keys()
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("broken", ["stem.weight", "norm.bias", "head.bias"])
def test_a_copy_that_fails_half_way_changes_nothing(saved, broken):
    """The first, fifth and last but one tensor cannot take its value; those before it are put back."""
    path = saved[-1]
    model = Block()
    name, _, leaf = broken.rpartition(".")
    owner = model.get_submodule(name)
    setattr(owner, leaf, Broken(getattr(owner, leaf).detach().clone()))
    before = state_of(model)
    with pytest.raises(RuntimeError, match="no memory is left"):
        load_(model, path)
    check_unchanged(model, before)
    setattr(owner, leaf, nn.Parameter(getattr(owner, leaf).detach().as_subclass(torch.Tensor)))
    load_(model, path)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, TypeError])
def test_a_load_that_raises_changes_nothing(saved, error):
    class Raises(Block):
        def load_state_dict(self, state, *args, **kwargs):
            super().load_state_dict(state, *args, **kwargs)
            self.norm.momentum = 0.7
            raise error("half way")

    model = Raises()
    before = state_of(model)
    with pytest.raises(error, match="half way"):
        load_(model, saved[-1])
    check_unchanged(model, before)
    assert model.norm.momentum == 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.to("meta"), r"is on the device 'meta'; call model\.to_empty first"),
        (lambda m: m.add_module("late", nn.LazyLinear(2)), "run it once on an example before load_"),
        (
            lambda m: m.register_buffer("table", torch.zeros(3, 4, dtype=torch.int32)),
            r"'table torch\.float32 for torch",
        ),
        (lambda m: setattr(type(m), "get_extra_state", lambda self: 1), "hold tensors only, got int at '_extra_state'"),
    ],
)
def test_models_that_cannot_take_the_tensors(saved, change, message):
    model = type("Block", (Block,), {})()
    change(model)
    kinds = [(name, type(module)) for name, module in model.named_modules()]
    with pytest.raises(ValueError, match=message):
        load_(model, saved[-1])
    assert [(name, type(module)) for name, module in model.named_modules()] == kinds


def test_every_bit_that_flips_is_noticed(saved):
    """In the header, in the plan and in the data; or it does not matter, and the same tensors are there."""
    model, plan, path = saved
    whole, fresh = path.read_bytes(), Block()
    header = 8 + int.from_bytes(whole[:8], "little")
    random_positions = random.Random(0)
    places = [*range(10), *[random_positions.randrange(header) for _ in range(120)]]
    places += [random_positions.randrange(header, len(whole)) for _ in range(90)]
    noticed = 0
    before = state_of(fresh)
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << random_positions.randrange(8)
        path.write_bytes(damaged)
        try:
            found = load_(fresh, path)
        except ValueError as error:
            assert "\n" not in str(error)  # noqa: PT017 - or the same tensors
            assert repr(str(path)) in str(error)  # noqa: PT017
            assert "fetch the file again, or save it again" in str(error)  # noqa: PT017
            check_unchanged(fresh, before)
            noticed += 1
            continue
        assert found == plan
        assert all(
            torch.equal(a, b) for a, b in zip(fresh.state_dict().values(), model.state_dict().values(), strict=True)
        )
        fresh = Block()
        before = state_of(fresh)
    assert noticed > 0.95 * len(places)


def test_files_that_were_cut_or_have_no_digest(saved):
    """A file cut anywhere is refused; one that was written before there were digests loads."""
    import safetensors.torch

    model, plan, path = saved
    whole = path.read_bytes()
    for length in (0, 4, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"cannot be read \(.*\); fetch the file again, or save it again"):
            load_(Block(), path)
    path.write_bytes(whole)
    with safetensors.safe_open(path, framework="pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    del metadata["anystride.digest"]
    safetensors.torch.save_file(tensors, path, metadata=metadata)
    fresh = Block().eval()
    assert load_(fresh, path) == plan
    assert torch.equal(fresh(X), model(X))


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
