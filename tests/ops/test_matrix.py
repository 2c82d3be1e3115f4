import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

import oracle
from anystride.functional import resampling_matrix
from anystride.ops.axes import NORMS, LearnedAxis
from anystride.ops.cache import TensorCache
from anystride.ops.matrix import AxisOperator, axis_operator, band_matrix, spectral_matrix
from anystride.ops.window import LINEAR_RAMPS, band, clamp_stride, window


def matrix(length, stride, smoothness=4.0, ramp="outer", norm="forward"):
    return band_matrix(band(length, stride, smoothness, ramp), norm)


def learned_axis(at, norm, dtype, device):
    return axis_operator(LearnedAxis.of(at, norm), dtype, device)


def cosine(k, length, size, phase=0.3):
    """cos(2 pi k t + phase), sampled `size` times over one period of an axis of `length` samples."""
    return torch.cos(2 * math.pi * k * torch.arange(size, dtype=torch.float64) / size + phase)


@pytest.mark.parametrize("ramp", LINEAR_RAMPS)
@pytest.mark.parametrize(("length", "stride"), [(32, 2.0), (33, 2.3), (31, 4.7), (20, 1.5), (7, 2.2)])
def test_cosines(length, stride, ramp):
    """Below the ramp a cosine passes, on it it is scaled by the window, beyond the output's grid it vanishes."""
    a = matrix(length, stride, ramp=ramp)
    h = len(a)
    for k in range((length + 1) // 2):
        got = a @ cosine(k, length, length)
        gain = window(
            torch.tensor(float(k), dtype=torch.float64), length, clamp_stride(stride, length, ramp=ramp), ramp=ramp
        )
        if 2 * k < h:
            torch.testing.assert_close(got, gain * cosine(k, length, h), rtol=0, atol=1e-13)
        elif 2 * k > h:
            assert got.abs().max() < 1e-13


@pytest.mark.parametrize("ramp", LINEAR_RAMPS)
def test_the_unpaired_bin_keeps_its_cosine(ramp):
    length, stride = 32, 2.2 if ramp == "outer" else 2.05
    a = matrix(length, stride, ramp=ramp)
    h = len(a)
    k = h // 2
    assert h % 2 == 0
    assert 2 * k < length  # its two halves are then bins of their own in the input: one half of the cosine is lost
    alternating = band(length, stride, ramp=ramp).gain(k) / 2 * cosine(h / 2, length, h, phase=0.0)
    torch.testing.assert_close(a @ cosine(k, length, length, phase=0.0), alternating, rtol=0, atol=1e-13)
    assert (a @ cosine(k, length, length, phase=-math.pi / 2)).abs().max() < 1e-13


@given(
    length=st.integers(1, 60), stride=st.floats(1, 70), smoothness=st.floats(0.3, 6), ramp=st.sampled_from(LINEAR_RAMPS)
)
def test_constants_stay_and_equal_the_definition(length, stride, smoothness, ramp):
    a = matrix(length, stride, smoothness=smoothness, ramp=ramp)
    at = band(length, stride, smoothness, ramp)
    h = at.output_length
    assert a.shape == (h, length)
    torch.testing.assert_close(a.sum(dim=1), torch.ones(h, dtype=torch.float64), rtol=0, atol=1e-12)
    i, j = torch.arange(h).unsqueeze(1), torch.arange(length).unsqueeze(0)
    expected = torch.zeros(h, length, dtype=torch.float64)
    for k in range(-((h - 1) // 2), (h - 1) // 2 + 1):
        expected += at.gain(k) * torch.cos(2 * math.pi * k * (i.double() / h - j.double() / length))
    if h % 2 == 0:
        expected += at.gain(h // 2) * torch.cos(math.pi * i.double()) * torch.cos(math.pi * h * j.double() / length)
    torch.testing.assert_close(a, expected / length, rtol=0, atol=1e-12)


def test_a_hartley_transform_gives_the_same_matrix():
    """The real transform that the paper's limits suggest: cas(t) = cos(t) + sin(t), both ways."""
    length, stride = 33, 2.4
    h = band(length, stride).output_length
    assert h % 2 == 1
    k = torch.arange(-(h // 2), h // 2 + 1, dtype=torch.float64)

    def cas(n):
        angle = 2 * math.pi * torch.arange(n, dtype=torch.float64).unsqueeze(1) * k / n
        return angle.cos() + angle.sin()

    gains = window(k, length, stride)
    torch.testing.assert_close(cas(h) * gains @ cas(length).T / length, matrix(length, stride), rtol=0, atol=1e-13)


@given(length=st.integers(2, 60), stride=st.floats(1, 30), ramp=st.sampled_from(LINEAR_RAMPS))
def test_energy_never_grows_under_ortho(length, stride, ramp):
    assert torch.linalg.matrix_norm(matrix(length, stride, ramp=ramp, norm="ortho"), 2) <= 1 + 1e-12


@pytest.mark.parametrize("norm", NORMS)
def test_norms_differ_by_a_factor(norm):
    a = matrix(32, 2.0, norm=norm)
    factor = {"forward": 1, "ortho": math.sqrt(32 / 24), "backward": 32 / 24}[norm]
    torch.testing.assert_close(a, factor * matrix(32, 2.0), rtol=0, atol=1e-15)


@given(length=st.integers(1, 40), share=st.floats(0.01, 1))
def test_spectral_matrix_equals_oracle(length, share):
    size = max(1, round(share * length))
    x = torch.randn(1, length, dtype=torch.float64)
    expected = oracle.resample_axis(x, torch.ones(length, dtype=torch.float64), size, axis=1)
    torch.testing.assert_close(x @ spectral_matrix(length, size, dtype=torch.float64).T, expected, rtol=0, atol=1e-12)


def test_spectral_matrix_of_the_same_size_is_the_identity():
    for length in (1, 2, 5, 8):
        eye = torch.eye(length, dtype=torch.float64)
        torch.testing.assert_close(spectral_matrix(length, length, dtype=torch.float64), eye, rtol=0, atol=1e-14)


@given(
    length=st.integers(4, 60), stride=st.floats(1, 20), smoothness=st.floats(0.6, 6), ramp=st.sampled_from(LINEAR_RAMPS)
)
def test_probe_is_the_derivative_seen_from_the_output(length, stride, smoothness, ramp):
    """dA/dS = -probe^T probe A, against a finite difference of A."""
    at, step = band(length, stride, smoothness, ramp), 1e-6
    ends = [band(length, at.stride + sign * step, smoothness, ramp) for sign in (-1, 1)]
    assume(all(end.output_length == at.output_length for end in ends))
    assume(ends[1].stride - ends[0].stride > 1.99 * step)
    assume(all(end.ramp() == at.ramp() for end in ends) and all(at.gain(k) > 1e-4 for k in at.ramp()))
    operator = learned_axis(at, "forward", torch.float64, torch.device("cpu"))
    difference = (matrix(length, ends[1].stride, smoothness=smoothness, ramp=ramp)
                  - matrix(length, ends[0].stride, smoothness=smoothness, ramp=ramp)) / (2 * step)  # fmt: skip
    torch.testing.assert_close(-operator.probe.T @ operator.probe @ operator.matrix, difference, rtol=0, atol=1e-6)


def test_matrices_are_kept_while_strides_stand_still():
    at = band(40, 2.25)
    arguments = ("forward", torch.float32, torch.device("cpu"))
    assert learned_axis(at, *arguments).matrix is learned_axis(at, *arguments).matrix
    assert learned_axis(band(40, 2.26), *arguments).matrix is not learned_axis(at, *arguments).matrix


def test_cache_forgets_beyond_its_bytes():
    cache = TensorCache(limit=3 * (400 + 2048))  # 2 KiB for the key and the objects
    made = []

    def make(key):
        def build():
            made.append(key)
            return AxisOperator(torch.zeros(100))

        return cache.get(key, build)

    for key in "abcabcd":
        make(key)
    assert made == list("abcd")
    make("b")
    make("a")  # the oldest; dropped when d came
    assert made == list("abcda")


def test_a_matrix_from_inference_mode_serves_training():
    at = band(41, 2.125)
    arguments = ("forward", torch.float32, torch.device("cpu"))
    with torch.inference_mode():
        learned_axis(at, *arguments)
    x = torch.randn(3, 41, requires_grad=True)
    (x @ learned_axis(at, *arguments).matrix.T).sum().backward()
    assert x.grad is not None


def test_default_device_does_not_matter():
    with torch.device("meta"):
        a = resampling_matrix(24, 2.0)
    assert a.device.type == "cpu"
    torch.testing.assert_close(a.sum(dim=1), torch.ones(len(a)))


def test_public_matrix():
    a = resampling_matrix(32, 2.5, ramp="inner", norm="ortho")
    assert a.dtype == torch.float32
    torch.testing.assert_close(a.double(), matrix(32, 2.5, ramp="inner", norm="ortho"), rtol=0, atol=1e-7)
    assert resampling_matrix(32, 2.5, dtype=torch.float64).dtype == torch.float64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stride": 32.0}, r"stride must be in \[1, 32\) for an axis of length 32, got 32.0"),
        ({"stride": math.nan}, r"stride must be in \[1, 32\)"),
        ({"stride": 2.0, "smoothness": -1.0}, "smoothness must be positive and finite, got -1.0"),
        ({"stride": 2.0, "ramp": "none"}, "ramp must be one of"),
        ({"stride": 2.0, "norm": "none"}, "norm must be one of"),
    ],
)
def test_public_matrix_names_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        resampling_matrix(32, **arguments)
