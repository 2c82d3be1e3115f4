"""Converted networks under FSDP, of both kinds, with one process and two: values, messages, and training."""

import os

import pytest
import torch
import torch.multiprocessing as mp
from torch import distributed, nn

import anystride
from anystride import checkpoint

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not distributed.is_available() or os.name != "posix", reason="needs gloo"),
]
X = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
Y = torch.tensor([0, 1, 2, 3])


def build(shared=False):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip
    return model, anystride.convert_(model, X, shared=shared)


def train(model, part):
    optimiser = torch.optim.SGD(anystride.param_groups(model, lr=0.05, stride_lr=3000.0), momentum=0.5)
    losses = []
    for _ in range(4):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(model(X[part]), Y[part])
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def message(call):
    try:
        call()
    except (ValueError, RuntimeError) as error:
        return str(error)
    return ""


def sharded(rank, world, kind, shared):
    """What a process sees of a network under FSDP, before, while and after it is trained."""
    model, plan = build(shared)
    part = slice(rank * 4 // world, (rank + 1) * 4 // world)
    if kind == "fsdp2":
        from torch.distributed.fsdp import fully_shard

        for child in (model[0], model[2], model):
            fully_shard(child)
        fresh = repr(model)
        assert anystride.complexity(model).requires_grad
        losses = train(model, part)
        assert anystride.complexity(model).item() > 0
        strides = anystride.learned_strides(model)
    else:
        from torch.distributed.fsdp import FullyShardedDataParallel

        wrapped = FullyShardedDataParallel(model, use_orig_params=kind == "fsdp1", device_id=torch.device("cpu"))
        if kind == "flat":
            return {"groups": message(lambda: anystride.param_groups(wrapped, 0.1)), "shown": repr(wrapped)}
        fresh = repr(wrapped)
        losses = train(wrapped, part)
        outside = message(lambda: anystride.learned_strides(wrapped))
        assert outside == "" if world == 1 else "summon_full_params" in outside, outside
        with wrapped.summon_full_params(wrapped):
            strides = anystride.learned_strides(wrapped)
        model = wrapped
    costs = message(lambda: anystride.macs(model, X))
    saved = message(lambda: checkpoint.save(model, plan, "nowhere"))
    shown = [line for line in repr(model).splitlines() if "DiffStride" in line]
    kinds = {type(value).__name__ for value in strides.values()}
    values = {name: value.tolist() for name, value in strides.items()}
    return {"losses": losses, "strides": values, "kinds": list(kinds), "shown": shown, "fresh": fresh, "costs": costs,
            "saved": saved}  # fmt: skip


def worker(rank, world, kind, shared, folder):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    torch.save(sharded(rank, world, kind, shared), f"{folder}/{rank}.pt")
    distributed.barrier()
    distributed.destroy_process_group()


def run(world, kind, shared, folder):
    mp.spawn(worker, args=(world, kind, shared, str(folder)), nprocs=world)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(world)]


@pytest.mark.parametrize(
    ("kind", "world", "shared"),
    [("fsdp1", 1, False), ("fsdp1", 2, False), ("fsdp2", 1, False), ("fsdp2", 2, False), ("fsdp2", 2, True)],
)
def test_training_is_that_of_one_process(kind, world, shared, tmp_path):
    found = run(world, kind, shared, tmp_path)
    model, _ = build(shared)
    losses = train(model, slice(0, 4))
    strides = {name: value.tolist() for name, value in anystride.learned_strides(model).items()}
    mean = [sum(step) / world for step in zip(*(process["losses"] for process in found), strict=True)]
    assert mean == pytest.approx(losses, rel=1e-4)
    for process in found:
        assert process["kinds"] == ["Tensor"]
        assert list(process["strides"]) == list(strides)
        for name, value in strides.items():
            assert process["strides"][name] == pytest.approx(value, rel=1e-4)
            assert max(abs(v - 2) for v in value) > 0.01, "the strides were meant to move"
        assert len(process["shown"]) == 2
        assert "stride=2.0" in process["fresh"]
        assert "FSDP has sharded it" in process["costs"]
        if kind == "fsdp2":
            assert "FSDP has sharded '0.weight'" in process["saved"]


def test_strides_in_one_parameter_with_weights(tmp_path):
    for process in run(2, "flat", False, tmp_path):
        assert "use_orig_params=True" in process["groups"]
        assert "DiffStride2d(stride=2.0" in process["shown"]
