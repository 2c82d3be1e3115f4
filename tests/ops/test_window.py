import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import oracle
from anystride import functional
from anystride.ops.window import LINEAR_RAMPS, band, clamp_stride, output_length, stride_bounds, window

lengths = st.integers(2, 200)
smoothnesses = st.floats(0.25, 8)
ramps = st.sampled_from(LINEAR_RAMPS)


def interpolate(bounds, share):
    low, high = bounds
    return low + share * (high - low)


def test_paper_sizes():
    sizes = [32]
    for stride in (2, 2, 2):
        sizes.append(output_length(sizes[-1], stride))
    assert sizes == [32, 24, 20, 18]
    assert output_length(32, 3.0) == 18  # the paper's formula; the authors' release gives 20


@given(length=lengths, numerator=st.integers(1, 400), smoothness=smoothnesses)
def test_outer_size_is_the_papers(length, numerator, smoothness):
    stride = clamp_stride(numerator / 7, length, smoothness)
    total = length / stride + 2 * smoothness
    if abs(total - round(total)) > 1e-3:  # a sum that rounding could move across a whole number is tested below
        assert output_length(length, stride, smoothness) == min(length, math.floor(total))


@given(length=lengths, stride=st.integers(1, 8))
def test_inner_size_is_a_strided_convolutions(length, stride):
    x = torch.zeros(1, 1, length)
    strided = torch.nn.functional.conv1d(x, torch.zeros(1, 1, 3), stride=stride, padding=1)
    if stride < length or length == stride == 2:
        assert output_length(length, float(stride), ramp="inner") == strided.shape[2]


@pytest.mark.parametrize("stride", [3.2, 1.6, 1.1, 2.3])
def test_sizes_forgive_float32(stride):
    length = round(stride * 10)
    rounded = torch.tensor(stride).item()
    for ramp in LINEAR_RAMPS:
        assert output_length(length, rounded, ramp=ramp) == output_length(length, stride, ramp=ramp)


