"""Groups of parameters, what decays, and the strides' own schedule."""

import pytest
import torch

pytest.importorskip("lightning", reason="needs the extra 'lab'")

from dataclasses import replace

from anystride.lab.models import registry
from anystride.lab.run.config import RunConfig
from anystride.lab.run.optimiser import groups, optimiser_of, schedule_of

CONFIG = RunConfig(width=2, lr=0.1, weight_decay=5e-3, epochs=10)


def network(config):
    return registry.build(config.model, config.network(10, 3))


@pytest.mark.parametrize("decay", ["all", "weights"])
@pytest.mark.parametrize(
    ("model", "method"),
    [
        ("resnet18", "strided"),
        ("resnet18", "inner"),
        ("resnet18-release", "strided"),
        ("resnet18-release", "inner"),
        ("resnet18-release", "release"),
    ],
)
def test_what_decays(decay, model, method):
    strides = ((2.0, 2.0),) * (3 if model == "resnet18" else 4)
    config = replace(CONFIG, decay=decay, model=model, method=method, strides=strides, stride_lr=0.01)
    net = network(config)
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    found = {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in groups(net, config)
        for parameter in group["params"]
    }
    assert set(found) == set(names.values())
    for name, parameter in net.named_parameters():
        if name.endswith("stride"):
            assert found[name] == (0.01, 0)
        elif decay == "weights" and parameter.ndim < 2:
            assert found[name] == (0.1, 0)
        else:
            assert found[name] == (0.1, 5e-3)


def test_strides_rest_while_weights_learn_on():
    config = replace(CONFIG, method="inner", schedule="constant")
    optimiser = optimiser_of(network(config), config)
    scheduler = schedule_of(optimiser, config, steps=100, resting=4)
    rates = []
    for _ in range(100):
        rates.append([group["lr"] for group in optimiser.param_groups])
        optimiser.step()
        scheduler.step()
    assert [weights for weights, _ in rates] == [0.1] * 100
    assert [strides for _, strides in rates] == [0.1] * 40 + [0.0] * 60


def test_a_stride_at_rest_does_not_move_by_momentum():
    config = replace(CONFIG, method="inner", schedule="constant")
    net = network(config)
    optimiser = optimiser_of(net, config)
    scheduler = schedule_of(optimiser, config, steps=10, resting=5)
    seen = []
    for _ in range(10):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(net(torch.randn(4, 3, 32, 32)), torch.arange(4)).backward()
        optimiser.step()
        scheduler.step()
        seen.append([parameter.detach().clone() for name, parameter in net.named_parameters() if "stride" in name])
    assert all(torch.equal(a, b) for a, b in zip(seen[4], seen[9], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(seen[0], seen[4], strict=True))
