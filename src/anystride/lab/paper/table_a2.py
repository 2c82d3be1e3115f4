"""Table A.2: time and peak memory of a step, relative to strided convolutions, in the multi-task audio network.

This is a measurement on one device, not a training; `lab.bench.table_a2` makes it. The layers of the paper transform
with the FFT on a V100; here a layer is two products with real matrices.
"""

from __future__ import annotations

from anystride.lab.paper.recipe import Measurement, transcribed

PUBLISHED = transcribed(
    """
    training time: 1.0, 1.32, 1.43
    training memory: 1.0, 1.02, 1.98
    inference time: 1.0, 1.32, 1.32
    inference memory: 1.0, 1.02, 1.02
    """,
    ("strided", "spectral", "outer"),
)
"""Ratios to strided convolutions on a V100, at the paper's width and batch size."""

MEASUREMENT = Measurement("table-a2", "Time and memory of a step", "Table A.2, appendix")
