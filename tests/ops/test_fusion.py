"""A convolution and the operator as one unit: the same function and gradients in every order, with the same weights."""

import copy
import itertools
import pickle

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from anystride import (
    DiffStride1d,
    DiffStride2d,
    DiffStride3d,
    SpectralPool1d,
    SpectralPool2d,
    SpectralPool3d,
    convert_,
    macs,
)
from anystride.ops import fusion as unit
from anystride.ops.fusion import Route, choose, walk
from anystride.ops.matrix import Taps

CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
POOLS = {"diffstride": (DiffStride1d, DiffStride2d, DiffStride3d)}
POOLS["spectral"] = (SpectralPool1d, SpectralPool2d, SpectralPool3d)
SIZES = ((17,), (14, 17), (8, 7, 9))

CASES = {
    "3x3": (2, {"kernel_size": 3, "padding": 1}),
    "no padding": (2, {"kernel_size": 3}),
    "even kernel": (2, {"kernel_size": 4, "padding": 1}),
    "much padding": (2, {"kernel_size": 2, "padding": 3}),
    "dilated": (2, {"kernel_size": 3, "padding": 2, "dilation": 2}),
    "depthwise": (2, {"kernel_size": 5, "padding": 2, "groups": 6}),
    "groups": (2, {"kernel_size": 3, "padding": 1, "groups": 2, "bias": False}),
    "along one axis": (2, {"kernel_size": (3, 1), "padding": (1, 0)}),
    "along the other": (2, {"kernel_size": (1, 3), "padding": (0, 1)}),
    "1x1": (2, {"kernel_size": 1}),
    "padded 1x1": (2, {"kernel_size": 1, "padding": 1}),
    "same": (2, {"kernel_size": 3, "padding": "same"}),
    "1d": (1, {"kernel_size": 7, "padding": 3}),
    "3d": (3, {"kernel_size": 3, "padding": 1}),
    "3d, mixed": (3, {"kernel_size": (1, 3, 1), "padding": (0, 1, 0)}),
}


def routes(taps):
    single = tuple(tap.size == 1 and tap.padding == 0 for tap in taps)
    nothing = (False,) * len(taps)
    early = dict.fromkeys((nothing, single))
    return [Route(e, i) for e, i in itertools.product(early, (False, True)) if not (i and all(e))]


def make(case, method, ramp="inner", **more):
    axes, arguments = CASES[case]
    conv = CONVS[axes - 1](6, 4 if "groups" not in arguments else 6, **arguments, **more)
    stride = (2.3, 1.6, 1.4)[:axes]
    options = {"ramp": ramp, "smoothness": 1.5} if method == "diffstride" else {}
    pool = POOLS[method][axes - 1](stride, **options)
    return conv, pool, torch.randn(3, 6, *SIZES[axes - 1], **more)


def outcome(function, x, parameters):
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    y = function(x)
    torch.manual_seed(1)
    return y.detach(), torch.autograd.grad(y, [x, *parameters], torch.randn(y.shape, dtype=y.dtype))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("method", "ramp"), [("diffstride", "inner"), ("diffstride", "outer"), ("spectral", "")])
def test_every_order_is_the_same_function(case, method, ramp, monkeypatch):
    conv, pool, x = make(case, method, ramp, dtype=torch.float64)
    parameters = [*conv.parameters(), *pool.parameters()]
    expected, gradients = outcome(lambda x: pool(conv(x)), x, parameters)
    taps = walk(conv, "forward")
    assert taps is not None
    for route in routes(taps):
        monkeypatch.setattr(unit, "choose", lambda *_, route=route: route)
        got, theirs = outcome(lambda x: pool(x, convolution=conv), x, parameters)
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
        for a, b, name in zip(
            theirs, gradients, ["x", *(n for n, _ in conv.named_parameters()), "stride"], strict=False
        ):
            # A stride is float32 whatever the maps are.
            torch.testing.assert_close(a, b, rtol=1e-5 if name == "stride" else 0, atol=1e-5 if a.dim() == 1 else 1e-11)
        with torch.no_grad():
            torch.testing.assert_close(pool(x, convolution=conv), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("channels", [4, 24])
@pytest.mark.parametrize("interleaved", [False, True])
def test_layouts_stay(layout, channels, interleaved, monkeypatch):
    monkeypatch.setattr(unit, "choose", lambda *_: Route((False, False), interleaved))
    conv, pool = nn.Conv2d(channels, 8, 3, padding=1).to(memory_format=layout), DiffStride2d(2.2, ramp="inner")
    x = torch.randn(2, channels, 12, 12).to(memory_format=layout).requires_grad_()
    y = pool(x, convolution=conv)
    torch.testing.assert_close(y, pool(conv(x)), rtol=0, atol=1e-5)
    assert y.is_contiguous(memory_format=layout)
    (grad,) = torch.autograd.grad(y.square().sum(), x)
    assert grad.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype, monkeypatch):
    conv, pool, x = make("3x3", "diffstride")
    expected = pool(conv(x))
    monkeypatch.setattr(unit, "choose", lambda *_: Route((False, False), True))
    got = pool(x.to(dtype), convolution=copy.deepcopy(conv).to(dtype))
    assert got.dtype == dtype
    torch.testing.assert_close(got.float(), expected, rtol=0, atol=0.03)


