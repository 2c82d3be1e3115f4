"""Mistakes that a type checker must find, one in each line that says so."""

import anystride

anystride.DiffStride2d(stride=2.0, ramp="innner")  # mistake
anystride.DiffStride2d(stride="2.0")  # mistake
anystride.DiffStride2d(strid=2.0)  # mistake
anystride.DiffStride2d(stride=2.0, norm="none")  # mistake
anystride.DiffStride2d(stride=2.0, grid="free_")  # mistake
anystride.DiffStride2d(stride=2.0, ramp="cosine", padding_mode="mirror")  # mistake
anystride.DiffStride2d(stride=2.0)("an image")  # mistake
anystride.ParallelScales2d([], strides=(), combine="add")  # mistake
