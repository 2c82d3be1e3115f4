"""The layers of the authors' release against what the release computed: outputs, gradients of inputs and of strides."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("lightning", reason="needs the extra 'lab'")

from anystride.lab.models import registry
from anystride.lab.models.preact import CUT, initialise
from anystride.lab.models.release import ReleaseDiffStride2d, ReleaseSpectralPool2d, SamePadding, learned_strides
from anystride.lab.models.spec import NetworkSpec

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "release-layers.npz")
CASES = json.loads(str(GOLDEN["manifest_json"]))


def array(name):
    return torch.from_numpy(np.asarray(GOLDEN[name])).double()


def layer_of(case):
    if case["layer"] == "FixedSpectralPooling":
        return ReleaseSpectralPool2d(case["strides_init"])
    return ReleaseDiffStride2d(case["strides_init"], case["smoothness_factor"], case["shared_stride"]).double()


def test_enough_cases():
    names = [case["layer"] for case in CASES]
    assert min(names.count("DiffStride"), names.count("FixedSpectralPooling")) >= 15
    assert {tuple(length % 2 for length in case["size"]) for case in CASES} == {(0, 0), (0, 1), (1, 0), (1, 1)}


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_outputs_and_gradients(case):
    layer, x = layer_of(case), array(case["input"]).requires_grad_()
    out = layer(x)
    assert list(out.shape) == case["out_shape"]
    torch.testing.assert_close(out, array(f"{case['id']}/out"), rtol=1e-5, atol=1e-6)
    (out * array("cotangent_bank")[: out.numel()].view(out.shape)).sum().backward()
    torch.testing.assert_close(x.grad, array(f"{case['id']}/grad_input"), rtol=1e-5, atol=1e-5)
    if case["layer"] == "DiffStride":
        # The release runs in float32; sums over the map lose digits where they nearly cancel.
        entries = layer.stride.numel()
        expected = array(f"{case['id']}/grad_strides").flatten()[:entries]
        torch.testing.assert_close(layer.stride.grad, expected, rtol=2e-5, atol=1e-4)
        moved = array(f"{case['id']}/strides_after").flatten()[:entries]
        torch.testing.assert_close(layer.stride.detach(), moved, rtol=1e-6, atol=0)


def test_sizes_from_the_worst_start_are_the_releases():
    x, sizes = torch.randn(1, 1, 32, 32), []
    for stride in (3.0, 2.0, 3.0):
        x = ReleaseDiffStride2d(stride)(x)
        sizes.append(x.shape[-1])
    assert sizes == [20, 18, 14]
    assert ReleaseSpectralPool2d((3.0, 3.0))(torch.randn(1, 1, 5, 5)).shape[2:] == (2, 2)


def test_half_precision_maps_keep_their_type():
    x = torch.randn(1, 2, 8, 8, dtype=torch.bfloat16)
    assert ReleaseDiffStride2d(1.5)(x).dtype == ReleaseSpectralPool2d((2.0, 2.0))(x).dtype == torch.bfloat16


@pytest.mark.parametrize("case", [(8, 3, 2, 0), (7, 3, 2, 1), (8, 1, 2, 0), (8, 3, 3, 0)])
def test_padding_as_in_keras(case):
    length, kernel, stride, before = case
    conv = SamePadding(1, 1, kernel, stride=stride, bias=False)
    torch.nn.init.ones_(conv.weight)
    x = torch.arange(1.0, length**2 + 1).view(1, 1, length, length)
    out = conv(x)
    assert out.shape[-1] == math.ceil(length / stride)
    first = kernel - before  # samples of the map under the first window
    assert out[0, 0, 0, 0] == x[0, 0, :first, :first].sum()


def test_initial_weights_are_cut_at_two_deviations():
    weight = torch.empty(256, 64, 3, 3)
    initialise(weight)
    deviation = math.sqrt(2 / (64 * 9))
    assert weight.std().item() == pytest.approx(deviation, rel=0.01)
    assert weight.abs().max().item() <= 2 * deviation / CUT


@pytest.mark.parametrize("method", ["release", "release-spectral", "strided"])
def test_the_network_of_the_release(method):
    model = registry.build("resnet18-release", NetworkSpec(10, width=4, method=method, strides=(1, 3, 2, 3)))
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    strides = learned_strides(model)
    assert len(strides) == (4 if method == "release" else 0)


def test_other_networks_refuse_the_layers_of_the_release():
    with pytest.raises(ValueError, match=r"method must be one of strided, .* cosine, got 'release'"):
        registry.build("resnet18", NetworkSpec(10, method="release"))
