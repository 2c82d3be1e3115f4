"""Axes of many samples, where the operator runs as real Fourier transforms: the same function."""

import pytest
import torch

from anystride import DiffStride1d, SpectralPool1d, functional
from anystride.functional import diffstride, spectral_pool
from anystride.ops import matrix as resampling
from anystride.ops.matrix import Transform, learned_axis, spectral_axis
from anystride.ops.separable import multiply_axes
from anystride.ops.window import RAMPS, band

CPU = torch.device("cpu")


@pytest.fixture
def always(monkeypatch):
    """Every axis counts as long, so that small ones show what the transform does."""
    monkeypatch.setattr(resampling, "is_long", lambda h, device: True)
    monkeypatch.setattr(resampling, "_cache", resampling._Cache(2**20))


def dense(operator):
    """The matrix of a transform, column by column."""
    return multiply_axes(torch.eye(operator.shape[1], dtype=torch.float64).unsqueeze(0), [operator])[0].t()


@pytest.mark.parametrize("norm", resampling.NORMS)
@pytest.mark.parametrize("ramp", RAMPS)
@pytest.mark.parametrize("stride", [1.0, 1.03, 1.9, 3.4, 20.0])
@pytest.mark.parametrize("length", [30, 31, 37])
@pytest.mark.parametrize("missing", [0, 3, -4])
def test_it_is_the_same_matrix(length, stride, ramp, norm, missing, always):
    at = band(length, stride, 1.5, ramp)
    operator = learned_axis(at, norm, torch.float64, CPU, length - missing)
    assert isinstance(operator.matrix, Transform)
    expected = resampling.onto_samples(resampling.band_matrix(at, norm), length - missing)
    assert operator.matrix.shape == expected.shape
    torch.testing.assert_close(dense(operator.matrix), expected, rtol=0, atol=1e-13)
    torch.testing.assert_close(dense(operator.matrix.t()), expected.t(), rtol=0, atol=1e-13)
    probe = resampling._probe(at, resampling.tables(length, at.output_length, "cpu"), 1e-15)
    torch.testing.assert_close(operator.probe.t() @ operator.probe, probe.t() @ probe, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("length", "size"), [(30, 17), (30, 16), (31, 31), (32, 32), (31, 1)])
def test_spectral_pooling_is_the_same_matrix(length, size, always):
    operator = spectral_axis(length, size, "forward", torch.float64, CPU, length)
    assert isinstance(operator.matrix, Transform)
    expected = resampling.spectral_matrix(length, size, dtype=torch.float64)
    torch.testing.assert_close(dense(operator.matrix), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("ramp", RAMPS)
def test_maps_and_gradients_are_the_same(ramp, monkeypatch):
    x = torch.randn(2, 3, 40, 27, dtype=torch.float64, requires_grad=True)
    stride = torch.tensor([2.3, 1.4], dtype=torch.float64, requires_grad=True)

    def outcome():
        monkeypatch.setattr(resampling, "_cache", resampling._Cache(2**20))
        y = diffstride(x, stride, 2.0, ramp)
        return y, *torch.autograd.grad(y.square().sum(), (x, stride))

    expected = outcome()
    monkeypatch.setattr(resampling, "is_long", lambda h, device: h > 15)
    for got, theirs in zip(outcome(), expected, strict=True):
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
    largest = max(t.nbytes for entry in resampling._cache._entries.values() for t in resampling._tensors(entry))
    assert largest < 2**22


def test_a_second_derivative_of_spectral_pooling(always):
    x = torch.randn(1, 2, 20, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: spectral_pool(x, 11).square(), x)


def test_the_stride_of_a_long_axis_learns():
    layer = DiffStride1d(4.0, ramp="inner")
    x = torch.randn(2, 2, 3000)
    layer(x).square().sum().backward()
    dense_layer = DiffStride1d(4.0, ramp="inner")
    long, resampling.is_long = resampling.is_long, lambda h, device: False
    try:
        resampling._cache._entries.clear()
        dense_layer(x).square().sum().backward()
    finally:
        resampling.is_long = long
        resampling._cache._entries.clear()
    torch.testing.assert_close(layer.stride.grad, dense_layer.stride.grad, rtol=1e-3, atol=1e-6)


def test_short_axes_stay_matrices():
    assert isinstance(learned_axis(band(256, 2.0), "forward", torch.float32, CPU).matrix, torch.Tensor)
    assert isinstance(learned_axis(band(1024, 2.0), "forward", torch.float32, CPU).matrix, Transform)
    assert functional.resampling_matrix(1024, 2.0).shape == (520, 1024)
    assert SpectralPool1d(stride=2.0)(torch.randn(1, 1, 1001)).shape == (1, 1, 500)
