"""What a user writes: strict type checkers must find nothing in it, and an editor must know what each call gives."""

import torch
from torch import Tensor, nn
from typing_extensions import assert_type

import anystride
from anystride import functional

images = torch.randn(2, 3, 32, 32)

pool = anystride.DiffStride2d(
    stride=(2.0, 3.0), ramp="inner", smoothness=4.0, norm="forward", grid="fixed", shared=False
)
assert_type(pool(images), Tensor)
assert_type(pool.stride, nn.Parameter)
assert_type(pool.output_size((32, 32)), tuple[int, ...])
assert_type(anystride.SpectralPool2d(output_size=16)(images), Tensor)
assert_type(anystride.SpectralUpsample2d(follows=pool)(pool(images), images), Tensor)
branches = [nn.Conv2d(3, 4, 3, padding=1) for _ in range(2)]
assert_type(anystride.ParallelScales2d(branches, strides=(1.0, 2.0), combine="sum")(images), Tensor)
head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 1))
assert_type(anystride.PerExampleStride2d(head, least=1.0, most=4.0)(images), Tensor)
assert_type(functional.diffstride(images, 2.0, ramp="cosine", padding_mode="reflect"), Tensor)

model = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
plan = anystride.convert_(model, images, method="diffstride", ramp="cosine", dry_run=False)
assert_type(plan, anystride.Plan)
assert_type(plan.macs, tuple[int, int] | None)
budget = anystride.Budget(limit=anystride.macs(model, images).item() / 2)
optimiser = torch.optim.SGD(anystride.param_groups(model, lr=0.1, weight_decay=5e-4), momentum=0.9)
cost = budget(anystride.macs(model, images))
assert_type(cost, Tensor)
(model(images).square().mean() + cost).backward()
optimiser.step()
assert_type(anystride.stride_scalars(model), dict[str, float])
assert_type(anystride.learned_strides(model), dict[str, Tensor])
assert_type(anystride.summary(model, images).macs, int)
for row in anystride.summary(model, images).rows:
    assert_type(row.size_out, tuple[int, ...])
anystride.fit_macs_(model, images, budget.limit)
anystride.freeze_(model.eval(), images)
