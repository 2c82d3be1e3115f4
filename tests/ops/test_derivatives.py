"""Derivatives beside the ordinary ones: second ones, and those of every sample by `torch.func`."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, jacrev, vmap

from anystride import (
    DiffStride1d,
    DiffStride2d,
    DiffStride3d,
    SpectralPool1d,
    SpectralPool2d,
    convert_,
)
from anystride.convolution import kernel_for
from anystride.ops.program import Convolve
from anystride.ops.segments import program_of
from anystride.resample import Keeps


class Mean(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))


def network(width, act=nn.ReLU, method="diffstride", ramp="inner"):
    """Two convolutions that learn; with many channels they run interleaved."""
    model = nn.Sequential(
        nn.Conv2d(3, width, 3, stride=2, padding=1),
        act(),
        nn.Conv2d(width, width, 3, stride=2, padding=1),
        act(),
        Mean(),
        nn.Linear(width, 4),
    )
    convert_(model, torch.randn(1, 3, 32, 32), method=method, ramp=ramp)
    return model


def fix(model):
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.endswith("stride"))
    return model


def is_interleaved(conv, size):
    place = conv.resample
    kernel = kernel_for(conv, True)
    program = program_of(place.pool.axes(size), size, conv.in_channels, kernel, torch.device("cpu"))
    return any(isinstance(step, Convolve) and step.interleaved for step in program)


@pytest.mark.parametrize("kind", ["spectral", "fixed", "keeps"])
@pytest.mark.parametrize("width", [2, 64])
def test_a_gradient_penalty_where_no_stride_learns(kind, width):
    model = network(width, nn.Softplus, "spectral" if kind == "spectral" else "diffstride").double()
    model = fix(model)
    if kind == "keeps":
        model[2].resample = Keeps((5, 5), name="2", geometry=model[2].resample.geometry)
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)

    def penalty(weight):
        z = x.clone().requires_grad_()
        parameters = {**dict(model.named_parameters()), "0.weight": weight}
        (g,) = torch.autograd.grad(functional_call(model, parameters, (z,)).sum(), z, create_graph=True)
        return g.square().sum()

    weight = model[0].weight.detach().clone()
    direction = torch.randn_like(weight)
    (got,) = torch.autograd.grad(penalty(weight.requires_grad_()), weight)
    with torch.no_grad():
        ahead, behind = weight + 1e-5 * direction, weight - 1e-5 * direction
    expected = (penalty(ahead) - penalty(behind)) / 2e-5
    torch.testing.assert_close((got * direction).sum(), expected, rtol=1e-6, atol=1e-10)


def test_the_program_was_interleaved():
    assert is_interleaved(network(64)[2], (16, 16))
    assert not is_interleaved(network(2)[2], (16, 16))


@pytest.mark.parametrize("width", [2, 64])
@pytest.mark.parametrize("ramp", ["inner", "cosine"])
@pytest.mark.parametrize("wanted", ["0.weight", "2.weight", "2.resample.pool.stride"])
def test_a_learned_stride_never_leaves_a_second_derivative_out(width, wanted, ramp):
    """Also where the gradient that arrives is a constant, as that of a sum over the last layer's map."""
    model = network(width, ramp=ramp)[:3]
    z = torch.randn(2, 3, 32, 32, requires_grad=True)
    (g,) = torch.autograd.grad(model(z).sum(), z, create_graph=True)
    with pytest.raises(RuntimeError, match="a second derivative through a learned stride is not available; fix"):
        torch.autograd.grad(g.square().sum(), dict(model.named_parameters())[wanted], allow_unused=True)


def test_first_derivatives_under_create_graph():
    model, x = network(64), torch.randn(2, 3, 32, 32)
    parameters = list(model.parameters())
    plain = torch.autograd.grad(model(x).square().sum(), parameters)
    twice = torch.autograd.grad(model(x).square().sum(), parameters, create_graph=True)
    torch.testing.assert_close(twice, plain, rtol=0, atol=0)


