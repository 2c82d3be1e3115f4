"""Learned downsampling for PyTorch: strides that gradient descent finds."""

from anystride import functional
from anystride.budget import Budget, complexity, macs
from anystride.checkpoint import load_, save
from anystride.convert import apply_, convert_
from anystride.convert.plan import Plan
from anystride.freeze import freeze_
from anystride.layers import DiffStride1d, DiffStride2d, DiffStride3d
from anystride.optim import learned_strides, param_groups, regrid_
from anystride.spectral import SpectralPool1d, SpectralPool2d, SpectralPool3d

__version__ = "0.1.0"

__all__ = [
    "Budget",
    "DiffStride1d",
    "DiffStride2d",
    "DiffStride3d",
    "Plan",
    "SpectralPool1d",
    "SpectralPool2d",
    "SpectralPool3d",
    "apply_",
    "complexity",
    "convert_",
    "freeze_",
    "functional",
    "learned_strides",
    "load_",
    "macs",
    "param_groups",
    "regrid_",
    "save",
]
