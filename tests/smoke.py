"""The package as it is installed, without pytest and without extras: `python tests/smoke.py`."""

import subprocess
import sys

import torch
from torch import nn

import anystride

for layer, size in (
    (anystride.DiffStride1d, (32,)),
    (anystride.DiffStride2d, (32, 24)),
    (anystride.DiffStride3d, (8, 16, 16)),
):
    for ramp in ("outer", "inner", "cosine"):
        pool = layer(2.0, ramp=ramp)
        x = torch.randn(2, 3, *size, requires_grad=True)
        y = pool(x)
        assert tuple(y.shape[2:]) == pool.output_size(size)
        y.square().mean().backward()
        assert pool.stride.grad is not None
        assert torch.isfinite(pool.stride.grad).all()

model = nn.Sequential(
    nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1)
)
images = torch.randn(2, 3, 32, 32)
plan = anystride.convert_(model, images)
assert len(plan.replaced) == 2, plan
budget = anystride.Budget(0.5 * anystride.macs(model, images).item())
optimiser = torch.optim.SGD(anystride.param_groups(model, lr=0.01), momentum=0.9)
for _ in range(3):
    optimiser.zero_grad()
    (model(images).square().mean() + budget(anystride.macs(model, images))).backward()
    optimiser.step()
anystride.fit_macs_(model, images, budget.limit)
assert anystride.summary(model, images).macs <= budget.limit
before = model.eval()(images)
anystride.freeze_(model, images)
assert torch.allclose(model(images), before, atol=1e-4)
shown = subprocess.run(
    [sys.executable, "-m", "anystride", "--version"], check=True, capture_output=True, text=True
).stdout
assert anystride.__version__ in shown, shown
print("anystride", anystride.__version__, "works with torch", torch.__version__, "and Python", sys.version.split()[0])
