"""A stride for each example: on one common grid, and on grids of their own."""

import copy
import pickle

import pytest
import torch
import torch._dynamo.testing
from torch import nn

from anystride import Budget, PerExampleStride1d, PerExampleStride2d, PerExampleStride3d, functional, macs

KINDS = {1: PerExampleStride1d, 2: PerExampleStride2d, 3: PerExampleStride3d}
CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
SHAPES = {1: (40,), 2: (16, 13), 3: (8, 9, 10)}


class Given(nn.Module):
    """A head that says what it is told."""

    def __init__(self, strides, least, most):
        super().__init__()
        share = (torch.tensor(strides) / least).log() / torch.tensor(most / least).log()
        self.logits = nn.Parameter(share.logit())

    def forward(self, x):
        return self.logits


class Mean(nn.Module):
    """Linear in the mean of each channel."""

    def __init__(self, channels, out):
        super().__init__()
        self.linear = nn.Linear(channels, out)

    def forward(self, x):
        return self.linear(x.flatten(2).mean(dim=2).to(self.linear.weight.dtype))


def told(axes, strides, least=1.0, most=4.0, **options):
    return KINDS[axes](Given(strides, least, most), least, most, **options)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_each_example_on_its_own_grid_is_a_diffstride_of_its_own(axes):
    strides = [[1.2] * axes, [3.1] * axes, [2.0] * axes, [3.1] * axes]
    x = torch.randn(4, 3, *SHAPES[axes])
    seen = []

    def keep(maps):
        seen.extend(maps.unbind())
        return maps.flatten(1).sum(1, keepdim=True)

    body = nn.Module()
    body.forward = keep
    layer = told(axes, strides, smoothness=0.8, body=body)
    y = layer(x)
    expected = [functional.diffstride(x[n : n + 1], strides[n], 0.8, "inner") for n in range(4)]
    torch.testing.assert_close(y, torch.stack([each.sum().reshape(1) for each in expected]), rtol=1e-4, atol=1e-3)
    for each in expected:
        assert any(each[0].shape == maps.shape and torch.allclose(each[0], maps, atol=1e-5) for maps in seen)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_the_common_grid_shows_the_same_map(axes):
    """Spectra end where their windows do: brought to its own size, a map on the common grid is the example's own."""
    strides = [[1.4] * axes, [2.7] * axes]
    x = torch.randn(2, 3, *SHAPES[axes])
    y = told(axes, strides, 1.3, smoothness=0.8)(x)
    assert y.shape[2:] == tuple(-int(-n // 1.3) for n in SHAPES[axes])
    for n, stride in enumerate(strides):
        expected = functional.diffstride(x[n : n + 1], stride, 0.8, "inner")
        got = functional.spectral_resize(y[n : n + 1], expected.shape[2:])
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_long_axes_are_the_same_function():
    x = torch.randn(2, 2, 900)
    layer = told(1, [[1.4], [2.7]], 1.3)
    y = layer(x)
    assert y.shape[-1] == 693
    for n, stride in enumerate((1.4, 2.7)):
        expected = functional.diffstride(x[n : n + 1], stride, 2.0, "inner")
        got = functional.spectral_resize(y[n : n + 1], expected.shape[2:])
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    y.square().sum().backward()
    assert (layer.head.logits.grad != 0).all()


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("shared", [False, True])
def test_gradients(axes, shared):
    """By differences, of the map and of the head: away from kinks."""
    x = torch.randn(2, 2, *[n - 3 for n in SHAPES[axes]], dtype=torch.double, requires_grad=True)
    strides = torch.tensor([[1.37], [2.23]]).expand(-1, 1 if shared else axes).tolist()
    layer = told(axes, strides, 1.1)
    layer.head.double()
    y = layer(x)
    weight = torch.randn_like(y)
    gradient, along = torch.autograd.grad((y * weight).sum(), [x, layer.head.logits])

    def value(shift):
        with torch.no_grad():
            layer.head.logits += shift
            result = (layer(x) * weight).sum()
            layer.head.logits -= shift
        return result

    for n in range(2):
        shift = torch.zeros_like(along)
        shift[n, 0] = 1e-3
        slope = (value(shift) - value(-shift)) / 2e-3
        torch.testing.assert_close(along[n, 0], slope, rtol=2e-2, atol=2e-2)
    torch.testing.assert_close((gradient * x).sum(), (y * weight).sum(), rtol=1e-4, atol=1e-3)  # it is linear in x


def test_the_order_of_a_batch_stays_and_examples_do_not_meet():
    body = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    layer = PerExampleStride2d(Mean(3, 2), body=body).eval()
    with torch.no_grad():
        layer.head.linear.weight.mul_(20)
    x = torch.randn(6, 3, 16, 12)
    y = layer(x)
    assert len(layer.sizes(layer.strides(x), (16, 12)).unique(dim=0)) > 2
    torch.testing.assert_close(torch.cat([layer(each) for each in x.split(1)]), y)
    torch.testing.assert_close(layer(x.flip(0)).flip(0), y)
    assert layer(x[:0]).shape == (0, 5)


def test_own_grids_in_multiples():
    layer = told(2, [[1.2, 1.2], [3.7, 2.1]], multiple=4)
    assert layer.sizes(layer.strides(torch.randn(2, 1, 18, 16)), (18, 16)).tolist() == [[16, 16], [8, 8]]
    layer = told(2, [[1.0001, 1.0001]], multiple=5)
    assert layer.sizes(layer.strides(torch.randn(1, 1, 18, 16)), (18, 16)).tolist() == [[18, 16]]


def test_a_budget_over_a_batch():
    """The mean is held, and examples differ."""
    torch.manual_seed(0)
    layer = PerExampleStride2d(Mean(1, 1))
    budget = Budget(limit=0.25)
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.5)
    x = torch.randn(16, 1, 8, 8) + torch.linspace(-1, 1, 16).reshape(-1, 1, 1, 1)
    for _ in range(300):
        strides = layer.strides(x)
        loss = -(strides.squeeze(1) * x.mean(dim=(1, 2, 3))).mean() + budget(layer.share(strides))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    strides = layer.strides(x)
    assert layer.share(strides).item() < 0.26
    assert strides[-1] > strides[0] + 0.3


def test_costs_are_those_of_the_grid_that_runs():
    conv = nn.Conv2d(1, 8, 3, padding=1, bias=False)
    layer = told(2, [[2.0, 2.0]], body=nn.Sequential(conv, nn.AdaptiveAvgPool2d(1)))
    costs = macs(layer, torch.randn(1, 1, 16, 16)).item()
    own = macs(conv, torch.empty(1, 1, 8, 8)).item()
    assert own < costs < 2 * own + 16 * 16 * 16 * 2


@pytest.mark.parametrize("with_body", [False, True])
def test_types_and_layouts(with_body, dtype, device):
    body = nn.AdaptiveAvgPool2d(1) if with_body else None
    layer = told(2, [[1.3, 2.2], [2.9, 1.8]], body=body).to(device)
    x = torch.randn(2, 3, 16, 13)
    reference = layer(x.to(device))
    for layout in (torch.contiguous_format, torch.channels_last):
        y = layer(x.to(device, dtype).contiguous(memory_format=layout))
        assert y.dtype == dtype
        limit = 8 * max(torch.finfo(dtype).eps, 1e-7)
        assert (y.float() - reference).abs().max() < limit * reference.abs().max()


class Network(nn.Module):
    """A static network around the layer."""

    def __init__(self):
        super().__init__()
        self.stem, self.down = nn.Conv2d(1, 4, 3, padding=1), PerExampleStride2d(Mean(4, 2), least=1.5)
        self.conv, self.classify = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 3)

    def forward(self, x):
        return self.classify(self.conv(self.down(self.stem(x).relu())).relu().mean(dim=(2, 3)))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf", "ignore::DeprecationWarning")
