"""Toy networks and their parts, for all tests."""

import torch
from torch import nn
from torch.nn import functional as F

from anystride import DiffStride1d, DiffStride2d, DiffStride3d
from anystride.geometry import Geometry
from anystride.hosts import put_on
from anystride.resample import CHILD, Leads

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


def set_strides(model, value):
    """All learned strides at one value."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, DIFFSTRIDE):
                module.stride.fill_(value)
    return model


class Segments(nn.Module):
    """An encoder and a decoder that ends at the input's size."""

    def __init__(self):
        super().__init__()
        self.down1, self.down2 = (nn.Conv2d(n, 8, 3, stride=2, padding=1) for n in (3, 8))
        self.up2, self.up1 = nn.Upsample(scale_factor=2), nn.Upsample(scale_factor=2)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        a = F.relu(self.down1(x))
        return self.head(self.up1(self.up2(F.relu(self.down2(a))) + a))


class Block(nn.Module):
    """Two branches of one length."""

    def __init__(self, a, b):
        super().__init__()
        self.conv1 = nn.Conv2d(a, b, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(b, b, 3, padding=1)
        self.short = nn.Conv2d(a, b, 1, stride=2)

    def forward(self, x):
        return F.relu(self.conv2(F.relu(self.conv1(x))) + self.short(x))


class EveryRole(nn.Module):
    """Leads, shares, follows (a chain of another length, a decoder, the input), keeps a size, calls functions."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.block = Block(4, 8)
        self.far = nn.Conv2d(3, 8, 5, stride=4, padding=2)
        self.up = nn.Upsample(scale_factor=2)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(4 * 4 * 8, 4)
        self.mask = nn.Conv2d(8, 1, 1)
        self.side = nn.Conv2d(4, 8, 1)

    def forward(self, x):
        a = F.relu(self.stem(x))
        b = self.block(a) + self.far(x)
        c = self.up(b) + self.side(a)
        d = F.interpolate(self.mask(c), scale_factor=2.0)
        e = F.max_pool2d(b, 2)
        return self.head(e.flatten(1)) + d.mean((1, 2, 3))[:, None]
