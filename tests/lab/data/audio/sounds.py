"""Small files of sound for the tests, in each data set's own layout."""

from __future__ import annotations

import csv
import json
import struct
from pathlib import Path

import numpy as np

from anystride.lab.data.audio import birds, nsynth, speech_commands, tut_urban

RATE = 16_000


def tone(hertz=1000.0, seconds=1.0, rate=RATE, amplitude=0.5):
    return amplitude * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)


def write(path, samples, rate=RATE, bits=16, channels=1, floats=False):
    """A wav file written byte by byte: `samples` in [-1, 1], the same on every channel."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.repeat(np.asarray(samples)[:, None], channels, axis=1).ravel()
    if floats:
        body = samples.astype(f"<f{bits // 8}").tobytes()
    elif bits == 8:
        body = np.rint(samples * 127 + 128).astype(np.uint8).tobytes()
    else:
        whole = np.rint(samples * (2 ** (bits - 1) - 1)).astype("<i4")
        body = whole.view(np.uint8).reshape(-1, 4)[:, : bits // 8].tobytes()
    width = channels * bits // 8
    head = struct.pack("<4sIHHIIHH", b"fmt ", 16, 3 if floats else 1, channels, rate, rate * width, width, bits)
    data = struct.pack("<4sI", b"data", len(body)) + body + b"\0" * (len(body) % 2)
    path.write_bytes(struct.pack("<4sI4s", b"RIFF", 4 + len(head) + len(data), b"WAVE") + head + data)
    return path


def write_speech_commands(root):
    folder = root / speech_commands.TASK
    for number, word in enumerate(speech_commands.WORDS):
        for speaker in ("aaaa", "bbbb", "cccc"):
            write(folder / word / f"{speaker}_nohash_0.wav", tone(200 + 50 * number, seconds=0.4))
    write(folder / "_background_noise_" / "pink_noise.wav", tone(seconds=3))
    folder.joinpath("validation_list.txt").write_text("bed/bbbb_nohash_0.wav\n")
    folder.joinpath("testing_list.txt").write_text("".join(f"{w}/cccc_nohash_0.wav\n" for w in ("bed", "zero")))
    return folder


def write_nsynth(root, seconds=4.0):
    folder = root / "nsynth"
    for split, notes in ((nsynth.TRAIN, 4), (nsynth.TEST, 2), ("nsynth-test", 1)):
        examples = {}
        for note in range(notes):
            family, pitch = ("bass", "vocal")[note % 2], 40 + note
            name = f"{family}_synthetic_{note:03d}-{pitch:03d}-100"
            examples[name] = {"pitch": pitch, "instrument_family_str": family, "sample_rate": RATE}
            write(folder / split / "audio" / f"{name}.wav", tone(440 * 2 ** ((pitch - 69) / 12), seconds))
        folder.joinpath(split, "examples.json").write_text(json.dumps(examples))
    return folder


def write_tut(root, each=3):
    folder = root / tut_urban.TASK / tut_urban.NAME
    lines = []
    for scene in tut_urban.SCENES:
        for number in range(each):
            name = f"audio/{scene}-paris-{number}-{number}-a.wav"
            write(folder / name, tone(seconds=2.2, rate=48_000), rate=48_000, bits=24, channels=2)
            lines.append(f"{name}\t{scene}")
    (folder / "evaluation_setup").mkdir()
    folder.joinpath("meta.csv").write_text(
        "filename\tscene_label\tidentifier\tsource_label\n" + "".join(f"{line}\tparis-0\ta\n" for line in lines)
    )
    folder.joinpath("evaluation_setup/fold1_train.txt").write_text("\n".join(lines[each // 3 :]) + "\n")
    folder.joinpath("evaluation_setup/fold1_evaluate.txt").write_text("\n".join(lines[: each // 3]) + "\n")
    return folder


def write_birds(root, each=6):
    folder = root / birds.TASK
    for name, table in birds.LABELS.items():
        (folder / name).mkdir(parents=True)
        with folder.joinpath(name, table).open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["itemid", "datasetid", "hasbird"])
            for item in range(each):
                writer.writerow([f"{name[:2]}{item}", name, item % 2])
                write(folder / name / "wav" / f"{name[:2]}{item}.wav", tone(seconds=1.5, rate=44_100), rate=44_100)
    return folder