@pytest.mark.slow
def test_one_static_graph():
    torch._dynamo.reset()
    model = Network()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    for _ in range(3):
        x = torch.randn(2, 1, 16, 12)
        y = compiled(x)
        torch.testing.assert_close(y, model(x))
        y.square().sum().backward()
        with torch.no_grad():
            model.down.head.linear.bias.add_(0.5)  # strides move, and no size does
    assert counter.frame_count == 1
    assert model.down.head.linear.weight.grad.abs().sum() > 0


def test_exported():
    model = Network().eval()
    x = torch.randn(2, 1, 16, 12)
    exported = torch.export.export(model, (x,)).module()
    other = torch.randn(2, 1, 16, 12)
    torch.testing.assert_close(exported(other), model(other))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_copies(copied):
    layer = PerExampleStride2d(Mean(3, 1), body=nn.AdaptiveAvgPool2d(1))
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(copied(layer)(x), layer(x))
    assert sorted(layer.state_dict()) == ["head.linear.bias", "head.linear.weight"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PerExampleStride2d(Mean(1, 1), 2.0, 2.0), "most must be above least, got least=2.0 and most=2.0"),
        (lambda: PerExampleStride2d(Mean(1, 1), 0.5), "least and most must be a finite number of at least 1, got 0.5"),
        (lambda: PerExampleStride2d(Mean(1, 1), smoothness=0), "smoothness must be positive"),
        (lambda: PerExampleStride2d(Mean(1, 1), multiple=0), "multiple must be a whole number of at least 1, got 0"),
        (
            lambda: PerExampleStride2d(Mean(1, 3))(torch.randn(2, 1, 8, 8)),
            r"head must give a tensor of shape \(2, 1\) or \(2, 2\), got \(2, 3\)",
        ),
        (lambda: PerExampleStride2d(Mean(1, 1))(torch.randn(2, 1, 8)), "with 2 spatial axes"),
        (
            lambda: PerExampleStride2d(Mean(1, 1), body=nn.Identity())(torch.full((1, 1, 8, 8), torch.nan)),
            "head must give finite numbers",
        ),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
