"""Batch norms measure anew: what they measure, and what stays."""

import pytest
import torch
from torch import nn

import anystride
from anystride import recalibrate_


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.Dropout(0.9),
        nn.ReLU(),
        nn.Conv2d(8, 4, 3, stride=2, padding=1),
        nn.BatchNorm2d(4, momentum=0.3),
        nn.InstanceNorm2d(4),
    )


def data(count=4):
    generator = torch.Generator().manual_seed(1)
    return [3 + 2 * torch.randn(16, 3, 12, 12, generator=generator) for _ in range(count)]


def test_statistics_are_means_over_the_batches_without_dropout():
    model, batches = network().eval(), data()
    recalibrate_(model, batches)
    first = [model[0](x) for x in batches]
    torch.testing.assert_close(model[1].running_mean, torch.stack([x.mean((0, 2, 3)) for x in first]).mean(0))
    torch.testing.assert_close(model[1].running_var, torch.stack([x.var((0, 2, 3)) for x in first]).mean(0))
    # What follows sees each batch as it is normalised by itself.
    weight, bias = model[1].weight, model[1].bias
    inner = [model[4](nn.functional.batch_norm(x, None, None, weight, bias, True).relu()) for x in first]
    torch.testing.assert_close(model[5].running_mean, torch.stack([x.mean((0, 2, 3)) for x in inner]).mean(0))


def test_modes_momenta_weights_and_gradients_stay():
    model = network().train()
    model[1].eval()
    before = {name: value.clone() for name, value in model.named_parameters()}
    modes = [module.training for module in model.modules()]
    recalibrate_(model, data())
    assert [module.training for module in model.modules()] == modes
    assert (model[1].momentum, model[5].momentum) == (0.1, 0.3)
    assert all(torch.equal(value, before[name]) and value.grad is None for name, value in model.named_parameters())


def test_batches_of_every_kind():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(3)

        def forward(self, x, scale=1.0):
            return self.norm(x) * scale

    x = torch.randn(8, 3)
    means = []
    for batch in (x, (x, torch.zeros(8)), [x], {"x": x, "scale": 2.0}):
        model = Named()
        recalibrate_(model, [batch])
        means.append(model.norm.running_mean)
    assert all(torch.equal(mean, means[0]) for mean in means)


def test_a_converted_networks_maps_have_their_scale_again():
    torch.manual_seed(0)
    model, images = network()[:6], data(8)
    for _ in range(3):
        recalibrate_(model, images)

    def scale():
        return model.eval()(images[0]).std(dim=(0, 2, 3))

    before = scale()
    anystride.convert_(model, images[0])
    converted = scale()
    recalibrate_(model, iter(images))
    assert (converted / before - 1).abs().max() > 0.2
    torch.testing.assert_close(scale(), before, rtol=0.05, atol=0)


@pytest.mark.parametrize("broken", [[], ["not a batch"], [torch.randn(2, 5, 8, 8)]])
def test_after_an_error_everything_is_as_before(broken):
    model = network().train()
    recalibrate_(model, data(1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises((ValueError, TypeError, RuntimeError)):
        recalibrate_(model, [*data(1), *broken] if broken else [])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model[1].momentum == 0.1
    assert model[1].training


def test_nothing_to_measure():
    with pytest.raises(ValueError, match="model has no batch normalisation with running statistics"):
        recalibrate_(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, track_running_stats=False)), [torch.randn(2, 2)])
    with pytest.raises(ValueError, match="batches must have at least one batch, got none"):
        recalibrate_(nn.BatchNorm1d(2), [])
