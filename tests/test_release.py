"""Parity with the authors' TensorFlow release wherever its definition and the paper's coincide.

Where they do not: the release moves the window of negative vertical frequencies by one bin and that of columns by one
bin (Eq. 4's 1-based index), so outputs of its DiffStride are compared bin by bin with the window of the shifted index;
its strides stop at L / (L - R) and L / 2 instead of our bounds (such cases are left out); its output sizes are even
where ours follow the paper's floor(L / S + 2 R); its unpaired bins keep one half of a complex pair; its stride gradient
counts the ramp's ends and those shifted windows, and is not compared.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from anystride.functional import spectral_pool
from anystride.ops.window import clamp_stride, window

RELEASE = np.load(Path(__file__).parent / "golden" / "release.npz")
CASES = json.loads(str(RELEASE["manifest_json"]))
FLOAT32 = 1e-6


def array(case, name):
    return torch.from_numpy(RELEASE[name if name.startswith("in_") else f"{case['id']}/{name}"]).double()


def strides_of(case):
    strides = RELEASE[f"{case['id']}/strides_after"].ravel().tolist()
    return strides * 2 if len(strides) == 1 else strides


def within_both_ranges(case):
    if case["layer"] != "DiffStride":
        return True
    axes = zip(case["size"], strides_of(case), strict=True)
    return all(abs(clamp_stride(s, n, case["smoothness_factor"]) - s) < 1e-6 and s <= n / 2 for n, s in axes)


def select(layer, full=False):
    chosen = [c for c in CASES if c["layer"] == layer and (c["arrays"] == "full" or not full) and within_both_ranges(c)]
    return pytest.mark.parametrize("case", chosen, ids=[c["id"] for c in chosen])


def paired(size):
    """Bins of a one-sided spectrum that stand for a single frequency."""
    return (size + 1) // 2


def shared_bins(signal, rows, columns):
    """The one-sided spectrum of a real map on bins that both sizes hold unambiguously, rows in order of frequency."""
    spectrum = torch.fft.rfft2(signal)
    n = paired(rows)
    return torch.cat([spectrum[..., :n, :], spectrum[..., signal.shape[-2] - n + 1 :, :]], dim=-2)[
        ..., : paired(columns)
    ]


def test_enough_cases():
    usable = [c["layer"] for c in CASES if within_both_ranges(c)]
    assert usable.count("DiffStride") >= 60
    assert usable.count("FixedSpectralPooling") >= 10


@select("FixedSpectralPooling")
def test_spectral_pooling_output(case):
    x, expected = array(case, case["input"]), array(case, "out")
    rows, columns = expected.shape[2:]
    got = spectral_pool(x, (rows, columns), norm="backward")
    difference = shared_bins(got, rows, columns) - shared_bins(expected, rows, columns)
    assert difference.abs().max() <= FLOAT32 * torch.fft.rfft2(x).abs().max()


@select("FixedSpectralPooling")
def test_spectral_pooling_input_gradient(case):
    x = array(case, case["input"]).requires_grad_()
    rows, columns = array(case, "out").shape[2:]
    spectral_pool(x, (rows, columns), norm="backward").backward(array(case, "cotangent"))
    expected = array(case, "grad_input")
    difference = shared_bins(x.grad, rows, columns) - shared_bins(expected, rows, columns)
    assert difference.abs().max() <= FLOAT32 * torch.fft.rfft2(expected).abs().max()


@select("DiffStride")
def test_windows(case):
    (height, width), (s_h, s_w), smoothness = case["size"], strides_of(case), case["smoothness_factor"]
    if height % 2 == 0:  # odd heights shift the other way
        k = torch.arange(height // 2, dtype=torch.float64)
        ours = window(k, height, s_h, smoothness)
        torch.testing.assert_close(array(case, "mask_h").flatten()[: len(k)], ours, rtol=0, atol=FLOAT32)
    n = torch.arange(1, width // 2 + 1, dtype=torch.float64)
    ours = window(n - 1, width, s_w, smoothness)
    torch.testing.assert_close(array(case, "mask_w").flatten()[1:], ours, rtol=0, atol=FLOAT32)


@select("DiffStride", full=True)
def test_diffstride_output_is_the_input_times_our_window(case):
    (height, width), (s_h, s_w), smoothness = case["size"], strides_of(case), case["smoothness_factor"]
    x, out = array(case, case["input"]), array(case, "out")
    rows, columns = min(out.shape[2], height), min(out.shape[3], width)
    k = torch.arange(paired(rows) if height % 2 == 0 else 1, dtype=torch.float64)
    n = torch.arange(1, paired(columns), dtype=torch.float64)
    gains = window(k, height, s_h, smoothness)[:, None] * window(n - 1, width, s_w, smoothness)
    source = torch.fft.rfft2(x)[..., : len(k), 1 : len(n) + 1]
    expected = gains * source
    got = torch.fft.rfft2(out)[..., : len(k), 1 : len(n) + 1]
    torch.testing.assert_close(got, expected, rtol=0, atol=FLOAT32 * float(torch.fft.rfft2(x).abs().max()))