def test_autocast(monkeypatch):
    conv, pool, x = make("3x3", "diffstride")
    expected = pool(conv(x))
    for interleaved in (False, True):
        monkeypatch.setattr(unit, "choose", lambda *_, i=interleaved: Route((False, False), i))
        with torch.autocast("cpu", torch.bfloat16):
            got = pool(x, convolution=conv)
        assert got.dtype == torch.bfloat16
        torch.testing.assert_close(got.float(), expected, rtol=0, atol=0.05)
        got.float().square().mean().backward()
        assert conv.weight.grad.dtype == pool.stride.grad.dtype == torch.float32


def test_only_the_input_is_kept(monkeypatch):
    """An interleaved map is larger than the input, and is made again; it must not wait for the backward pass."""
    monkeypatch.setattr(unit, "choose", lambda *_: Route((False, False), True))
    conv, pool = nn.Conv2d(8, 8, 3, padding=1, bias=False), DiffStride2d(2.0, ramp="inner")
    x = torch.randn(2, 8, 32, 32, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y = pool(x, convolution=conv)
    large = [t for t in kept if t.numel() >= y.numel()]
    assert {t.data_ptr() for t in large} == {x.data_ptr(), y.data_ptr()}


def test_the_order_follows_from_the_sizes():
    cpu = torch.device("cpu")
    three, one = (Taps(3, 1, 1),) * 2, (Taps(1, 1, 0),) * 2
    assert choose((32, 32), (64, 128, 1), three, (16, 16), cpu) == Route((False, False), True)
    assert choose((32, 32), (64, 128, 1), three, (24, 24), cpu) == Route((False, False), False)
    assert choose((32, 32), (64, 128, 1), one, (16, 16), cpu) == Route((True, True), False)
    assert choose((32, 32), (64, 2, 1), one, (16, 16), cpu) == Route((False, False), False)
    assert choose((32, 32), (64, 64, 64), three, (16, 16), cpu) == Route((False, False), False)
    assert choose((100, 64), (64, 64, 1), (Taps(3, 1, 1), one[0]), (50, 32), cpu).early == (False, True)
    # Transforms have no interleaved form.
    assert not choose((4000,), (64, 128, 1), three[:1], (2000,), cpu).interleaved


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(6, 4, 3, padding=1, padding_mode="circular"),
        nn.Conv2d(6, 4, 3, stride=2, padding=1),
        nn.Conv2d(6, 4, 2, padding="same"),
        nn.Sequential(nn.Conv2d(6, 4, 3)),
        nn.utils.parametrizations.weight_norm(nn.Conv2d(6, 4, 3)),
    ],
    ids=["circular", "strided", "lopsided", "a sequence", "parametrised"],
)
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_other_modules_run_first(conv):
    pool, x = DiffStride2d(1.7), torch.randn(2, 6, 12, 12)
    assert walk(conv, "forward") is None
    torch.testing.assert_close(pool(x, convolution=conv), pool(conv(x)))


def test_hooks_see_what_they_wait_for():
    conv, pool, x = make("3x3", "diffstride")
    seen = []
    conv.register_forward_hook(lambda module, args, output: seen.append(output.shape))
    pool(x, convolution=conv)
    assert seen == [(3, 4, *x.shape[2:])]


def test_a_bias_that_would_be_scaled_keeps_its_convolution():
    conv, pool = nn.Conv2d(2, 3, 3, padding=1), DiffStride2d(2.0, norm="ortho")
    x = torch.randn(2, 2, 12, 12)
    assert walk(conv, "ortho") is None
    torch.testing.assert_close(pool(x, convolution=conv), pool(conv(x)))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_converted_convolution_is_a_unit(copied, monkeypatch):
    model, x = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)), torch.randn(2, 3, 16, 16)
    convert_(model, x)
    seen = []
    model[0].register_forward_hook(noted)
    noted.seen = seen
    expected = model(x)
    assert seen == [(2, 8, 8, 8)]
    other = copied(model)
    with torch.no_grad():
        other[0].weight.mul_(2)
    torch.testing.assert_close(other(x), 2 * expected)
    torch.testing.assert_close(model(x), expected)
    assert isinstance(other[0], nn.Conv2d)
    assert list(other.state_dict()) == ["0.weight", "0.resample.pool.stride"]


def noted(module, args, output):
    noted.seen.append(output.shape)


def test_macs_count_the_order_that_runs():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.pool = nn.Conv2d(64, 128, 3, padding=1, bias=False), DiffStride2d(2.0, ramp="inner")

        def forward(self, x):
            return self.pool(x, convolution=self.conv)

    model, x = Pair(), torch.randn(1, 64, 32, 32)
    with torch.no_grad():
        model(x)
        with FlopCounterMode(display=False) as counter:
            model(x)
    counted = macs(model, x).item()
    assert counted == counter.get_total_flops() // 2
    assert counted < 0.4 * 9 * 64 * 128 * 32 * 32
