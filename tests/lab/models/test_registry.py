"""Every network of the lab, by every method: what they have in common."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from anystride import DiffStride1d, DiffStride2d, complexity, freeze_, learned_strides, macs
from anystride.lab.models.downsample import DOWNSAMPLERS, METHODS, pair
from anystride.lab.models.measure import learned, map_sizes
from anystride.lab.models.registry import ARCHITECTURES, build
from anystride.lab.models.spec import NetworkSpec

# Per network: width, input, strides to start from, all of them whole and different per place where the network allows.
CASES: dict[str, list[tuple[int, tuple[int, ...], tuple[object, ...]]]] = {
    "resnet18": [(4, (1, 32, 32), (3, 2, (1, 2))), (4, (3, 32, 32), (2, 3, 1, (2, 3)))],
    "resnet18-imagenet": [(4, (3, 96, 96), (1, 3, (2, 1), 2))],
    "resnet18-release": [(4, (3, 32, 32), ((2, 3), 3, 1, 2))],
    "densenet-bc": [(2, (3, 32, 32), ((2, 3), 1))],
    "efficientnet-b0": [(8, (3, 128, 128), (1, 2, (2, 3), 2, 1, 2, 1))],
    "audio": [(4, (1, 98, 64), ((2, 3), 2, 1, (3, 2), 1, 2)), (4, (1, 7, 40), (2, 2, 1, 2, 1, 2))],
    "series": [(4, (2, 100), (3, 2, (2, 2))), (4, (1, 37), (2, 1, 3))],
}
RUNS = [
    pytest.param(name, method, *case, id=f"{name}-{len(case[2])}-{method}-{case[1][1]}")
    for name, cases in CASES.items()
    for case in cases
    for method in ARCHITECTURES[name].methods
]
NAMES = list(ARCHITECTURES)


def network(name: str, method: str, **changes: object) -> nn.Module:
    width, shape, strides = CASES[name][0]
    torch.manual_seed(0)
    arguments = {"heads": [5, 3], "in_channels": shape[0], "width": width, "method": method, "strides": strides}
    return build(name, NetworkSpec(**{**arguments, **changes}))  # type: ignore[arg-type]


def picture(name: str, number: int = 2) -> Tensor:
    return torch.rand(number, *CASES[name][0][1], generator=torch.Generator().manual_seed(0))


def axes(name: str) -> int:
    return len(ARCHITECTURES[name].axes)


def test_every_network_has_a_case() -> None:
    assert CASES.keys() == ARCHITECTURES.keys()
    assert {count for name in CASES for _, _, strides in CASES[name] for count in [len(strides)]} == {2, 3, 4, 6, 7}


@pytest.mark.parametrize(("name", "method", "width", "shape", "strides"), RUNS)
def test_smoke(name: str, method: str, width: int, shape: tuple[int, ...], strides: tuple[object, ...]) -> None:
    torch.manual_seed(0)
    model = build(name, NetworkSpec([5, 3], shape[0], width, method, strides))  # type: ignore[arg-type]
    logits = model(torch.rand(2, *shape))
    logits.square().sum().backward()
    assert logits.shape == (2, 8)
    assert logits.isfinite().all()
    learned = [parameter for key, parameter in model.named_parameters() if key.endswith(".stride")]
    assert len(learned) == (len(strides) if DOWNSAMPLERS[method].learns else 0)
    assert all(stride.grad is not None and stride.grad.isfinite().all() for stride in learned)
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(("name", "method", "width", "shape", "strides"), RUNS)
def test_learned_strides_come_in_the_order_of_the_strides(
    name: str, method: str, width: int, shape: tuple[int, ...], strides: tuple[object, ...]
) -> None:
    model = build(name, NetworkSpec([5], shape[0], width, method, strides))  # type: ignore[arg-type]
    found = [tuple(stride.tolist()) for stride in learned(model).values()]
    expected = [pair(stride)[: axes(name)] for stride in strides]  # type: ignore[arg-type]
    assert found == (expected if DOWNSAMPLERS[method].learns else [])


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_reaches_the_strides(name: str) -> None:
    model = network(name, "inner", strides=(2,) * ARCHITECTURES[name].strides[0])
    model(picture(name)).square().sum().backward()
    first = next(parameter for key, parameter in model.named_parameters() if key.endswith(".stride"))
    assert first.grad is not None
    assert first.grad.abs().min() > 0
    # Eq. 6 counts each downsampler once, in its order. A map of one sample has no stride: hence the tolerance.
    expected = sum((2.0 ** axes(name)) ** -depth for depth in range(1, len(learned_strides(model)) + 1))
    assert complexity(model).item() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_methods_differ_by_their_pools_only(name: str) -> None:
    def weights(method: str) -> dict[str, Tensor]:
        state = network(name, method).state_dict()
        return {key: value for key, value in state.items() if not key.endswith("pool.stride")}

    reference, *others = (weights(method) for method in ARCHITECTURES[name].methods)
    for mine in others:
        assert mine.keys() == reference.keys()
        assert all(torch.equal(mine[key], reference[key]) for key in reference)


@pytest.mark.parametrize("method", METHODS)
def test_a_first_identity_block_adds_no_weights(method: str) -> None:
    def names(strides: tuple[int, ...]) -> set[str]:
        return {key for key in network("resnet18", method, strides=strides).state_dict() if "pool" not in key}

    assert names((2, 2, 2)) == names((1, 2, 2, 2)) == names((3, 2, 2, 2))


@pytest.mark.parametrize("method", ["outer", "inner"])
def test_a_stride_of_one_learns_and_leaves_the_map(method: str) -> None:
    model = network("resnet18", method, strides=(1, 2, 2, 2))
    model(picture("resnet18")).square().sum().backward()
    gradient = model.stages[0][0].pool.stride.grad  # type: ignore[union-attr, index]
    assert gradient.abs().min() > 0
    assert map_sizes(model, picture("resnet18", 1))[0] == [32, 32]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "method", "sizes"),
    [
        ("resnet18-imagenet", "strided", [[24, 24], [8, 8], [4, 8], [2, 4]]),
        ("resnet18-imagenet", "spectral", [[24, 24], [8, 8], [4, 8], [2, 4]]),
        ("resnet18-release", "strided", [[16, 11], [6, 4], [6, 4], [3, 2]]),
        ("resnet18-release", "inner", [[16, 11], [6, 4], [6, 4], [3, 2]]),
        ("densenet-bc", "average", [[32, 32], [16, 10], [16, 10]]),
        ("densenet-bc", "inner", [[32, 32], [16, 11], [16, 11]]),
        ("efficientnet-b0", "strided", [[64, 64], [32, 32], [16, 11], [8, 6], [8, 6], [4, 3], [4, 3]]),
        ("efficientnet-b0", "inner", [[64, 64], [32, 32], [16, 11], [8, 6], [8, 6], [4, 3], [4, 3]]),
        ("audio", "strided", [[49, 22], [25, 11], [25, 11], [9, 6], [9, 6], [5, 3]]),
        ("audio", "spectral", [[49, 21], [24, 10], [24, 10], [8, 5], [8, 5], [4, 2]]),
        ("audio", "inner", [[49, 22], [25, 11], [25, 11], [9, 6], [9, 6], [5, 3]]),
        ("series", "strided", [[100], [34], [17], [9]]),
        ("series", "spectral", [[100], [33], [16], [8]]),
        ("series", "outer", [[100], [41], [28], [22]]),
        ("series", "inner", [[100], [34], [17], [9]]),
        ("series", "average", [[100], [33], [16], [8]]),
    ],
)
def test_map_sizes(name: str, method: str, sizes: list[list[int]]) -> None:
    assert map_sizes(network(name, method), picture(name, 1)) == sizes  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
def test_a_shared_stride_has_one_value(name: str) -> None:
    count = ARCHITECTURES[name].strides[0]
    model = network(name, "outer", strides=(2.5,) * count, shared=True)
    assert [stride.tolist() for stride in learned_strides(model).values()] == [[2.5]] * count


@pytest.mark.parametrize("name", NAMES)
def test_smoothness_reaches_every_layer(name: str) -> None:
    model = network(name, "outer", smoothness=2.0)
    pools = [module for module in model.modules() if hasattr(module, "effective_stride")]
    assert {module.smoothness for module in pools} == {(2.0,) * axes(name)}


@pytest.mark.parametrize("name", NAMES)
def test_heads_lie_side_by_side(name: str) -> None:
    model = network(name, "spectral").eval()
    images, features = picture(name), []
    model.classify.register_forward_hook(lambda _module, inputs, _output: features.append(inputs[0]))  # type: ignore[union-attr]
    logits = model(images)
    first, second = model.classify.tasks  # type: ignore[union-attr, misc]
    torch.testing.assert_close(logits, torch.cat([first(features[0]), second(features[0])], dim=1))
    assert isinstance(network(name, "spectral", heads=[5]).classify, nn.Linear)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_counted_and_frozen(name: str) -> None:
    model, images = network(name, "inner").eval(), picture(name)
    assert macs(model, images).item() > 0
    before = model(images)
    torch.testing.assert_close(freeze_(model, images)(images), before, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("frames", [1, 3, 49, 98, 101])
@pytest.mark.parametrize("method", METHODS)
def test_sound_of_any_length(method: str, frames: int) -> None:
    model = network("audio", method, strides=(2, 2, 1, 2, 1, 2)).eval()
    assert model(torch.rand(1, 1, frames, 64)).isfinite().all()


@pytest.mark.parametrize("length", [1, 5, 100, 1001])
@pytest.mark.parametrize("method", METHODS)
def test_series_of_any_length(method: str, length: int) -> None:
    model = network("series", method).eval()
    assert model(torch.rand(1, 2, length)).isfinite().all()


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("resnet50", {}, "model must be one of resnet18, resnet18-imagenet, .*, audio, series, got 'resnet50'"),
        (
            "resnet18",
            {"method": "average"},
            "method must be one of strided, spectral, outer, inner, cosine, got 'average'",
        ),
        ("densenet-bc", {"method": "strided"}, "must be one of average, spectral, outer, inner, cosine, got 'strided'"),
        ("audio", {"method": "max"}, "method must be one of .*, got 'max'"),
        ("resnet18", {"strides": (2, 2)}, "strides must have 3 entries .* or 4 entries .*, got 2"),
        ("resnet18-imagenet", {"strides": (2, 2, 2)}, "4 entries .the first block, then .*, got 3"),
        ("resnet18-release", {"strides": (1, 1, 2, 2, 2)}, "4 entries .the stem, then those that .*, got 5"),
        ("densenet-bc", {"strides": (2, 2, 2)}, "2 entries .one per transition.*, got 3"),
        ("efficientnet-b0", {"strides": (2, 2, 2)}, "7 entries .one per stage.*, got 3"),
        ("audio", {"strides": (2, 2, 2)}, "6 entries .one per block.*, got 3"),
        ("audio", {"method": "strided", "strides": (2, 2, 1, (2, 1.5), 1, 2)}, "strided convolution must be whole"),
        ("densenet-bc", {"method": "average", "strides": (2.5, 2)}, "average pooling must be whole numbers, got .2.5"),
        ("efficientnet-b0", {"strides": (1, 2, 0.5, 2, 1, 2, 1)}, "at least 1, got 0.5"),
        ("audio", {"strides": ((2, 1), 2, 1, 2, 1, 2), "shared": True}, "equal along both axes"),
        ("series", {"strides": (2, 2)}, "3 entries .one for each block.*, got 2"),
        ("series", {"strides": (2, (3, 2), 2)}, "--strides of the model 'series' must be single numbers, .*, got 3x2"),
        ("series", {"method": "average", "strides": (2.5, 2, 2)}, "average pooling must be whole numbers, got .2.5"),
        ("densenet-bc", {"width": 0}, "width must be at least 1, got 0"),
        ("audio", {"heads": []}, "heads must give at least one class for each task, got .."),
        ("audio", {"heads": [3, 0]}, "at least one class for each task, got .3, 0."),
    ],
)
def test_exceptions(name: str, changes: dict[str, object], message: str) -> None:
    arguments = {"heads": [5], "in_channels": 3, "width": 4, "method": "inner", "strides": (2, 2, 2), **changes}
    if "strides" not in changes and name in CASES:
        arguments["strides"] = CASES[name][0][2]
    with pytest.raises(ValueError, match=message):
        build(name, NetworkSpec(**arguments))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
def test_the_grid_reaches_every_learned_layer(name: str) -> None:
    model = network(name, "inner", grid=4)
    pools = [module for module in model.modules() if isinstance(module, DiffStride1d | DiffStride2d)]
    assert [pool.grid for pool in pools] == [4] * len(CASES[name][0][2])
