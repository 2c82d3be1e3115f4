"""A convolution and the operator as one unit: the same function and gradients in every order, with the same weights."""

import copy
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
    freeze_,
    macs,
)
from anystride.convolution import kernel_for
from anystride.ops.autograd import run
from anystride.ops.axes import LearnedAxis, SpectralAxis, Taps
from anystride.ops.fusion import plan, programs
from anystride.ops.program import Apply, Convolve, Kernel, convolved, cost
from anystride.ops.segments import bind, program_of
from anystride.ops.separable import Product  # noqa: F401 - the text of a program names it
from anystride.ops.window import band

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


CPU = torch.device("cpu")


def prepare(conv, pool, x):
    """What a pool does to the axes of `conv(x)`, and all programs that do it."""
    kernel, size = kernel_for(conv, pool.keeps_constants), tuple(x.shape[2:])
    met = convolved(kernel, size)
    axes = pool.axes(met, True) if hasattr(pool, "ramp") else pool.axes(met)
    learned = isinstance(axes[0], LearnedAxis)
    sizes = tuple(axis.output_length for axis in axes)
    return axes, programs(met, sizes, learned, size, kernel, x.device)


def run_as(program, axes, conv, pool, x, **types):
    """The pool after the convolution, by one program."""
    segments = bind(program, axes, types.get("dtype", x.dtype), x.device)
    return run(x, segments, pool.stride if hasattr(pool, "ramp") else None, conv.weight, conv.bias)


