"""Toy networks and their parts, for all tests."""

from anystride import DiffStride1d, DiffStride2d, DiffStride3d
from anystride.hosts import put_on
from anystride.resample import CHILD, Geometry, Leads

DIFFSTRIDE = (DiffStride1d, DiffStride2d, DiffStride3d)


def geometry_of(conv):
    """How a convolution with a stride moves over its input."""
    spans = [(k - 1) * d + 1 for k, d in zip(conv.kernel_size, conv.dilation, strict=True)]
    padding = conv.padding if not isinstance(conv.padding, str) else tuple((span - 1) // 2 for span in spans)
    return Geometry(tuple(conv.stride), tuple(spans), tuple(padding))


def put_place(conv, place, role="convolution"):
    """Let a module pass its map through a place, as `convert_` does."""
    conv.add_module(CHILD, place)
    put_on(conv, role)
    return place


def learn(conv, stride, name="", **pool):
    """Learn the stride of one convolution, as `convert_` does."""
    operator = DIFFSTRIDE[len(conv.kernel_size) - 1](stride, **{"ramp": "inner", **pool})
    return put_place(conv, Leads(operator, name=name, geometry=geometry_of(conv)))
