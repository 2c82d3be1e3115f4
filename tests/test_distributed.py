"""Two processes under DistributedDataParallel: sizes agree at every step, and losses are those of one process."""

import os

import pytest
import torch
import torch.multiprocessing as mp
from torch import distributed, nn

from anystride import DiffStride2d

STEPS = 6


def build():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        DiffStride2d(2.6),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 3),
    )


def data(step):
    generator = torch.Generator().manual_seed(step)
    return torch.randn(8, 1, 20, 20, generator=generator), torch.randint(0, 3, (8,), generator=generator)


def train(model, part):
    """Losses on this process' half of each batch, and the sizes met; strides are driven by a strong learning rate."""
    layer = next(module for module in model.modules() if isinstance(module, DiffStride2d))
    others = [p for p in model.parameters() if p is not layer.stride]
    optimiser = torch.optim.SGD([{"params": others, "lr": 0.05}, {"params": [layer.stride], "lr": 1000.0}])
    losses, sizes = [], []
    for step in range(STEPS):
        x, y = data(step)
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(model(x[part]), y[part])
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        sizes.append(layer.output_size((20, 20)))
    return losses, sizes


def worker(rank, folder):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    model = build()
    if rank == 1:
        with torch.no_grad():
            model[1].stride.fill_(5.0)  # construction broadcasts rank 0's value
    torch.save(train(nn.parallel.DistributedDataParallel(model), slice(4 * rank, 4 * rank + 4)), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.skipif(not distributed.is_available() or os.name != "posix", reason="needs torch.distributed with gloo")
@pytest.mark.slow
def test_ranks_agree(tmp_path):
    mp.spawn(worker, args=(str(tmp_path),), nprocs=2)
    (losses_0, sizes_0), (losses_1, sizes_1) = (
        torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)
    )
    losses, sizes = train(build(), slice(0, 8))
    assert sizes_0 == sizes_1 == sizes
    assert len(set(sizes)) > 1, "the stride was meant to cross sizes"
    mean = [(a + b) / 2 for a, b in zip(losses_0, losses_1, strict=True)]
    assert mean == pytest.approx(losses, rel=1e-4)
