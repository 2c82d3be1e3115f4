"""The same named tests for every operator in one, two and three dimensions."""

import copy
import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

import anystride
import oracle
from anystride.functional import diffstride, spectral_pool
from anystride.ops.window import LINEAR_RAMPS, RAMPS, band, output_length, stride_bounds, window

SHAPES = {1: (21,), 2: (15, 21), 3: (9, 15, 12)}
STRIDES = {1: (2.3,), 2: (1.7, 2.3), 3: (2.3, 1.7, 1.85)}


@dataclass(frozen=True)
class Operator:
    """One operator in one number of dimensions, as a function of the map and of one stride per axis."""

    name: str
    dims: int

    @property
    def ramp(self):
        return self.name if self.name in RAMPS else None

    @property
    def shape(self):
        return SHAPES[self.dims]

    @property
    def strides(self):
        return torch.tensor(STRIDES[self.dims], dtype=torch.float64)

    def __call__(self, x, strides, **kwargs):
        if self.ramp:
            return diffstride(x, strides, ramp=self.ramp, **kwargs)
        return spectral_pool(x, self.sizes(x.shape[2:], strides), **kwargs)

    def module(self, **kwargs):
        if self.ramp:
            return getattr(anystride, f"DiffStride{self.dims}d")(self.strides.tolist(), ramp=self.ramp, **kwargs)
        return getattr(anystride, f"SpectralPool{self.dims}d")(self.strides.tolist(), **kwargs)

    def sizes(self, shape, strides):
        pairs = list(zip(shape, strides.tolist(), strict=True))
        if self.ramp:
            return tuple(output_length(n, s, ramp=self.ramp) for n, s in pairs)
        return tuple(math.floor(n / s) for n, s in pairs)

    def gain(self, k, length, stride):
        if self.ramp:
            return window(torch.tensor(float(k)).double(), length, stride, ramp=self.ramp).item()
        return 1.0

    def reference(self, x, strides):
        if self.ramp == "cosine":
            return oracle.cosine(x, strides.unbind())
        if self.ramp:
            return oracle.diffstride(x, strides.unbind(), ramp=self.ramp)
        for axis, size in enumerate(self.sizes(x.shape[2:], strides), start=2):
            x = oracle.resample_axis(x, torch.ones(x.shape[axis], dtype=x.dtype), size, axis)
        return x

    def input(self, **kwargs):
        return torch.randn(2, 3, *self.shape, **{"dtype": torch.float64, **kwargs})


operators = [Operator(name, dims) for dims in (1, 2, 3) for name in ("outer", "inner", "cosine", "spectral")]
learned = [operator for operator in operators if operator.ramp]
every = pytest.mark.parametrize("op", operators, ids=lambda op: f"{op.name}{op.dims}d")
# Those whose matrix is diagonal in frequency: a local window is cut, and has a border.
every_sharp = pytest.mark.parametrize(
    "op", [operator for operator in operators if operator.name != "cosine"], ids=lambda op: f"{op.name}{op.dims}d"
)
every_learned = pytest.mark.parametrize("op", learned, ids=lambda op: f"{op.name}{op.dims}d")


@every
def test_smoke(op, device):
    layer = op.module().to(device)
    x = torch.randn(2, 3, *op.shape, device=device, requires_grad=True)
    layer(x).square().sum().backward()
    assert x.grad.isfinite().all()
    assert x.grad.abs().sum() > 0
    if op.ramp:
        assert (layer.stride.grad != 0).all()


@every
def test_cardinality(op):
    layer = op.module()
    y = layer(op.input())
    assert y.shape == (2, 3, *op.sizes(op.shape, op.strides))
    assert layer.output_size(op.shape) == tuple(y.shape[2:])


@every
def test_exception(op):
    layer = op.module()
    with pytest.raises(TypeError, match=r"x must be a floating-point tensor, got torch.int64"):
        layer(torch.zeros(2, 3, *op.shape, dtype=torch.int64))
    with pytest.raises(TypeError, match=r"floating-point tensor, got torch.complex64"):
        layer(torch.zeros(2, 3, *op.shape, dtype=torch.complex64))
    with pytest.raises(ValueError, match=rf"{op.dims} spatial ax[ie]s, got shape"):
        layer(torch.zeros(3, *op.shape))
    for bad in (0.5, math.nan, math.inf, -2.0):
        with pytest.raises(ValueError, match=r"stride must be a finite number of at least 1, got"):
            type(layer)(stride=bad)
    with pytest.raises(ValueError, match=rf"stride must be one value or one per spatial axis \({op.dims}\), got 5"):
        type(layer)(stride=[2.0] * 5)
    with pytest.raises(ValueError, match="norm must be one of 'forward', 'ortho', 'backward', got 'none'"):
        type(layer)(stride=2.0, norm="none")


