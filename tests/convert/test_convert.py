"""`convert_` on networks that show one difficulty each."""

import copy
import json
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import anystride
from anystride import Plan, apply_, convert_, learned_strides
from anystride.layers import DiffStrideNd
from anystride.resample import Place
from anystride.spectral import SpectralPool2d
from networks import set_strides


class Residual(nn.Module):
    """Two branches of one length."""

    def __init__(self, shortcut=None):
        super().__init__()
        self.conv1 = nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.shortcut = shortcut or nn.Conv2d(4, 8, 1, stride=2)

    def forward(self, x):
        return F.relu(self.conv2(F.relu(self.conv1(x))) + self.shortcut(x))


class Chains(nn.Module):
    """A chain of two beside a single step of four."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.b = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.c = nn.Conv2d(4, 8, 5, stride=4, padding=2)

    def forward(self, x):
        return torch.cat([self.b(self.a(x)), self.c(x)], dim=1)


class Exchange(nn.Module):
    """Two chains with as many steps, as in HRNet."""

    def __init__(self):
        super().__init__()
        self.down1 = nn.Conv2d(4, 4, 3, stride=2, padding=1)
        self.down2 = nn.Conv2d(4, 4, 3, stride=2, padding=1)
        self.chain = nn.Sequential(
            nn.Conv2d(4, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, stride=2, padding=1)
        )

    def forward(self, x):
        return self.down2(self.down1(x)) + self.chain(x)


class Mixed(nn.Module):
    """Inception's reduction: no padding, pooling called as a function."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(4, 8, 3, stride=2)
        self.b = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, stride=2))

    def forward(self, x):
        return torch.cat([self.a(x), self.b(x), F.max_pool2d(x, kernel_size=3, stride=2)], 1)


class UNet(nn.Module):
    """Skips over two levels; interpolation as a module, as a function, and a transposed convolution."""

    def __init__(self):
        super().__init__()
        self.enc = nn.ModuleList([nn.Conv2d(4, 4, 3, padding=1) for _ in range(4)])
        self.pool = nn.ModuleList([nn.MaxPool2d(2), nn.AvgPool2d(2), nn.MaxPool2d(2)])
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.transposed = nn.ConvTranspose2d(4, 4, 2, stride=2)

    def forward(self, x):
        x0 = self.enc[0](x)
        x1 = self.enc[1](self.pool[0](x0))
        x2 = self.enc[2](self.pool[1](x1))
        x3 = self.enc[3](self.pool[2](x2))
        y2 = F.interpolate(x3, scale_factor=2) + x2
        y1 = self.transposed(y2) + x1
        return torch.cat([self.up(y1), x0], 1)


class Blur(nn.Module):
    """Max pooling at stride 1, then a fixed filter with a stride."""

    def __init__(self):
        super().__init__()
        self.pool = nn.MaxPool2d(2, stride=1)
        self.blur = BlurPool(4)

    def forward(self, x):
        return self.blur(self.pool(x))


class BlurPool(nn.Module):
    def __init__(self, channels):
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("filter", (row[:, None] * row).expand(channels, 1, 3, 3).clone(), persistent=False)

    def forward(self, x):
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), self.filter, stride=2, groups=x.shape[1])


