"""Branches at scales of their own, in every use of a layer."""

import copy

import pytest
import torch
import torch._dynamo.testing
from torch import nn

import anystride
from anystride import (
    Budget,
    ParallelScales1d,
    ParallelScales2d,
    ParallelScales3d,
    convert_,
    fit_macs_,
    freeze_,
    functional,
    macs,
)

KINDS = {1: (ParallelScales1d, nn.Conv1d), 2: (ParallelScales2d, nn.Conv2d), 3: (ParallelScales3d, nn.Conv3d)}
SHAPES = {1: (24,), 2: (16, 13), 3: (8, 9, 10)}
RAMPS = ("outer", "inner", "cosine")


def scales(axes, combine="sum", strides=(1.0, 1.8, 3.1), **options):
    made, conv = KINDS[axes]
    return made([conv(3, 4, 3, padding=1) for _ in strides], strides, combine, **options)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("ramp", RAMPS)
@pytest.mark.parametrize("combine", ["sum", "concatenate"])
def test_each_branch_runs_at_its_scale(axes, ramp, combine):
    module = scales(axes, combine, ramp=ramp, smoothness=1.0)
    seen = []
    for branch in module.branches:
        branch.register_forward_hook(lambda _, args, __: seen.append(tuple(args[0].shape[2:])))
    x = torch.randn(2, 3, *SHAPES[axes])
    y = module(x)
    assert y.shape == (2, 4 if combine == "sum" else 12, *SHAPES[axes])
    assert seen == [pool.output_size(SHAPES[axes]) for pool in module.pools]
    assert len(set(seen)) > 1
    y.square().sum().backward()
    assert all((pool.stride.grad != 0).all() for pool in list(module.pools)[1:])


def test_it_is_what_its_parts_are():
    module = scales(2, strides=(1.5, 2.5), smoothness=1.0)
    x = torch.randn(2, 3, 16, 12)
    expected = 0
    for branch, pool in zip(module.branches, module.pools, strict=True):
        small = functional.diffstride(x, pool.stride, 1.0, "inner")
        matrices = [
            functional.resampling_matrix(n, s, 1.0, "inner")
            for n, s in zip((16, 12), pool.stride.tolist(), strict=True)
        ]
        up = [matrix.t() * (n / len(matrix)) for n, matrix in zip((16, 12), matrices, strict=True)]
        expected = expected + up[0] @ branch(small) @ up[1].t()
    torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize("combine", ["sum", "concatenate"])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_gradients(axes, combine):
    module = scales(axes, combine, strides=(1.3, 2.2)).double()
    x = torch.randn(1, 3, *[n - 3 for n in SHAPES[axes]], dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(module, x)


def test_types(dtype, close):
    module = scales(2, ramp="cosine")
    x = torch.randn(2, 3, 16, 12)
    reference = copy.deepcopy(module).double()(x.double())
    y = module.to(dtype)(x.to(dtype))
    assert y.dtype == dtype
    assert all(pool.stride.dtype == torch.float32 for pool in module.pools)
    # Three branches and a convolution each: errors add up.
    assert (y.double() - reference).abs().max() < 40 * torch.finfo(dtype).eps * reference.abs().max()


def test_costs_fall_with_each_stride_and_fit_a_budget():
    model = nn.Sequential(scales(2, strides=(1.2, 2.0, 3.0)), nn.ReLU())
    x = torch.empty(1, 3, 32, 32)
    value = macs(model, x)
    slopes = torch.autograd.grad(value, [pool.stride for pool in model[0].pools])
    assert all((slope < 0).all() for slope in slopes)
    limit = 0.7 * value.item()
    (macs(model, x) / limit).log().backward()
    assert 0.95 * limit < fit_macs_(model, x, limit) <= limit
    loss = Budget(limit)(macs(model, x))
    assert loss.item() == 0


@pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated:DeprecationWarning")
@pytest.mark.parametrize("ramp", RAMPS)
def test_frozen(ramp):
    model = nn.Sequential(nn.Conv2d(3, 3, 1), scales(2, "concatenate", ramp=ramp)).eval()
    x = torch.randn(2, 3, 16, 12)
    expected = model(x)
    frozen = freeze_(copy.deepcopy(model), x)
    torch.testing.assert_close(frozen(x), expected)
    assert not any(name.endswith("stride") for name, _ in frozen.named_parameters())
    torch.testing.assert_close(torch.jit.script(frozen)(x), expected)
    torch.testing.assert_close(torch.export.export(frozen, (x,)).module()(x), expected)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf", "ignore::DeprecationWarning")
@pytest.mark.slow
def test_compiled_to_one_graph():
    torch._dynamo.reset()
    module, x = scales(2, grid="fixed"), torch.randn(2, 3, 16, 12)
    expected = module(x)
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(module, backend=counter, fullgraph=True)
    torch.testing.assert_close(compiled(x), expected)
    compiled(x).square().sum().backward()
    assert all(pool.stride.grad is not None for pool in module.pools)
    assert counter.frame_count == 1


def test_a_network_around_it_is_converted():
    model = nn.Sequential(nn.Conv2d(3, 3, 3, 2, 1), scales(2), nn.ReLU(), nn.Conv2d(4, 5, 3, 2, 1))
    x = torch.randn(2, 3, 32, 24)
    shape = model(x).shape
    plan = convert_(model, x)
    assert len(plan.replaced) == 2
    y = model(x)
    assert y.shape == shape
    y.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert len(anystride.learned_strides(model)) == 5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ParallelScales2d([nn.Identity()], (1.0, 2.0)), "one entry per branch, got 2 for 1 branches"),
        (lambda: ParallelScales2d([], ()), "one entry per branch, got 0 for 0"),
        (lambda: ParallelScales2d([nn.Identity()], (1.0,), "mean"), "combine must be one of"),
        (lambda: ParallelScales2d([nn.Identity()], (0.5,)), "stride must be a finite number of at least 1"),
        (
            lambda: ParallelScales2d([nn.Identity(), nn.Conv2d(1, 1, 3)], (1.0, 2.0))(torch.randn(1, 1, 8, 8)),
            r"branch 1 must keep the spatial size of its map, and turns \[4, 4\] into \[2, 2\]",
        ),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
