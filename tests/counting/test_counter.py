"""Multiply-accumulates: the value against torch's own counter on real passes, the gradient against differences."""

import copy
import gc
import itertools
import math
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

import anystride
from anystride import DiffStride1d, DiffStride2d, DiffStride3d, SpectralPool1d, SpectralPool2d, param_groups
from anystride.budget import Budget, macs
from anystride.counting import counter as cost
from anystride.counting.counter import count
from anystride.hosts import NAMES, put_on
from anystride.resample import Follows, Keeps, Shares
from networks import geometry_of, learn, put_place

aten = torch.ops.aten

CNNS = {
    "resnet18": "torchvision",
    "resnet50": "torchvision",
    "densenet121": "torchvision",
    "mobilenet_v3_small": "torchvision",
    "efficientnet_b0": "torchvision",
    "shufflenet_v2_x0_5": "torchvision",
    "vgg11": "torchvision",
    "regnet_y_400mf": "torchvision",
    "convnext_atto": "timm",
}
ATTENTION = {"swin_t": "torchvision", "coatnet_pico_rw_224": "timm", "vit_tiny_patch16_224": "timm"}


@pytest.fixture(autouse=True)
def products_are_seen(monkeypatch):
    """torch's counter does not see into fused attention on the CPU."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    with sdpa_kernel(SDPBackend.MATH):
        yield
    torch.backends.mha.set_fastpath_enabled(before)


def build(name, library):
    if library == "timm":
        size = {} if name.startswith("conv") else {"img_size": 64}
        return pytest.importorskip("timm").create_model(name, **size)
    return pytest.importorskip("torchvision").models.get_model(name)


def counted(model, x):
    """What torch counts in a real evaluation pass."""
    training = model.training
    with torch.no_grad():
        model.eval()(x)  # matrices of strides that moved are made here, and kept
        with FlopCounterMode(display=False) as counter:
            model(x)
    model.train(training)
    return counter.get_total_flops() // 2


def strides_of(model):
    return list({id(m.stride): m.stride for m in model.modules() if isinstance(m, cost.DiffStrideNd)}.values())


@pytest.mark.parametrize("name", CNNS | ATTENTION)
@pytest.mark.slow
def test_exact_as_it_comes(name):
    model, x = build(name, (CNNS | ATTENTION)[name]), torch.randn(2, 3, 64, 64)
    assert macs(model, x).item() == counted(model, x) == count(model, x).total


# Where the search for ties takes seconds, these learn their strides: they meet no other map.
SLOW = {"densenet121": ["features.conv0"], "mobilenet_v3_small": ["features.0.0", "features.1.block.0.0"],
        "efficientnet_b0": ["features.0.0", "features.2.0.block.1.0"], "regnet_y_400mf": ["stem.0"]}  # fmt: skip


@pytest.mark.parametrize("name", CNNS)
@pytest.mark.slow
def test_exact_with_learned_strides(name):
    model, x = build(name, CNNS[name]), torch.randn(1, 3, 64, 64)
    for layer in SLOW.get(name, []):
        learn(model.get_submodule(layer), (1.7, 2.3))
    if name not in SLOW:
        anystride.convert_(model, x)
    for _ in range(2):
        assert macs(model, x).item() == counted(model, x)
        with torch.no_grad():
            for stride in strides_of(model):
                stride.mul_(torch.empty_like(stride).uniform_(0.7, 1.2))


@pytest.mark.parametrize("ramp", ["inner", "outer"])
def test_exact_with_tied_strides(ramp):
    model, x = build("resnet18", "torchvision"), torch.randn(1, 3, 160, 128)
    block = model.layer2[0]
    pool, conv = learn(block.conv1, (1.3, 2.4), "leads", ramp=ramp).pool, block.downsample[0]
    leading = geometry_of(conv)._replace(span=(3, 3), padding=(1, 1))
    put_place(conv, Shares(pool, "leads", leading, (0, 0), name="shares", geometry=geometry_of(conv)))
    value = macs(model, x)
    assert value.item() == counted(model, x)
    (slope,) = torch.autograd.grad(value, block.conv1.resample.pool.stride)
    assert (slope < 0).all()


def test_exact_where_maps_follow_or_keep_a_size():
    class Meeting(nn.Module):
        def __init__(self):
            super().__init__()
            self.convs = nn.ModuleList(nn.Conv2d(n, 4, 3, stride=2, padding=1) for n in (3, 3, 4, 4))
            self.end = nn.Conv2d(4, 4, 3)

        def forward(self, x):
            a, b, c, d = self.convs
            return d(self.end(c(a(x) + b(x))))

    model, x = Meeting(), torch.randn(2, 3, 64, 96)
    a, b, _, d = model.convs
    leader = learn(a, (1.7, 2.6), "a", smoothness=4.0)
    leader.followed = True
    put_place(b, Follows("a", name="b", geometry=geometry_of(b)))
    put_place(d, Keeps((5, 6), name="d", geometry=geometry_of(d)))
    setattr(model, NAMES, ("a",))
    put_on(model, "scope")
    value = macs(model, x)
    assert value.item() == counted(model, x)
    (slope,) = torch.autograd.grad(value, leader.pool.stride)
    assert (slope < 0).all()
    # What follows is as long as what leads: its products feel the stride too.
    with torch.no_grad():
        leader.pool.stride.mul_(2)
    assert macs(model, x).item() == counted(model, x) < value.item()


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_exact_in_any_dimension(axes):
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
    pool = (DiffStride1d, DiffStride2d, DiffStride3d)[axes - 1]
    deconv = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[axes - 1]
    model = nn.Sequential(
        conv(2, 4, 3), pool(1.7, smoothness=1.0), conv(4, 4, 3), pool(1.4, ramp="inner"), deconv(4, 2, 2)
    )
    x = torch.randn(2, 2, 17, 23, 14)[(..., *[0] * (3 - axes))]
    value = macs(model, x)
    assert value.dtype == torch.float64
    assert value.item() == counted(model, x)
    assert all((slope < 0).all() for slope in torch.autograd.grad(value, strides_of(model)))


class LooksAtValues(nn.Module):
    """Cannot run without data."""

    def __init__(self):
        super().__init__()
        self.conv, self.pool = nn.Conv2d(2, 4, 3), DiffStride2d(1.5, ramp="inner")
        self.table = [torch.randn(4, 4)]  # neither parameter nor buffer

    def forward(self, x, *, flip=False):
        x = self.pool(self.conv(x))
        x = x.flip(2) if flip or float(x.detach().sum()) > 0 else x
        return torch.einsum("nchw,cd->ndhw", x, self.table[0])


def test_a_model_that_needs_data_runs_for_real():
    model, x = LooksAtValues(), torch.randn(2, 2, 20, 21)
    value = macs(model, {"x": x, "flip": True})
    assert value.item() == counted(model, x)  # the operator's products count once
    assert (torch.autograd.grad(value, model.pool.stride)[0] < 0).all()
    with pytest.raises(RuntimeError, match="expected input"):
        macs(model, torch.randn(2, 3, 20, 20))


# The gradient.


def test_what_comes_later_is_proportional_to_one_over_s():
    first, then = DiffStride2d((2.0, 4.0), ramp="inner"), DiffStride2d(2.0, ramp="inner")
    convs = [nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)]
    model = nn.Sequential(convs[0], first, convs[1], then, convs[2])
    work = [3 * 8 * 9 * 64 * 64, 8 * 16 * 9 * 32 * 16, 16 * 16 * 9 * 16 * 8]
    # The axis that shrinks more goes first; the first product's input does not depend on its stride.
    one = [8 * 64 * 64 * 16, 8 * 64 * 16 * 32]
    two = [16 * 32 * 16 * 8, 16 * 32 * 8 * 16]
    value = macs(model, torch.empty(1, 3, 64, 64))
    assert value.item() == sum(work + one + two)
    slopes = torch.autograd.grad(value, [first.stride, then.stride])
    elastic = [-(slope * layer.stride.detach()) for slope, layer in zip(slopes, (first, then), strict=True)]
    # Of `two`, in units of the lengths h, w and their strides: c h w (w / s), then c h (w / s) (h / s).
    after = work[1] + work[2]
    assert elastic[0][0].item() == pytest.approx(after + one[1] + two[0] + 2 * two[1], rel=1e-6)
    assert elastic[0][1].item() == pytest.approx(after + one[0] + one[1] + 2 * two[0] + two[1], rel=1e-6)
    # Of two axes that shrink alike the shorter goes first, and its product does not depend on the other's stride.
    assert elastic[1].tolist() == pytest.approx([work[2] + two[1], work[2] + two[0] + two[1]], rel=1e-6)


class Tokens(nn.Module):
    """Maps become tokens, one more joins them, and they attend to each other; beside it, windows do, and a gate."""

    def __init__(self):
        super().__init__()
        self.conv, self.pool = nn.Conv2d(3, 32, 3, padding=1), DiffStride2d(2.0, ramp="inner")
        self.token = nn.Parameter(torch.zeros(1, 1, 32))
        self.qkv, self.out = nn.Linear(32, 96), nn.Linear(32, 32)
        self.mix, self.gate = nn.Conv2d(32, 32, 1, stride=2), nn.Conv2d(32, 32, 1)

    def attend(self, x):
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, 2, 16).permute(2, 0, 3, 1, 4).unbind(0)
        x = F.scaled_dot_product_attention(q, k, v)
        return self.out(x.transpose(1, 2).flatten(2))

    def forward(self, x):
        x = self.pool(self.conv(x))
        x = x * self.gate(x.mean((2, 3), keepdim=True)).sigmoid()
        n, c, h, w = x.shape
        windows = x.view(n, c, h // 4, 4, w // 4, 4).permute(0, 2, 4, 3, 5, 1).reshape(-1, 16, c)
        windows = self.attend(windows).view(n, h // 4, w // 4, 4, 4, c).permute(0, 5, 1, 3, 2, 4)
        x = self.mix(windows.reshape(n, c, h, w))
        tokens = torch.cat([self.token.expand(n, -1, -1), x.flatten(2).transpose(1, 2)], 1)
        return self.attend(tokens)[:, 1:].transpose(1, 2).unflatten(2, x.shape[2:])


class Pyramid(nn.Module):
    """Down and up again: by a factor, to another map's size, by a transposed convolution and by spectral pooling."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(n, 8, 3, padding=1) for n in (3, 8, 8, 16, 16, 8, 8))
        self.down = nn.ModuleList([DiffStride2d(2.0, ramp="inner"), DiffStride2d(2.0, ramp="inner")])
        self.fixed, self.up = SpectralPool2d(2.0), nn.ConvTranspose2d(8, 8, 2, stride=2)

    def forward(self, x):
        a = self.down[0](self.convs[0](x))
        b = self.down[1](self.convs[1](a))
        c = F.max_pool2d(self.convs[2](b), 2)
        b = self.convs[3](torch.cat([F.interpolate(c, scale_factor=2.0), b], 1))
        a = self.convs[4](torch.cat([F.interpolate(b, a.shape[2:], mode="bilinear"), a], 1))
        return self.convs[5](self.fixed(a)) + self.convs[6](self.fixed(self.up(self.fixed(a))))


