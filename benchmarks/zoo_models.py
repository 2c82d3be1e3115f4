"""The networks that benchmarks/zoo.py converts, and how each is built: random weights, nothing is downloaded."""

import ast
import importlib
from typing import Any

from torch import nn

# The smallest network of each module of timm, by parameters; test networks are left out.
TIMM = """
beit_base_patch16_224 eca_botnext26ts_256 mobileone_s1 cait_xxs24_224 coat_tiny convit_tiny convmixer_768_32
convnext_atto_rms cpubone_nano crossvit_tiny_240 csatv2 cs3darknet_focus_s cspnext_tiny davit_tiny deepseek_vit_412m
deit_tiny_patch16_224 densenet121 dla46x_c dpn48b edgenext_xx_small efficientformer_l1 efficientformerv2_s0
mobilenetv2_035 efficientvim_m1 efficientvit_b0 efficientvit_m0 vit_tiny_patch16_dinov3_qkvb fasternet_t0 fastvit_t8
focalnet_tiny_srf gcvit_xxtiny gemma4_vit_167m ghostnet_050 hardcorenas_b hgnetv2_b0 hiera_tiny_224 sam2_hiera_tiny
hrnet_w18_small iformer_t inception_next_atto inception_resnet_v2 inception_v3 inception_v4 lcnetv2_small levit_128s
lowformer_b0 mambaout_femto maxvit_pico_rw_256 caformer_s18 gmlp_ti16_224 mobilenetv3_small_050 mobilenetv5_base
mobilevit_xxs mvitv2_tiny naflexvit_base_patch16_parfac_gap nasnetalarge nest_tiny nextvit_small nf_regnet_b0
pit_ti_224 pnasnet5large pvt_v2_b0 qwen3_vit_88m rdnet_tiny regnetx_002 repghostnet_050 repvit_m1 res2next50
resnest14d resnet10t resnetv2_18 rexnet_100 selecsls42 legacy_seresnet18 sequencer2d_s shvit_s1 skresnet18
starnet_s050 swiftformer_xs swin_tiny_patch4_window7_224 swinv2_tiny_window8_256 swinv2_cr_tiny_224 tiny_vit_5m_224
tnt_s_legacy_patch16_224 tresnet_m twins_svt_small vgg11 visformer_tiny vit_tiny_patch16_224 vit_tiny_r_s16_p8_224
vit_srelpos_small_patch16_224 samvit_base_patch16_224 vitamin_small_224 volo_d1_224 ese_vovnet19b_slim_dw
legacy_xception xception41p xcit_nano_12_p8_224
"""
# Large inputs or many weights: these come last.
SLOW = "deepseek gemma4 qwen3 naflexvit samvit"
# Networks of the same modules whose downsampling is another one: deep stems and average pooling in the shortcut, blur
# pooling, padding by TensorFlow's rule, space to depth, several branches. After a comma: an option of timm.
VARIANTS = """
swin_tiny_patch4_window7_224,strict_img_size=False swinv2_tiny_window8_256,strict_img_size=False
swinv2_cr_tiny_224,strict_img_size=False resnet18d seresnet50 ecaresnet26t resnetblur50 resnetaa50 tf_efficientnet_b0
tf_efficientnet_lite0 tf_efficientnet_es tf_mixnet_s efficientnet_b0 efficientnet_blur_b0 mobilenetv3_small_100
tf_mobilenetv3_small_075 mobilenetv4_conv_small mobilenetv4_conv_blur_medium tinynet_e densenetblur121d resnetv2_50d
resnest26d regnetz_b16 regnety_002 repvgg_a0 gernet_s halonet26t lambda_resnet26t coatnet_nano_rw_224 convnextv2_atto
dm_nfnet_f0 ese_vovnet19b_dw ghostnetv2_100 hgnet_tiny coat_lite_tiny poolformer_s12 cs3darknet_s cspresnet50
"""
TORCHVISION = """
alexnet convnext_tiny densenet121 efficientnet_b0 efficientnet_v2_s googlenet inception_v3 maxvit_t mnasnet0_5
mobilenet_v2 mobilenet_v3_small regnet_y_400mf resnet18 resnext50_32x4d shufflenet_v2_x0_5 squeezenet1_1 swin_t vgg11
vit_b_16 segmentation.fcn_resnet50 segmentation.deeplabv3_mobilenet_v3_large segmentation.lraspp_mobilenet_v3_large
video.r3d_18 video.r2plus1d_18
"""
SMP = "Unet UnetPlusPlus MAnet Linknet FPN PSPNet PAN DeepLabV3 DeepLabV3Plus UPerNet"
_FLAT = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2}
_DYN = {"kernel_size": [3, 3, 3], "strides": [1, 2, 2], "upsample_kernel_size": [2, 2], "filters": [8, 16, 32]}
MONAI: dict[str, dict[str, Any]] = {
    "UNet": {**_FLAT, "channels": (8, 16, 32, 64), "strides": (2, 2, 2), "num_res_units": 2},
    "BasicUNet": {**_FLAT, "features": (8, 8, 16, 32, 64, 8)},
    "BasicUNetPlusPlus": {**_FLAT, "features": (8, 8, 16, 32, 64, 8)},
    "AttentionUnet": {**_FLAT, "channels": (8, 16, 32), "strides": (2, 2)},
    "DynUNet": {**_FLAT, **_DYN},
    "SegResNet": {**_FLAT, "init_filters": 8},
    "VNet": {},
    "DenseNet121": _FLAT,
    "resnet10": {"spatial_dims": 3, "n_input_channels": 1, "num_classes": 2},
    "SEResNet50": {"spatial_dims": 3, "in_channels": 1, "num_classes": 2},
    "EfficientNetBN": {"model_name": "efficientnet-b0", "pretrained": False, "spatial_dims": 3, "in_channels": 1},
}
DEEP = ("DenseNet121", "SEResNet50", "EfficientNetBN")  # on smaller maps, nothing but their mean would be left


