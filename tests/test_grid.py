"""Sizes that follow strides at once, in steps, or when told; and what a compiler makes of it."""

import copy

import pytest
import torch
import torch._dynamo.testing
from torch import nn

import anystride
from anystride import DiffStride2d, convert_, freeze_, macs, regrid_
from anystride.ops.window import band


def test_sizes_in_steps():
    free, four = (DiffStride2d((2.2, 1.3), ramp="inner", grid=grid) for grid in ("free", 4))
    assert free.output_size((30, 22)) == (14, 17)
    assert four.output_size((30, 22)) == (16, 20)
    assert DiffStride2d(1.1, ramp="inner", grid=4).output_size((30, 22)) == (28, 20)
    assert DiffStride2d(1.01, ramp="inner", grid=4).output_size((30, 22)) == (30, 22)  # never beyond the map
    x = torch.randn(2, 3, 30, 22, dtype=torch.float64)
    y = four(x)
    assert y.shape == (2, 3, 16, 20)
    torch.testing.assert_close(y.mean(dim=(2, 3)), x.mean(dim=(2, 3)))


@pytest.mark.parametrize("grid", [1, "free"])
def test_a_grid_of_one_is_free(grid):
    x = torch.randn(2, 3, 30, 22)
    torch.testing.assert_close(DiffStride2d(2.2, grid=grid)(x), DiffStride2d(2.2)(x), rtol=0, atol=0)