class Chain(nn.Sequential):
    def __init__(self, ramp="inner"):
        def conv(a, b):
            return nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU())

        first, second = DiffStride2d(2.0, ramp=ramp), DiffStride2d(2.0, ramp=ramp, shared=True)
        super().__init__(conv(3, 8), first, conv(8, 16), second, conv(16, 16), nn.AdaptiveAvgPool2d(1), nn.Flatten())


class Block(nn.Module):
    """Convolutions with so many channels that one order of them and of the operator is always the cheapest."""

    def __init__(self):
        super().__init__()
        self.conv, self.shortcut = nn.Conv2d(64, 64, 3, stride=2, padding=1), nn.Conv2d(64, 64, 1, stride=2)

    def forward(self, x):
        return F.relu(self.conv(x) + self.shortcut(x))


def residual():
    model = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), Block(), Block())
    anystride.convert_(model, torch.empty(1, 3, 64, 64), ramp="inner")  # a cosine is cheap at whole steps alone
    return model


CASES = {
    "chain": (Chain, 512, 1.0),
    "outer": (lambda: Chain("outer"), 480, 1.0),
    "tokens": (Tokens, 512, 8.0),
    "pyramid": (Pyramid, 512, 4.0),
    "residual": (residual, 512, 1.0),
}


@pytest.mark.parametrize("case", CASES)
def test_gradient_integrates_to_the_value(case):
    """From one set of lengths that divide to another: there the staircase meets its smooth version.

    Sizes are such that no axis is long and that no other order of convolution and operator becomes the cheapest: there
    the count itself jumps.
    """
    make, size, multiple = CASES[case]
    model, x = make(), torch.empty(1, 3, size, size)
    for stride in strides_of(model)[:3]:
        start = size / 8 if case == "residual" else size / 2  # from there on one order is always the cheapest
        lengths = [start * 2 ** (-n / 16) for n in range(17)]
        grid = sorted({round(length / multiple) * multiple for length in lengths}, reverse=True)
        values, slopes = [], []
        before = stride.detach().clone()
        for length in grid:
            with torch.no_grad():
                stride.copy_(before * (size / 2 / length))
            value = macs(model, x)
            (slope,) = torch.autograd.grad(value, stride)
            values.append(value.item())
            slopes.append((slope * stride.detach()).sum().item())
        with torch.no_grad():
            stride.copy_(before)
        integral = 0.0
        for (slope_a, a), (slope_b, b) in itertools.pairwise(zip(slopes, grid, strict=True)):
            integral += (slope_a + slope_b) / 2 * math.log(a / b)
        assert values[-1] < values[0]
        assert integral == pytest.approx(values[-1] - values[0], rel=0.03)


