"""Rows of benchmarks/field.py: segmentation_models_pytorch, MONAI, nnU-Net, diffusers."""

from typing import Any

import torch

from examine import Network
from field_entries import CUBE, LARGE, SQUARE, Example, made, named, noise, several, table

FLAT: dict[str, Any] = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2}
LEVELS: dict[str, Any] = {"n_stages": 3, "features_per_stage": (8, 16, 32), "kernel_sizes": 3, "strides": (1, 2, 2),
                          "num_classes": 2, "n_conv_per_stage_decoder": 1, "conv_bias": True}  # fmt: skip
LATENT: dict[str, Any] = {"block_out_channels": (8, 16), "norm_num_groups": 4}
ENCODER: dict[str, Any] = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
STAGES: dict[str, Any] = {"down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "layers_per_block": 1}
DENOISER: dict[str, Any] = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
                            "up_block_types": ("AttnUpBlock2D", "UpBlock2D"), "layers_per_block": 1}  # fmt: skip


def smp(name: str, encoder: str = "mobilenet_v2", **kwargs: Any) -> Network:
    build = made("segmentation_models_pytorch", name, encoder, encoder_weights=None, **kwargs)
    return Network(f"smp:{name} {encoder}", "segmentation_models_pytorch", build, noise(LARGE))


def monai(name: str, sizes: Any = CUBE, **kwargs: Any) -> Network:
    return Network(f"monai:{name}", "MONAI", made("monai.networks.nets", name, **kwargs), noise(sizes))


def nnunet(name: str, dimensions: int, **kwargs: Any) -> Network:
    operation = f"Conv{dimensions}d"
    sizes = [(1, *size[4 - dimensions :]) for size in ((1, 32, 32, 32), (1, 32, 48, 32))]

    def build() -> torch.nn.Module:
        norm = getattr(torch.nn, f"InstanceNorm{dimensions}d")
        options = {**LEVELS, "input_channels": 1, "conv_op": getattr(torch.nn, operation), "norm_op": norm,
                   "norm_op_kwargs": {"affine": True}, "nonlin": torch.nn.LeakyReLU,
                   "nonlin_kwargs": {"inplace": True}, **kwargs}  # fmt: skip
        return made("dynamic_network_architectures.architectures.unet", name, **options)()

    return Network(f"nnunet:{name} {dimensions}d", "dynamic_network_architectures", build, noise(sizes))


def diffusers(name: str, example: Example, watch: tuple[str, ...] = (), **kwargs: Any) -> Network:
    return Network(f"diffusers:{name}", "diffusers", made("diffusers", name, **kwargs), example, watch=watch)


def denoising(channels: int = 3, frames: tuple[int, ...] = (), **more: Any) -> Example:
    """Noisy images and the time step; text where asked for."""
    sizes = [(channels, *frames, 32, 32), (channels, *frames, 48, 32)]
    return named(sample=noise(sizes), timestep=3, **more)