def listed() -> dict[str, bool]:
    """Names of all rows, most of them "source:network", and whether each is the one that its family counts by."""
    rows = {f"timm:{name}": True for name in TIMM.split()}
    rows |= {f"smp:{name}": True for name in SMP.split()} | {f"monai:{name}": True for name in MONAI}
    rows |= {f"torchvision:{name}": True for name in TORCHVISION.split()}
    rows |= {f"timm:{name}": False for name in VARIANTS.split() if f"timm:{name}" not in rows}
    return dict(sorted(rows.items(), key=lambda item: any(name in item[0] for name in SLOW.split())))


def build(row: str) -> tuple[nn.Module, list[tuple[int, ...]]]:
    """The network with random weights, and the input sizes to try, the preferred one first."""
    source, name = row.split(":")
    if source == "timm":
        name, *options = name.split(",")
        values = {key: ast.literal_eval(value) for key, value in (option.split("=") for option in options)}
        model = importlib.import_module("timm").create_model(name, pretrained=False, **values)
        size = tuple(model.default_cfg["input_size"])
        if model.default_cfg.get("fixed_input_size") or size[1] <= 160:
            return model, [size]
        return model, [(3, 160, 160), (3, 224, 224), (3, 256, 256), size]
    if source == "torchvision":
        models = importlib.import_module("torchvision.models")
        arguments: dict[str, Any] = {"weights": None}
        if name.startswith("segmentation."):
            arguments["weights_backbone"] = None
        if name in ("googlenet", "inception_v3"):
            arguments["init_weights"] = False
        sizes: list[tuple[int, ...]] = [(3, 160, 160), (3, 224, 224), (3, 299, 299)]
        return models.get_model(name.split(".")[-1], **arguments), [(3, 8, 64, 64)] if "video" in name else sizes
    if source == "smp":
        smp = importlib.import_module("segmentation_models_pytorch")
        return getattr(smp, name)("resnet18", encoder_weights=None), [(3, 128, 128)]
    nets = importlib.import_module("monai.networks.nets")
    return getattr(nets, name)(**MONAI[name]), [(1, 64, 64, 64) if name in DEEP else (1, 32, 32, 32)]


def family_of(row: str) -> str:
    """The module that defines the network."""
    source, name = row.split(":")
    if source != "timm":
        return name
    return str(importlib.import_module("timm").model_entrypoint(name.split(",")[0]).__module__).rpartition(".")[2]
