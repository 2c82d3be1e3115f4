"""Rows of benchmarks/field.py: torchaudio, braindecode, tsai, speechbrain, torchcrepe."""

from typing import Any

from examine import Network
from field_entries import Example, lively, made, noise, table

BRAIN: dict[str, Any] = {"n_chans": 4, "n_outputs": 2, "n_times": 512}
EEG = ((4, 512), (4, 640))
SERIES = ((3, 128), (3, 192))
FEATURES = ((50, 40), (70, 40))


def audio(name: str, sizes: Any, **kwargs: Any) -> Network:
    build = lively(made("torchaudio.models", name, **kwargs))
    return Network(f"torchaudio:{name}", "torchaudio", build, noise(sizes))


def brain(name: str, **kwargs: Any) -> Network:
    return Network(f"braindecode:{name}", "braindecode", made("braindecode.models", name, **(BRAIN | kwargs)),
                   noise(EEG))  # fmt: skip


def series(name: str, module: str, *args: Any, **kwargs: Any) -> Network:
    return Network(f"tsai:{name}", "tsai", made(f"tsai.models.{module}", name, *args, **kwargs), noise(SERIES))


def speech(name: str, module: str, example: Example | None = None, **kwargs: Any) -> Network:
    build = made(f"speechbrain.lobes.models.{module}", name, **kwargs)
    return Network(f"speechbrain:{name}", "speechbrain", build, example or noise(FEATURES))


WAVE2VEC: dict[str, Any] = {
    "extractor_mode": "group_norm", "extractor_conv_layer_config": [(16, 10, 5), (16, 3, 2), (16, 2, 2)],
    "extractor_conv_bias": False, "encoder_embed_dim": 16, "encoder_projection_dropout": 0.0,
    "encoder_pos_conv_kernel": 8, "encoder_pos_conv_groups": 2, "encoder_num_layers": 1, "encoder_num_heads": 2,
    "encoder_attention_dropout": 0.0, "encoder_ff_interm_features": 16, "encoder_ff_interm_dropout": 0.0,
    "encoder_dropout": 0.0, "encoder_layer_norm_first": False, "encoder_layer_drop": 0.0, "aux_num_out": 8,
}  # fmt: skip
CONVOLUTIONS: dict[str, Any] = {"num_blocks": 2, "num_layers_per_block": 1, "out_channels": (8, 8), "strides": (2, 2),
                                "kernel_sizes": (3, 3), "residuals": (False, False)}  # fmt: skip
SIGNAL_ROWS = table(
    audio("Wav2Letter", ((1, 4000), (1, 5000)), num_classes=8, input_type="waveform", num_features=1),
    audio("ConvTasNet", ((1, 1600), (1, 2400)), num_sources=2, enc_num_feats=32, msk_num_feats=16,
          msk_num_hidden_feats=16, msk_num_layers=2, msk_num_stacks=1),
    audio("HDemucs", ((2, 44100), (2, 50000)), sources=["a", "b"], channels=8),
    audio("DeepSpeech", ((1, 30, 20), (1, 40, 20)), n_feature=20, n_hidden=16, n_class=6),
    audio("wav2vec2_model", ((2000,), (3000,)), **WAVE2VEC),
    brain("EEGNet"),
    brain("ShallowFBCSPNet"),
    brain("Deep4Net"),
    brain("EEGInceptionERP", sfreq=128),
    brain("EEGConformer"),
    brain("EEGITNet"),
    brain("ATCNet", sfreq=128, input_window_seconds=4.0),
    brain("EEGNeX"),
    brain("EEGSimpleConv", sfreq=128, feature_maps=16),
    brain("SleepStagerChambon2018", sfreq=100),
    brain("USleep", sfreq=128, depth=3, n_time_filters=5),
    brain("BDTCN", n_filters=8, n_blocks=2),
    brain("SincShallowNet", sfreq=128),
    brain("TIDNet"),
    series("InceptionTime", "InceptionTime", 3, 4, nf=8),
    series("ResNet", "ResNet", 3, 4),
    series("xresnet1d18", "XResNet1d", 3, 4),
    series("FCN", "FCN", 3, 4),
    series("XceptionTime", "XceptionTime", 3, 4, nf=4),
    series("OmniScaleCNN", "OmniScaleCNN", 3, 4, 128, layers=[64, 128]),
    series("ResCNN", "ResCNN", 3, 4),
    speech("ConvolutionFrontEnd", "convolution", input_shape=(None, None, 40), **CONVOLUTIONS),
    speech("CRDNN", "CRDNN", input_size=40, cnn_blocks=2, cnn_channels=(8, 8), rnn_layers=1, rnn_neurons=8,
           dnn_blocks=1, dnn_neurons=8),
    speech("Xvector", "Xvector", in_channels=40, tdnn_blocks=2, tdnn_channels=[16, 16], tdnn_kernel_sizes=[5, 3],
           tdnn_dilations=[1, 2], lin_neurons=8),
    speech("ECAPA_TDNN", "ECAPA_TDNN", input_size=40, lin_neurons=8, channels=[16, 16, 16, 16, 48],
           attention_channels=8, res2net_scale=4, se_channels=8),
    speech("ContextNet", "ContextNet", input_shape=(None, None, 40), out_channels=16, conv_channels=[16] * 21),
    speech("Encoder", "dual_path", noise(((1600,), (2400,))), kernel_size=16, out_channels=16, in_channels=1),
    Network("torchcrepe:Crepe", "torchcrepe", made("torchcrepe", "Crepe", "tiny"), noise(((1024,), (1024,)))),
)  # fmt: skip
