"""The ResNet-18: four methods, one argument, one set of weights."""

import pytest
import torch
from torch import nn

from anystride.lab.models.downsample import METHODS
from anystride.lab.models.measure import map_sizes, multiply_accumulates
from anystride.lab.models.resnet import Block, resnet18
from anystride.lab.models.spec import NetworkSpec

IMAGES = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))


def small(method: str, **options: object) -> nn.Module:
    torch.manual_seed(0)
    return resnet18(NetworkSpec(10, in_channels=1, width=2, method=method, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize("method", METHODS)
def test_smoke(method: str) -> None:
    logits = small(method, strides=(3, 2, 3))(IMAGES)
    logits.sum().backward()
    assert logits.shape == (2, 10)
    assert logits.isfinite().all()


@pytest.mark.parametrize("method", METHODS)
def test_methods_differ_by_their_pools_only(method: str) -> None:
    def weights(name: str) -> dict[str, torch.Tensor]:
        return {key: value for key, value in small(name).state_dict().items() if not key.endswith("pool.stride")}

    mine, reference = weights(method), weights("strided")
    assert mine.keys() == reference.keys()
    assert all(torch.equal(mine[name], reference[name]) for name in reference)


def test_it_is_a_resnet18_of_the_usual_size() -> None:
    model = resnet18(NetworkSpec(100, method="strided"))
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 17 + 3  # 18 layers with weights less the linear one, and three projections
    assert sum(parameter.numel() for parameter in model.parameters()) == 11_220_132
    assert multiply_accumulates(model, torch.zeros(1, 3, 32, 32)) == pytest.approx(0.56e9, rel=0.01)  # operator.md


@pytest.mark.parametrize(
    ("method", "strides", "sizes"),
    [
        ("strided", (2, 2, 2), [32, 16, 8, 4]),
        ("spectral", (2, 2, 2), [32, 16, 8, 4]),
        ("outer", (2, 2, 2), [32, 24, 20, 18]),
        ("inner", (2, 2, 2), [32, 16, 8, 4]),
        ("strided", (3, 2, 3), [32, 11, 6, 2]),
        ("spectral", (3, 2, 3), [32, 10, 5, 1]),
        ("inner", (3, 2, 3), [32, 11, 6, 2]),
        ("strided", (1, 3, 1), [32, 32, 11, 11]),
    ],
)
def test_map_sizes(method: str, strides: tuple[int, ...], sizes: list[int]) -> None:
    assert map_sizes(small(method, strides=strides), IMAGES[:1]) == [[size, size] for size in sizes]  # type: ignore[arg-type]


def test_strides_may_differ_per_axis_and_be_fractional() -> None:
    sizes = map_sizes(small("inner", strides=((2.5, 1.6), 2, 2)), IMAGES[:1])  # type: ignore[arg-type]
    assert sizes[1] == [13, 20]


@pytest.mark.parametrize("method", ["spectral", "outer", "inner"])
def test_pooling_before_the_projection_is_the_same_function(method: str) -> None:
    torch.manual_seed(0)
    block = Block(3, 6, (2.3, 1.7), NetworkSpec(10, method=method))
    x = torch.randn(2, 3, 17, 20)
    project = block.project[0]  # type: ignore[index]
    torch.testing.assert_close(project(block.pool(x)), block.pool(project(x)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", ["outer", "inner"])
def test_both_branches_share_one_pool(method: str) -> None:
    model = small(method)
    strides = [name for name, _ in model.named_parameters() if name.endswith("stride")]
    assert strides == [f"stages.{stage}.0.pool.stride" for stage in (1, 2, 3)]
    calls = []
    pool = model.shortcut_blocks[0].pool  # type: ignore[union-attr, index]
    pool.register_forward_hook(lambda *_: calls.append(1))
    model(IMAGES)
    assert len(calls) == 2


def test_a_shared_stride_has_one_value() -> None:
    assert small("outer", shared=True).shortcut_blocks[0].pool.stride.shape == (1,)  # type: ignore[union-attr, index]


def test_width_scales_the_channels() -> None:
    assert resnet18(NetworkSpec(10, width=6)).classify.in_features == 48


def test_a_measurement_leaves_the_training_mode_alone() -> None:
    model = small("outer").train()
    before = model.stem[1].running_mean.clone()  # type: ignore[union-attr, index]
    multiply_accumulates(model, IMAGES[:1])  # type: ignore[arg-type]
    map_sizes(model, IMAGES[:1])  # type: ignore[arg-type]
    assert all(module.training for module in model.modules())
    assert torch.equal(before, model.stem[1].running_mean)  # type: ignore[union-attr, index]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "average"}, "method must be one of strided, spectral, outer, inner, cosine, got 'average'"),
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"strides": (2, 2)}, "strides must have 3 entries"),
        ({"strides": (2, 0.5, 2)}, "at least 1, got 0.5"),
        ({"strides": (2, float("nan"), 2)}, "finite number"),
        ({"strides": (2, (1, 2, 3), 2)}, "one number or a .* pair"),
        ({"strides": (2, 2.5, 2), "method": "strided"}, "must be whole numbers, got .2.5, 2.5"),
        ({"strides": ((2, 3), 2, 2), "shared": True}, "equal along both axes"),
    ],
)
def test_exceptions(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resnet18(NetworkSpec(10, **options))  # type: ignore[arg-type]
