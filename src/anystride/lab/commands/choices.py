"""What the choices of the options mean, for their help; imports nothing that is slow."""

from __future__ import annotations

from anystride.lab.data.names import IMAGES, SOUND

CHOICES: dict[str, dict[str, str]] = {
    "model": {
        "resnet18": "ResNet-18 for images of about 32 pixels",
        "resnet18-imagenet": "ResNet-18 whose stem downsamples, for larger images",
        "resnet18-release": "ResNet-18 as the paper's authors released it",
        "densenet-bc": "DenseNet-BC for images of about 32 pixels",
        "efficientnet-b0": "EfficientNet-B0 for larger images",
        "audio": "the paper's network for spectrograms of sound",
        "series": "a residual network with one axis, for series",
    },
    "method": {
        "strided": "convolutions with a fixed stride, as usual",
        "spectral": "spectral pooling: a fixed low-pass in frequency",
        "outer": "learned strides, the paper's window: maps are larger than by a stride",
        "inner": "learned strides; maps have the sizes of a strided convolution",
        "cosine": "learned strides, the same sizes by short filters: the fastest",
        "average": "average pooling, for densenet-bc and series",
        "release": "learned strides as the paper's authors released them, for resnet18-release",
        "release-spectral": "spectral pooling as they released it, for resnet18-release",
    },
    "optimizer": {
        "sgd": "stochastic gradient descent with a momentum of 0.9",
        "adam": "Adam, usual for sound",
    },
    "schedule": {
        "cosine": "a linear rise, then half a cosine down to zero",
        "step": "a tenth at 1/2 and at 3/4 of the training, as for CIFAR in the paper",
        "step-imagenet": "a tenth at 1/3, 2/3 and 8/9, as for ImageNet in the paper",
        "release": "as the paper's authors released it",
        "constant": "always the same",
    },
    "lam_over": {
        "strides": "each layer that learns a stride",
        "convolutions": "each convolution, as the paper's words can also be read",
    },
    "decay": {
        "all": "weights, norms and biases; never strides",
        "weights": "weights alone",
    },
    "mixup_by": {
        "batch": "the whole batch, mixed with itself",
        "pair": "each pair of images, of which a step takes twice as many",
    },
    "augment": {
        "auto": "what is usual for the data, as crops and mirror images",
        "crop": "crops alone, for images that must not be mirrored",
        "release": "as the paper's authors released it: shifts by 2 pixels, mirror images",
        "none": "nothing",
    },
    "grid": {
        "free": "sizes follow the strides at once",
        "N": "sizes are multiples of N, so that they change less often",
        "fixed": "sizes change between epochs alone, good with --compile",
    },
    "precision": {
        "32-true": "float32",
        "bf16-mixed": "bfloat16 where that is safe: half the memory of maps, other digits",
        "16-mixed": "float16 where that is safe, on GPUs",
    },
}
"""A sentence for each choice, by the field of `RunConfig`; a test holds that none is absent."""

DATA_SETS = {
    "scenes": "scikit-learn's handwritten digits in clutter, made on the spot",
    "cifar10": "CIFAR-10: 60,000 photographs of 32x32 in 10 classes",
    "cifar100": "CIFAR-100: the same in 100 classes",
    "cifar10-jpeg": "CIFAR-10 as JPEG files, train/CLASS/ and test/CLASS/, which must lie in --root",
    "imagenet": "ImageNet of 2012, which must lie in --root",
    "notes-instrument": "synthetic notes by instrument, made on the spot",
    "notes-pitch": "the same notes by pitch",
    "spoken-digits": "recordings of spoken digits, by what is said",
    "spoken-digits-speaker": "the same recordings by who says it",
    "speech-commands": "Google's Speech Commands: words of one second",
    "nsynth-instrument": "NSynth: notes by the family of their instrument",
    "nsynth-pitch": "NSynth: notes by pitch",
    "tut-urban-2018": "TUT Urban Acoustic Scenes 2018, its own division",
    "tut-urban-2018-fold1": "the same, division 1 of its cross-validation",
    "dcase-2018-birds": "DCASE 2018: is there a bird in the recording?",
}
"""A sentence for each data set; a test holds that none is absent."""


def listed(field: str) -> str:
    """The meaning of each choice of a field, a line each behind the first; empty where it has no choices."""
    meanings = CHOICES.get(field, {})
    if field == "data":
        meanings = {"Data sets": "", **{name: DATA_SETS[name] for name in (*IMAGES, *SOUND)}}
    return "".join(f"\n{name}: {text}" for name, text in meanings.items())
