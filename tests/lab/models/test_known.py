"""The networks against what is known about them: other implementations, published sizes, the paper's words."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from anystride import DiffStride2d, SpectralPool2d
from anystride.lab.models import registry
from anystride.lab.models.audio import AudioBlock, audio
from anystride.lab.models.densenet import LAYERS, DenseNet, densenet_bc
from anystride.lab.models.downsample import conv_stride_and_pool, pair, whole
from anystride.lab.models.efficientnet import efficientnet_b0
from anystride.lab.models.measure import COUNTER, multiply_accumulates
from anystride.lab.models.preact import PreActBlock, resnet18_release
from anystride.lab.models.resnet import resnet18_imagenet
from anystride.lab.models.spec import NetworkSpec

torchvision_models = pytest.importorskip("torchvision.models")


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def images(size: int) -> Tensor:
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_resnet18_for_imagenet_is_the_usual_one() -> None:
    theirs, mine = torchvision_models.resnet18().eval(), resnet18_imagenet(NetworkSpec(1000, method="strided")).eval()
    names = {"downsample": "project", "bn": "norm", "fc": "classify"}
    names |= {f"layer{number}": f"stages.{number - 1}" for number in range(1, 5)}
    renamed = {}
    for name, value in theirs.state_dict().items():
        if name.startswith(("conv1", "bn1")):
            name = name.replace("conv1", "stem.0").replace("bn1", "stem.1")
        for old, new in names.items():
            name = name.replace(old, new)
        renamed[name] = value
    mine.load_state_dict(renamed)
    torch.testing.assert_close(mine(images(64)), theirs(images(64)))


def test_efficientnet_b0_is_torchvisions() -> None:
    theirs = torchvision_models.efficientnet_b0().eval()
    mine = efficientnet_b0(NetworkSpec(1000, method="strided")).eval()
    assert parameters(mine) == 5_288_548
    mine.load_state_dict(dict(zip(mine.state_dict(), theirs.state_dict().values(), strict=True)))
    torch.testing.assert_close(mine(images(64)), theirs(images(64)))


@pytest.mark.parametrize("width", [8, 16, 24, 48])
def test_no_first_block_of_an_efficientnet_has_a_skip(width: int) -> None:
    model = efficientnet_b0(NetworkSpec(2, width=width, method="strided", strides=(2, 2, 2, 2, 2, 2, 2)))
    assert not any(stage[0].use_res_connect for stage in model.stages)  # type: ignore[union-attr, index]
    assert model(images(128)).shape == (2, 2)


def test_densenet_bc_has_the_size_of_the_original() -> None:
    # Huang et al. (2017), Table 2: DenseNet-BC with L = 100 and k = 12 has 0.8 M parameters.
    assert parameters(DenseNet(NetworkSpec(10, width=12, method="average"), [(2.0, 2.0)] * 2, layers=16)) == 769_162


def test_densenet_bc_has_three_blocks_of_19_layers() -> None:
    model = densenet_bc(NetworkSpec(10, width=32))
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert LAYERS == 19  # what (121 - 4) / 6 is rounded down to
    assert len(convolutions) == 1 + 3 * 2 * 19 + 2
    assert parameters(densenet_bc(NetworkSpec(10, width=32, method="average"))) == 7_093_050
    assert [stage[0].conv.out_channels for stage in list(model.stages)[1:]] == [336, 472]  # type: ignore[union-attr, index]


def test_the_release_weighs_its_skips_as_unscaled_transforms_do() -> None:
    model = resnet18_release(NetworkSpec(10, width=4, strides=(2, 2, 2, 2)))
    pools = [module for module in model.modules() if isinstance(module, DiffStride2d)]
    assert [pool.norm for pool in pools] == ["backward"] * 4
    fixed = resnet18_release(NetworkSpec(10, width=4, method="spectral")).stem.get_submodule("pool")
    assert isinstance(fixed, SpectralPool2d)
    assert fixed.norm == "backward"


def test_the_release_is_a_preactivation_resnet18_of_the_usual_size() -> None:
    # 11,171,146 is what pre-activation ResNets for CIFAR without a last norm have; 1,024 is that norm.
    assert parameters(resnet18_release(NetworkSpec(10, method="strided"))) == 11_171_146 + 1_024


@pytest.mark.parametrize("method", ["spectral", "outer", "inner"])
def test_pooling_before_the_releases_projection_is_the_same_function(method: str) -> None:
    torch.manual_seed(0)
    block = PreActBlock(3, 6, (2.3, 1.7), NetworkSpec(10, method=method, norm="backward"))
    x = torch.randn(2, 3, 17, 20)
    torch.testing.assert_close(block.project(block.pool(x)), block.pool(block.project(x)), rtol=1e-5, atol=1e-5)


def test_a_strided_identity_block_skips_every_other_sample() -> None:
    model = resnet18_imagenet(NetworkSpec(10, width=4, method="strided", strides=((3, 2), 2, 2, 2)))
    x = torch.rand(1, 4, 9, 8)
    assert torch.equal(model.shortcut_blocks[0].project(x), x[:, :, ::3, ::2])


def test_audio_block_strides_each_convolution_along_its_own_axis() -> None:
    block = AudioBlock(1, 2, (3, 2), NetworkSpec(10, method="strided"))
    assert (block.conv_time.kernel_size, block.conv_time.stride) == ((3, 1), (3, 1))
    assert (block.conv_frequency.kernel_size, block.conv_frequency.stride) == ((1, 3), (1, 2))
    assert isinstance(block.pool, nn.Identity)


def test_audio_block_norms_after_relu_and_pools_before() -> None:
    block, order = AudioBlock(1, 2, (2, 2), NetworkSpec(10, method="inner")), []
    for name, module in block.named_children():
        module.register_forward_hook(
            lambda _m, inputs, _o, name=name: order.append((name, bool((inputs[0] >= 0).all())))
        )
    block(torch.randn(1, 1, 12, 12))
    assert [name for name, _ in order] == ["conv_time", "norm_time", "conv_frequency", "pool", "norm_frequency"]
    assert [positive for name, positive in order if name.startswith("norm")] == [True, True]
    assert dict(order)["pool"] is False


def test_audio_has_the_papers_channels() -> None:
    stages = audio(NetworkSpec(35, in_channels=1)).stages
    channels = [block.conv_time.out_channels for block in stages]  # type: ignore[union-attr]
    assert channels == [64, 128, 256, 256, 512, 512]
    assert parameters(audio(NetworkSpec(35, in_channels=1, method="strided"))) == 3_555_171


def test_one_of_convolution_and_pool_downsamples() -> None:
    stride, pool = conv_stride_and_pool(NetworkSpec(10, method="strided"), (2.0, 3.0))
    assert (stride, type(pool)) == ((2, 3), nn.Identity)
    stride, pool = conv_stride_and_pool(NetworkSpec(10, method="average"), (2.0, 3.0))
    assert stride == (1, 1)
    assert pool(torch.rand(1, 1, 7, 9)).shape == (1, 1, 3, 3)


def test_pairs_and_whole_numbers() -> None:
    assert pair(2) == pair((2, 2)) == pair([2.0, 2.0]) == (2.0, 2.0)
    assert whole((2.0, 3.0)) == (2, 3)
    with pytest.raises(ValueError, match=r"whole numbers here, got .2\.5, 2"):
        whole((2.5, 2.0))


COUNTED = {
    ("strided", (2.0, 2.0, 2.0)): 8_872_576,
    ("spectral", (2.0, 2.0, 2.0)): 11_473_536,
    ("outer", (2.3, 1.7, 2.0)): 67_024_320,
    ("inner", (2.3, 1.7, 2.0)): 12_359_072,
    ("cosine", (2.0, 2.0, 2.0)): 9_385_632,
    ("cosine", (2.3, 1.7, 2.0)): 12_845_920,
}


@pytest.mark.parametrize("case", COUNTED, ids=str)
def test_the_counter_counts_as_its_version_says(case):
    """Where this fails on purpose, raise `measure.COUNTER`: pages then count older records anew."""
    method, strides = case
    model = registry.build("resnet18", NetworkSpec(10, width=8, method=method, strides=strides))
    assert COUNTER == 2
    assert multiply_accumulates(model, torch.empty(1, 3, 32, 32)) == COUNTED[case]