class Same(nn.Conv2d):
    """TensorFlow's padding, which depends on stride and size."""

    def forward(self, x):
        pads = []
        for n, k, s in reversed(list(zip(x.shape[2:], self.kernel_size, self.stride, strict=True))):
            total = max((-(-n // s) - 1) * s + k - n, 0)
            pads += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, pads), self.weight, self.bias, self.stride)


class Fixed(nn.Module):
    """A flattened map before a linear layer."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(4, 4, 3, stride=2, padding=1)
        self.b = nn.MaxPool2d(2)
        self.head = nn.Linear(4 * 8 * 8, 3)

    def forward(self, x):
        return self.head(self.b(self.a(x)).flatten(1))


def chain(*layers):
    return nn.Sequential(*layers)


NETWORKS = {
    "convolution": (lambda: chain(nn.Conv2d(4, 8, 3, stride=2, padding=1), nn.ReLU(inplace=True)), 1, 1),
    "no padding": (lambda: chain(nn.Conv2d(4, 8, 3, stride=2), nn.Conv2d(8, 8, 2, stride=2)), 2, 2),
    "dilated, grouped, reflected": (
        lambda: chain(nn.Conv2d(4, 8, 3, stride=2, padding=2, dilation=2, groups=4, padding_mode="reflect")),
        1,
        1,
    ),
    "uneven stride": (lambda: chain(nn.Conv2d(4, 8, 3, stride=(2, 1), padding=1)), 1, 1),
    "max pooling": (lambda: chain(nn.MaxPool2d(3, stride=2, padding=1)), 1, 1),
    "ceil": (lambda: chain(nn.MaxPool2d(3, stride=2, ceil_mode=True), nn.AvgPool2d(2, ceil_mode=True)), 2, 2),
    "residual": (Residual, 1, 2),
    "residual with pooled shortcut": (
        lambda: Residual(nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), nn.Conv2d(4, 8, 1))),
        1,
        2,
    ),
    "chains": (Chains, 2, 3),
    "exchange": (Exchange, 2, 4),
    "mixed": (Mixed, 1, 3),
    "decoder": (UNet, 3, 6),
    "blur": (Blur, 1, 1),
    "same": (lambda: chain(Same(4, 8, 3, stride=2), Same(8, 8, 5, stride=2)), 2, 2),
}


@pytest.fixture(params=NETWORKS)
def network(request):
    make, strides, places = NETWORKS[request.param]
    return make(), strides, places


def x2d(*size):
    return torch.randn(2, 4, *(size or (32, 32)))


def scatter(model, seed=0):
    """Random strides in every group."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, DiffStrideNd):
                module.stride.copy_(1.1 + 2 * torch.rand(module.stride.shape, generator=generator))


def test_what_is_learned_and_replaced(network):
    model, strides, places = network
    plan = convert_(model, x2d())
    assert len(learned_strides(model)) == strides
    assert len(plan.replaced) == places
    assert not plan.stays


def test_shapes_at_start(network):
    model, _, _ = network
    before = {size: model(x2d(*size)).shape for size in ((32, 32), (40, 24))}
    convert_(model, x2d())
    for size, shape in before.items():
        assert model(x2d(*size)).shape == shape


@pytest.mark.parametrize("size", [(32, 32), (41, 27)])
def test_any_strides_run_and_learn(network, size):
    model, _, _ = network
    convert_(model, x2d())
    for seed in range(3):
        scatter(model, seed)
        model.zero_grad()
        model(x2d(*size)).square().mean().backward()
        for stride in {id(m.stride): m.stride for m in model.modules() if isinstance(m, DiffStrideNd)}.values():
            assert stride.grad is not None
            assert stride.grad.abs().min() > 0


def test_twice_changes_nothing(network):
    model, _, _ = network
    convert_(model, x2d())
    keys = list(model.state_dict())
    assert not convert_(model, x2d()).replaced
    assert list(model.state_dict()) == keys


def test_dry_run_changes_nothing(network):
    model, _, _ = network
    model.eval()
    before, keys, shown, x = model(x2d()), list(model.state_dict()), repr(model), x2d()
    before = model(x)
    dry = convert_(model, x, dry_run=True)
    assert repr(model) == shown
    assert list(model.state_dict()) == keys
    assert torch.equal(model(x), before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert convert_(model, x) == dry


def test_weights_keep_names_and_identity(network):
    model, _, _ = network
    before = dict(model.named_parameters())
    convert_(model, x2d())
    after = dict(model.named_parameters())
    assert all(after[name] is parameter for name, parameter in before.items())
    assert all(name.endswith("resample.pool.stride") or ".pool.stride" in name for name in after.keys() - before.keys())


def test_plan_is_data(network):
    model, _, _ = network
    fresh = copy.deepcopy(model)
    plan = convert_(model, x2d())
    again = Plan.from_json(plan.to_json())
    assert again == plan
    apply_(fresh, again)
    scatter(model)
    fresh.load_state_dict(model.state_dict())
    x = x2d(37, 29)
    assert torch.equal(fresh(x), model(x))


def test_a_copy_is_its_own(network):
    model, _, _ = network
    convert_(model, x2d())
    twin = copy.deepcopy(model)
    scatter(twin)
    x = x2d(37, 29)
    start = model(x).shape
    twin(x).mean().backward()
    assert model(x).shape == start
    assert all(parameter.grad is None for parameter in model.parameters())


def test_spectral(network):
    model, _, _ = network
    shape = model(x2d()).shape
    plan = convert_(model, x2d(), method="spectral")
    assert not learned_strides(model)
    assert any(isinstance(module, SpectralPool2d) for module in model.modules())
    assert model(x2d()).shape == shape
    assert "spectral" in str(plan)
    model(x2d(41, 27))


def test_outer_gives_larger_maps(network):
    model, _, _ = network
    shape = model(x2d()).shape
    convert_(model, x2d(), ramp="outer")
    got = model(x2d()).shape
    assert all(a >= b for a, b in zip(got, shape, strict=True))


@pytest.mark.parametrize("name", ["convolution", "max pooling", "ceil", "same", "no padding"])
@pytest.mark.parametrize("size", [(32, 32), (33, 30)])
def test_stride_one_form_sampled_is_the_layer(name, size):
    """On the grid, the map that the operator gets is what the layer gave; the last window of ceil pooling aside."""
    layer = NETWORKS[name][0]()[0]
    x = x2d(*size)
    expected = layer(x)
    grids = []
    convert_(layer, x)
    layer.resample.pool = Spy(layer.resample.pool, grids)
    layer(x)
    (twin, grid) = grids[0]
    sampled = twin[..., ::2, ::2]
    assert sampled.shape == expected.shape
    torch.testing.assert_close(sampled, expected)
    assert list(grid) == [2 * n for n in expected.shape[2:]]


class Spy(nn.Module):
    def __init__(self, pool, seen):
        super().__init__()
        self.pool, self.seen, self.norm = pool, seen, pool.norm

    def forward(self, x, lengths=None, convolution=None):
        self.seen.append((x if convolution is None else convolution.unstrided(x), lengths))
        return self.pool(x, lengths, convolution)


@pytest.mark.parametrize(
    ("conv", "size"),
    [(nn.Conv1d, (64,)), (nn.Conv2d, (32, 32)), (nn.Conv3d, (8, 16, 16))],
    ids=["1d", "2d", "3d"],
)
def test_any_number_of_axes(conv, size):
    axes = len(size)
    pool = getattr(nn, f"MaxPool{axes}d")
    average = getattr(nn, f"AvgPool{axes}d")
    model = nn.Sequential(conv(4, 4, 3, stride=2, padding=1), pool(2), average(2))
    x = torch.randn(2, 4, *size)
    shape = model(x).shape
    convert_(model, x)
    assert [tuple(stride.shape) for stride in learned_strides(model).values()] == [(axes,)] * 3
    assert model(x).shape == shape
    scatter(model)
    model(x).mean().backward()


def test_shared_stride():
    model = nn.Sequential(nn.Conv2d(4, 8, 3, stride=2, padding=1))
    convert_(model, x2d(), shared=True)
    assert model[0].resample.pool.stride.shape == (1,)


class Named(nn.Module):
    """One layer under three names, and one parameter in two layers."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(4, 4, 3, stride=2, padding=1)
        self.again = nn.ModuleList([self.layer, nn.Conv2d(4, 4, 3, padding=1)])
        self.chain = nn.Sequential(self.layer, nn.BatchNorm2d(4))
        self.again[1].weight = self.layer.weight

    def forward(self, x):
        return self.again[1](self.chain(self.layer(x)))


def test_shared_modules_stay_shared():
    model = Named()
    shape = model(x2d()).shape
    tensors = {name: id(tensor) for name, tensor in model.state_dict(keep_vars=True).items()}
    convert_(model, x2d())
    assert model.layer is model.again[0]
    assert model.layer is model.chain[0]
    assert model.again[1].weight is model.layer.weight
    after = {name: id(tensor) for name, tensor in model.state_dict(keep_vars=True).items()}
    assert {name: after[name] for name in tensors} == tensors, "no tensor was exchanged for one without data"
    assert model(x2d()).shape == shape


def test_filter():
    model = nn.Sequential(nn.Conv2d(4, 8, 3, stride=2, padding=1), nn.MaxPool2d(2))
    plan = convert_(model, x2d(), filter=lambda module, name: isinstance(module, nn.Conv2d))
    assert [change.name for change in plan.replaced] == ["0"]
    assert [(change.name, change.why) for change in plan.stays] == [("1", "left out by filter")]
    assert model[1].stride == 2


def test_groups_share_a_stride_that_nothing_ties():
    model = nn.Sequential(nn.Conv2d(4, 8, 3, stride=2, padding=1), nn.MaxPool2d(2))
    convert_(model, x2d(), groups=[("0", "1")])
    assert model[0].resample.pool is model[1].resample.pool
    assert len(learned_strides(model)) == 1
    scatter(model)
    model(x2d(41, 27)).mean().backward()


class Identity(nn.Module):
    """A residual block that keeps the size."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        return self.conv(x) + x


def test_learnable_block_of_stride_one():
    model = nn.Sequential(Identity(), nn.Conv2d(4, 4, 3, stride=2, padding=1))
    plan = convert_(model, x2d(), learnable=["0"])
    assert [change.role for change in plan.changes] == ["learn", "learn"]
    assert model[0].resample.pool.stride.tolist() == [1, 1]
    scatter(model)
    model(x2d(40, 28)).mean().backward()
    assert model[0].resample.pool.stride.grad.abs().min() > 0


def test_learnable_layer_beside_an_identity():
    with pytest.raises(ValueError, match=r"learnable.*'0.conv' meets its own input .*name the residual block"):
        convert_(nn.Sequential(Identity()), x2d(), learnable=["0.conv"])


def test_flattened_map_keeps_its_size():
    model = Fixed()
    plan = convert_(model, x2d())
    assert [(change.name, change.role) for change in plan.changes] == [("a", "learn"), ("b", "keep")]
    assert "needs its size" in plan.changes[1].why
    scatter(model)
    assert model(x2d()).shape == (2, 3)


def test_what_cannot_change_stays_with_its_reason():
    model = Fixed()
    model.b = nn.Identity()
    model.head = nn.Linear(4 * 16 * 16, 3)
    plan = convert_(model, x2d())
    assert not plan.replaced
    assert "head" in plan.stays[0].why
    assert model.a.stride == (2, 2)
    assert "stay: a (" in str(plan)


def test_pooling_that_gives_indices_stays():
    model = nn.Sequential(nn.MaxPool2d(2, return_indices=True))
    plan = convert_(model, x2d())
    assert "indices" in plan.stays[0].why


class Branching(nn.Module):
    """Pools by a function, in a branch that depends on data, a flag and a string."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x, kind="max"):
        x = F.dropout(self.conv(x), training=self.training)
        if kind == "max" and x.sum() > -1e9:
            x = F.max_pool2d(x, 2)
        return x


def test_function_calls_in_branches():
    model = Branching().eval()
    plan = convert_(model, x2d())
    assert [change.how for change in plan.changes] == ["call"]
    set_strides(model, 1.6)
    assert model(x2d(32, 32)).shape[2:] == (20, 20)
    assert model(x2d(32, 32), kind="none").shape[2:] == (32, 32)


class Within(nn.Module):
    """A function that is given to it calls torch."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)),
        lambda x: F.avg_pool2d(x, 2),
        lambda x: F.lp_pool2d(x, 2, 2),
    ],
    ids=["slice", "average", "power"],
)
def test_function_calls_within_a_function(function):
    model = Within(function)
    plan = convert_(model, x2d())
    assert [(change.role, change.how) for change in plan.changes] == [("learn", "call")]
    assert model(x2d()).shape == function(x2d()).shape
    set_strides(model, 1.6)
    assert model(x2d(32, 32)).shape[2:] == (20, 20)


