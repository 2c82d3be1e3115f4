"""`convert_` on public network definitions, a sample of what benchmarks/zoo.py runs: random weights, small maps."""

import pytest
import torch
from torch.utils._pytree import tree_leaves

from anystride.convert import convert_
from anystride.layers import DiffStrideNd

# Deprecations inside the libraries that define the networks.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

# Network, side of its input, and the strides that it must have at least.
TIMM = [
    ("resnet10t", 64, 4),
    ("resnet18d", 64, 4),
    ("resnetblur18", 64, 4),
    ("skresnet18", 64, 4),
    ("resnest14d", 64, 4),
    ("res2net50_14w_8s", 64, 4),
    ("hrnet_w18_small", 64, 4),
    ("densenet121", 64, 4),
    ("dla46_c", 64, 4),
    ("ese_vovnet19b_slim_dw", 64, 4),
    ("inception_next_atto", 64, 4),
    ("tf_efficientnet_b0", 64, 4),
    ("mobilenetv3_small_050", 64, 4),
    ("convnext_atto", 64, 4),
    ("regnetx_002", 64, 4),
    ("repvgg_a0", 64, 4),
    ("ghostnet_050", 64, 4),
    ("cs3darknet_s", 64, 4),
    ("selecsls42", 96, 4),
    ("pvt_v2_b0", 64, 4),
    ("poolformer_s12", 64, 4),
    ("mobilevit_xxs", 64, 4),
    ("edgenext_xx_small", 64, 4),
    ("starnet_s050", 64, 4),
]
SHALLOW = ("res2net50_14w_8s",)  # one block per stage, to save time


def loss(model, x):
    tensors = [t for t in tree_leaves(model(x)) if isinstance(t, torch.Tensor)]
    assert tensors
    return torch.stack([t.square().mean() for t in tensors]).sum()


def exercise(model, x, larger, strides):
    """Convert; then train at the strides that it had and at others, there also on maps of another size."""
    with torch.no_grad():
        before = model.eval()(x).shape
        converted = convert_(model, x)
        assert model(x).shape == before
    pools = [module for module in model.modules() if isinstance(module, DiffStrideNd)]
    assert len(pools) >= strides, converted
    model.train()
    for number, example in enumerate((x, x, larger)):
        if example is None:
            continue
        model.zero_grad()
        loss(model, example).backward()
        for name, parameter in model.named_parameters():
            if name.endswith("pool.stride"):
                assert parameter.grad is not None, name
                assert parameter.grad.isfinite().all(), name
                assert parameter.grad.any(), f"{name} in pass {number}"
        with torch.no_grad():
            for pool in pools:
                pool.stride.mul_(torch.empty_like(pool.stride).uniform_(0.75, 1.15))
    assert not convert_(model, x).replaced


@pytest.mark.parametrize(("name", "side", "strides"), TIMM, ids=[name for name, *_ in TIMM])
def test_timm(name, side, strides):
    timm = pytest.importorskip("timm")
    shallow = {"layers": (1, 1, 1, 1)} if name in SHALLOW else {}
    model = timm.create_model(name, num_classes=5, **shallow)
    larger = None if model.default_cfg.get("fixed_input_size") else torch.randn(2, 3, side + 32, side)
    exercise(model, torch.randn(2, 3, side, side), larger, strides)


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "squeezenet1_1"])
def test_torchvision(name):
    models = pytest.importorskip("torchvision.models")
    model = models.get_model(name, weights=None, num_classes=5)
    exercise(model, torch.randn(2, 3, 64, 64), torch.randn(2, 3, 96, 64), 3)


@pytest.mark.parametrize("name", ["Unet", "FPN"])
def test_segmentation(name):
    smp = pytest.importorskip("segmentation_models_pytorch")
    model = getattr(smp, name)("resnet18", encoder_weights=None)
    exercise(model, torch.randn(2, 3, 64, 64), torch.randn(2, 3, 96, 64), 4)


def test_monai_in_three_dimensions():
    nets = pytest.importorskip("monai.networks.nets")
    model = nets.UNet(spatial_dims=3, in_channels=1, out_channels=2, channels=(4, 8, 16), strides=(2, 2))
    exercise(model, torch.randn(2, 1, 16, 16, 16), torch.randn(2, 1, 20, 16, 24), 2)