def test_gradient_is_zero_where_the_size_is_held():
    pool = DiffStride2d((1.2, 2.0))
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), pool, nn.Conv2d(4, 4, 3))
    (slope,) = torch.autograd.grad(macs(model, torch.empty(1, 1, 32, 32)), pool.stride)
    assert slope[0] == 0
    assert slope[1] < 0
    # "inner" starts at 1 at full size and can leave at once, and so can a stride below its range.
    pool = DiffStride2d((1.0, 1.0), ramp="inner")
    with torch.no_grad():
        pool.stride.fill_(0.9)
    (slope,) = torch.autograd.grad(
        macs(nn.Sequential(pool, nn.Conv2d(4, 4, 3)), torch.empty(1, 4, 32, 32)), pool.stride
    )
    assert (slope < 0).all()


def test_one_parameter_in_two_layers_feels_both():
    a, b = DiffStride2d(2.0, ramp="inner"), DiffStride2d(2.0, ramp="inner")
    model = nn.Sequential(a, nn.Conv2d(1, 8, 3, padding=1), b, nn.Conv2d(8, 8, 3, padding=1))
    x = torch.empty(1, 1, 64, 64)
    apart = torch.autograd.grad(macs(model, x), [a.stride, b.stride])
    b.stride = a.stride
    torch.testing.assert_close(torch.autograd.grad(macs(model, x), a.stride)[0], sum(apart))


