import copy
import pickle

import pytest
import torch
from torch import nn

import anystride
from anystride import DiffStride1d, DiffStride2d


def test_equation_6():
    strides = [(2.0, 3.0), (1.5, 1.0), (4.0, 2.5)]
    model = nn.Sequential(*[DiffStride2d(s) for s in strides])
    expected, share = 0.0, 1.0
    for s_h, s_w in strides:
        share /= s_h * s_w
        expected += share
    assert anystride.complexity(model).item() == pytest.approx(expected, rel=1e-6)


def test_a_shared_stride_counts_once():
    pool = DiffStride2d(2.0)
    model = nn.ModuleDict(
        {"main": nn.Sequential(nn.Conv2d(3, 3, 1), pool), "shortcut": pool, "next": DiffStride2d(2.0)}
    )
    assert anystride.complexity(model).item() == pytest.approx(1 / 4 + 1 / 16)


def test_one_value_for_all_axes():
    assert anystride.complexity(DiffStride2d(2.0, shared=True)).item() == pytest.approx(1 / 4)
    assert anystride.complexity(DiffStride1d(2.0)).item() == pytest.approx(1 / 2)


def test_gradient():
    model = nn.Sequential(DiffStride2d((2.0, 3.0)), DiffStride2d((1.5, 1.2)))

    def value(first, second):
        one = 1 / (first[0] * first[1])
        return one + one / (second[0] * second[1])

    strides = [layer.stride.detach().double().requires_grad_() for layer in model]
    expected = torch.autograd.grad(value(*strides), strides)
    got = torch.autograd.grad(anystride.complexity(model), [layer.stride for layer in model])
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b.float())
        assert (a < 0).all()  # larger strides, less work


def test_strides_in_use_count():
    layer = DiffStride2d(1.0)
    layer(torch.randn(1, 1, 32, 32))
    assert anystride.complexity(layer).item() == pytest.approx((28 / 32) ** 2)


class Backwards(nn.Module):
    """Registers its layers in another order than it runs them."""

    def __init__(self):
        super().__init__()
        self.last, self.first, self.idle = DiffStride2d(4.0), DiffStride2d(2.0), DiffStride2d(8.0)

    def forward(self, x):
        return self.last(self.first(x))


def test_layers_count_in_the_order_in_which_data_meets_them():
    model, x = Backwards(), torch.randn(1, 1, 64, 64)
    as_registered = 1 / 16 + 1 / 16 / 4 + 1 / 16 / 4 / 64
    as_run = 1 / 4 + 1 / 4 / 16 + 1 / 4 / 16 / 64
    model(x)
    for copied in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert anystride.complexity(copied).item() == pytest.approx(as_registered)
        assert anystride.complexity(copied, x).item() == pytest.approx(as_run)


def test_order_from_an_example_leaves_the_gradient():
    model = Backwards()
    anystride.complexity(model, torch.empty(1, 1, 64, 64)).backward()
    assert all((pool.stride.grad < 0).all() for pool in (model.first, model.last, model.idle))


def test_a_model_without_strides():
    with pytest.raises(ValueError, match="model has no DiffStride layer"):
        anystride.complexity(nn.Conv2d(3, 3, 1))