MODELS = {
    "1d": (lambda: DiffStride1d(2.3), (4, 40)),
    "1d, long": (lambda: DiffStride1d(2.0, ramp="inner"), (2, 1200)),
    "2d": (lambda: DiffStride2d((2.3, 1.7)), (4, 16, 15)),
    "2d, shared": (lambda: DiffStride2d(2.0, ramp="inner", shared=True), (4, 16, 16)),
    "2d, fixed grid": (lambda: DiffStride2d(2.0, ramp="inner", grid="fixed"), (4, 16, 16)),
    "3d": (lambda: DiffStride3d(1.8, ramp="inner"), (2, 8, 7, 9)),
    "in turn": (lambda: network(2), (3, 32, 32)),
    "cosine": (lambda: network(2, ramp="cosine"), (3, 32, 32)),
    "cosine, many channels": (lambda: network(64, ramp="cosine"), (3, 32, 32)),
    "interleaved": (lambda: network(64), (3, 32, 32)),
    "interleaved, fixed": (lambda: fix(network(64)), (3, 32, 32)),
    "spectral": (lambda: network(64, method="spectral"), (3, 32, 32)),
}


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_gradients_of_every_sample(name, channels_last):
    make, shape = MODELS[name]
    model, x = make(), torch.randn(3, *shape)
    if channels_last:
        if len(shape) != 3:
            pytest.skip("a layout of two axes")
        model, x = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    parameters = dict(model.named_parameters())

    def loss(parameters, sample):
        return functional_call(model, parameters, (sample[None],)).square().sum()

    got = vmap(grad(loss, argnums=(0, 1)), in_dims=(None, 0))(parameters, x)
    for n, sample in enumerate(x):
        given = sample[None].clone().requires_grad_()
        learned = [p for p in parameters.values() if p.requires_grad]
        *expected, of_x = torch.autograd.grad(model(given).square().sum(), [*learned, given])
        torch.testing.assert_close(got[1][n], of_x[0], rtol=1e-4, atol=1e-5)
        names = [name for name, p in parameters.items() if p.requires_grad]
        for key, value in zip(names, expected, strict=True):
            torch.testing.assert_close(got[0][key][n], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("pool", [SpectralPool1d(2.0), SpectralPool2d(2.0), DiffStride2d(2.0)], ids=repr)
def test_vmap_of_a_layer(pool):
    x = torch.randn(5, 2, 3, *(14, 12)[: pool.spatial_dims])
    expected = torch.stack([pool(part) for part in x])
    torch.testing.assert_close(vmap(pool)(x), expected, rtol=0, atol=1e-6)


def test_jacobians():
    pool, x = DiffStride2d(2.0, smoothness=1.0), torch.randn(1, 1, 8, 8)
    rows = jacrev(pool)(x).reshape(-1, 64)
    torch.testing.assert_close(rows @ x.flatten(), pool(x).flatten(), rtol=0, atol=1e-5)

    def total(stride):
        return functional_call(pool, {"stride": stride}, (x,)).square().sum()

    (expected,) = torch.autograd.grad(pool(x).square().sum(), pool.stride)
    torch.testing.assert_close(jacrev(total)(pool.stride.detach()), expected)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # by torch's own formulas
def test_forward_mode():
    pool, x = DiffStride2d(2.0), torch.randn(1, 1, 16, 16)
    torch.testing.assert_close(torch.func.jvp(SpectralPool2d(2.0), (x,), (x,))[1], SpectralPool2d(2.0)(x))
    with pytest.raises(NotImplementedError, match="forward mode"):
        torch.func.jvp(pool, (x,), (x,))


def test_strides_cannot_be_mapped():
    pool, x = DiffStride2d(2.0), torch.randn(1, 1, 16, 16)
    with pytest.raises(RuntimeError, match="map over samples, and loop over models"):
        vmap(lambda stride: functional_call(pool, {"stride": stride}, (x,)))(torch.full((3, 2), 2.0))


def test_what_a_transform_made_stays_ordinary():
    """Matrices that were first needed within a transform serve ordinary calls later, with gradients of their own."""
    pool, x = DiffStride2d(1.83), torch.randn(2, 3, 29, 31)
    vmap(grad(lambda x: pool(x[None]).square().sum()))(x)
    given = x.clone().requires_grad_()
    pool(given).square().sum().backward()
    twin = DiffStride2d(1.83).double()
    again = x.double().requires_grad_()
    twin(again).square().sum().backward()
    torch.testing.assert_close(given.grad.double(), again.grad, rtol=0, atol=1e-5)
    torch.testing.assert_close(pool.stride.grad, twin.stride.grad, rtol=1e-4, atol=1e-4)