def interleaves(program):
    return any(isinstance(step, Convolve) and step.interleaved for step in program)


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
    axes, options = prepare(conv, pool, x)
    assert len(options) == len(set(options)) > (0 if case == "1x1" else 1)
    for program in options:
        got, theirs = outcome(lambda x, program=program: run_as(program, axes, conv, pool, x), x, parameters)
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
        for a, b, name in zip(
            theirs, gradients, ["x", *(n for n, _ in conv.named_parameters()), "stride"], strict=False
        ):
            # A stride is float32 whatever the maps are.
            torch.testing.assert_close(a, b, rtol=1e-5 if name == "stride" else 0, atol=1e-5 if a.dim() == 1 else 1e-11)
        with torch.no_grad():
            torch.testing.assert_close(run_as(program, axes, conv, pool, x), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(pool(x, convolution=conv), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("channels", [4, 24])
def test_layouts_stay(layout, channels):
    conv, pool = nn.Conv2d(channels, 8, 3, padding=1).to(memory_format=layout), DiffStride2d(2.2, ramp="inner")
    x = torch.randn(2, channels, 12, 12).to(memory_format=layout).requires_grad_()
    axes, options = prepare(conv, pool, x)
    assert len(options) == 2
    for program in options:
        y = run_as(program, axes, conv, pool, x)
        torch.testing.assert_close(y, pool(conv(x)), rtol=0, atol=1e-5)
        assert y.is_contiguous(memory_format=layout)
        (grad,) = torch.autograd.grad(y.square().sum(), x)
        assert grad.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    conv, pool, x = make("3x3", "diffstride")
    expected = pool(conv(x))
    half, x = copy.deepcopy(conv).to(dtype), x.to(dtype)
    axes, options = prepare(half, pool, x)
    for program in options:
        got = run_as(program, axes, half, pool, x)
        assert got.dtype == dtype
        torch.testing.assert_close(got.float(), expected, rtol=0, atol=0.03)


def test_autocast():
    conv, pool, x = make("3x3", "diffstride")
    expected = pool(conv(x))
    axes, options = prepare(conv, pool, x)
    for program in options:
        with torch.autocast("cpu", torch.bfloat16):
            assert pool(x, convolution=conv).dtype == torch.bfloat16
            got = run_as(program, axes, conv, pool, x.bfloat16())
        assert got.dtype == torch.bfloat16
        torch.testing.assert_close(got.float(), expected, rtol=0, atol=0.05)
        got.float().square().mean().backward()
        assert conv.weight.grad.dtype == pool.stride.grad.dtype == torch.float32


def test_only_the_input_is_kept():
    """An interleaved map is larger than the input, and is made again; it must not wait for the backward pass."""
    conv, pool = nn.Conv2d(8, 8, 3, padding=1, bias=False), DiffStride2d(2.0, ramp="inner")
    x = torch.randn(2, 8, 32, 32, requires_grad=True)
    axes, options = prepare(conv, pool, x)
    (program,) = filter(interleaves, options)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y = run_as(program, axes, conv, pool, x)
    large = [t for t in kept if t.numel() >= y.numel()]
    assert {t.data_ptr() for t in large} == {x.data_ptr(), y.data_ptr()}


def order(size, channels, kernel, output_size):
    """The cheapest program, as the axes that are resampled before the convolution, and whether it is interleaved."""
    met = convolved(kernel, size)
    axes = tuple(LearnedAxis.of(band(n, n / h, ramp="inner"), "forward") for n, h in zip(met, output_size, strict=True))
    program = program_of(axes, size, channels, kernel, CPU)
    place = next(n for n, step in enumerate(program) if isinstance(step, Convolve))
    return sorted(axis for step in program[:place] for axis in step.product.axes), interleaves(program)


def test_the_order_follows_from_the_sizes():
    three, one = (Taps(3, 1, 1),) * 2, (Taps(1, 1, 0),) * 2
    assert order((32, 32), 64, Kernel(three, 128), (16, 16)) == ([0, 1], True)
    assert order((32, 32), 64, Kernel(three, 128), (24, 24)) == ([], False)
    assert order((32, 32), 64, Kernel(one, 128), (16, 16)) == ([0, 1], False)
    assert order((32, 32), 64, Kernel(one, 2), (16, 16)) == ([], False)
    assert order((32, 32), 64, Kernel(three, 64, 64), (16, 16)) == ([], False)
    assert 1 in order((100, 64), 64, Kernel((Taps(3, 1, 1), one[0]), 64), (50, 32))[0]
    # Transforms have no interleaved form.
    assert not order((4000,), 64, Kernel(three[:1], 128), (2000,))[1]


def test_an_interleaved_matrix_has_a_limit():
    """A kernel as long as a part of its axis would take a matrix of a quarter of a gigabyte."""
    kernel = Kernel((Taps(250, 1, 0),), 250)
    (only,) = programs((6151,), (39,), True, (6400,), kernel, CPU)
    assert not interleaves(only)
    assert any(map(interleaves, programs((6392,), (39,), True, (6400,), Kernel((Taps(9, 1, 0),), 250), CPU)))


def chosen(channels, outputs, kernel_size, stride, length):
    """The entries of the matrices of the cheapest program of an unpadded 1-D convolution, and of the separate order."""
    kernel = Kernel((Taps(kernel_size, 1, 0),), outputs)
    met = convolved(kernel, (length,))
    arguments = met, (-(-met[0] // stride),), True, (length,)
    separate = programs(*arguments, kernel, CPU)[0]
    best = plan(*arguments, channels, kernel)
    return *(sum(s.entries for s in p if isinstance(s, Apply)) for p in (best, separate)), outputs * met[0]


@pytest.mark.parametrize(
    "case",
    [
        (1, 250, 250, 160, 6400),
        (1, 64, 8, 100, 6400),
        (1, 64, 8, 4, 400),
        (1, 32, 80, 4, 16000),
        (1, 512, 10, 5, 16000),
    ],
)
def test_matrices_are_weighed(case):
    """An interleaved matrix much larger than the maps that it saves loses, though it would be less work per sample."""
    best, separate, full = chosen(*case)
    assert best == separate <= max(full, 10**5)


def test_a_large_matrix_may_save_larger_maps():
    best, separate, full = chosen(1, 512, 9, 64, 4096)
    assert separate < best < 2 * full


def test_a_program_is_data():
    kernel = Kernel((Taps(3, 1, 1),) * 2, 8)
    for program in programs((16, 16), (8, 8), True, (16, 16), kernel, CPU):
        assert all(isinstance(step, Apply | Convolve) for step in program)
        assert eval(repr(program)) == program
        assert cost(program, (16, 16), 4, kernel) > 0


def test_a_place_that_rests_takes_no_step():
    axes = (SpectralAxis(12, 12), SpectralAxis(12, 6))
    (step,) = program_of(axes, (12, 12), 3, None, CPU)
    assert step.product.axes == (1,)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(6, 4, 3, stride=2, padding=1),
        nn.Conv2d(6, 4, 2, padding="same"),
        nn.Sequential(nn.Conv2d(6, 4, 3)),
        nn.utils.parametrizations.weight_norm(nn.Conv2d(6, 4, 3)),
    ],
    ids=["strided", "lopsided", "a sequence", "parametrised"],
)
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_other_modules_run_first(conv):
    pool, x = DiffStride2d(1.7), torch.randn(2, 6, 12, 12)
    assert kernel_for(conv, True) is None
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
    assert kernel_for(conv, False) is None
    torch.testing.assert_close(pool(x, convolution=conv), pool(conv(x)))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_converted_convolution_runs_with_its_place(copied):
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


@pytest.mark.parametrize("ramp", ["inner", "cosine"])
@pytest.mark.parametrize("border", ["circular", "reflect", "replicate"])
def test_a_border_that_is_not_of_zeros_is_a_part_of_the_map(ramp, border):
    """Learned, frozen and compiled: the same as with a map that has its border, at the output's resolution."""
    torch.manual_seed(0)
    conv, bare = nn.Conv2d(96, 96, (3, 5), padding=(1, 2), padding_mode=border), nn.Conv2d(96, 96, (3, 5))
    bare.load_state_dict(conv.state_dict())
    pool = DiffStride2d((2.3, 2.0), smoothness=1.0, ramp=ramp)
    x = torch.randn(2, 96, 26, 22, requires_grad=True)
    wanted = pool(nn.functional.pad(x, (2, 2, 1, 1), mode=border), convolution=bare)
    found = pool(x, convolution=conv)
    torch.testing.assert_close(found, wanted)
    grad = torch.randn_like(wanted)
    each = [
        torch.autograd.grad(y, [x, pool.stride, *of.parameters()], grad) for y, of in ((found, conv), (wanted, bare))
    ]
    torch.testing.assert_close(*each)
    if ramp == "inner":
        torch.testing.assert_close(found, pool(conv(x)), rtol=1e-4, atol=1e-5)

    class Unit(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.pool = conv, pool

        def forward(self, x):
            return self.pool(x, convolution=self.conv)

    unit, given = Unit().eval(), x.detach()
    assert macs(unit, given).item() < macs(nn.Sequential(conv, pool), given).item()
    served = freeze_(copy.deepcopy(unit), given)
    with torch.no_grad():
        for form in (served, torch.export.export(served, (given,)).module(), torch.compile(unit, backend="eager")):
            torch.testing.assert_close(form(given), wanted, rtol=1e-4, atol=1e-5)
