"""Which products bring the axes of a map to their sizes, and what they do not do."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from anystride import DiffStride2d
from anystride.ops.separable import Product, joined, multiply, multiply_transposed, schedule, stride_gradients


def test_order():
    assert schedule([(24, 32), (16, 32)]) == [((1,), (16, 32)), ((0,), (24, 32))]  # what shrinks most, first
    assert schedule([(16, 32), (16, 32)]) == [((0,), (16, 32)), ((1,), (16, 32))]  # the last axis sees the small map
    assert schedule([(32, 16), (32, 16)]) == [((1,), (32, 16)), ((0,), (32, 16))]
    assert schedule([(16, 32), (8, 16)]) == [((1,), (8, 16)), ((0,), (16, 32))]  # the shorter of two alike
    assert schedule([None, (8, 16)]) == [((1,), (8, 16))]
    assert schedule([None, None]) == []


def test_tiny_axes_are_one():
    assert schedule([(4, 8), (4, 8)]) == [((0, 1), (16, 64))]
    assert schedule([(4, 8), None, (4, 8)]) == [((0,), (4, 8)), ((2,), (4, 8))]
    assert schedule([(2, 4), (2, 4), (2, 4)]) == [((0, 1, 2), (8, 64))]
    assert schedule([(4, 8), (5, 9)]) == [((0,), (4, 8)), ((1,), (5, 9))]


def steps_of(matrices):
    """The products of some axes' matrices, in order."""
    steps, joint = [], []
    for axes, _ in schedule([None if m is None else tuple(m.shape) for m in matrices]):
        parts = [matrices[axis] for axis in axes]
        steps.append(Product(axes, tuple(m.shape[0] for m in parts), tuple(m.shape[1] for m in parts)))
        joint.append(joined(parts))
    return steps, joint


sizes = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=3)


@given(shapes=sizes, holes=st.lists(st.booleans(), min_size=3, max_size=3), last=st.booleans())
def test_it_is_one_product_per_axis(shapes, holes, last):
    matrices = [None if h else torch.randn(s, dtype=torch.float64) for s, h in zip(shapes, holes, strict=False)]
    x = torch.randn(2, 3, *(columns for _, columns in shapes), dtype=torch.float64)
    expected = x
    for axis, matrix in enumerate(matrices):
        if matrix is not None:
            expected = torch.tensordot(expected, matrix, dims=([2 + axis], [1])).movedim(-1, 2 + axis)
    if last:
        x = x.movedim(1, -1).contiguous().movedim(-1, 1)
    steps, joint = steps_of(matrices)
    y = multiply(x, steps, joint)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-11)
    cotangent = torch.randn_like(y)
    back = multiply_transposed(cotangent, steps, joint)
    assert (y * cotangent).sum().item() == pytest.approx((x * back).sum().item(), abs=1e-8)


@given(
    size=st.lists(st.integers(1, 20), min_size=1, max_size=3),
    rows=st.integers(1, 8),
    last=st.booleans(),
    data=st.data(),
)
def test_stride_gradients(size, rows, last, data):
    """However they are summed up."""
    probes = [torch.randn(rows, n, dtype=torch.float64) for n in size]
    absent = data.draw(st.lists(st.booleans(), min_size=len(size), max_size=len(size)))
    y, grad = (torch.randn(2, 3, *size, dtype=torch.float64) for _ in range(2))
    expected = []
    for axis, (probe, gone) in enumerate(zip(probes, absent, strict=True)):
        a, b = (torch.tensordot(probe, t, dims=([1], [2 + axis])) for t in (y, grad))
        expected.append(0.0 if gone else -(a * b).sum().item())
    if last:
        y, grad = (t.movedim(1, -1).contiguous().movedim(-1, 1) for t in (y, grad))
    present = [None if gone else probe for probe, gone in zip(probes, absent, strict=True)]
    got = [g.item() for g in stride_gradients(y, grad, present)]
    assert got == pytest.approx(expected, rel=1e-9, abs=1e-9)


class Large(TorchDispatchMode):
    """Counts operations that make a tensor of at least so many entries, by name."""

    def __init__(self, limit):
        super().__init__()
        self.limit, self.made, self.operations = limit, {}, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.operations += 1
        given = {t.untyped_storage().data_ptr() for t in args if isinstance(t, torch.Tensor)}
        new = isinstance(out, torch.Tensor) and out.untyped_storage().data_ptr() not in given
        if new and out.numel() >= self.limit:
            name = func.overloadpacket.__name__
            self.made[name] = self.made.get(name, 0) + 1
        return out


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("ramp", ["inner", "outer"])
def test_no_hidden_copy(layout, ramp):
    """A step makes maps by matrix products alone, in either layout; the stride's gradient makes none of full size."""
    pool = DiffStride2d(2.0, ramp=ramp)
    x = torch.randn(4, 16, 32, 32).to(memory_format=layout).requires_grad_()
    y = pool(x)
    cotangent = torch.randn_like(y)
    with Large(limit=y.numel()) as seen:
        pool(x)
    assert seen.made == {"bmm": 2}
    with Large(limit=x.numel()) as seen:
        pool(x).backward(cotangent)
    assert seen.made.get("bmm", 0) <= 2
    assert set(seen.made) <= {"bmm", "detach"}


def test_a_step_is_few_operations():
    """The guard of the host's share of a step: operations, not seconds. They were 114 when this was written."""
    pool, x = DiffStride2d(2.0, ramp="inner"), torch.randn(2, 4, 32, 32, requires_grad=True)
    pool(x).sum().backward()
    with torch.no_grad():
        pool.stride.add_(torch.tensor([0.01, 0.02]))
    with Large(limit=math.inf) as moved:
        pool(x).sum().backward()
    with Large(limit=math.inf) as still:
        pool(x).sum().backward()
    assert still.operations <= 75
    assert moved.operations <= 150
