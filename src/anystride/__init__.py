"""Learned downsampling for PyTorch: strides that gradient descent finds.

This file is the API: `__all__` names all of it. A name is imported from its file when it is first used, so that
`anystride --help` need not wait for torch. Type checkers and editors read the block below `TYPE_CHECKING`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anystride import functional
    from anystride.budget import Budget, complexity, macs
    from anystride.checkpoint import load_, save
    from anystride.convert import apply_, convert_
    from anystride.convert.plan import Plan
    from anystride.fitting import fit_macs_
    from anystride.freeze import freeze_
    from anystride.layers import DiffStride1d, DiffStride2d, DiffStride3d
    from anystride.optim import learned_strides, param_groups, regrid_, stride_scalars
    from anystride.overview import Summary, summary
    from anystride.parallel import ParallelScales1d, ParallelScales2d, ParallelScales3d
    from anystride.per_example import PerExampleStride1d, PerExampleStride2d, PerExampleStride3d
    from anystride.plots import plot_strides, plot_windows
    from anystride.recalibration import recalibrate_
    from anystride.spectral import SpectralPool1d, SpectralPool2d, SpectralPool3d
    from anystride.upsample import SpectralUpsample1d, SpectralUpsample2d, SpectralUpsample3d

__version__ = "0.2.0"

__all__ = [
    "Budget",
    "DiffStride1d",
    "DiffStride2d",
    "DiffStride3d",
    "ParallelScales1d",
    "ParallelScales2d",
    "ParallelScales3d",
    "PerExampleStride1d",
    "PerExampleStride2d",
    "PerExampleStride3d",
    "Plan",
    "SpectralPool1d",
    "SpectralPool2d",
    "SpectralPool3d",
    "SpectralUpsample1d",
    "SpectralUpsample2d",
    "SpectralUpsample3d",
    "Summary",
    "apply_",
    "complexity",
    "convert_",
    "fit_macs_",
    "freeze_",
    "functional",
    "learned_strides",
    "load_",
    "macs",
    "param_groups",
    "plot_strides",
    "plot_windows",
    "recalibrate_",
    "regrid_",
    "save",
    "stride_scalars",
    "summary",
]

_FILES = {
    "budget": ("Budget", "complexity", "macs"),
    "checkpoint": ("load_", "save"),
    "convert": ("apply_", "convert_"),
    "convert.plan": ("Plan",),
    "fitting": ("fit_macs_",),
    "freeze": ("freeze_",),
    "layers": ("DiffStride1d", "DiffStride2d", "DiffStride3d"),
    "optim": ("learned_strides", "param_groups", "regrid_", "stride_scalars"),
    "parallel": ("ParallelScales1d", "ParallelScales2d", "ParallelScales3d"),
    "per_example": ("PerExampleStride1d", "PerExampleStride2d", "PerExampleStride3d"),
    "plots": ("plot_strides", "plot_windows"),
    "recalibration": ("recalibrate_",),
    "spectral": ("SpectralPool1d", "SpectralPool2d", "SpectralPool3d"),
    "overview": ("Summary", "summary"),
    "upsample": ("SpectralUpsample1d", "SpectralUpsample2d", "SpectralUpsample3d"),
}
"""The file of each name, as in the block above; a test holds them equal."""
_FILE_OF = {name: file for file, names in _FILES.items() for name in names}


def __getattr__(name: str) -> object:
    """Import a public name, or a file of the package, when it is first used (PEP 562)."""
    if name in _FILE_OF:
        value: object = getattr(importlib.import_module(f"{__name__}.{_FILE_OF[name]}"), name)
        globals()[name] = value  # from now on it is found without this function
        return value
    if not name.startswith("_"):
        try:
            return importlib.import_module(f"{__name__}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{__name__}.{name}":
                raise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
