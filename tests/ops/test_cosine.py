"""The raised cosine: its kernel, its borders, and all programs that run it."""

import math

import pytest
import torch
from torch import nn

import oracle
from anystride import DiffStride1d, DiffStride2d, DiffStride3d
from anystride.functional import diffstride, resampling_matrix
from anystride.ops import fusion
from anystride.ops.axes import LearnedAxis, Taps
from anystride.ops.blocks import BlockMatrix
from anystride.ops.cosine import Cosine, reach_of
from anystride.ops.program import Apply, Filter, Kernel
from anystride.ops.recompute import run_local
from anystride.ops.segments import bind_local, local_of, program_of
from anystride.ops.window import band, window

BORDERS = ["zeros", "replicate", "reflect", "circular"]


@pytest.mark.parametrize(
    ("rolloff", "tolerance", "taps"), [(0.5, 1e-2, 11), (0.5, 1e-3, 27), (0.25, 1e-2, 19), (0.75, 1e-2, 7)]
)
def test_a_few_samples_hold_all_but_a_share_of_the_kernel(rolloff, tolerance, taps):
    assert abs(2 * math.floor(2 * reach_of(rolloff, tolerance)) + 1 - taps) <= 2  # at S = 2, whatever the map
    u = torch.linspace(-80, 80, 160_001, dtype=torch.float64)
    energy = oracle.cosine_kernel(u[::16], rolloff).square()
    outside = energy[u[::16].abs() > reach_of(rolloff, tolerance)].sum() / energy.sum()
    assert outside.sqrt() == pytest.approx(tolerance, rel=0.1)


@pytest.mark.parametrize("stride", [2.0, 1.0, 2.3, 3.7])
@pytest.mark.parametrize("border", BORDERS)
def test_borders_are_torchs(border, stride):
    x = torch.randn(2, 3, 30, dtype=torch.float64)
    s = torch.tensor([stride], dtype=torch.float64, requires_grad=True)
    got = diffstride(x, s, ramp="cosine", padding_mode=border)
    expected = oracle.cosine(x, [s], border=border, reach=reach_of(0.75, 0.01))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)
    if stride > 1:
        ours, theirs = (torch.autograd.grad(y.sin().sum(), s)[0] for y in (got, expected))
        torch.testing.assert_close(ours.sum(), theirs.sum(), rtol=1e-8, atol=1e-9)


def test_a_stride_of_one_is_the_identity_and_learns():
    pool, x = DiffStride2d(1.0, ramp="cosine"), torch.randn(2, 3, 12, 9)
    y = pool(x)
    torch.testing.assert_close(y, x, rtol=0, atol=1e-6)
    y.square().sum().backward()
    assert (pool.stride.grad != 0).all()