def test_user_hooks_flags_dtypes_survive():
    model = nn.Sequential(nn.Conv2d(4, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8)).double()
    model[0].weight.requires_grad = False
    model[1].eval()
    seen = []
    handle = model[0].register_forward_hook(lambda module, args, output: seen.append(output.shape))
    statistics = copy.deepcopy(model[1].state_dict())
    convert_(model, x2d().double())
    seen.clear()
    model(x2d().double())
    assert seen == [(2, 8, 16, 16)], "a user's hook sees the map that leaves the layer"
    assert not model[0].weight.requires_grad
    assert model.training
    assert not model[1].training
    assert model[0].resample.pool.stride.dtype == torch.float32
    assert all(torch.equal(statistics[key], value) for key, value in model[1].state_dict().items())
    handle.remove()


def test_failure_leaves_the_model_as_it_was():
    class Interrupted(Residual):
        calls = 0

        def forward(self, x):
            if type(self.conv1) is not nn.Conv2d:  # it was converted, and is run to see what it costs
                raise KeyboardInterrupt
            return super().forward(x)

    model = Interrupted()
    before = repr(model)
    with pytest.raises(KeyboardInterrupt):
        convert_(model, x2d())
    assert repr(model) == before
    assert model.conv1.stride == (2, 2)
    assert type(model.conv1) is nn.Conv2d
    assert not any(module._forward_hooks for module in model.modules())


