"""Torch-Pruning on converted networks: what it prunes, what the pruned network gives and costs, and freezing it."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import anystride

pytestmark = pytest.mark.slow
NETWORKS = ["resnet18", "mobilenet_v2", "densenet121"]
X = torch.randn(1, 3, 64, 64)


def build(name):
    torch.manual_seed(0)
    return pytest.importorskip("torchvision").models.get_model(name, num_classes=4).eval()


def prune(model):
    """Half of all channels but those of the last layer, which are classes."""
    pruning = pytest.importorskip("torch_pruning")
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    importance = pruning.importance.MagnitudeImportance(p=2)
    # Each stride is a parameter that has no channels: the layer passes its channels as they are.
    layers = {anystride.DiffStride2d: pruning.ops.ElementWisePruner()}
    pruner = pruning.pruner.MagnitudePruner(
        model, X, importance, pruning_ratio=0.5, ignored_layers=[last], customized_pruners=layers
    )
    pruner.step()


def shapes(model):
    return {name: tuple(p.shape) for name, p in model.named_parameters() if not name.endswith("stride")}


def counted(model):
    with torch.no_grad():
        model(X)
        with FlopCounterMode(display=False) as counter:
            model(X)
    return counter.get_total_flops() // 2


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NETWORKS)
def test_a_converted_network_is_pruned_as_the_original(name):
    plain, model = build(name), build(name)
    anystride.convert_(model, X)
    before = anystride.macs(model, X).item()
    strides = anystride.learned_strides(model)
    prune(plain)
    prune(model)
    assert shapes(model) == shapes(plain)
    assert anystride.macs(model, X).item() == counted(model) < 0.6 * before
    for stride, value in anystride.learned_strides(model).items():
        assert torch.equal(value, strides[stride])
    want = model(X)
    want.sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    anystride.freeze_(model, X)
    torch.testing.assert_close(model(X), want, rtol=1e-4, atol=1e-5)
    assert anystride.macs(model, X).item() == counted(model)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NETWORKS[:2])
def test_a_frozen_network_is_pruned(name):
    plain, model = build(name), build(name)
    anystride.convert_(model, X)
    anystride.freeze_(model, X)
    prune(plain)
    prune(model)
    # Filters are convolutions beside them, and depthwise kernels have grown.
    own = [
        shape[:2] for key, shape in shapes(model).items() if not {"before", "after", "resample"} & set(key.split("."))
    ]
    assert sorted(own) == sorted(shape[:2] for shape in shapes(plain).values())
    assert model(X).shape == (1, 4)
    assert anystride.macs(model, X).item() == counted(model)