def test_no_stride_no_gradient():
    value = macs(nn.Conv2d(1, 2, 3), torch.empty(1, 1, 5, 5))
    assert value.item() == 2 * 9 * 9
    assert not value.requires_grad


# From memory.


def test_memory_follows_the_strides():
    model, x, runs = Chain(), torch.randn(1, 3, 40, 40), []

    def cost_of(x):
        """What macs says, and whether the model ran for it."""
        handle = model.register_forward_pre_hook(lambda *_: runs.append(1))
        value = macs(model, x)
        handle.remove()
        return value

    pool = model[1]
    for stride in (2.0, 2.001, 1.9, 2.0, 3.1, 1.9):
        with torch.no_grad():
            pool.stride.fill_(stride)
        assert cost_of(x).item() == counted(model, x)
    assert len(runs) == 3  # 2.001 gives the size of 2.0
    with torch.no_grad():
        pool.stride.fill_(1.9001)
    before = torch.autograd.grad(cost_of(x), pool.stride)[0]
    assert len(runs) == 3
    with torch.no_grad():
        pool.stride.fill_(1.9)
    assert not torch.equal(before, torch.autograd.grad(cost_of(x), pool.stride)[0])  # the gradient is of now
    cost_of(torch.randn(2, 3, 40, 40))
    assert len(runs) == 4
    model[4] = nn.Identity()
    assert cost_of(x).item() == counted(model, x)
    assert len(runs) == 5


