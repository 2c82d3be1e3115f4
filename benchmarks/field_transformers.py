"""Rows of benchmarks/field.py: transformers."""

import importlib
from typing import Any

from torch import nn

from examine import Network
from field_entries import LARGE, Example, lively, named, noise, table

IMAGES = named(pixel_values=noise(LARGE))
WAVES = ((4000,), (5000,))


def hf(model: str, config: str, example: Example = IMAGES, backbone: tuple[str, dict[str, Any]] | None = None,
       trains: bool = True, watch: tuple[str, ...] = (), fades: bool = False,
       **kwargs: Any) -> Network:  # fmt: skip
    """A model of transformers from a configuration, for some with that of a backbone."""

    def build() -> nn.Module:
        library = importlib.import_module("transformers")
        inner = {"backbone_config": getattr(library, backbone[0])(**backbone[1])} if backbone else {}
        return getattr(library, model)(getattr(library, config)(**inner, **kwargs))

    return Network(f"transformers:{model}", "transformers", lively(build) if fades else build, example, trains, watch)


RESNET: dict[str, Any] = {"embedding_size": 8, "hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1],
                          "layer_type": "basic"}  # fmt: skip
TRUNK = ("ResNetConfig", RESNET | {"out_features": ["stage2", "stage3", "stage4"]})
TRUNK4 = ("ResNetConfig", RESNET | {"out_features": ["stage1", "stage2", "stage3", "stage4"]})
SWIN: dict[str, Any] = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 4,
                        "image_size": 128}  # fmt: skip
CONVS: dict[str, Any] = {"conv_dim": (16, 16, 16), "conv_kernel": (10, 3, 2), "conv_stride": (5, 2, 2)}
HEARING: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
                           "intermediate_size": 16, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2,
                           "apply_spec_augment": False, "layerdrop": 0.0}  # fmt: skip
QUERIES: dict[str, Any] = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
                           "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16,
                           "num_queries": 5}  # fmt: skip