@every_sharp
def test_feature_cosines(op):
    """A product of cosines comes back on the smaller grid, scaled by the window of each axis, or is gone."""
    sizes = op.sizes(op.shape, op.strides)
    for share in (0.1, 0.3, 0.45, 0.9):
        x = y = torch.ones(1, 1, *[1] * op.dims, dtype=torch.float64)
        gain = 1.0
        for axis, (n, h, s) in enumerate(zip(op.shape, sizes, op.strides.tolist(), strict=True)):
            k = round(share * n / 2)
            k = k - 1 if 2 * k == h else k  # the unpaired bin has its own test
            shape = [-1 if a == axis else 1 for a in range(op.dims)]
            x = x * torch.cos(2 * math.pi * k * torch.arange(n).double() / n + 0.4).view(shape)
            y = y * torch.cos(2 * math.pi * k * torch.arange(h).double() / h + 0.4).view(shape)
            gain *= op.gain(k, n, s) if 2 * k < h else 0.0
        torch.testing.assert_close(op(x, op.strides), gain * y, rtol=0, atol=1e-13)


@every
def test_feature_constant(op):
    x = torch.full((1, 2, *op.shape), 3.0, dtype=torch.float64)
    y = op(x, op.strides)
    torch.testing.assert_close(y, torch.full_like(y, 3.0), rtol=0, atol=1e-13)


@every
def test_feature_linear(op):
    a, b = op.input(), op.input()
    both = op(2 * a - 3 * b, op.strides)
    torch.testing.assert_close(both, 2 * op(a, op.strides) - 3 * op(b, op.strides), rtol=0, atol=1e-13)


@every
def test_feature_transposed(op):
    """Axes are treated alike: a transposed map and transposed strides give the transposed result."""
    x = op.input()
    axes = list(range(2, 2 + op.dims))[::-1]
    turned = op(x.permute(0, 1, *axes), op.strides.flip(0))
    torch.testing.assert_close(turned, op(x, op.strides).permute(0, 1, *axes), rtol=0, atol=1e-13)


@every_sharp
def test_feature_energy(op):
    x = op.input()
    assert op(x, op.strides, norm="ortho").square().sum() <= x.square().sum()


@every
def test_oracle(op, close):
    x = op.input()
    close(op(x, op.strides), op.reference(x, op.strides))


@every
def test_gradcheck(op):
    x = torch.randn(
        1, 2, *[min(n, {1: 21, 2: 8, 3: 5}[op.dims]) for n in op.shape], dtype=torch.float64, requires_grad=True
    )
    if op.ramp:  # finite differences, of the strides inside one output size
        strides = op.strides.requires_grad_()
        shared = torch.tensor([1.83], dtype=torch.float64, requires_grad=True)
        for each in (strides, shared):
            torch.autograd.gradcheck(lambda x, s: op(x, s, smoothness=1.5), (x, each))
    else:
        torch.autograd.gradcheck(lambda x: op(x, op.strides), (x,))
        torch.autograd.gradgradcheck(lambda x: op(x, op.strides), (x,))