def test_model_that_needs_data():
    """What cannot run on tensors without data runs for real."""

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, stride=2, padding=1)

        def forward(self, x):
            return self.conv(x) / max(x.abs().max().item(), 1e-6)

    model = Scaled()
    assert [change.role for change in convert_(model, x2d()).changes] == ["learn"]


@pytest.mark.parametrize("form", ["tuple", "mapping"])
def test_forms_of_the_example(form):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, stride=2, padding=1)

        def forward(self, a, b):
            return self.conv(a) + self.conv(b)

    example = (x2d(), x2d()) if form == "tuple" else {"a": x2d(), "b": x2d()}
    model = Two()
    assert len(convert_(model, example).replaced) == 1
    assert model(x2d(), x2d()).shape == (2, 4, 16, 16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "fft"}, "method must be one of"),
        ({"ramp": "steep"}, "ramp must be one of"),
        ({"smoothness": 0}, "smoothness must be positive"),
        ({"groups": [("nowhere",)]}, "must name modules of the model, got 'nowhere'"),
        ({"groups": [("1",)]}, "groups: no stride is learned at '1'"),
        ({"learnable": ["nowhere"]}, "must name modules of the model, got 'nowhere'"),
        ({"example_input": 3}, "example_input must be"),
    ],
)
def test_wrong_arguments(change, message):
    model = nn.Sequential(nn.Conv2d(4, 4, 3, stride=2), nn.ReLU())
    with pytest.raises(ValueError, match=message):
        convert_(model, **{"example_input": x2d(), **change})
    assert model[0].stride == (2, 2)


