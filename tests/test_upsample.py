"""The way back up: the adjoint and, where there is one, the right inverse of the pools, in every use of a layer."""

import copy
import math
import pickle
from itertools import pairwise

import pytest
import torch
import torch._dynamo.testing
from torch import nn

import anystride
from anystride import (
    DiffStride1d,
    DiffStride2d,
    DiffStride3d,
    SpectralUpsample1d,
    SpectralUpsample2d,
    SpectralUpsample3d,
    freeze_,
    functional,
    macs,
)

POOLS = {1: DiffStride1d, 2: DiffStride2d, 3: DiffStride3d}
UPS = {1: SpectralUpsample1d, 2: SpectralUpsample2d, 3: SpectralUpsample3d}
RAMPS = ("outer", "inner", "cosine")
SIZES = [(12, 5), (12, 6), (13, 7), (9, 9), (7, 1), (600, 400), (601, 301)]  # the last two by transforms
SHAPES = {1: (15,), 2: (12, 9), 3: (7, 6, 8)}


def inner(a, b):
    return (a.double() * b.double()).sum()


@pytest.mark.parametrize(("length", "size"), SIZES)
@pytest.mark.parametrize("norm", ["forward", "ortho", "backward"])
def test_up_is_the_adjoint_of_down(length, size, norm):
    x, y = torch.randn(2, 3, length, dtype=torch.double), torch.randn(2, 3, size, dtype=torch.double)
    up = functional.spectral_resize(y, length, norm)
    down = functional.spectral_resize(x, size, "ortho")
    scale = {"forward": math.sqrt(length / size), "ortho": 1.0, "backward": math.sqrt(size / length)}[norm]
    torch.testing.assert_close(inner(up, x), scale * inner(down, y))


@pytest.mark.parametrize(("length", "size"), SIZES)
def test_up_and_down_again(length, size):
    y = torch.randn(2, 3, size, dtype=torch.double)
    again = functional.spectral_resize(functional.spectral_resize(y, length), size)
    expected = y
    if size % 2 == 0 and size < length:  # the frequency without a partner comes back at half its height
        wave = (-1.0) ** torch.arange(size)
        expected = y - 0.5 * (y * wave).mean(-1, keepdim=True) * wave
    torch.testing.assert_close(again, expected)


