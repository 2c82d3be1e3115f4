"""The measurement of Table A.2: what it returns, and what it refuses."""

import json

import pytest
import torch

pytest.importorskip("lightning", reason="needs the extra 'lab'")

from anystride.lab.bench.table_a2 import measure
from anystride.lab.errors import UsageError


def test_steps_are_timed_beside_the_published_ratios():
    found = measure(width=4, batch_size=4, repeats=2, device=torch.device("cpu"))
    assert json.loads(json.dumps(found)) == found
    for row, ratios in found["ratios"].items():
        assert ratios["strided"] == 1
        assert all(ratio > 0 for ratio in ratios.values())
        assert set(found["published"][row]) == {"strided", "spectral", "outer"}
    memory = found["measured"]
    for method in ("strided", "spectral", "outer", "inner"):
        assert memory["training"][method]["bytes"] > memory["inference"][method]["bytes"]
    # "outer" keeps larger maps for the backward pass, see Table A.2.
    assert found["ratios"]["training memory"]["outer"] > found["ratios"]["training memory"]["inner"]


@pytest.mark.parametrize("argument", ["width", "batch_size", "repeats"])
def test_a_measurement_needs_something_to_measure(argument):
    with pytest.raises(UsageError, match=f"{argument} must be at least 1, got 0"):
        measure(**{argument: 0})
