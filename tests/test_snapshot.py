"""A model is never changed by looking at it: `macs`, a dry run, a conversion that fails."""

import collections
import copy
import random
import types

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from anystride import DiffStride2d, complexity, convert_, macs
from anystride.execution import Execution, NeedsDataError, run_once

X = torch.randn(2, 3, 32, 32)


class Net(nn.Module):
    """Two convolutions with a stride; subclasses keep something in `note`."""

    memory: dict = {}  # noqa: RUF012 - a class that remembers is a case
    needs_data = False

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.b = nn.Conv2d(4, 4, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x):
        if self.needs_data and x.sum().item() > 1e9:
            return x
        x = self.norm(self.a(x))
        self.note(x)
        return self.b(x).mean((2, 3))

    def note(self, x):
        pass


def described(value, depth=0):
    """Everything that an object holds, in a form that can be compared; tensors by identity and value."""
    if isinstance(value, torch.Tensor):
        data = None if value.is_meta else value.detach().numpy().tobytes()
        grad = None if value.grad is None else (id(value.grad), value.grad.numpy().tobytes())
        hooks = [len(getattr(value, name) or ()) for name in ("_backward_hooks", "_post_accumulate_grad_hooks")]
        return type(value), id(value), tuple(value.shape), value.requires_grad, grad, data, hooks
    if isinstance(value, np.ndarray):
        return id(value), value.tobytes()
    if isinstance(value, torch.Generator):
        return id(value), value.get_state().numpy().tobytes()
    if depth > 5 or isinstance(value, type | types.FunctionType | str):
        return repr(value)
    if isinstance(value, dict):
        return type(value), id(value), [(key, described(child, depth + 1)) for key, child in value.items()]
    if isinstance(value, list | tuple | collections.deque):
        return type(value), id(value), [described(child, depth + 1) for child in value]
    if isinstance(value, set):
        return id(value), sorted(map(repr, value))
    if isinstance(value, nn.Module):
        return type(value), id(value), [(name, described(child, depth + 1)) for name, child in vars(value).items()]
    if hasattr(value, "__dict__"):
        return id(value), [(name, described(child, depth + 1)) for name, child in vars(value).items()]
    return repr(value)


def everything(model):
    modules = [(name, id(module), described(module, 2)) for name, module in model.named_modules()]
    states = torch.get_rng_state().numpy().tobytes(), random.getstate(), str(np.random.get_state())
    return modules, described(type(model).memory), states


def hooks_once(self, x):
    if not hasattr(self, "_hooked"):
        self.a.register_forward_hook(lambda *_: None)
        self.a.register_forward_pre_hook(lambda *_: None, with_kwargs=True)
        self.b.register_forward_hook(lambda *_: None, always_call=True)
        self.a.register_full_backward_hook(lambda *_: None)
        self.a.register_full_backward_pre_hook(lambda *_: None)
        self.a.register_state_dict_pre_hook(lambda *_: None)
        self.a._register_state_dict_hook(lambda *_: None)
        self.a.register_load_state_dict_post_hook(lambda *_: None)
        self._hooked = True


def hook_taken_off(self, x):
    self.handle.remove()


def containers(self, x):
    self.features.append(x)
    self.cache[tuple(x.shape)] = x
    self.nested["maps"].append(x)
    self.counts["calls"] += 1
    self.names.add("c")
    self.queue.append(x)
    self.queue.append(x)
    self.pair[0].append(x)
    self.array += 1
    self.memory["grid"] = x


def objects(self, x):
    self.state.map = x
    self.state.maps.append(x)


def tensors_in_place(self, x):
    self.mean.add_(1)
    self.plain.mul_(2)
    self.listed[0].add_(1)
    self.a.weight.data.clamp_(-1e-3, 1e-3)
    self.mean = self.mean + 1


def modules_and_parameters(self, x):
    self.extra = nn.Linear(2, 2)
    self.weight = nn.Parameter(torch.zeros(2))
    self.register_buffer("more", torch.zeros(2))
    self._modules["a"], self._modules["b"] = self.a, self.b
    if type(self.b) is nn.Conv2d:
        parametrize.register_parametrization(self.b, "bias", nn.Identity())


def flags(self, x):
    self.a.training = not self.a.training
    self.b.weight.requires_grad_(False)
    self.a.weight.grad = None
    self.count = getattr(self, "count", 0) + 1


def hooks_of_tensors(self, x):
    for parameter in self.parameters():
        parameter.register_post_accumulate_grad_hook(lambda _: None)