def test_example_that_does_not_fit():
    with pytest.raises(RuntimeError, match="model cannot be run on example_input"):
        convert_(nn.Sequential(nn.Conv2d(3, 4, 3, stride=2)), x2d())


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 2}', json.dumps({"schema": 1, "changes": [{"name": 1}]})])
def test_json_that_is_no_plan(text):
    with pytest.raises(ValueError, match="text must be a plan"):
        Plan.from_json(text)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"how": "dance"}, r"but in the change '0', 'how' must be one of 'stride', .*, got 'dance'; undo the edit"),
        ({"role": "lead"}, "'role' must be one of 'learn', .*, got 'lead'"),
        ({"axes": [7]}, r"'axes' must be numbers of the axes, each once, got \(7,\)"),
        (
            {"role": "follow", "leader": "nobody", "group": None},
            "'leader' must be a place of the plan that is .*, got 'nobody'",
        ),
        (
            {"role": "follow", "group": None, "leader": "input", "turns": ["input", "nobody@2"]},
            "'turns' must be a place of the plan that is converted, got 'nobody@2'",
        ),
        ({"role": "keep", "rules": [["input", 0, 2, [[1, 1, 0]]], None]}, "'rules' must be null or a size"),
    ],
)
def test_a_plan_that_was_edited(edit, message):
    model = nn.Sequential(nn.Conv2d(4, 8, 3, 2, 1), nn.MaxPool2d(2))
    data = json.loads(convert_(model, x2d(), dry_run=True).to_json())
    data["changes"][0] |= edit
    with pytest.raises(ValueError, match=message):
        Plan.from_json(json.dumps(data))


