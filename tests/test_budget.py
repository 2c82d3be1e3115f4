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


class Residual(nn.Module):
    """A stem, a block whose branches share a stride, and a convolution behind it."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.main, self.skip = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.pool = DiffStride2d((2.0, 3.0), ramp="inner")
        self.after = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), DiffStride2d(1.6, ramp="inner"))
        self.last = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x):
        x = self.stem(x)
        x = self.pool(x, convolution=self.main) + self.skip(self.pool(x))
        return self.last(self.after(x))


def test_equation_6_over_convolutions():
    model, x = Residual(), torch.randn(1, 3, 32, 32)
    first, second = model.pool.stride, model.after[1].stride
    one = 1 / first.prod()
    two = one / second.prod()
    # stem, main, skip and the next at their sizes; `after[0]` runs by itself before its pool; the last is left out.
    expected = 1 + 3 * one
    value = anystride.complexity(model, x, count="convolutions")
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    got = torch.autograd.grad(value, [first, second], allow_unused=True)
    want = torch.autograd.grad(expected, [first, second], allow_unused=True)
    torch.testing.assert_close(got[0], want[0])
    assert anystride.complexity(model).item() == pytest.approx((one + two).item(), rel=1e-6)


def test_over_convolutions_of_a_converted_network():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.Conv2d(8, 8, 3), nn.ReLU()
    )
    x = torch.randn(1, 3, 32, 32)
    anystride.convert_(model, x)
    assert anystride.complexity(model, x, count="convolutions").item() == pytest.approx(1 + 1 / 4, rel=1e-6)


def test_wrong_count():
    with pytest.raises(ValueError, match="count must be one of 'strides', 'convolutions', got 'layers'"):
        anystride.complexity(DiffStride2d(2.0), count="layers")
    with pytest.raises(ValueError, match="example_input must be given with count='convolutions'"):
        anystride.complexity(DiffStride2d(2.0), count="convolutions")
