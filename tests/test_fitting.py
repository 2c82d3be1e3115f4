"""Strides that are moved to where a model's multiply-accumulates meet a limit."""

import copy
import math

import pytest
import torch
from torch import nn

import anystride
from anystride import DiffStride1d, DiffStride2d, fit_macs_

X = torch.randn(1, 3, 32, 32)


def network(*strides, ramp="inner", **options):
    layers, channels = [], 3
    for stride in strides:
        layers += [nn.Conv2d(channels, 8, 3, padding=1), DiffStride2d(stride, ramp=ramp, **options), nn.ReLU()]
        channels = 8
    return nn.Sequential(*layers, nn.Conv2d(8, 8, 3, padding=1))


def strides_of(model):
    return torch.cat(list(anystride.learned_strides(model).values()))


@pytest.mark.parametrize("ramp", ["inner", "outer", "cosine"])
@pytest.mark.parametrize("share", [0.5, 0.7, 0.97, 1.3, 1.6])
def test_costs_end_just_below_the_limit(ramp, share):
    model = network((1.9, 2.3), (2.1, 1.6), ramp=ramp)
    limit = share * anystride.macs(model, X).item()
    got = fit_macs_(model, X, limit)
    assert got == anystride.macs(model, X).item()
    assert 0.98 * limit <= got <= limit


@pytest.mark.parametrize(("share", "moves"), [(0.7, torch.ge), (1.4, torch.le)])
def test_all_strides_move_the_same_way(share, moves):
    model = network(2.0, (2.0, 1.5))
    before = strides_of(model).clone()
    fit_macs_(model, X, share * anystride.macs(model, X).item())
    after = strides_of(model)
    assert not torch.equal(before, after)
    assert moves(after, before * (0.999 if share < 1 else 1.001)).all()


def test_a_model_that_already_meets_its_limit_keeps_its_strides():
    model = network((1.9, 2.3), 2.0)
    before = strides_of(model).clone()
    cost = anystride.macs(model, X).item()
    assert fit_macs_(model, X, cost * 1.001) == cost
    assert torch.equal(strides_of(model), before)


def test_with_room_to_spare_strides_end_at_their_lower_bounds():
    model = network(2.0, 2.0)
    assert fit_macs_(model, X, 1e12) == anystride.macs(model, X).item()
    assert torch.allclose(strides_of(model), torch.ones(4), atol=1e-3)


def test_strides_stay_within_what_their_maps_can_take():
    model = network(2.0, 2.0)
    least = fit_macs_(model, X, 1.001 * costs_at(model, 31.9))
    assert strides_of(model).max() <= 32
    assert torch.equal(torch.cat([model[1].stride, model[4].stride]).detach(), strides_of(model))
    assert least == anystride.macs(model, X).item()


def costs_at(model, stride):
    copied = copy.deepcopy(model)
    for number in (1, 4):
        copied[number].stride.data.fill_(stride)
    return anystride.macs(copied, X).item()


def test_shared_strides_move_together():
    model = network(2.0, 1.5, shared=True)
    limit = 0.6 * anystride.macs(model, X).item()
    assert fit_macs_(model, X, limit) <= limit
    assert all(stride.numel() == 1 for stride in anystride.learned_strides(model).values())


def test_a_converted_network_whose_strides_are_tied():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 3, padding=1)
            self.main, self.skip = nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.Conv2d(8, 16, 1, stride=2)

        def forward(self, x):
            x = self.stem(x).relu()
            return self.main(x) + self.skip(x)

    model = Block()
    anystride.convert_(model, X)
    limit = 0.8 * anystride.macs(model, X).item()
    assert 0.9 * limit < fit_macs_(model, X, limit) <= limit
    assert model(X).shape[1] == 16


def test_a_series():
    first, second = nn.Conv1d(8, 32, 5, padding=2), nn.Conv1d(32, 64, 5, padding=2)
    model = nn.Sequential(first, DiffStride1d(2.3, ramp="cosine"), second)
    x = torch.randn(1, 8, 400)
    limit = 0.75 * anystride.macs(model, x).item()
    assert 0.97 * limit < fit_macs_(model, x, limit) <= limit


def test_flags_gradients_and_mode_stay():
    model = network(2.0, 2.0)
    model[1].stride.requires_grad_(False)
    model(X).sum().backward()
    gradient = model[4].stride.grad.clone()
    fit_macs_(model, X, 0.7 * anystride.macs(model, X).item())
    assert [model[number].stride.requires_grad for number in (1, 4)] == [False, True]
    assert torch.equal(model[4].stride.grad, gradient)
    assert model.training


@pytest.mark.parametrize("limit", [0, -1.0, math.nan, math.inf])
def test_a_limit_that_is_none(limit):
    with pytest.raises(ValueError, match="limit must be a finite number of multiply-accumulates > 0, got"):
        fit_macs_(network(2.0), X, limit)


def test_a_limit_that_cannot_be_met_changes_nothing():
    model = network((1.9, 2.3), 2.0)
    before = strides_of(model).clone()
    with pytest.raises(ValueError, match=r"limit must be at least [\d,]+, what the model costs at the largest strides"):
        fit_macs_(model, X, 10.0)
    assert torch.equal(strides_of(model), before)


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.pool = nn.Conv2d(3, 8, 3), DiffStride2d()

    def forward(self, x):
        return self.conv(x)


def test_a_model_that_learns_no_stride():
    with pytest.raises(ValueError, match="model has no DiffStride layer"):
        fit_macs_(nn.Conv2d(3, 8, 3), X, 1e6)
    with pytest.raises(ValueError, match="depend on none of them"):
        fit_macs_(Unused(), X, 1.0)


def unpadded():
    """Kernels without padding: maps below nine samples end it."""
    kernels = [nn.Conv2d(8, 8, 5), nn.ReLU(), nn.Conv2d(8, 8, 5)]
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), DiffStride2d(1.2, ramp="inner"), nn.ReLU(), *kernels)


def test_strides_stay_where_the_model_runs():
    model = unpadded()
    at_nine = copy.deepcopy(model)
    with torch.no_grad():
        at_nine[1].stride.fill_(3.6)
    least = anystride.macs(at_nine, X).item()
    got = fit_macs_(model, X, 1.3 * least)
    assert least <= got <= 1.3 * least
    assert model(X).shape[-1] >= 1
    with pytest.raises(ValueError, match=r"limit must be at least [\d,]+, .* largest strides .*, got 1,000") as error:
        fit_macs_(model, X, 1000)
    assert float(str(error.value).split()[5].replace(",", "")) == pytest.approx(least, rel=0.01)


def test_an_example_that_does_not_fit_is_the_models_own_error():
    model = unpadded()
    before = strides_of(model).clone()
    with pytest.raises(RuntimeError, match="channels"):
        fit_macs_(model, torch.randn(1, 4, 32, 32), 1e6)
    assert torch.equal(strides_of(model), before)


def test_a_converted_network_refuses_an_example_with_other_channels():
    """Its convolutions run in programs, which are counted without data."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1))
    anystride.convert_(model, X)
    before = strides_of(model).clone()
    with pytest.raises(RuntimeError, match="3 channels"):
        anystride.macs(model, torch.empty(1, 4, 32, 32))
    with pytest.raises(RuntimeError, match="3 channels"):
        fit_macs_(model, torch.empty(1, 4, 32, 32), 1e5)
    assert torch.equal(strides_of(model), before)