TEXT = noise([(7, 16), (7, 16)])
DENSE_ROWS = table(
    smp("Unet"),
    smp("UnetPlusPlus", decoder_channels=(32, 16, 16, 8, 8)),
    smp("MAnet"),
    smp("Linknet", "resnet18"),
    smp("FPN"),
    smp("PSPNet"),
    smp("PAN"),
    smp("DeepLabV3Plus"),
    smp("UPerNet"),
    smp("Segformer"),
    smp("Segformer", "mit_b0"),
    smp("Unet", "timm-efficientnet-b0"),
    monai("UNet", channels=(8, 16, 32), strides=(2, 2), num_res_units=1, **FLAT),
    monai("RegUNet", spatial_dims=3, in_channels=1, out_channels=3, num_channel_initial=4, depth=2),
    monai("BasicUNet", features=(8, 8, 16, 16, 16, 8), **FLAT),
    monai("SegResNet", init_filters=8, **FLAT),
    monai("SegResNetDS", spatial_dims=3, in_channels=1, out_channels=2, init_filters=8, blocks_down=(1, 1, 1)),
    monai("DynUNet", kernel_size=[3, 3, 3], strides=[1, 2, 2], upsample_kernel_size=[2, 2], filters=[8, 16, 16],
          deep_supervision=True, deep_supr_num=1, res_block=True, **FLAT),
    monai("AttentionUnet", channels=(8, 16, 16), strides=(2, 2), **FLAT),
    monai("UNETR", img_size=(32, 32, 32), feature_size=4, hidden_size=24, mlp_dim=24, num_heads=2, **FLAT),
    monai("SwinUNETR", ((1, 32, 32, 64), (1, 64, 32, 64)), feature_size=12, depths=(1, 1, 1, 1),
          num_heads=(1, 2, 4, 4), **FLAT),
    monai("HighResNet", ((1, 16, 16, 16), (1, 24, 16, 16)), **FLAT),
    monai("FlexibleUNet", ((1, 64, 64), (1, 96, 64)), in_channels=1, out_channels=2, backbone="efficientnet-b0"),
    monai("AutoEncoder", channels=(4, 8, 8), strides=(2, 2, 2), **FLAT),
    monai("VarAutoEncoder", spatial_dims=3, in_shape=(1, 32, 32, 32), out_channels=2, latent_size=4,
          channels=(4, 8), strides=(2, 2)),
    monai("ResNetFeatures", spatial_dims=3, in_channels=1, model_name="resnet10", pretrained=False),
    monai("AHNet", ((3, 64, 64), (3, 96, 64)), spatial_dims=2, in_channels=3, out_channels=2, psp_block_num=0),
    nnunet("PlainConvUNet", 3, n_conv_per_stage=1),
    nnunet("PlainConvUNet", 2, n_conv_per_stage=2, deep_supervision=True),
    nnunet("ResidualEncoderUNet", 3, n_blocks_per_stage=1),
    diffusers("UNet2DModel", denoising(), sample_size=32, **DENOISER, **LATENT),
    diffusers("UNet2DConditionModel", denoising(4, encoder_hidden_states=TEXT), cross_attention_dim=16,
              up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), attention_head_dim=4, **STAGES, **LATENT),
    diffusers("UNet1DModel", named(sample=noise([(14, 32), (14, 48)]), timestep=3), block_out_channels=(32, 32, 64),
              extra_in_channels=64, in_channels=14, out_channels=14),
    diffusers("UNet3DConditionModel", denoising(4, (3,), encoder_hidden_states=TEXT), cross_attention_dim=16,
              down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"), attention_head_dim=4, layers_per_block=1,
              up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"), **LATENT),
    diffusers("ControlNetModel", denoising(4, encoder_hidden_states=TEXT,
              controlnet_cond=noise([(3, 256, 256), (3, 384, 256)])), cross_attention_dim=16, attention_head_dim=4,
              conditioning_embedding_out_channels=(8, 16, 16, 16), **STAGES, **LATENT),
    diffusers("AutoencoderKL", noise(SQUARE), layers_per_block=1, latent_channels=4, **ENCODER, **LATENT),
    diffusers("VQModel", noise(SQUARE), layers_per_block=1, num_vq_embeddings=16, **ENCODER, **LATENT),
    diffusers("AutoencoderTiny", noise(SQUARE), watch=("encoder", "decoder"),
              encoder_block_out_channels=(8,) * 4, num_encoder_blocks=(1,) * 4,
              decoder_block_out_channels=(8,) * 4, num_decoder_blocks=(1,) * 4),
    diffusers("AsymmetricAutoencoderKL", several(noise(SQUARE)), norm_num_groups=4, layers_per_down_block=1,
              layers_per_up_block=1, down_block_out_channels=(8, 16), up_block_out_channels=(8, 16), **ENCODER),
)  # fmt: skip