def backward_within(self, x):
    with torch.enable_grad():
        (self.a.weight * 2).sum().backward()


def draws(self, x):
    random.random()
    np.random.rand()
    torch.rand(3)
    torch.rand(3, generator=self.generator)


NOTES = [
    hooks_once,
    hook_taken_off,
    containers,
    objects,
    tensors_in_place,
    modules_and_parameters,
    flags,
    hooks_of_tensors,
    backward_within,
    draws,
]


def build(note, needs_data, **more):
    kind = type("Noting", (Net,), {"note": note, "memory": {}, "needs_data": needs_data, **more})
    model = kind().train()
    model.norm.eval()
    model.handle = model.a.register_forward_hook(lambda *_: None)
    model.features, model.cache, model.nested = [], {}, {"maps": [1]}
    model.counts, model.names, model.pair = collections.defaultdict(int), {"a", "b"}, ([], 1)
    model.queue, model.array = collections.deque([1, 2], maxlen=2), np.zeros(3)
    model.state = types.SimpleNamespace(map=None, maps=[])
    model.plain, model.listed, model.generator = torch.ones(2), [torch.ones(2)], torch.Generator()
    model.a.weight.grad = torch.ones_like(model.a.weight)
    return model


class Fails(nn.Module):
    def forward(self, x):
        raise KeyError("no such thing")


def failing(model, x):
    model.b = Fails()
    before = everything(model)
    with pytest.raises(RuntimeError, match="cannot be run"):
        convert_(model, x)
    return before


LOOKS = {"macs": macs, "dry run": lambda model, x: convert_(model, x, dry_run=True), "failure": failing}


@pytest.mark.parametrize("needs_data", [False, True], ids=["without data", "with data"])
@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("note", NOTES, ids=lambda note: note.__name__)
def test_looking_changes_nothing(note, look, needs_data):
    model = build(note, needs_data)
    before, x = everything(model), X.clone()
    before = LOOKS[look](model, x) if look == "failure" else LOOKS[look](model, x) and before
    assert everything(model) == before
    assert torch.equal(x, X)


def test_learned_layers_forget_what_they_were_shown():
    """Neither the range of a stride, nor the size that a fixed grid holds, nor what is printed."""
    model = build(Net.note, needs_data=False)
    convert_(model, X, grid="fixed")
    model(X)
    before = everything(model)
    macs(model, torch.empty(1, 3, 48, 48))
    complexity(model, torch.empty(1, 3, 4, 4))
    macs(model, torch.empty(1, 3, 48, 48))
    assert everything(model) == before
    fresh = DiffStride2d(2.0, grid="fixed")
    before = described(fresh)
    macs(fresh, X)
    macs(fresh, X)
    assert described(fresh) == before


def test_hooks_fire_as_often_as_before():
    fired = []

    def hook_once(self, x):
        if not hasattr(self, "_hooked"):
            self.a.register_forward_hook(lambda *_: fired.append(1))
            self._hooked = True

    model = build(hook_once, needs_data=False)
    macs(model, X)
    convert_(model, X, dry_run=True)
    convert_(model, X)
    fired.clear()
    model(X)
    model(X)
    assert len(fired) == 1, "registered behind the call that it is for"


def test_the_example_stays():
    class Pops(nn.Module):
        def forward(self, batch, images):
            x = batch.pop("x")
            x.sub_(1)
            images[0] = images[0] + x.sum().item()
            return images[0]

    batch, images = {"x": torch.ones(2)}, [torch.ones(3), torch.ones(4)]
    before = copy.deepcopy((batch, images))
    run_once(Execution, Pops(), (batch, images), training=False)
    assert str((batch, images)) == str(before)


def test_a_lazy_module_gets_its_shapes():
    model = nn.Sequential(nn.LazyConv2d(4, 3, stride=2), nn.LazyConv2d(4, 3))
    with pytest.raises(NeedsDataError, match="lazy"):
        Execution().run(model, X, training=False)
    macs(model, X)
    assert type(model[0]) is nn.Conv2d
    assert model[1].weight.shape == (4, 4, 3, 3)


@pytest.mark.parametrize("number", [1, 2, 5, 8])
def test_an_interrupt_leaves_the_model_as_it_was(number):
    model = build(Net.note, needs_data=False)
    calls = []

    def interrupt(module, args):
        calls.append(module)
        if len(calls) == number:
            raise KeyboardInterrupt

    model.register_forward_pre_hook(interrupt)
    before = everything(model)
    with pytest.raises(KeyboardInterrupt):
        convert_(model, X)
    assert len(calls) == number
    assert everything(model) == before