class Strided(nn.Module):
    """Reads a number of its own, a number in a list, and one in a table."""

    def __init__(self):
        super().__init__()
        self.conv, self.step, self.steps, self.table = nn.Conv2d(3, 4, 3, padding=1), 1, [1], {"step": (1, 1)}
        self.wide = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        x = F.avg_pool2d(self.conv(x), self.step * self.steps[0] * self.table["step"][0])
        return self.wide(x)


def pruned(conv):
    """Half the output channels, in place, as pruning tools do it."""
    conv.weight.data, conv.bias.data, conv.out_channels = conv.weight.data[:2], conv.bias.data[:2], 2


def narrowed(model):
    pruned(model.conv)
    model.wide.weight = nn.Parameter(model.wide.weight[:, :2].detach())
    model.wide.in_channels = 2


def halved(model):
    model.wide.weight = nn.Parameter(torch.zeros(4, 2, 3, 3))
    model.wide.groups = 2


CHANGES = {
    "pruning": narrowed,
    "a child": lambda model: setattr(model, "wide", nn.Conv2d(4, 4, 1)),
    "a child of the same kind": lambda model: setattr(model, "wide", nn.Conv2d(4, 8, 3)),
    "the same child twice": lambda model: setattr(model, "conv", nn.Sequential(model.conv, model.wide)),
    "a stride": lambda model: setattr(model.conv, "stride", (2, 2)),
    "a number": lambda model: setattr(model, "step", 2),
    "a number in a list": lambda model: model.steps.__setitem__(0, 2),
    "a number in a table": lambda model: model.table.update(step=(2, 2)),
    "a kernel": lambda model: setattr(model.wide, "weight", nn.Parameter(torch.zeros(4, 4, 1, 1))),
    "groups": halved,
    "a forward": lambda model: setattr(model.wide, "forward", lambda x: x),
}


@pytest.mark.parametrize("change", CHANGES)
def test_memory_notices_changes_in_place(change):
    model, x = Strided(), torch.randn(1, 3, 32, 32)
    before = macs(model, x).item()
    CHANGES[change](model)
    now = macs(model, x).item()
    assert now == counted(model, x) != before


def test_memory_knows_its_learned_layers():
    """Another layer of the same kind takes the place of one that lives on elsewhere."""
    model, x = Chain(), torch.randn(1, 3, 40, 40)
    before = macs(model, x)
    old, model[1] = model[1], copy.deepcopy(model[1])
    now = macs(model, x)
    assert now.item() == before.item()
    now.backward()
    assert old.stride.grad is None
    assert model[1].stride.grad is not None


def test_memory_lasts_through_training():
    model, x, runs = Chain().train(), torch.randn(2, 3, 40, 40), []
    with torch.no_grad():
        for stride in strides_of(model):
            stride.fill_(2.13)  # where no size changes soon
    model.register_forward_pre_hook(lambda *_: runs.append(1))
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-5)
    for step in range(4):
        (model(x).square().mean() + 1e-9 * macs(model, x[:1]) + 1e-9 * anystride.complexity(model, x[:1])).backward()
        optimiser.step()
        optimiser.zero_grad()
        model.train(step % 2 == 0)
    assert len(runs) == 4 + 1


def test_memory_ends_with_the_model():
    model = Chain()
    macs(model, torch.empty(1, 3, 32, 32))
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_the_model_stays_as_it_was():
    model, x = Chain().train(), torch.randn(2, 3, 32, 32)
    model[0][1].eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    random = torch.get_rng_state()
    with torch.inference_mode():
        value = macs(model, x).item()
    macs(model, x).backward()
    assert value == macs(model, x).item()
    assert torch.equal(random, torch.get_rng_state())
    assert modes == [module.training for module in model.modules()]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert [name for name, p in model.named_parameters() if p.grad is not None] == ["1.stride", "3.stride"]


# The budget.