@pytest.mark.parametrize(("length", "size"), [(12, 5), (12, 6), (13, 7), (40, 20)])
def test_waves_go_up_as_they_are(length, size):
    """A wave that the smaller grid can hold is the same wave on the larger one; so are its samples, where they meet."""
    position, where = torch.arange(size).double() / size, torch.arange(length).double() / length
    for k in range((size - 1) // 2 + 1):
        for wave in (torch.cos, torch.sin):
            given, expected = (wave(2 * math.pi * k * grid + 0.3)[None, None] for grid in (position, where))
            torch.testing.assert_close(functional.spectral_resize(given, length), expected)
    if length % size == 0:
        y = torch.randn(1, 1, size, dtype=torch.double)
        torch.testing.assert_close(functional.spectral_resize(y, length)[..., :: length // size], y)


def test_resize_goes_either_way_per_axis():
    x = torch.randn(2, 3, 8, 9, dtype=torch.double)
    y = functional.spectral_resize(x, (12, 5))
    one_by_one = functional.spectral_resize(functional.spectral_resize(x, (12, 9)), (12, 5))
    torch.testing.assert_close(y, one_by_one)
    torch.testing.assert_close(functional.spectral_resize(x, (5, 4)), functional.spectral_pool(x, (5, 4)))


def followed(axes, ramp, norm="forward", stride=1.7, **options):
    pool = POOLS[axes](stride, smoothness=1.5, ramp=ramp, norm=norm, **options)
    return pool, UPS[axes](follows=pool)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("ramp", RAMPS)
def test_a_layer_that_follows_is_the_adjoint(axes, ramp):
    """<pool(x), y> = <x, up(y)>, and so is the derivative of either side by the stride."""
    pool, up = followed(axes, ramp, "ortho")
    x = torch.randn(2, 3, *SHAPES[axes], dtype=torch.double)
    y = torch.randn_like(pool(x))
    down, back = inner(pool(x), y), inner(up(y, x), x)
    torch.testing.assert_close(down, back)
    slopes = [torch.autograd.grad(value, pool.stride)[0] for value in (down, back)]
    assert slopes[0].abs().min() > 0
    torch.testing.assert_close(*slopes, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("ramp", RAMPS)
@pytest.mark.parametrize("length", [700, 601])
def test_long_axes_are_the_same_function(ramp, length):
    pool, up = followed(1, ramp, "ortho", stride=1.4)
    x = torch.randn(1, 2, length, dtype=torch.double)
    y = torch.randn_like(pool(x))
    down, back = inner(pool(x), y), inner(up(y, x), x)
    torch.testing.assert_close(down, back)
    slopes = [torch.autograd.grad(value, pool.stride)[0] for value in (down, back)]
    torch.testing.assert_close(*slopes, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("ramp", RAMPS)
def test_constants_stay(ramp):
    pool, up = followed(2, ramp)
    size = pool.output_size((12, 9))
    torch.testing.assert_close(up(torch.ones(1, 1, *size), (12, 9)), torch.ones(1, 1, 12, 9))


def test_outputs_follow_the_stride_without_jumps():
    """Also where the size of the small map changes. (Maps of "outer" jump, and there a bin finds its partner.)"""
    pool, up = followed(1, "inner", stride=2.0)
    x = torch.randn(1, 4, 33)
    maps, sizes = [], []
    for stride in torch.linspace(2.0, 2.4, 401).tolist():
        with torch.no_grad():
            pool.stride.fill_(stride)
            small = pool(x)
            sizes.append(small.shape[-1])
            maps.append(up(small, x))
    steps = torch.stack([(b - a).abs().max() for a, b in pairwise(maps)])
    assert len(set(sizes)) > 2
    assert steps.max() < 5 * steps.median()


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("ramp", [None, *RAMPS])
def test_gradients(axes, ramp):
    if ramp is None:
        x = torch.randn(1, 2, *[n - 3 for n in SHAPES[axes]], dtype=torch.double, requires_grad=True)
        up = UPS[axes](output_size=SHAPES[axes])
        assert torch.autograd.gradcheck(up, x)
        assert torch.autograd.gradgradcheck(up, x)
        return
    pool, up = followed(axes, ramp)
    y = torch.randn(1, 2, *pool.output_size(SHAPES[axes]), dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda y: up(y, SHAPES[axes]), y)
    with pytest.raises(RuntimeError, match="second derivative"):
        torch.autograd.gradgradcheck(lambda y: up(y, SHAPES[axes]), y)
    pool.stride.requires_grad_(False)
    assert torch.autograd.gradgradcheck(lambda y: up(y, SHAPES[axes]), y)


@pytest.mark.parametrize("ramp", RAMPS)
def test_gradient_of_the_stride_by_differences(ramp):
    pool, up = followed(2, ramp, stride=1.63)
    size = (24, 23)
    y, weight = torch.randn(2, 3, *pool.output_size(size)).double(), torch.randn(2, 3, *size).double()
    (gradient,) = torch.autograd.grad((up(y, size) * weight).sum(), pool.stride)

    def value(axis, step):
        with torch.no_grad():
            pool.stride[axis] += step
            result = (up(y, size) * weight).sum()
            pool.stride[axis] -= step
        return result

    step = 2.0**-12
    for axis in range(2):
        slope = (value(axis, step) - value(axis, -step)) / (2 * step)
        torch.testing.assert_close(gradient[axis].double(), slope, rtol=5e-3, atol=1e-3)


@pytest.mark.parametrize("ramp", [None, *RAMPS])
def test_types_devices_and_layouts(ramp, dtype, device, close):
    pool, up = (None, SpectralUpsample2d()) if ramp is None else followed(2, ramp)
    size = (12, 9)
    small = (7, 6) if pool is None else pool.output_size(size)
    x = torch.randn(2, 3, *small, dtype=torch.double)
    reference = up(x, size)
    up.to(device)
    for layout in (torch.contiguous_format, torch.channels_last):
        got = up(x.to(device, dtype).contiguous(memory_format=layout), size)
        assert got.dtype == dtype
        close(got, reference)


def test_under_autocast():
    pool, up = followed(2, "inner")
    small = torch.randn(2, 3, *pool.output_size((12, 12)))
    with torch.autocast("cpu", torch.bfloat16):
        y = up(small, (12, 12))
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert pool.stride.grad.dtype == torch.float32


class Decoder(nn.Module):
    """Down and up once, with a skip connection."""

    def __init__(self, ramp="inner", grid="free"):
        super().__init__()
        self.encode, self.middle = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.pool = DiffStride2d(1.7, ramp=ramp, smoothness=1.0, grid=grid)
        self.up, self.twice = SpectralUpsample2d(follows=self.pool), SpectralUpsample2d(2.0)
        self.decode = nn.Conv2d(8, 2, 3, padding=1)

    def forward(self, x):
        skip = self.encode(x).relu()
        small = self.middle(self.pool(skip)).relu()
        return self.twice(self.decode(torch.cat([self.up(small, skip), skip], dim=1)))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_copies_follow_their_own_pool(copied):
    model = Decoder()
    twin = copied(model)
    assert twin.up.follows is twin.pool is not model.pool
    assert len(anystride.learned_strides(twin)) == 1
    with torch.no_grad():
        twin.pool.stride.fill_(2.6)
    assert twin(torch.randn(1, 3, 16, 16)).shape == (1, 2, 32, 32)


@pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated:DeprecationWarning")
@pytest.mark.parametrize("ramp", RAMPS)
def test_frozen_decoder(ramp):
    model = Decoder(ramp).eval()
    examples = torch.randn(2, 3, 16, 12), torch.randn(1, 3, 20, 16)
    expected = [model(x) for x in examples]
    frozen = freeze_(copy.deepcopy(model), *examples)
    for x, y in zip(examples, expected, strict=True):
        torch.testing.assert_close(frozen(x), y)
    assert not any(name.endswith("stride") for name, _ in frozen.named_parameters())
    scripted = torch.jit.script(frozen)
    torch.testing.assert_close(scripted(examples[0]), expected[0])
    exported = torch.export.export(frozen, (examples[0],)).module()
    torch.testing.assert_close(exported(examples[0]), expected[0])
    with pytest.raises(ValueError, match="was frozen for maps of size"):
        frozen.up(torch.randn(1, 4, 5, 5), (16, 12))
    with pytest.raises(ValueError, match="was frozen for maps of size"):
        frozen.twice(torch.randn(1, 2, 5, 5))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf", "ignore::DeprecationWarning")
@pytest.mark.parametrize("ramp", RAMPS)
@pytest.mark.slow
def test_compiled_decoder(ramp):
    """One graph where sizes stand still; gradients are those of the eager network."""
    torch._dynamo.reset()
    model = Decoder(ramp, grid="fixed")
    x = torch.randn(2, 3, 16, 12)
    expected = model(x)
    expected.square().sum().backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    y = compiled(x)
    torch.testing.assert_close(y, expected)
    y.square().sum().backward()
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-4)
    assert counter.frame_count == 1


def test_an_export_asks_for_a_frozen_model():
    with pytest.raises(RuntimeError, match="freeze_"):
        torch.export.export(Decoder(), (torch.randn(1, 3, 16, 16),), strict=False)


@pytest.mark.parametrize("ramp", RAMPS)
def test_costs_and_their_slope(ramp):
    """The gradient of `macs` says how costs move on average."""
    model, x = Decoder(ramp), torch.empty(1, 3, 64, 64)
    value = macs(model, x)
    (slope,) = torch.autograd.grad(value, model.pool.stride)
    assert (slope < 0).all()
    costs = []
    strides = torch.linspace(1.5, 1.9, 41)
    for stride in strides.tolist():
        with torch.no_grad():
            model.pool.stride.fill_(stride)
        costs.append(macs(model, x).item())
    measured = (costs[-1] - costs[0]) / (strides[-1] - strides[0]).item()
    assert slope.sum().item() == pytest.approx(measured, rel=0.25)


def test_costs_of_an_enlargement_by_a_factor():
    pool = DiffStride1d(2.0, ramp="inner")
    model = nn.Sequential(pool, SpectralUpsample1d(2.0), nn.Conv1d(2, 2, 3, padding=1, bias=False))
    value = macs(model, torch.empty(1, 2, 32))
    # The pool is 16 x 32 and the way up 32 x 16, for each of two channels; the convolution is 2 * 2 * 3 * 32.
    assert value.item() == 2 * 16 * 32 * 2 + 12 * 32
    (slope,) = torch.autograd.grad(value, pool.stride)
    assert slope.item() == pytest.approx(-(2 * 16 * 32 + 2 * 2 * 16 * 32 + 12 * 32) / 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SpectralUpsample2d(2.0, output_size=8), "scale_factor and output_size"),
        (lambda: SpectralUpsample2d(0.5), "scale_factor must be a finite number of at least 1, got 0.5"),
        (lambda: SpectralUpsample2d(output_size=(8, 0)), "output_size must be a whole number"),
        (lambda: SpectralUpsample2d(follows=DiffStride1d()), "follows must be a DiffStride2d, got DiffStride1d"),
        (lambda: SpectralUpsample2d(norm="none"), "norm must be one of"),
        (lambda: SpectralUpsample2d()(torch.randn(1, 1, 4, 4)), "like must be given"),
        (lambda: SpectralUpsample2d(2.0)(torch.randn(1, 1, 4, 4), (8, 8)), "like must not be given"),
        (lambda: SpectralUpsample2d()(torch.randn(1, 1, 4, 4), (8,)), "like must have 2 spatial axes"),
        (lambda: SpectralUpsample2d()(torch.randn(1, 1, 4, 4), (8, 3)), "at least as large as the input"),
        (lambda: SpectralUpsample2d()(torch.randn(1, 4, 4), (8, 8)), "must be .N, C, .spatial."),
        (
            lambda: followed(2, "inner", stride=2.0)[1](torch.randn(1, 1, 4, 4), (20, 20)),
            r"turns into \(4, 4\); \(20, 20\) becomes \(10, 10\)",
        ),
        (lambda: functional.spectral_resize(torch.randn(1, 1, 4, 4), 0), "output_size must be a whole number"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_integers_are_refused():
    with pytest.raises(TypeError, match="floating-point"):
        SpectralUpsample1d(2.0)(torch.ones(1, 1, 4, dtype=torch.long))


def test_a_map_that_stays_is_not_the_input_itself():
    x = torch.ones(1, 1, 4, 4)
    SpectralUpsample2d()(x, x).zero_()
    assert x.sum() == 16


def test_repr_is_the_constructor_call():
    assert repr(SpectralUpsample2d(2.5)) == "SpectralUpsample2d(scale_factor=(2.5, 2.5), norm='forward')"