WAVE = named(input_values=noise(WAVES))
SOUND = named(input_values=noise(((1, 1600), (1, 3200))))
TRANSFORMERS_ROWS = table(
    hf("ResNetForImageClassification", "ResNetConfig", **RESNET),
    hf("RegNetForImageClassification", "RegNetConfig", embedding_size=8, hidden_sizes=[8, 16, 16, 32],
       depths=[1, 1, 1, 1], groups_width=8),
    hf("ConvNextForImageClassification", "ConvNextConfig", hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 1, 1]),
    hf("ConvNextV2ForImageClassification", "ConvNextV2Config", hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 1, 1]),
    hf("MobileNetV1ForImageClassification", "MobileNetV1Config", depth_multiplier=0.25),
    hf("MobileNetV2ForImageClassification", "MobileNetV2Config", depth_multiplier=0.35),
    hf("MobileNetV2ForSemanticSegmentation", "MobileNetV2Config", depth_multiplier=0.35),
    hf("EfficientNetForImageClassification", "EfficientNetConfig", width_coefficient=0.5, depth_coefficient=0.5,
       image_size=128, hidden_dim=640, fades=True),
    hf("SegformerForSemanticSegmentation", "SegformerConfig", hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 1, 1],
       num_attention_heads=[1, 1, 2, 2], decoder_hidden_size=16),
    hf("PvtForImageClassification", "PvtConfig", image_size=128, hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 1, 1],
       num_attention_heads=[1, 1, 2, 2]),
    hf("PvtV2ForImageClassification", "PvtV2Config", image_size=128, hidden_sizes=[8, 16, 16, 32],
       depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 2, 2]),
    hf("SwinForImageClassification", "SwinConfig", **SWIN),
    hf("Swinv2ForImageClassification", "Swinv2Config", **SWIN),
    hf("Swin2SRForImageSuperResolution", "Swin2SRConfig", embed_dim=12, depths=[1, 1], num_heads=[2, 2], window_size=4,
       image_size=64),
    hf("LevitForImageClassification", "LevitConfig", image_size=128, hidden_sizes=[16, 16, 32],
       num_attention_heads=[1, 2, 2], depths=[1, 1, 1], key_dim=[8, 8, 8]),
    hf("CvtForImageClassification", "CvtConfig", embed_dim=[8, 16, 16], num_heads=[1, 1, 2], depth=[1, 2, 3]),
    hf("PoolFormerForImageClassification", "PoolFormerConfig", hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 1, 1]),
    hf("FocalNetForImageClassification", "FocalNetConfig", image_size=128, embed_dim=8, depths=[1, 1, 1, 1]),
    hf("BitForImageClassification", "BitConfig", embedding_size=32, hidden_sizes=[128, 128, 128, 128],
       depths=[1, 1, 1, 1]),
    hf("MobileViTForSemanticSegmentation", "MobileViTConfig", hidden_sizes=[16, 16, 24],
       neck_hidden_sizes=[8, 8, 8, 16, 16, 16, 32], num_hidden_layers=1, aspp_out_channels=16),
    hf("MobileViTV2ForImageClassification", "MobileViTV2Config", n_attn_blocks=[1, 1, 1], width_multiplier=0.25),
    hf("UperNetForSemanticSegmentation", "UperNetConfig", backbone=TRUNK4, hidden_size=16, auxiliary_in_channels=16,
       auxiliary_channels=8),
    hf("DetrForObjectDetection", "DetrConfig", backbone=("ResNetConfig", RESNET | {"out_features": ["stage4"]}),
       **QUERIES),
    hf("ConditionalDetrForObjectDetection", "ConditionalDetrConfig",
       backbone=("ResNetConfig", RESNET | {"out_features": ["stage4"]}), **QUERIES),
    hf("DeformableDetrForObjectDetection", "DeformableDetrConfig", backbone=TRUNK, encoder_n_points=2,
       decoder_n_points=2, **(QUERIES | {"d_model": 32, "decoder_layers": 2})),
    hf("RTDetrForObjectDetection", "RTDetrConfig", encoder_hidden_dim=16, d_model=16, encoder_ffn_dim=16,
       encoder_attention_heads=2, decoder_attention_heads=2, decoder_ffn_dim=16, decoder_layers=1, num_queries=5,
       encoder_in_channels=[16, 16, 32], decoder_in_channels=[16, 16, 16], trains=False, watch=("model.encoder",),
       backbone=("RTDetrResNetConfig", RESNET | {"out_features": ["stage2", "stage3", "stage4"]})),
    hf("MaskFormerForInstanceSegmentation", "MaskFormerConfig", fpn_feature_size=32, mask_feature_size=16,
       backbone=("SwinConfig", SWIN | {"out_features": ["stage1", "stage2", "stage3", "stage4"]})),
    hf("Mask2FormerForUniversalSegmentation", "Mask2FormerConfig", feature_size=32, mask_feature_size=32,
       hidden_dim=32, encoder_feedforward_dim=16, dim_feedforward=16, encoder_layers=1, decoder_layers=2,
       num_attention_heads=2, num_queries=5, backbone=TRUNK4),
    hf("VitMatteForImageMatting", "VitMatteConfig", named(pixel_values=noise(((4, 64, 64), (4, 96, 64)))),
       ("VitDetConfig", {"num_channels": 4, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
                         "image_size": 64, "pretrain_image_size": 64, "out_features": ["stage1"]}),
       hidden_size=16, convstream_hidden_sizes=[8, 16, 16], fusion_hidden_sizes=[16, 16, 16, 8]),
    hf("DPTForDepthEstimation", "DPTConfig", image_size=128, hidden_size=16, num_hidden_layers=4,
       num_attention_heads=2, intermediate_size=16, backbone_out_indices=[0, 1, 2, 3],
       neck_hidden_sizes=[8, 8, 16, 16], fusion_hidden_size=16),
    hf("SuperPointForKeypointDetection", "SuperPointConfig", encoder_hidden_sizes=[8, 8, 16, 16],
       watch=("encoder",), decoder_hidden_size=16, keypoint_decoder_dim=65, descriptor_decoder_dim=16),
    hf("Wav2Vec2Model", "Wav2Vec2Config", WAVE, **HEARING, **CONVS),
    hf("HubertModel", "HubertConfig", WAVE, **HEARING, **CONVS),
    hf("WavLMModel", "WavLMConfig", WAVE, **HEARING, **CONVS),
    hf("SEWModel", "SEWConfig", WAVE, squeeze_factor=2, **HEARING, **CONVS),
    hf("WhisperForAudioClassification", "WhisperConfig", named(input_features=noise(((20, 200), (20, 240)))),
       num_mel_bins=20, max_source_positions=100, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=16,
       d_model=16, decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=16, vocab_size=20, pad_token_id=0),
    hf("EncodecModel", "EncodecConfig", SOUND, watch=("encoder",), num_filters=4, hidden_size=8, codebook_dim=8,
       codebook_size=16,
       upsampling_ratios=[4, 2, 2], num_lstm_layers=1, target_bandwidths=[24.0]),
    hf("DacModel", "DacConfig", SOUND, encoder_hidden_size=4, decoder_hidden_size=32, downsampling_ratios=[2, 4, 4],
       upsampling_ratios=[4, 4, 2], n_codebooks=2, codebook_size=16, codebook_dim=4),
    hf("SpeechT5HifiGan", "SpeechT5HifiGanConfig", named(spectrogram=noise(((20, 10), (30, 10)))), model_in_dim=10,
       upsample_initial_channel=32),
    hf("UnivNetModel", "UnivNetConfig", named(input_features=noise(((8, 20), (12, 20)))), model_in_channels=8,
       model_hidden_channels=8, num_mel_bins=20, kernel_predictor_hidden_channels=8),
    hf("ASTForAudioClassification", "ASTConfig", named(input_values=noise(((128, 32), (160, 32)))), hidden_size=16,
       num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, max_length=128, num_mel_bins=32),
    hf("ClapAudioModel", "ClapAudioConfig", named(input_features=noise(((1, 128, 16), (1, 160, 16)))),
       spec_size=64, num_mel_bins=16, patch_size=4, patch_stride=[4, 4], patch_embeds_hidden_size=8, depths=[1, 1],
       num_attention_heads=[1, 2], hidden_size=16, window_size=4, enable_fusion=False),
)  # fmt: skip
