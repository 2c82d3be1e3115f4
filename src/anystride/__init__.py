"""Learned downsampling for PyTorch: strides that gradient descent finds."""

from anystride import functional
from anystride.complexity import complexity
from anystride.layers import (
    DiffStride1d,
    DiffStride2d,
    DiffStride3d,
    SpectralPool1d,
    SpectralPool2d,
    SpectralPool3d,
    learned_strides,
    param_groups,
)

__version__ = "0.1.0"

__all__ = [
    "DiffStride1d",
    "DiffStride2d",
    "DiffStride3d",
    "SpectralPool1d",
    "SpectralPool2d",
    "SpectralPool3d",
    "complexity",
    "functional",
    "learned_strides",
    "param_groups",
]
