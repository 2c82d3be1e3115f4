"""What each dimension of a map is proportional to, operation by operation."""

import weakref

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from anystride import DiffStride2d
from anystride.counting.labels import NONE, Labels, Length, labels_of, set_labels
from anystride.execution import tensors

POOL = DiffStride2d(2.0, ramp="inner")
H, W = (Length(weakref.ref(POOL), axis, (32, 24), samples, NONE) for axis, samples in ((0, 16), (1, 12)))


class Watch(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.labels = Labels()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.labels.pass_on(func, args, kwargs or {}, tensors((args, kwargs or {})), tensors(out))
        return out


def after(operation):
    """Labels of what an operation gives for a map (2, 6, 16, 12) whose height and width were learned."""
    x = torch.randn(2, 6, 16, 12)
    set_labels(x, [NONE, NONE, {H: 1.0}, {W: 1.0}])
    with Watch(), torch.no_grad():
        return labels_of(operation(x))


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        (lambda x: x.relu(), [NONE, NONE, {H: 1.0}, {W: 1.0}]),
        (lambda x: F.conv2d(x, torch.randn(4, 6, 3, 3), padding=1), [NONE, NONE, {H: 1.0}, {W: 1.0}]),
        (lambda x: F.max_pool2d(x, 2), [NONE, NONE, {H: 1.0}, {W: 1.0}]),
        (lambda x: x.permute(0, 2, 3, 1), [NONE, {H: 1.0}, {W: 1.0}, NONE]),
        (lambda x: x.transpose(1, 2), [NONE, {H: 1.0}, NONE, {W: 1.0}]),
        (lambda x: x.flatten(2), [NONE, NONE, {H: 1.0, W: 1.0}]),
        (lambda x: x.flatten(2).reshape(2, 6, 16, 12), [NONE, NONE, {H: 1.0}, {W: 1.0}]),
        (lambda x: x.flatten(1), [NONE, {H: 1.0, W: 1.0}]),
        (lambda x: x.mean((2, 3)), [NONE, NONE]),
        (lambda x: x.mean(2), [NONE, NONE, {W: 1.0}]),
        (lambda x: F.adaptive_avg_pool2d(x, 3), [NONE, NONE, NONE, NONE]),
        (lambda x: x + torch.randn(6, 1, 1), [NONE, NONE, {H: 1.0}, {W: 1.0}]),
        (lambda x: torch.cat([x, x], 1), [NONE, NONE, {H: 1.0}, {W: 1.0}]),
        (lambda x: torch.cat([x, torch.randn(2, 6, 16, 4)], 3), [NONE, NONE, {H: 1.0}, {W: 0.75}]),
        (lambda x: F.interpolate(x, scale_factor=2.0), [NONE, NONE, {H: 1.0}, {W: 1.0}]),
        (lambda x: x.flatten(2)[0] @ x.flatten(2)[0].t(), [NONE, NONE]),
        (lambda x: x.flatten(2)[0].t() @ x.flatten(2)[0], [{H: 1.0, W: 1.0}, {H: 1.0, W: 1.0}]),
    ],
)
def test_how_labels_pass(operation, expected):
    assert after(operation) == expected


def test_only_labels_that_say_something_are_kept():
    t = torch.zeros(2, 3)
    set_labels(t, [NONE, {H: 1.0}])
    assert labels_of(t) == [NONE, {H: 1.0}]
    set_labels(t, [NONE, NONE])
    assert labels_of(t) == [NONE, NONE]
    set_labels(t, [{H: 1.0}])  # of another number of dimensions
    assert labels_of(t) == [NONE, NONE]


def test_the_slope_of_a_length():
    """h = L / S: as long as L, and shorter by 1 / S per unit of the stride."""
    along_length, along_stride = H.slopes()
    assert along_length == pytest.approx(1.0)
    assert along_stride == pytest.approx(-0.5)