class Redraw(nn.Module):
    """Gives the noise that it gets: the more positions it keeps, the better."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(n, 8, 3, padding=1) for n in (1, 8, 8))
        self.pools = nn.ModuleList(DiffStride2d(1.5, ramp="inner") for _ in range(2))
        self.out = nn.Conv2d(8, 1, 1)

    def forward(self, x):
        size = x.shape[2:]
        for conv, pool in zip(self.convs, [*self.pools, nn.Identity()], strict=True):
            x = pool(conv(x).relu())
        return F.interpolate(self.out(x), size, mode="bilinear")


@pytest.mark.slow
def test_training_ends_at_its_budget():
    model, probe = Redraw(), torch.empty(1, 1, 80, 80)
    limit = 12e6
    budget = Budget(limit, rate=0.03)
    optimiser = torch.optim.Adam(param_groups(model, lr=0.01, stride_lr=0.02))
    steps, pulls = 300, []
    for step in range(steps):
        if step == steps // 2:
            for group in optimiser.param_groups:
                group["lr"] /= 4
        x = torch.randn(1, 1, 80, 80)
        task = (model(x) - x).square().mean()
        if step >= steps - 50:
            pulls.append(torch.autograd.grad(task, strides_of(model), retain_graph=True))
        optimiser.zero_grad()
        (task + budget(macs(model, probe))).backward()
        optimiser.step()
    assert 0.98 * limit <= macs(model, probe).item() <= 1.02 * limit
    # The task wants more: its gradient would lower the strides.
    assert sum(slope.sum() for slopes in pulls for slope in slopes) > 0
    assert budget.multiplier > 0.02


def test_budget_below_its_limit_is_free():
    model, x = Redraw(), torch.empty(1, 1, 80, 80)
    budget = Budget(1e9)
    loss = budget(macs(model, x))
    assert loss.item() == 0
    assert loss.dtype == torch.float32
    loss.backward()
    assert all(not stride.grad.any() for stride in strides_of(model))
    assert budget.multiplier == 0


def test_multiplier():
    budget = Budget(100.0, penalty=2.0, rate=0.5)
    cost = torch.tensor(200.0, dtype=torch.float64, requires_grad=True)
    loss = budget(cost)
    excess = math.log(2)
    assert loss.item() == pytest.approx(2.0 / 2 * excess**2)
    loss.backward()
    assert cost.grad.item() == pytest.approx(2.0 * excess / 200)
    assert budget.multiplier.item() == pytest.approx(0.5 * excess)
    cost.grad = None
    budget(cost).backward()
    assert cost.grad.item() == pytest.approx((0.5 * excess + 2.0 * excess) / 200)
    # Outside of training nothing moves.
    before = budget.multiplier.item()
    budget.eval()(cost)
    with torch.no_grad():
        budget.train()(cost)
    assert budget.multiplier.item() == before
    budget(torch.tensor(1e-9))
    assert budget.multiplier == 0


def test_budget_is_checkpointed():
    budget = Budget(100.0)
    for _ in range(3):
        budget(torch.tensor(150.0))
    other = Budget(100.0)
    other.load_state_dict(budget.state_dict())
    assert other.multiplier == budget.multiplier > 0
    assert other(torch.tensor(150.0)) == budget(torch.tensor(150.0))


@pytest.mark.parametrize(
    "wrong", [{"limit": 0}, {"limit": math.inf}, {"limit": 1, "penalty": 0}, {"limit": 1, "rate": -1}]
)
def test_budget_arguments(wrong):
    with pytest.raises(ValueError, match="must be a finite number"):
        Budget(**wrong)


# Optimisers.


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop", "NAdam"])
def test_strides_do_not_decay_under_torch_optimisers(name):
    model = Chain()
    groups = param_groups(model, lr=0.1, weight_decay=0.5, stride_lr=0.01)
    decays(model, getattr(torch.optim, name)(groups))


@pytest.mark.parametrize("name", ["sgd", "adamw", "lamb", "lion", "nadamw"])
def test_strides_do_not_decay_under_timm_optimisers(name):
    optim = pytest.importorskip("timm.optim")
    model = Chain()
    groups = param_groups(model, lr=0.1, weight_decay=0.5, stride_lr=0.01)
    decays(model, optim.create_optimizer_v2(groups, opt=name, lr=1.0, weight_decay=0.9))


def decays(model, optimiser):
    """With gradients of zero only decay moves anything."""
    assert [group["lr"] for group in optimiser.param_groups] == [0.1, 0.01]
    weight = model[0][0].weight
    before = weight.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    assert all((stride == 2).all() for stride in strides_of(model))
    assert (weight * before.sign() < before.abs()).all()


def test_long_axes_count_as_transforms():
    layer = DiffStride1d(2.0, ramp="inner")
    value = macs(layer, torch.empty(1, 3, 16_000))
    assert value.item() == 3 * (round(1.25 * 16_000 * math.log2(16_000)) + round(1.25 * 8_000 * math.log2(8_000)))
    (slope,) = torch.autograd.grad(value, layer.stride)
    assert slope < 0


class Works(TorchDispatchMode):
    """What a pass really does: torch's formulas for products, the usual one for real transforms."""

    def __init__(self):
        super().__init__()
        self.macs, self.transforms = 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        kind = func.overloadpacket
        if kind in flop_registry:
            self.macs += flop_registry[kind](*args, **(kwargs or {}), out_val=out) // 2
        elif kind in (aten._fft_r2c, aten._fft_c2r):
            samples = args[0] if kind is aten._fft_r2c else out
            (n,) = {samples.shape[axis] for axis in args[1]}
            self.macs += samples.numel() // n * round(1.25 * n * math.log2(n))
            self.transforms += 1
        return out