@every_learned
def test_no_silent_second_derivative(op):
    x = op.input(requires_grad=True)
    strides = op.strides.requires_grad_()
    (grad,) = torch.autograd.grad(op(x, strides).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivative through a learned stride"):
        grad.sum().backward()


@every
def test_module_equals_function(op):
    x = torch.randn(2, 3, *op.shape)
    torch.testing.assert_close(op.module()(x), op(x, op.strides.float()), rtol=0, atol=0)


@every
def test_dtype(op, dtype, device, close):
    x = torch.randn(4, 8, *op.shape, device=device, dtype=dtype).requires_grad_()
    reference = x.detach().double().cpu().requires_grad_()
    layer = op.module().to(device, dtype)
    y = layer(x)
    assert y.dtype == dtype
    strides = op.strides.float().double().requires_grad_()  # what the layer's parameter can hold
    expected = op(reference, strides)
    cotangent = torch.randn_like(expected).to(dtype)
    y.backward(cotangent.to(device))
    expected.backward(cotangent.double())
    close(y, expected)
    close(x.grad, reference.grad, "input_gradient")
    if op.ramp:
        assert layer.stride.dtype == layer.stride.grad.dtype == torch.float32
        close(layer.stride.grad, strides.grad, "stride_gradient", torch.float32 if dtype == torch.float64 else dtype)


@pytest.mark.parametrize("share", [1e-1, 1e-2, 1e-3, 1e-4, 1e-5])
def test_stride_gradient_where_the_window_is_nearly_zero(share, dtype):
    """The gradient divides by the window: rounding of the output must not drown it."""
    stride = 32 / (2 * (8 + 4 * share))  # the window at bin 12 is `share`
    x = torch.randn(32, 16, 32, 32).to(dtype)
    gradients = []
    for precision in (torch.float64, dtype):
        s = torch.tensor([stride], dtype=torch.float64, requires_grad=True)
        diffstride(x.to(precision), s).tanh().square().sum().backward()
        gradients.append(s.grad)
    limit = {torch.float64: 1e-9, torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 2e-2}[dtype]
    assert (gradients[1] / gradients[0] - 1).abs().item() <= limit


@every
def test_memory_format(op, device):
    """Channels that lie last in memory stay last, and nothing else changes."""
    x = torch.randn(2, 4, *op.shape, device=device)
    last = x.movedim(1, -1).contiguous().movedim(-1, 1)
    skipped = torch.randn(2, 4, *[2 * n for n in op.shape], device=device)[(..., *[slice(None, None, 2)] * op.dims)]
    layer = op.module().to(device)
    y, y_last = layer(x), layer(last)
    torch.testing.assert_close(y_last, y, rtol=0, atol=1e-5)
    assert y.is_contiguous()
    assert y_last.movedim(1, -1).is_contiguous()
    torch.testing.assert_close(layer(skipped), layer(skipped.clone(memory_format=torch.contiguous_format)))
    if op.ramp:
        gradients = []
        for z in (x, last):
            for cotangent in (torch.ones_like(y), torch.ones_like(y_last)):
                layer.stride.grad = None
                layer(z.square()).backward(cotangent)
                gradients.append(layer.stride.grad)
        torch.testing.assert_close(gradients[1:], gradients[:1] * 3, rtol=1e-3, atol=1e-3)


@every
def test_empty_batch(op):
    x = torch.randn(0, 3, *op.shape, requires_grad=True)
    layer = op.module()
    y = layer(x)
    assert y.shape == (0, 3, *op.sizes(op.shape, op.strides))
    y.sum().backward()
    assert x.grad.shape == x.shape
    if op.ramp:
        assert layer.stride.grad.abs().sum() == 0


@every
def test_meta(op):
    strides, make = op.strides.tolist(), type(op.module())
    with torch.device("meta"):
        layer = make(strides, **({"ramp": op.ramp} if op.ramp else {}))
        y = layer(torch.empty(2, 3, *op.shape))
    assert y.is_meta
    assert y.shape == (2, 3, *op.sizes(op.shape, op.strides))


@every
def test_deepcopy(op):
    x = torch.randn(1, 2, *op.shape)
    layer = op.module()
    expected = layer(x)
    copied = copy.deepcopy(layer)
    torch.testing.assert_close(copied(x), expected, rtol=0, atol=0)
    if op.ramp:
        with torch.no_grad():
            copied.stride.mul_(2)
        torch.testing.assert_close(layer(x), expected, rtol=0, atol=0)
        assert copied(x).shape != expected.shape


@every
def test_autocast(op):
    x = torch.randn(2, 3, *op.shape, requires_grad=True)
    layer = op.module()
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
        assert y.dtype == torch.bfloat16
        y.sum().backward()
    assert x.grad.dtype == torch.float32
    torch.testing.assert_close(y.float(), layer(x.bfloat16()).float(), rtol=0, atol=0)


@every
@pytest.mark.slow
def test_compile(op):
    torch._dynamo.reset()
    layer = op.module()
    compiled = torch.compile(layer, backend="aot_eager")
    x = torch.randn(2, 3, *op.shape, requires_grad=True)
    y = compiled(x)
    torch.testing.assert_close(y, layer(x))
    y.sum().backward()
    assert x.grad is not None


@pytest.mark.slow
def test_spectral_compiles_to_one_graph():
    torch._dynamo.reset()
    pool = anystride.SpectralPool2d(stride=1.6)
    compiled = torch.compile(pool, backend="aot_eager", fullgraph=True)
    for n in (16, 20, 24):
        x = torch.randn(2, 3, n, n)
        torch.testing.assert_close(compiled(x), pool(x))


@st.composite
def problems(draw):
    dims = draw(st.integers(1, 3))
    ramp = draw(st.sampled_from(LINEAR_RAMPS))
    smoothness = draw(st.floats(0.6, 6))
    shape = draw(st.lists(st.integers(4, {1: 64, 2: 24, 3: 10}[dims]), min_size=dims, max_size=dims))
    shares = draw(st.lists(st.floats(0.02, 0.98), min_size=dims, max_size=dims))
    bounds = [stride_bounds(n, smoothness, ramp) for n in shape]
    strides = [low + share * (high - low) for (low, high), share in zip(bounds, shares, strict=True)]
    return shape, strides, smoothness, ramp


@given(problem=problems())
def test_parity_with_fft(problem):
    """Output and both gradients equal DFT, window, crop and inverse DFT under autograd, for any size and stride."""
    shape, strides, smoothness, ramp = problem
    for n, s in zip(shape, strides, strict=True):
        at = band(n, s, smoothness, ramp)
        total = n / s + (2 * smoothness if ramp == "outer" else 0)
        assume(abs(total - round(total)) > 1e-4)  # beside a jump of the output size both sides round on their own
        raw = [(at.edge - k) / at.ramp_width for k in range(1, n // 2 + 1)]
        assume(all(abs(r) > 1e-6 and abs(r - 1) > 1e-6 for r in raw))  # at the ramp's ends there is no derivative
        assume(at.output_length > 1)
    x = torch.randn(2, 2, *shape, dtype=torch.float64, requires_grad=True)
    stride = torch.tensor(strides, dtype=torch.float64, requires_grad=True)
    got = diffstride(x, stride, smoothness, ramp)
    expected = oracle.diffstride(x, stride.unbind(), smoothness, ramp)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
    cotangent = torch.randn_like(got)
    ours = torch.autograd.grad(got, (x, stride), cotangent)
    theirs = torch.autograd.grad(expected, (x, stride), cotangent)
    torch.testing.assert_close(ours[0], theirs[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(ours[1], theirs[1], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("ramp", RAMPS)
def test_pointwise_convolutions_commute(ramp):
    """Pool first, then project: the same result for a fraction of the work, also with a bias."""
    x = torch.randn(2, 6, 16, 20, dtype=torch.float64)
    projection = torch.nn.Conv2d(6, 9, 1, dtype=torch.float64)
    stride = torch.tensor([2.2, 1.6], dtype=torch.float64)
    first = projection(diffstride(x, stride, ramp=ramp))
    torch.testing.assert_close(first, diffstride(projection(x), stride, ramp=ramp), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stride": 40.0}, r"stride must be in \[1, 32\) for an axis of length 32, got 40.0"),
        ({"stride": 0.9}, r"stride must be in \[1, 32\)"),
        ({"stride": math.nan}, r"stride must be in \[1, 32\) for an axis of length 32, got nan"),
        ({"stride": torch.tensor([2.0, math.inf])}, r"stride must be in \[1, 32\) for an axis of length 32, got inf"),
        ({"stride": (2.0, 2.0, 2.0)}, r"stride must be one value or one per spatial axis \(2\), got 3"),
        (
            {"stride": 2.0, "smoothness": 0.0},
            "smoothness must be positive and finite, got 0.0; for a hard edge use spectral",
        ),
        ({"stride": 2.0, "smoothness": math.nan}, "smoothness must be positive and finite"),
        ({"stride": 2.0, "ramp": "middle"}, "ramp must be one of 'outer', 'inner', 'cosine', got 'middle'"),
        ({"stride": 2.0, "norm": "l2"}, "norm must be one of"),
    ],
)
def test_diffstride_names_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        diffstride(torch.zeros(1, 1, 32, 32), **arguments)


def test_functions_refuse_maps_without_axes():
    for function in (lambda x: diffstride(x, 2.0), lambda x: spectral_pool(x, 2)):
        with pytest.raises(ValueError, match=r"at least one spatial axis, got shape \(4, 4\)"):
            function(torch.zeros(4, 4))
        with pytest.raises(TypeError, match="got list"):
            function([1.0])


@pytest.mark.parametrize("size", [0, 33, 2.5, -1])
def test_spectral_pool_names_what_is_wrong(size):
    with pytest.raises(ValueError, match=rf"output_size must be a whole number from 1 to 32 for that axis, got {size}"):
        spectral_pool(torch.zeros(1, 1, 32, 32), size)
    with pytest.raises(ValueError, match="give either stride or output_size"):
        anystride.SpectralPool2d()


def test_an_axis_of_one_sample_passes():
    x = torch.randn(2, 3, 1, 16, requires_grad=True)
    pool = anystride.DiffStride2d(2.0)
    y = pool(x)
    assert y.shape == (2, 3, 1, 16)
    y.square().sum().backward()
    assert pool.stride.grad[0] == 0
    assert diffstride(x, (1.0, 2.0)).shape == (2, 3, 1, 16)