@pytest.mark.parametrize("stride", [1.3, 2.0, 2.6])
def test_the_spectrum_is_the_window(stride):
    """In the middle of a long axis a row is the kernel; its transform is the window, to what was cut off."""
    row = resampling_matrix(400, stride, ramp="cosine", tolerance=1e-3, dtype=torch.float64)
    row = row[len(row) // 2]
    gains = torch.fft.rfft(row).abs()
    expected = window(torch.arange(201).double(), 400, stride, ramp=Cosine.of(0.75, 1e-3))
    folded = window(torch.arange(400, 199, -1).double(), 400, stride, ramp=Cosine.of(0.75, 1e-3))
    assert (gains - expected - folded).abs().max() < 0.01
    assert window(torch.tensor(400 / (2 * stride)).double(), 400, stride, ramp="cosine") == pytest.approx(0.5)


@pytest.mark.parametrize("border", ["auto", *BORDERS])
@pytest.mark.parametrize("kernel", [(3, 1, 1), (5, 1, 4), (1, 1, 1), (3, 2, 1), (2, 1, 1)])
@pytest.mark.parametrize("strides", [(2.0, 2.0), (2.3, 1.7), (2.0, 1.25)])
def test_all_programs_are_one_function(strides, kernel, border):
    size, dilation, groups = kernel
    weight = torch.randn(8, 4 // groups, size, size, dtype=torch.float64)
    bias, x = torch.randn(8, dtype=torch.float64), torch.randn(2, 4, 14, 16, dtype=torch.float64)
    if border == "zeros":
        bias = None
    taps = Taps(size, dilation, (size - 1) * dilation // 2)
    own, lengths = Kernel((taps, taps), 8, groups), tuple(taps.output_length(n) for n in (14, 16))
    ramp = Cosine.of(border=border)
    axes = tuple(LearnedAxis.of(band(n, s, 4.0, ramp), "forward") for n, s in zip(lengths, strides, strict=True))
    local, results, kinds = local_of(axes, own), [], set()
    output = tuple(axis.output_length for axis in axes)
    for infers in (False, True):
        for program in fusion.programs(lengths, output, True, (14, 16), own, x.device, local, infers):
            segment = bind_local(program, axes, local, x.dtype, x.device)
            results.append(run_local(x, segment, None, weight, bias))
            kinds |= {type(step) for step in program}
    assert len(results) >= 4
    if border == "auto":  # a strided convolution of what lies beyond the border: the input is zero there
        far = torch.nn.functional.pad(x, (40,) * 4)
        z = torch.nn.functional.conv2d(far, weight, bias, 1, taps.padding, dilation, groups)
        for axis, at in enumerate(axes):
            z = (at.band.matrix(lengths[axis] + 80, 40)[0] @ z.movedim(2 + axis, -2)).movedim(-2, 2 + axis)
        results.append(z)
    else:
        z = torch.nn.functional.conv2d(x, weight, bias, 1, taps.padding, dilation, groups)
        results.append(
            oracle.cosine(z, [torch.tensor(s, dtype=torch.float64) for s in strides], border=border, reach=ramp.reach)
        )
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=0, atol=1e-9)
    assert (Filter in kinds) == all(n % h == 0 for n, h in zip(lengths, output, strict=True))


@pytest.mark.parametrize("groups", [1, 4])
def test_gradients_of_all_programs(groups):
    weight = torch.randn(8, 4 // groups, 3, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(8, dtype=torch.float64, requires_grad=True)
    x = torch.randn(1, 4, 8, 8, dtype=torch.float64, requires_grad=True)
    own = Kernel((Taps(3, 1, 1),) * 2, 8, groups)
    stride = torch.tensor([2.0, 2.0], dtype=torch.float64, requires_grad=True)

    def run(x, s, w, b, number):
        ramp = Cosine.of()
        axes = tuple(LearnedAxis.of(band(8, value, 4.0, ramp), "forward") for value in s.tolist())
        local = local_of(axes, own)
        steps = fusion.programs((8, 8), (4, 4), True, (8, 8), own, x.device, local, False)
        return run_local(x, bind_local(steps[number], axes, local, x.dtype, x.device), s, w, b)

    found = []
    for number in range(3):
        y = run(x, stride, weight, bias, number)
        found.append(torch.autograd.grad(y.sin().sum(), (x, stride, weight, bias)))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("border", ["replicate", "circular", "zeros"])
@pytest.mark.parametrize("stride", [2.0, 2.37])
def test_long_axes_run_in_blocks(stride, border):
    x = torch.randn(2, 3, 700, dtype=torch.float64, requires_grad=True)
    s = torch.tensor([stride], dtype=torch.float64, requires_grad=True)
    y = diffstride(x, s, ramp="cosine", padding_mode=border)
    expected = oracle.cosine(x, [s], border=border, reach=reach_of(0.75, 0.01))
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-9)
    for ours, theirs in zip(*(torch.autograd.grad(z.sin().sum(), (x, s)) for z in (y, expected)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-8)
    ramp = Cosine.of(border=border)
    axes = (LearnedAxis.of(band(700, stride, 4.0, ramp), "forward"),)
    (step,) = program_of(axes, (700,), 3, None, x.device)
    assert isinstance(step, Apply)
    assert 0 < step.blocks < step.product.rows[0] * 700 / 3
    (matrix,) = bind_local((step,), axes, local_of(axes, None), x.dtype, x.device).matrices
    assert isinstance(matrix, BlockMatrix)
    held = sum(m.numel() for pieces in matrix.forward for _, m in pieces)
    assert held == pytest.approx(step.blocks, rel=0.1)


def test_inference_runs_filters_where_steps_are_whole():
    pool, x = DiffStride2d(2.0, ramp="cosine"), torch.randn(1, 2, 256, 256)
    axes = pool.axes((256, 256))
    kinds = [
        {type(step) for step in program_of(axes, (256, 256), 2, None, x.device, infers)} for infers in (False, True)
    ]
    assert kinds == [{Apply}, {Filter}]
    with torch.no_grad():
        quick = pool(x)
    torch.testing.assert_close(quick, pool(x), rtol=0, atol=1e-6)


def test_a_convolution_keeps_its_input_only():
    """What is saved between a convolution and its operator is as large as the output, not as their map."""
    conv, pool = nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False), DiffStride2d(2.0, ramp="cosine")
    x, kept = torch.randn(1, 16, 32, 32, requires_grad=True), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        pool(x, convolution=conv)
    full = [t for t in kept if t.numel() >= 16 * 32 * 32]
    assert {t.data_ptr() for t in full if t.is_contiguous()} <= {x.data_ptr()}
    assert len(full) == 1


@pytest.mark.parametrize("kind", [DiffStride1d, DiffStride2d, DiffStride3d])
def test_what_does_not_fit_is_named(kind):
    for bad in (0.0, 1.5, math.nan):
        with pytest.raises(ValueError, match="rolloff must be above 0 and at most 1, got"):
            kind(2.0, ramp="cosine", rolloff=bad)
    for bad in (0.0, 0.5, math.nan):
        with pytest.raises(ValueError, match=r"tolerance must be from 0\.0001 to 0\.2, got"):
            kind(2.0, ramp="cosine", tolerance=bad)
    with pytest.raises(ValueError, match="padding_mode must be one of 'auto', 'zeros', 'replicate', 'reflect', 'circ"):
        kind(2.0, ramp="cosine", padding_mode="same")
    with pytest.raises(
        ValueError, match="padding_mode must be 'circular' for ramp='inner', whose kernel is as long as"
    ):
        kind(2.0, ramp="inner", padding_mode="replicate")
    assert "rolloff=0.75, tolerance=0.01, padding_mode='auto'" in repr(kind(2.0, ramp="cosine"))
