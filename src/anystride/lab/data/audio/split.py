"""A split that follows from the clips' names alone, where a data set has none that fits the paper."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from anystride.lab.data.audio.clips import Integers


def by_name(names: Sequence[str], test_share: float) -> tuple[Integers, Integers]:
    """Rows of the training and of the test clips: the test's are those whose names have the smallest SHA-256.

    The same names give the same split on any machine and in any order; at least one clip is in each part.
    """
    digests = [hashlib.sha256(name.encode()).digest() for name in names]
    order = np.array(sorted(range(len(names)), key=digests.__getitem__), dtype=np.int64)
    count = min(max(1, round(test_share * len(names))), len(names) - 1)
    return np.sort(order[count:]), np.sort(order[:count])