def test_a_plan_that_names_a_call_that_is_not_there():
    data = json.loads(convert_(Branching(), x2d(), dry_run=True).to_json())
    data["changes"][0]["call"] = "forward:99"
    model = Branching()
    with pytest.raises(ValueError, match=r"does not fit the model: '' cannot be converted: 'forward' has \d+ calls"):
        apply_(model, Plan.from_json(json.dumps(data)))
    assert type(model) is Branching


def test_plan_of_another_model():
    plan = convert_(Residual(), x2d())
    other = nn.Sequential(nn.Conv2d(4, 4, 3, stride=2))
    with pytest.raises(ValueError, match="plan does not fit the model, which has no 'conv1', 'shortcut'"):
        apply_(other, plan)
    twice = Residual()
    apply_(twice, plan)
    with pytest.raises(ValueError, match="has an attribute 'resample' already"):
        apply_(twice, plan)


def test_follower_needs_its_leader():
    model = Chains()
    convert_(model, x2d())
    with pytest.raises(RuntimeError, match="call the whole model, not a part of it"):
        copy.deepcopy(model).c(x2d())


def test_plan_prints_what_matters():
    text = str(convert_(Chains(), x2d()))
    for word in ("follow the size of b", "cat in the model", "32x32", "8x8", "multiply-accumulates", "learned stride"):
        assert word in text


def test_whole_module_can_be_pickled():
    model = Residual()
    convert_(model, x2d())
    again = pickle.loads(pickle.dumps(model))
    x = x2d()
    assert torch.equal(again(x), model(x))
    assert again.conv1.resample.pool is again.shortcut.resample.pool


def test_units_of_one_class_meet_one_grid():
    """A pooled shortcut is a sample short of the convolution beside it on some sizes; they agree nevertheless."""
    model = Residual(nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), nn.Conv2d(4, 8, 1)))
    convert_(model, x2d())
    places = [module for module in model.modules() if isinstance(module, Place)]
    for size in range(20, 34):
        model(x2d(size, size + 1))
        assert places[0].seen[1] == places[1].seen[1]


class Ending(nn.Module):
    """A decoder whose last step meets nothing: labels have the input's size."""

    def __init__(self, up):
        super().__init__()
        self.down, self.up = nn.Conv2d(4, 4, 3, stride=2, padding=1), up

    def forward(self, x):
        return self.up(F.relu(self.down(x)))


@pytest.mark.parametrize(
    "up",
    [
        nn.Upsample(scale_factor=2),
        nn.Upsample(scale_factor=2, mode="bicubic", align_corners=True),
        nn.ConvTranspose2d(4, 4, 2, stride=2),
        nn.Sequential(nn.Conv2d(4, 16, 1), nn.PixelShuffle(2)),
    ],
    ids=["nearest", "bicubic", "transposed", "shuffle"],
)
def test_a_decoder_ends_at_the_size_of_the_input(up):
    model = Ending(copy.deepcopy(up))
    before = model(x2d())
    plan = convert_(model, x2d())
    assert plan.changes[-1].leader == "input"
    scatter(model)
    assert model(x2d()).shape == before.shape
    assert model(x2d(41, 27)).shape == (2, 4, 41, 27)


class Optional(nn.Module):
    """Python decides on an argument that may be None."""

    def forward(self, x, skip=None):
        x = F.interpolate(x, scale_factor=2)
        return x if skip is None else x + skip


