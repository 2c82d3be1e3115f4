"""Networks that ship with the package."""

import re
import sys

import pytest
import torch

import anystride
from anystride.lab import pretrained
from anystride.lab.bundled import WEIGHTS, names
from anystride.lab.errors import UsageError


@pytest.mark.parametrize("name", names())
def test_a_network_opens_and_is_what_its_card_says(name):
    trained = pretrained(name)
    assert not trained.model.training
    x = trained.preprocess(torch.randint(0, 256, (40, 60, 3), dtype=torch.uint8).numpy())
    assert trained.model(x).shape == (1, len(trained.classes))
    [first, *_] = trained.predict([torch.zeros(32, 32, 3, dtype=torch.uint8).numpy()])
    assert first.label in trained.classes
    card = (WEIGHTS / f"{name}.md").read_text()
    told = float(re.search(r"multiply-accumulates \| ([\d.]+) million", card)[1])
    cost = anystride.macs(trained.model, torch.zeros(1, *trained.shape)).item()
    assert told == pytest.approx(cost / 1e6, abs=0.005)
    strides = re.findall(r"\(([\d.]+), ([\d.]+)\)", card.partition("strides, vertical")[2])
    learned = anystride.learned_strides(trained.model).values()
    assert [[float(one) for one in pair] for pair in strides] == [pytest.approx(s.tolist(), abs=0.005) for s in learned]
    assert (WEIGHTS / f"{name}.safetensors").stat().st_size < 2e6


def test_a_network_trains_on():
    model = pretrained().model.train()
    optimiser = torch.optim.SGD(anystride.param_groups(model, lr=0.01))
    before = anystride.stride_scalars(model)
    model(torch.randn(4, 3, 32, 32)).square().mean().backward()
    optimiser.step()
    assert anystride.stride_scalars(model) != before


def test_another_name_is_refused():
    with pytest.raises(UsageError, match="name must be one of resnet18-cifar10, got 'resnet99'"):
        pretrained("resnet99")


def test_without_safetensors_the_remedy_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ImportError, match=r"pip install 'anystride\[lab\]'"):
        pretrained()