def test_a_held_grid_crops_or_leaves_room():
    """The window is the stride's; only the number of samples is another one."""
    for stride, h in [(2.0, 24), (2.0, 12), (3.0, 24)]:
        at = band(32, stride, 4.0, "outer", h)
        a = anystride.ops.matrix.band_matrix(at, "forward")
        assert a.shape == (h, 32)
        for k in range((h + 1) // 2):
            wave = torch.cos(2 * torch.pi * k * torch.arange(32, dtype=torch.float64) / 32)
            expected = band(32, stride).gain(k) * torch.cos(2 * torch.pi * k * torch.arange(h, dtype=torch.float64) / h)
            torch.testing.assert_close(a @ wave, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("ramp", ["inner", "outer"])
def test_fixed_until_told(ramp):
    layer, x = DiffStride2d(2.0, ramp=ramp, grid="fixed"), torch.randn(2, 3, 32, 32)
    model = nn.Sequential(layer)
    first = model(x).shape
    with torch.no_grad():
        layer.stride.copy_(torch.tensor([2.4, 1.7]))
    moved = model(x)
    assert moved.shape == first
    assert layer.output_size((32, 32)) == first[2:]
    moved.square().sum().backward()
    assert (layer.stride.grad != 0).all()
    other = DiffStride2d((2.4, 1.7), ramp=ramp)
    assert regrid_(model, x) is model
    torch.testing.assert_close(model(x), other(x), rtol=0, atol=0)
    assert model(torch.randn(2, 3, 20, 20)).shape == other(torch.randn(2, 3, 20, 20)).shape
    assert copy.deepcopy(model)(x).shape == model(x).shape


def test_the_gradient_on_a_held_grid():
    layer = DiffStride2d((2.0, 3.1), ramp="inner", grid="fixed").double()
    x = torch.randn(2, 3, 33, 32, dtype=torch.float64)
    layer(x)
    with torch.no_grad():
        layer.stride.copy_(torch.tensor([2.2, 2.9]))
    cotangent = torch.randn_like(layer(x))
    (grad,) = torch.autograd.grad((layer(x) * cotangent).sum(), layer.stride)
    step = 2.0**-10
    for axis in range(2):
        ends = []
        for sign in (-1, 1):
            with torch.no_grad():
                layer.stride[axis] += sign * step
                ends.append((layer(x) * cotangent).sum().item())
                layer.stride[axis] -= sign * step
        assert grad[axis].item() == pytest.approx((ends[1] - ends[0]) / (2 * step), rel=1e-3)


def test_inner_keeps_constants_where_the_held_map_is_much_larger():
    layer, x = DiffStride2d(2.0, ramp="inner", grid="fixed"), torch.ones(1, 1, 32, 32)
    layer(x)
    with torch.no_grad():
        layer.stride.fill_(20.0)
    torch.testing.assert_close(layer(x), torch.ones(1, 1, 16, 16))


@pytest.mark.parametrize("grid", [0, -4, 2.5, "loose", True, None])
def test_wrong_grids(grid):
    with pytest.raises(ValueError, match="grid must be 'free', 'fixed' or a whole number of at least 1, got"):
        DiffStride2d(2.0, grid=grid)
    with pytest.raises(ValueError, match="grid must be"):
        convert_(nn.Conv2d(3, 3, 3, stride=2), torch.randn(1, 3, 16, 16), grid=grid)


def test_repr_says_it():
    assert repr(DiffStride2d(2.0, grid=4)).endswith("norm='forward', grid=4)")
    assert "grid" not in repr(DiffStride2d(2.0))


class Network(nn.Module):
    """Strided and pointwise convolutions, a residual addition, and a decoder that follows."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.down, self.skip = nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.Conv2d(8, 16, 1, stride=2)
        self.norm = nn.BatchNorm2d(16)
        self.deep = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.up = nn.Upsample(scale_factor=2)
        self.head = nn.Linear(48, 4)

    def forward(self, x):
        x = self.stem(x).relu()
        x = (self.norm(self.down(x)) + self.skip(x)).relu()
        x = torch.cat([x, self.up(self.deep(x).relu())], dim=1)
        return self.head(x.square().mean(dim=(2, 3)))


def converted(**options):
    torch.manual_seed(0)
    model, x = Network(), torch.randn(4, 3, 32, 32)
    convert_(model, x, grid="fixed", **options)
    return regrid_(model, x), x


def train(model, run, x, steps):
    """Returns losses, and strides that moved."""
    optimiser = torch.optim.SGD(anystride.param_groups(model, lr=0.01, stride_lr=0.5))
    losses = []
    for _ in range(steps):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(run(x), torch.arange(4))
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses, torch.cat(list(anystride.learned_strides(model).values()))


# The compiler itself makes an instance of the autograd.Function that it traces.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated")
@pytest.mark.parametrize("ramp", ["inner", "outer"])
@pytest.mark.slow
def test_one_compilation_for_many_steps(ramp):
    torch._dynamo.reset()
    model, x = converted(ramp=ramp)
    twin = copy.deepcopy(model)
    before = torch.cat(list(anystride.learned_strides(model).values()))
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, backend=counter, fullgraph=True, dynamic=False)
    losses, strides = train(model, compiled, x, steps=12)
    assert counter.frame_count == 1
    assert ((strides - before).abs() > 1e-3).sum() >= 3
    expected, theirs = train(twin, twin, x, steps=12)
    assert losses == pytest.approx(expected, rel=1e-3, abs=1e-5)
    torch.testing.assert_close(strides, theirs, rtol=1e-3, atol=1e-3)
    regrid_(model, x)
    train(model, compiled, x, steps=2)
    assert counter.frame_count == 2


def test_sizes_are_needed_before_compiling():
    torch._dynamo.reset()
    model = nn.Sequential(DiffStride2d(2.0, grid="fixed"))
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with pytest.raises(Exception, match=r"maps of size \(16, 16\) are new to a fixed grid: call anystride.regrid_"):
        compiled(torch.randn(1, 3, 16, 16))


@pytest.mark.filterwarnings("ignore:.*should not be instantiated")
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("grid", ["free", 4, "fixed"])
def test_an_export_asks_for_what_helps(grid, strict):
    torch._dynamo.reset()
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1)), torch.randn(1, 3, 16, 16)
    convert_(model, x, grid=grid)
    model[0].resample.pool.regrid()
    remedies = {"regrid_": regrid_, "freeze_": freeze_}
    remedy, other = ("regrid_", "freeze_") if grid == "fixed" else ("freeze_", "regrid_")
    with pytest.raises(Exception, match=f"anystride.{remedy}") as error:
        torch.export.export(model, (x,), strict=strict)
    assert other not in str(error.value)
    remedies[remedy](model.eval(), x)
    exported = torch.export.export(model, (x,), strict=strict).module()
    torch.testing.assert_close(exported(x), model(x))


def test_sizes_asked_for_within_a_graph():
    """What follows a stride is not held, though the layer itself may run outside of graphs."""
    torch._dynamo.reset()
    pool = DiffStride2d(2.0)
    with pytest.raises(Exception, match=r"anystride\.freeze_") as error:
        torch.compile(lambda x: x.new_zeros(pool.output_size(x.shape[2:])), backend="eager", fullgraph=True)(
            torch.randn(1, 3, 16, 16)
        )
    assert "regrid_" not in str(error.value)


def test_costs_and_frozen_networks_have_the_held_sizes():
    model, x = converted(ramp="inner")
    for layer in model.modules():
        if isinstance(layer, DiffStride2d):
            with torch.no_grad():
                layer.stride.mul_(1.3)
    model.eval()
    cost = macs(model, x)
    expected = model(x)
    frozen = freeze_(copy.deepcopy(model), x)
    torch.testing.assert_close(frozen(x), expected, rtol=1e-4, atol=1e-5)
    regrid_(model, x)
    assert macs(model, x).item() < cost.item()
    assert all(grad is not None and (grad <= 0).all() for grad in slopes(cost, model))


def slopes(cost, model):
    strides = [module.stride for module in model.modules() if isinstance(module, DiffStride2d)]
    return torch.autograd.grad(cost, list(dict.fromkeys(strides)), allow_unused=True)


def test_a_plan_remembers_the_grid():
    model, x = Network(), torch.randn(1, 3, 32, 32)
    plan = convert_(model, x, grid=4, dry_run=True)
    again = anystride.Plan.from_json(plan.to_json())
    assert again.grid == 4
    anystride.apply_(model, again)
    assert {m.grid for m in model.modules() if isinstance(m, DiffStride2d)} == {4}