class OptionalSkips(nn.Module):
    def __init__(self):
        super().__init__()
        self.downs = nn.ModuleList([nn.Conv2d(4, 4, 3, stride=2, padding=1) for _ in range(2)])
        self.ups = nn.ModuleList([Optional(), Optional()])

    def forward(self, x):
        half = self.downs[0](x)
        return self.ups[1](self.ups[0](self.downs[1](half), skip=half))


def test_arguments_that_may_be_none():
    model = OptionalSkips()
    plan = convert_(model, x2d())
    assert [change.role for change in plan.changes] == ["learn", "learn", "follow", "follow"]
    scatter(model)
    assert model(x2d()).shape == (2, 4, 32, 32)


class Table(nn.Module):
    """Looks up one entry per position: on tensors without data, nobody sees that there are too few."""

    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(4, 4, 3, stride=2, padding=1)
        self.table = nn.Parameter(torch.randn(16))

    def forward(self, x):
        x = self.down(x)
        return x + self.table[torch.arange(x.shape[-1], device=x.device)]


def test_a_table_of_positions():
    """It fixes the width alone: the height learns."""
    model = Table()
    plan = convert_(model, x2d(32, 32))
    assert [change.axes for change in plan.changes] == [(0,)]
    set_strides(model, 1.6)
    assert model(x2d(32, 32)).shape[2:] == (20, 16)
    assert model(x2d(48, 32)).shape[2:] == (30, 16)


def test_in_place_operations_after_a_learned_layer():
    """They work, and the gradient is that of the same network without them."""

    def make(inplace):
        torch.manual_seed(3)
        return nn.Sequential(nn.Conv2d(4, 4, 3, stride=2, padding=1), nn.ReLU(inplace=inplace))

    x, gradients = x2d(), []
    for inplace in (True, False):
        model = make(inplace)
        plan = convert_(model, x)
        assert plan.changes[0].copies == inplace
        model(x).square().sum().backward()
        gradients.append(model[0].resample.pool.stride.grad)
    torch.testing.assert_close(*gradients)


class Function(nn.Module):
    """Pooling called as a function."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        return F.max_pool2d(self.conv(x), 3, 2, 1)


@pytest.mark.parametrize("again", [lambda m: pickle.loads(pickle.dumps(m)), copy.deepcopy], ids=["pickle", "deepcopy"])
def test_rewritten_forwards_survive_copies(again):
    model = Function()
    convert_(model, x2d())
    scatter(model)
    x = x2d()
    assert torch.equal(again(model)(x), model(x))
    assert model(x).shape != Function()(x).shape


class Norm(nn.Module):
    """A fixed filter between non-linear steps: no blur pooling."""

    def __init__(self):
        super().__init__()
        self.register_buffer("filter", torch.ones(4, 1, 3, 3) / 9)

    def forward(self, x):
        return (F.conv2d(x * x, self.filter, stride=2, padding=1, groups=4) + 1e-12).sqrt()


def test_a_filter_is_replaced_only_if_it_is_nothing_else():
    model = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), Norm())
    convert_(model, x2d())
    assert isinstance(model[1], Norm)
    scatter(model)
    model(x2d()).mean().backward()


class OptionA(nn.Module):
    """A block that has an attribute `stride`, and branches on it."""

    def __init__(self, stride):
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(4, 4, 3, stride, 1)

    def forward(self, x):
        y = self.conv(x)
        if self.stride > 1:
            x = F.avg_pool2d(x, self.stride)
        return y + x


def test_a_block_with_an_attribute_stride():
    model = nn.Sequential(OptionA(2), OptionA(1))
    plan = convert_(model, x2d())
    assert [change.role for change in plan.changes] == ["learn", "share"]
    scatter(model)
    model(x2d()).mean().backward()
    assert model[0].stride == 2


class Notes(nn.Module):
    """Keeps tensors from one pass to the next."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, 2, 1)
        self.position, self.mean = None, torch.zeros(4, 1, 1)

    def forward(self, x):
        x = F.avg_pool2d(self.conv(x), 2) - self.mean
        if self.position is None or self.position.shape != x.shape[2:]:
            self.position = torch.zeros(x.shape[2:], device=x.device)
        return x + self.position


