"""Edges: maps that keep their size, empty ones, huge values, and arguments out of all range."""

import copy
import math
import tracemalloc

import pytest
import torch
from torch import nn

from anystride import DiffStride1d, DiffStride2d, SpectralPool1d, SpectralPool2d, freeze_
from anystride.functional import diffstride, resampling_matrix, spectral_pool
from anystride.ops.axes import LearnedAxis
from anystride.ops.cache import TensorCache
from anystride.ops.matrix import _make_operator
from anystride.ops.window import band

RAMPS = ("outer", "inner", "cosine")
SIZES = ((16, 16), (1, 16), (2, 3), (1, 1))


def same_size(size):
    """All that may leave a map as it is, by name."""
    found = {
        "spectral_pool": lambda x: spectral_pool(x, size),
        "SpectralPool stride": SpectralPool2d(stride=1.0),
        "SpectralPool size": SpectralPool2d(output_size=size),
    }
    for ramp in RAMPS:
        found[f"diffstride {ramp}"] = lambda x, ramp=ramp: diffstride(x, 1.0, ramp=ramp)
        found[f"DiffStride {ramp}"] = DiffStride2d(1.0, ramp=ramp)
        found[f"no gradient {ramp}"] = DiffStride2d(1.0, ramp=ramp).requires_grad_(False)
    return found


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_the_output_is_never_the_input(size, mode):
    x = torch.randn(2, 3, *size)
    before = x.clone()
    for name, run in same_size(size).items():
        with mode():
            run(x).add_(1)
        assert torch.equal(x, before), name


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_frozen_output_is_never_the_input(size):
    x = torch.randn(2, 3, *size)
    before = x.clone()
    for name, pool in same_size(size).items():
        if isinstance(pool, nn.Module):
            model = freeze_(nn.Sequential(copy.deepcopy(pool)).eval(), x)
            for run in (model, torch.jit.script(model)):
                run(x).add_(1)
                assert torch.equal(x, before), name


@pytest.mark.parametrize("length", [64, 5000])
def test_large_values_stay_finite(length):
    """Of one sign and of both, on axes with matrices and with Fourier transforms, with their gradients."""
    start = torch.randn(1, 2, length)
    for x in (start.abs() * 1e37, start * 1e37):
        x.requires_grad_()
        stride = torch.tensor(2.0, requires_grad=True)
        for ramp in RAMPS:
            y = diffstride(x, stride, ramp=ramp)
            assert y.isfinite().all(), ramp
            (gradient,) = torch.autograd.grad(y, x, torch.full_like(y, 1e37))
            assert gradient.isfinite().all(), ramp
        y = spectral_pool(x, length // 2)
        assert y.isfinite().all()
        torch.testing.assert_close(y / 1e37, spectral_pool(x.double() / 1e37, length // 2).float())


@pytest.mark.parametrize("shape", [(0, 3, 16), (2, 0, 16), (0, 3, 3000), (2, 0, 3000)], ids=str)
@pytest.mark.parametrize("ramp", RAMPS)
def test_maps_without_examples_or_channels(shape, ramp):
    x = torch.zeros(shape, requires_grad=True)
    pool = DiffStride1d(2.0, ramp=ramp)
    y = pool(x)
    assert y.shape == (*shape[:2], *pool.output_size(shape[2:]))
    y.sum().backward()
    assert x.grad.shape == shape
    assert pool.stride.grad.item() == 0
    assert SpectralPool1d(2.0)(x).shape == (*shape[:2], shape[2] // 2)


def test_an_axis_without_samples():
    x = torch.zeros(2, 3, 0, 16)
    for run in (
        DiffStride2d(2.0),
        SpectralPool2d(2.0),
        lambda x: diffstride(x, 2.0),
        lambda x: spectral_pool(x, 1),
        lambda x: DiffStride2d(2.0, ramp="cosine")(x, convolution=nn.Conv2d(3, 4, 3, padding=1)),
    ):
        with pytest.raises(ValueError, match=r"x must have at least one sample along each .*\(2, 3, 0, 16\); leave"):
            run(x)
    with pytest.raises(ValueError, match=r"input_size must have at least one sample per axis, got \(0, 3\)"):
        DiffStride2d(2.0).output_size((0, 3))
    with pytest.raises(ValueError, match="length must be at least 1, got 0"):
        resampling_matrix(0, 2.0)
    with pytest.raises(ValueError, match="length must be a whole number of at least 1, got inf"):
        resampling_matrix(math.inf, 2.0)


@pytest.mark.parametrize("size", [math.inf, math.nan, 1e30, 10**30, 0, -1, 2.5, True, "8", (8, math.inf)], ids=str)
def test_output_sizes_out_of_range(size):
    x = torch.randn(1, 1, 16, 16)
    for run in (lambda: spectral_pool(x, size), lambda: SpectralPool2d(output_size=size)(x)):
        with pytest.raises(ValueError, match="output_size must be a whole number from 1"):
            run()


@pytest.mark.parametrize("smoothness", [1e308, 1e10, 1e-320, math.inf, math.nan, 0.0])
@pytest.mark.parametrize("ramp", RAMPS)
def test_smoothness_out_of_range(smoothness, ramp):
    for run in (
        lambda: diffstride(torch.randn(1, 1, 16), 2.0, smoothness, ramp),
        lambda: DiffStride1d(2.0, smoothness, ramp=ramp),
        lambda: resampling_matrix(16, 2.0, smoothness, ramp),
    ):
        with pytest.raises(ValueError, match="smoothness must be "):
            run()


@pytest.mark.parametrize("ramp", RAMPS)
def test_smoothness_at_its_ends(ramp):
    for smoothness in (1e-9, 1e9):
        pool = DiffStride1d(2.0, smoothness, ramp=ramp)
        y = pool(torch.randn(2, 3, 16))
        y.square().sum().backward()
        assert y.isfinite().all()
        assert pool.stride.grad.isfinite().all()


def test_the_cache_counts_what_its_entries_take():
    """Within a factor of two: keys, what Python holds for an entry, and its tensors with their memory."""
    cache, count, cpu = TensorCache(2**30), 300, torch.device("cpu")
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for n in range(count):
        axis = LearnedAxis.of(band(16, 2 + n / 1000, 4.0, "inner"), "forward")
        arguments = axis, torch.float32, cpu, 16, None, False, None
        cache.get(arguments, _make_operator, *arguments)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    parts = [part for entry, _ in cache._entries.values() for part in entry if isinstance(part, torch.Tensor)]
    # tracemalloc sees neither the memory of tensors nor what torch holds for each beside it, about half a KiB.
    held = after - before + sum(part.nbytes + 512 for part in parts)
    assert held / 2 < cache._bytes < 2 * held