@given(length=lengths, smoothness=smoothnesses, ramp=ramps, share=st.floats(0, 1))
def test_window_is_even_and_falls(length, smoothness, ramp, share):
    stride = interpolate(stride_bounds(length, smoothness, ramp), share)
    k = torch.arange(0, length // 2 + 1, dtype=torch.float64)
    gains = window(k, length, stride, smoothness, ramp)
    assert torch.equal(gains, window(-k, length, stride, smoothness, ramp))
    assert gains[0] == 1
    assert (gains.diff() <= 0).all()
    assert ((gains >= 0) & (gains <= 1)).all()


@given(length=lengths, smoothness=smoothnesses, ramp=ramps, share=st.floats(0, 1))
def test_window_is_zero_where_the_map_is_cropped(length, smoothness, ramp, share):
    at = band(length, interpolate(stride_bounds(length, smoothness, ramp), share), smoothness, ramp)
    if at.output_length < length:
        # One bin less than 2T may be lost to floor(); it is the ramp's last, below 1 / (2 R).
        assert at.gain(at.output_length // 2 + 1) <= 1 / (2 * at.ramp_width) + 1e-5


@given(length=lengths, smoothness=smoothnesses, ramp=ramps, share=st.floats(0, 1))
def test_slope_is_the_derivative(length, smoothness, ramp, share):
    low, high = stride_bounds(length, smoothness, ramp)
    stride, step = interpolate((low, high), share), 1e-7
    at = band(length, stride, smoothness, ramp)
    after = band(length, stride + step, smoothness, ramp)
    inside = at.stride + step == after.stride and at.output_length == after.output_length
    for k in at.ramp() if inside else ():
        if 0.01 < at.gain(k) < 0.99:
            assert (after.gain(k) - at.gain(k)) / step == pytest.approx(at.slope, rel=1e-3, abs=1e-6)


@given(length=lengths, stride=st.floats(1, 50), smoothness=smoothnesses)
def test_ramp_lists_the_ramp_with_its_upper_end(length, stride, smoothness):
    for ramp in LINEAR_RAMPS:
        at = band(length, stride, smoothness, ramp)
        bins = range(1, at.output_length // 2 + 1)
        inside = [k for k in bins if 0 < at.gain(k) < 1]
        upper_end = [k for k in bins if abs((at.edge - k) / at.ramp_width - 1) < 1e-6]
        assert list(at.ramp()) == sorted({*inside, *upper_end})
        on_ramp = at.on_ramp(torch.tensor(bins, dtype=torch.float64))
        assert [k for k, on in zip(bins, on_ramp.tolist(), strict=True) if on] == list(at.ramp())


@pytest.mark.parametrize("length", [5, 6, 7, 8, 16, 31, 32, 33, 100])
@pytest.mark.parametrize("smoothness", [0.75, 1.0, 2.0, 4.0, 8.0])
def test_outer_gradient_lives_at_both_bounds(length, smoothness):
    for stride in stride_bounds(length, smoothness):
        assert len(band(length, stride, smoothness).ramp()) > 0


@pytest.mark.parametrize("length", [4, 5, 6, 7, 8, 9, 16, 31, 32, 33, 100])
def test_inner_gradient_lives_everywhere(length):
    """Also where a map comes down to two samples: (L, S) = (4, 2) and (6, 3) are common in small networks."""
    for stride in (1.0, 1.3, 2.0, 3.0, length / 2, length / 2.01, 0.9 * length, stride_bounds(length, ramp="inner")[1]):
        assert len(band(length, stride, ramp="inner").ramp()) > 0


def test_bounds_are_the_documented_ones():
    assert stride_bounds(32)[0] == pytest.approx(32 / 28)
    assert stride_bounds(6)[0] == 2.0
    assert stride_bounds(32, ramp="inner")[0] == 1.0
    assert 31.99 < stride_bounds(32)[1] < 32
    assert stride_bounds(1) == (1.0, 1.0)


def test_inner_ramp_leaves_small_maps_alone():
    for length in range(2, 12):
        at = band(length, 2.0, ramp="inner")
        assert at.gain(0) == 1
        assert at.ramp_width <= at.output_length / 3
        assert at.output_length == math.ceil(length / 2)


def test_window_equals_oracle():
    k = torch.fft.fftfreq(33, 1 / 33, dtype=torch.float64)
    torch.testing.assert_close(window(k, 33, 2.3, 3.0), oracle.window(33, 2.3, 3.0))
    torch.testing.assert_close(window(k, 33, 2.3, 3.0, "inner"), oracle.inner_window(33, 2.3, 3.0))


def test_window_takes_whole_numbers():
    assert window(torch.tensor([0, 9]), 32, 2.0).tolist() == [1.0, 0.75]


@pytest.mark.parametrize("ramp", LINEAR_RAMPS)
@pytest.mark.parametrize(
    ("length", "stride", "smoothness"), [(32, 2.0, 4.0), (16, 2.0, 2.0), (24, 3.0, 1.0), (33, 1.5, 4.0)]
)
def test_at_a_kink_the_gradient_is_that_towards_larger_strides(ramp, length, stride, smoothness):
    torch.manual_seed(0)
    x = torch.randn(1, 1, length, dtype=torch.float64)
    at = band(length, stride, smoothness, ramp)
    assert (at.edge - at.ramp_width) % 1 == 0  # a bin stands where the ramp begins
    h = at.output_length

    def loss(s):
        gains = band(length, s, smoothness, ramp, h).gains(torch.arange(h // 2 + 1, dtype=torch.float64))
        spectrum = torch.fft.rfft(x, norm="forward")[..., : h // 2 + 1] * gains
        return torch.fft.irfft(spectrum, n=h, norm="forward").square().sum()

    learned = torch.tensor([stride], dtype=torch.float64, requires_grad=True)
    functional.diffstride(x, learned, smoothness, ramp).square().sum().backward()
    step = 1e-6
    larger = (loss(stride + step) - loss(stride)) / step
    smaller = (loss(stride) - loss(stride - step)) / step
    assert learned.grad.item() == pytest.approx(larger.item(), rel=1e-4)
    assert larger.item() != pytest.approx(smaller.item(), rel=1e-2)