def test_what_a_pass_notes_is_forgotten():
    model = Notes()
    before = dict(model.__dict__)
    convert_(model, x2d(), dry_run=True)
    assert model.__dict__.keys() == before.keys()
    assert model.position is None
    assert not model.mean.is_meta
    assert convert_(model, x2d()).replaced
    assert model(x2d()).shape == (2, 4, 8, 8)
    anystride.macs(model, x2d())
    assert model(x2d()).shape == (2, 4, 8, 8)


class Encoder(nn.Module):
    """One encoder for two inputs."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, 2, 1)

    def forward(self, a, b):
        return self.conv(a) - self.conv(b)


def test_one_encoder_for_two_inputs():
    assert [change.role for change in convert_(Encoder(), (x2d(), x2d())).changes] == ["learn"]


def test_under_inference_mode():
    model = nn.Sequential(nn.Conv2d(4, 4, 3, 2, 1))
    with torch.inference_mode():
        assert convert_(model, torch.randn(2, 4, 32, 32)).replaced
    model(x2d()).mean().backward()
    assert model[0].resample.pool.stride.grad is not None


@pytest.mark.parametrize("then", [[nn.Dropout(0.5, inplace=True)], [nn.Flatten(2), nn.ReLU(inplace=True)]])
def test_in_place_in_training_or_on_a_view(then):
    model = nn.Sequential(nn.Conv2d(4, 4, 3, 2, 1), *then)
    convert_(model, x2d())
    model.train()(x2d()).sum().backward()


class Unpool(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.pool = nn.Conv2d(4, 4, 3, 2, 1), nn.MaxPool2d(2, return_indices=True)
        self.unpool = nn.MaxUnpool2d(2)

    def forward(self, x):
        return self.unpool(*self.pool(self.conv(x)))


def test_unpooling():
    model = Unpool()
    convert_(model, x2d())
    scatter(model)
    assert model(x2d()).shape == (2, 4, 16, 16)


def test_a_second_conversion_of_the_rest():
    model = nn.Sequential(
        *[layer for _ in range(2) for layer in (nn.Conv2d(4, 4, 3, 2, 1), nn.Upsample(scale_factor=2))]
    )
    convert_(model, x2d(), filter=lambda module, name: name in ("0", "1"))
    expected = model(x2d()).shape
    convert_(model, x2d(), dry_run=True)
    assert model(x2d()).shape == expected
    convert_(model, x2d())
    scatter(model)
    assert model(x2d()).shape == expected


class Keywords(Encoder):
    def forward(self, x):
        return self.conv(input=x)


def test_layers_that_are_called_with_keywords():
    model = Keywords()
    convert_(model, x2d())
    assert model(x2d()).shape == (2, 4, 16, 16)


def test_learnable_layer_with_a_stride():
    with pytest.raises(ValueError, match="learnable: '0' has a stride already"):
        convert_(nn.Sequential(nn.Conv2d(4, 4, 3, 2, 1), nn.ReLU()), x2d(), learnable=["0"])


def test_wrapped_models():
    with pytest.raises(ValueError, match=r"pass model\.module"):
        convert_(nn.DataParallel(nn.Sequential(nn.Conv2d(4, 4, 3, 2, 1))), x2d())


def test_a_plan_warns_where_it_multiplies_the_cost():
    x = torch.randn(1, 3, 64, 64)
    found = {}
    for ramp in ("inner", "cosine"):
        model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8))
        plan = anystride.convert_(model, x, ramp=ramp, dry_run=True)
        found[ramp] = [
            note for note in plan.notes if note.startswith("warning: this conversion multiplies the cost by")
        ]
        assert bool(found[ramp]) == (plan.macs[1] > 1.5 * plan.macs[0])
    assert "ramp='cosine' costs less" in found["inner"][0]
    assert found["inner"][0] in " ".join(str(anystride.convert_(model, x, ramp="inner")).split())
