"""How the paper trains, as configurations that its tables and figures share, and how the stand-ins are trained.

A stand-in keeps a recipe's grid of methods and strides, and replaces the rest: the data are synthetic, the network is
narrow and the training short. Its accuracies show the same comparison, they are not estimates of the paper's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from anystride.lab.data.names import CIFAR_JPEG, is_known
from anystride.lab.run.config import RunConfig

SCENES = "scenes"
NOTES = "notes"
AUDIO_ALL = "audio"
"""All tasks of a kind, as the data set of a recipe."""

IMAGE_STAND_IN = (
    "Stand-in: scenes of handwritten digits and a narrow network, not the paper's data, width or schedule; "
    "the grid of methods and strides is the paper's."
)
AUDIO_STAND_IN = (
    "Stand-in: synthetic notes and a narrow network, not the paper's data, width or schedule; "
    "the grid of methods and strides is the paper's."
)

CIFAR_JPEG_NOTE = (
    "CIFAR-10 (JPEG): real images, which were compressed once more, a narrow network and a short training. Compare "
    "methods with each other, not with published values."
)

SPOKEN_NOTE = (
    "Free Spoken Digit Dataset: real speech of six speakers, 2,700 recordings to train on, a narrow network and a "
    "short training. None of its tasks is in the paper."
)

OWN = "Own images at the paper's protocol for {} (section 3.2), {} unless --image-size says otherwise."
OWN_SOUNDS = "Own sounds at the paper's protocol for audio (section 3.1)."

AUDIO_TASKS = {
    "tut-urban-2018": "Acoustic scenes",
    "dcase-2018-birds": "Birdsong detection",
    "nsynth-instrument": "Music (instrument)",
    "nsynth-pitch": "Music (pitch)",
    "speech-commands": "Speech commands",
}
"""The paper's five audio tasks (Table A.1), in its order, by the name of their data."""

NOTES_TASKS = {"notes-instrument": "Music (instrument)", "notes-pitch": "Music (pitch)"}
"""The stand-in's tasks, and the paper's that they stand in for."""

SPOKEN = "spoken-digits"
SPOKEN_TASKS = {SPOKEN: "Spoken digit", "spoken-digits-speaker": "Speaker"}
"""The two tasks of the Free Spoken Digit Dataset; as the data set of a recipe its name means both."""

AUDIO_STRIDES = ((2.0, 2.0), (2.0, 2.0), (1.0, 1.0), (2.0, 2.0), (1.0, 1.0), (2.0, 2.0))
"""Initial (time, frequency) strides of the audio network, for all methods (section 3.1)."""

CIFAR = RunConfig(
    model="resnet18",
    width=64,
    epochs=400,
    batch_size=256,
    lr=0.1,
    weight_decay=5e-3,
    schedule="step",
    image_size=32,
)
"""Section 3.2: SGD with momentum 0.9, divided by 10 after 200 and 300 of 400 epochs. `data` is for the recipe."""

IMAGENET = RunConfig(
    model="resnet18-imagenet",
    strides=((1.0, 1.0), (2.0, 2.0), (2.0, 2.0), (2.0, 2.0)),
    width=64,
    epochs=90,
    batch_size=256,
    lr=0.1,
    weight_decay=1e-3,
    schedule="step-imagenet",
    data="imagenet",
    image_size=224,
)
"""Section 3.2: divided by 10 after 30, 60 and 80 of 90 epochs. The first stride is that of the first identity block."""

AUDIO = RunConfig(
    model="audio",
    strides=AUDIO_STRIDES,
    width=64,
    epochs=1000,
    epoch_steps=1000,
    batch_size=256,
    optimizer="adam",
    lr=1e-4,
    weight_decay=0.0,
    schedule="constant",
)
"""Section 3.1: one million batches. It names no weight decay and no schedule, so there is none."""

SCENES_RESNET = RunConfig(data=SCENES, width=8, epochs=6, train_size=3000)
"""As `anystride demo`, but 6 epochs of 3,000 scenes: 72 runs in about an hour and a half of one CPU core."""

CIFAR_SMALL = RunConfig(
    data=CIFAR_JPEG, width=8, epochs=6, batch_size=128, lr=0.1, weight_decay=5e-4, precision="bf16-mixed"
)
"""What two processors can train 27 times in little more than an hour: a narrow ResNet-18 and 2,346 steps."""

NOTES_AUDIO = RunConfig(
    model="audio",
    strides=AUDIO_STRIDES,
    width=8,
    epochs=8,
    batch_size=32,
    optimizer="adam",
    lr=1e-3,
    weight_decay=0.0,
    schedule="cosine",
    data=NOTES,
    train_size=3000,
    test_size=600,
)


SPOKEN_AUDIO = replace(
    AUDIO, width=8, epochs=20, epoch_steps=0, batch_size=32, lr=2e-3, stride_lr=0.01, schedule="cosine"
)
"""1,680 steps of a narrow network; strides have a rate of their own, or Adam would move them by less than one."""


@dataclass(frozen=True)
class Protocol:
    """`base` is one run; `stands_in_for` names the paper's data where these are a stand-in; `note` tells.

    `tasks` maps the data of each audio task to its row in Table 1. `small` says that the network and the training are
    the stand-in's, not the paper's: one's own data have the paper's, although they stand in for its data.
    """

    base: RunConfig
    note: str
    stands_in_for: str = ""
    tasks: Mapping[str, str] = field(default_factory=dict)
    small: bool = False


def cifar(data: str) -> Protocol:
    """The protocol for `cifar10`, `cifar100` or the stand-in, with three strides."""
    if data == SCENES:
        return Protocol(SCENES_RESNET, IMAGE_STAND_IN, "cifar10", small=True)
    if data == CIFAR_JPEG:
        return Protocol(CIFAR_SMALL, CIFAR_JPEG_NOTE, "cifar10", small=True)
    if not is_known(data):
        return Protocol(replace(CIFAR, data=data), OWN.format("CIFAR", "32x32"), "cifar10")
    return Protocol(replace(CIFAR, data=data), "The paper's protocol for CIFAR (section 3.2).")


def imagenet(data: str) -> Protocol:
    """The protocol for `imagenet` or the stand-in, in both cases with four strides."""
    if data == SCENES:
        small = replace(SCENES_RESNET, strides=IMAGENET.strides)
        return Protocol(small, IMAGE_STAND_IN, "imagenet", small=True)
    if not is_known(data):
        return Protocol(replace(IMAGENET, data=data), OWN.format("ImageNet", "224x224"), "imagenet")
    return Protocol(IMAGENET, "The paper's protocol for ImageNet (section 3.2).")


def audio(dataset: str) -> Protocol:
    """The protocol for audio. `dataset` is "audio" for all tasks, "notes" for the stand-in, or tasks joined by "+".

    `base` has no data yet: a task's, or several joined.
    """
    if dataset == NOTES:
        return Protocol(NOTES_AUDIO, AUDIO_STAND_IN, AUDIO_ALL, NOTES_TASKS, small=True)
    if dataset == SPOKEN:
        return Protocol(SPOKEN_AUDIO, SPOKEN_NOTE, AUDIO_ALL, SPOKEN_TASKS, small=True)
    if dataset != AUDIO_ALL and not is_known(dataset):
        return Protocol(AUDIO, OWN_SOUNDS, AUDIO_ALL, {dataset: "Own sounds"})
    tasks = AUDIO_TASKS if dataset == AUDIO_ALL else {task: AUDIO_TASKS[task] for task in dataset.split("+")}
    return Protocol(AUDIO, "The paper's protocol for audio (section 3.1).", tasks=tasks)
