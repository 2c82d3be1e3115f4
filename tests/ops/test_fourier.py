"""Axes of many samples, where the operator runs as real Fourier transforms: the same function."""

import pytest
import torch

from anystride import DiffStride1d, SpectralPool1d, functional
from anystride.ops import matrix as resampling
from anystride.ops.autograd import run
from anystride.ops.axes import NORMS, LearnedAxis, SpectralAxis
from anystride.ops.cache import matrices
from anystride.ops.fourier import FourierMatrix
from anystride.ops.matrix import axis_operator
from anystride.ops.program import Apply
from anystride.ops.segments import bind
from anystride.ops.separable import Product, multiply
from anystride.ops.window import LINEAR_RAMPS, band

CPU = torch.device("cpu")


def dense(operator):
    """The matrix of a transform, column by column."""
    eye = torch.eye(operator.shape[1], dtype=torch.float64).unsqueeze(0)
    return multiply(eye, [Product((0,), operator.shape[:1], operator.shape[1:])], [operator])[0].t()


def along(x, axes, fourier, stride=None):
    """Run some axes as transforms, or as matrices."""
    program = tuple(
        Apply(Product((n,), (axis.output_length,), (axis.length,)), (None,), fourier) for n, axis in enumerate(axes)
    )
    return run(x, bind(program, axes, x.dtype, x.device), stride)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("ramp", LINEAR_RAMPS)
@pytest.mark.parametrize("stride", [1.0, 1.03, 1.9, 3.4, 20.0])
@pytest.mark.parametrize("length", [30, 31, 37])
@pytest.mark.parametrize("missing", [0, 3, -4])
def test_it_is_the_same_matrix(length, stride, ramp, norm, missing):
    at = band(length, stride, 1.5, ramp)
    operator = axis_operator(LearnedAxis.of(at, norm), torch.float64, CPU, length - missing, long=True)
    assert isinstance(operator.matrix, FourierMatrix)
    expected = resampling.onto_samples(resampling.band_matrix(at, norm), length - missing)
    assert operator.matrix.shape == expected.shape
    torch.testing.assert_close(dense(operator.matrix), expected, rtol=0, atol=1e-13)
    torch.testing.assert_close(dense(operator.matrix.t()), expected.t(), rtol=0, atol=1e-13)
    probe = resampling.probe_rows(at, resampling.tables(length, at.output_length, "cpu"), 1e-15)
    torch.testing.assert_close(operator.probe.t() @ operator.probe, probe.t() @ probe, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("length", "size"), [(30, 17), (30, 16), (31, 31), (32, 32), (31, 1)])
def test_spectral_pooling_is_the_same_matrix(length, size):
    operator = axis_operator(SpectralAxis(length, size), torch.float64, CPU, long=True)
    assert isinstance(operator.matrix, FourierMatrix)
    expected = resampling.spectral_matrix(length, size, dtype=torch.float64)
    torch.testing.assert_close(dense(operator.matrix), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("ramp", LINEAR_RAMPS)
def test_maps_and_gradients_are_the_same(ramp):
    x = torch.randn(2, 3, 40, 27, dtype=torch.float64, requires_grad=True)
    stride = torch.tensor([2.3, 1.4], dtype=torch.float64, requires_grad=True)
    axes = tuple(LearnedAxis.of(band(n, s, 2.0, ramp), "forward") for n, s in ((40, 2.3), (27, 1.4)))

    def outcome(fourier):
        y = along(x, axes, fourier, stride)
        return y, *torch.autograd.grad(y.square().sum(), (x, stride))

    for got, theirs in zip(outcome(True), outcome(False), strict=True):
        torch.testing.assert_close(got, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_sound(dtype):
    """A second of sound: no matrix of 8,000 by 16,000 entries is made, in any type."""
    layer = DiffStride1d(2.0, ramp="inner")
    time = torch.arange(16_000).double() / 16_000
    low, high = torch.sin(2 * torch.pi * 440 * time), torch.sin(2 * torch.pi * 6_000 * time)
    y = layer((low + high).to(dtype).reshape(1, 1, -1).requires_grad_())
    assert y.dtype == dtype
    expected = torch.sin(2 * torch.pi * 440 * torch.arange(8_000).double() / 8_000).float()
    torch.testing.assert_close(y[0, 0].float(), expected, rtol=0, atol=1e-5 if dtype == torch.float32 else 2e-2)
    y.float().square().sum().backward()
    assert layer.stride.grad.isfinite().all()
    assert matrices.largest() < 2**22


def test_a_second_derivative_of_spectral_pooling():
    x = torch.randn(1, 2, 20, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: along(x, (SpectralAxis(20, 11),), True).square(), x)


def test_the_stride_of_a_long_axis_learns():
    layer, x = DiffStride1d(4.0, ramp="inner"), torch.randn(2, 2, 3000)
    layer(x).square().sum().backward()
    stride = torch.tensor([4.0], requires_grad=True)
    along(x, layer.axes((3000,), True), False, stride).square().sum().backward()
    torch.testing.assert_close(layer.stride.grad, stride.grad, rtol=1e-3, atol=1e-6)


def test_only_long_axes_are_transformed():
    assert DiffStride1d(2.0)(torch.randn(1, 1, 400)).shape == (1, 1, 208)
    assert functional.resampling_matrix(1024, 2.0).shape == (520, 1024)
    assert SpectralPool1d(stride=2.0)(torch.randn(1, 1, 1001)).shape == (1, 1, 500)
