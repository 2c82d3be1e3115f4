"""Devices, dtypes and their tolerances, in one place."""

import pytest
import torch
from hypothesis import settings

collect_ignore = ["smoke.py", "typing"]  # scripts of users, which tests run

settings.register_profile("ci", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("ci")

# Largest allowed difference from float64, relative to the largest entry of the float64 result.
TOLERANCE = {
    torch.float64: {"output": 1e-12, "input_gradient": 1e-12, "stride_gradient": 1e-10},
    torch.float32: {"output": 2e-6, "input_gradient": 2e-6, "stride_gradient": 2e-5},
    torch.bfloat16: {"output": 2e-2, "input_gradient": 2e-2, "stride_gradient": 0.05},
    torch.float16: {"output": 3e-3, "input_gradient": 3e-3, "stride_gradient": 0.04},
}
DTYPES = list(TOLERANCE)
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(params=DEVICES)
def device(request):
    return torch.device(request.param)


@pytest.fixture(params=DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
def dtype(request):
    return request.param


@pytest.fixture(autouse=True)
def same_start():
    torch.manual_seed(0)
    torch.set_num_threads(1)  # the maps are small: threads would only wait for each other


@pytest.fixture
def close():
    """Compare with a float64 reference under the tolerance table."""

    def check(got, reference, what="output", dtype=None):
        bound = TOLERANCE[dtype or got.dtype][what] * max(reference.abs().max().item(), 1e-30)
        assert got.shape == reference.shape
        error = (got.double().cpu() - reference.double().cpu()).abs().max().item()
        assert error <= bound, f"{what}: off by {error:.3g}, allowed {bound:.3g}"

    return check