def keeping(size, kernel_size):
    conv = (nn.Conv1d, nn.Conv2d)[len(size) - 1](4, 6, kernel_size, padding=kernel_size // 2)
    put_place(conv, Keeps(size, name="", geometry=geometry_of(conv)))
    return conv


class Counted(nn.Module):
    """An axis that counts as longer or shorter than it is."""

    def __init__(self, more):
        super().__init__()
        self.pool, self.more = DiffStride1d(2.0, ramp="inner"), more

    def forward(self, x):
        return self.pool(x, (x.shape[2] + self.more,))


@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize(
    ("before", "after", "transforms"),
    [
        ((100,), (50,), 0),
        ((100,), (100,), 0),
        ((100,), (150,), 0),
        ((100,), (300,), 0),
        ((255,), (257,), 0),
        ((257,), (256,), 0),
        ((300,), (300,), 0),
        ((300,), (700,), 2),
        ((700,), (300,), 2),
        ((700,), (200,), 0),
        ((20, 300), (20, 600), 2),
        ((300, 20), (280, 40), 2),
        ((300, 290), (280, 270), 4),
    ],
)
def test_exact_where_axes_shrink_stay_or_grow(before, after, transforms, kernel_size):
    model, x = keeping(after, kernel_size), torch.randn(2, 4, *before)
    with torch.no_grad():
        model(x)  # makes its matrices
        with Works() as real:
            model(x)
    assert real.transforms == transforms
    assert macs(model, x).item() == real.macs


@pytest.mark.parametrize(
    "layer",
    [
        DiffStride1d(2.0),
        DiffStride1d(1.0, ramp="inner"),
        DiffStride1d(5.0, ramp="inner"),
        SpectralPool1d(2.0),
        Counted(37),
        Counted(-37),
    ],
    ids=str,
)
@pytest.mark.parametrize("length", [60, 1000])
def test_exact_for_layers_of_long_axes(layer, length):
    x = torch.randn(2, 3, length)
    with torch.no_grad():
        layer(x)  # makes its matrices
        with Works() as real:
            layer(x)
    assert macs(layer, x).item() == real.macs


def test_orders_are_those_of_the_models_device():
    """Tensors without data have another limit for long axes than a CPU, where this one is not interleaved."""
    conv, pool, x = (
        nn.Conv1d(32, 64, 3, padding=1, bias=False),
        DiffStride1d(2.0, ramp="inner"),
        torch.empty(1, 32, 1000),
    )

    class Unit(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.pool = conv, pool

        def forward(self, x):
            return self.pool(x, convolution=self.conv)

    assert macs(Unit(), x).item() == macs(nn.Sequential(conv, pool), x).item()
