"""A stand-in for NSynth that is computed: notes of 11 families of instruments at 24 pitches, in NSynth's own format.

A note is a sum of partials under an envelope, with noise. The families of a pair have similar spectra and differ in
time: how a note starts and dies, how fast it trembles (up to 40 Hz, which needs most of the 100 frames of a second).
Pitches are a semitone apart, which the 64 mel bands tell apart by the partials, not by the fundamental. Instruments
are drawn at random, and those of the test do not occur in training, as in NSynth. Everything follows from `SEED`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anystride.lab.data.audio.frontend import SAMPLE_RATE
from anystride.lab.data.audio.nsynth import FAMILIES, TEST, TRAIN, read_notes
from anystride.lab.data.audio.prepared import fill
from anystride.lab.data.audio.source import AudioSource
from anystride.lab.data.audio.wave import Floats, to_int16, write_wave
from anystride.lab.data.meter import progress
from anystride.lab.errors import UsageError
from anystride.lab.run.config import RunConfig

VERSION = 1
SEED = 0
"""The notes never change, whatever the seed of a run: NSynth's do not either."""
SECONDS = 2.0
HELD = 1.5
"""Seconds until a note is let go."""
PITCHES = tuple(range(36, 60))
"""MIDI numbers, 65 Hz to 247 Hz."""
VELOCITIES = (25, 50, 75, 100, 127)
PARTIALS = 16
HIGHEST = 7600.0

Range = tuple[float, float]


@dataclass(frozen=True)
class Family:
    """From what ranges an instrument of the family draws its sound; times in s, rates in Hz, both ends included."""

    attack: Range
    decay: Range
    """How fast a held note dies, 1/s; 0 for one that is kept up."""
    slope: Range
    """The amplitude of partial k falls as k to the power of minus this."""
    damping: Range = (0.0, 0.0)
    """How much faster higher partials die, as a share of `decay` per partial."""
    even: Range = (1.0, 1.0)
    """The amplitude of even partials."""
    late: Range = (0.0, 0.0)
    """How much later higher partials come in."""
    vibrato: Range = (0.0, 0.0)
    """In cents, at 4 to 7 Hz."""
    tremble: Range = (0.0, 0.0)
    """The depth of the trembling of the amplitude."""
    rate: Range = (5.0, 5.0)
    """The rate of the trembling."""
    breath: Range = (0.0, 0.0)
    """Noise, relative to the tone."""
    inharmonic: Range = (0.0, 0.0)
    """Partial k lies at k times the square root of 1 + this times k squared."""


INSTRUMENTS = {
    "bass": Family((0.01, 0.03), (1.5, 3.0), (1.2, 1.8), damping=(0.2, 0.4), inharmonic=(1e-4, 4e-4)),
    "brass": Family((0.04, 0.10), (0.0, 0.2), (0.5, 1.0), late=(0.3, 0.6), tremble=(0.2, 0.5), rate=(28.0, 40.0)),
    "flute": Family((0.06, 0.15), (0.0, 0.2), (1.6, 2.4), vibrato=(5.0, 25.0), breath=(0.05, 0.15)),
    "guitar": Family((0.002, 0.008), (1.5, 3.0), (0.8, 1.4), damping=(0.1, 0.3), inharmonic=(5e-5, 2e-4)),
    "keyboard": Family((0.002, 0.01), (0.6, 1.4), (1.0, 1.6), damping=(0.05, 0.2), inharmonic=(2e-4, 8e-4)),
    "mallet": Family((0.001, 0.004), (3.0, 7.0), (1.4, 2.2), damping=(0.3, 0.8), inharmonic=(2e-3, 8e-3)),
    "organ": Family((0.01, 0.04), (0.0, 0.0), (0.8, 1.4), tremble=(0.0, 0.3), rate=(5.0, 8.0)),
    "reed": Family((0.03, 0.08), (0.0, 0.2), (0.6, 1.2), even=(0.1, 0.5), tremble=(0.2, 0.5), rate=(12.0, 20.0)),
    "string": Family((0.08, 0.20), (0.0, 0.2), (0.7, 1.2), vibrato=(15.0, 45.0), breath=(0.01, 0.04)),
    "synth_lead": Family((0.003, 0.02), (0.0, 0.1), (0.7, 1.2), tremble=(0.2, 0.6), rate=(20.0, 28.0)),
    "vocal": Family((0.05, 0.15), (0.0, 0.2), (0.9, 1.5), vibrato=(20.0, 60.0), breath=(0.02, 0.08)),
}


@dataclass(frozen=True)
class Instrument:
    """One instrument: the values drawn from its family's ranges, and a spectral envelope of its own."""

    family: str
    name: str
    number: int
    values: dict[str, float]
    colour: Floats
    """The logarithm of the gain at 8 points from 0 Hz to `HIGHEST`."""


def open_instrument(config: RunConfig, root: Path, download: bool) -> AudioSource:
    """The family of the instrument, 11 classes."""
    return read_notes(_folder(config, root), "instrument", FAMILIES, "notes-instrument")


def open_pitch(config: RunConfig, root: Path, download: bool) -> AudioSource:
    """The pitch, 24 classes named by their MIDI numbers."""
    return read_notes(_folder(config, root), "pitch", tuple(map(str, PITCHES)), "notes-pitch")


def _folder(config: RunConfig, root: Path) -> Path:
    """The folder with `config.train_size` and `config.test_size` notes, written first if it is not there."""
    folder = root / f"notes-v{VERSION}-{config.train_size}-{config.test_size}"
    fill(folder, lambda new: write_notes(new, config.train_size, config.test_size))
    return folder


def write_notes(folder: Path, train_size: int, test_size: int, seed: int = SEED) -> None:
    """Write both splits in NSynth's format; the same arguments give the same files."""
    if min(train_size, test_size) < 1:
        raise UsageError(f"train_size and test_size must be at least 1, got {train_size} and {test_size}")
    with progress("computing notes", train_size + test_size) as advance:
        for number, (split, size) in enumerate(((TRAIN, train_size), (TEST, test_size))):
            rng = np.random.default_rng([seed, number])
            (folder / split / "audio").mkdir(parents=True)
            examples = {}
            for note, (instrument, pitch, velocity) in enumerate(_score(split, size, rng)):
                name = f"{instrument.name}-{pitch:03d}-{velocity:03d}"
                write_wave(folder / split / "audio" / f"{name}.wav", to_int16(_sound(instrument, pitch, velocity, rng)))
                examples[name] = _properties(name, note, instrument, pitch, velocity)
                advance(1)
            (folder / split / "examples.json").write_text(json.dumps(examples))


def _score(split: str, size: int, rng: np.random.Generator) -> list[tuple[Instrument, int, int]]:
    """Which notes there are: families and pitches take turns, instruments and velocities are drawn without repeats."""
    turns = [(i % len(FAMILIES), i % len(PITCHES)) for i in range(size)]
    each = max(6, -(-size // (len(FAMILIES) * 15)))  # instruments per family: about 15 notes of each
    band = {family: [_instrument(family, split, n, rng) for n in range(each)] for family in FAMILIES}
    choices: dict[tuple[int, int], list[int]] = {}
    score = []
    for turn in turns:
        if not choices.get(turn):
            choices[turn] = list(rng.permutation(each * len(VELOCITIES)))
        player, loudness = divmod(int(choices[turn].pop()), len(VELOCITIES))
        score.append((band[FAMILIES[turn[0]]][player], PITCHES[turn[1]], VELOCITIES[loudness]))
    return score


def _instrument(family: str, split: str, number: int, rng: np.random.Generator) -> Instrument:
    ranges = INSTRUMENTS[family]
    values = {name: float(rng.uniform(*bounds)) for name, bounds in vars(ranges).items()}
    # The instruments of the two splits are numbered apart, as they are apart in NSynth.
    number += 0 if split == TRAIN else 500
    colour = rng.normal(0.0, 0.5, size=8).astype(np.float32)
    return Instrument(family, f"{family}_synthetic_{number:03d}", number, values, colour)


def _sound(instrument: Instrument, pitch: int, velocity: int, rng: np.random.Generator) -> Floats:
    """One note, (samples,) float32 in [-1, 1]."""
    draw = instrument.values
    seconds = np.arange(int(SECONDS * SAMPLE_RATE)) / SAMPLE_RATE
    fundamental = 440.0 * 2.0 ** ((pitch - 69 + rng.normal(0.0, 0.15)) / 12)

    wobble = np.sin(2 * np.pi * rng.uniform(4.0, 7.0) * seconds + rng.uniform(0, 2 * np.pi))
    bent = fundamental * 2.0 ** (draw["vibrato"] / 1200 * wobble * np.minimum(1.0, seconds / 0.3))
    cycles = np.cumsum(bent) / SAMPLE_RATE

    time = seconds.astype(np.float32)
    attack = 1 - np.exp(-time / np.float32(draw["attack"] / 2))
    late = attack ** np.float32(draw["late"])
    dying = np.exp(-time * np.float32(draw["decay"]))
    damped = dying ** np.float32(draw["damping"])
    envelope = attack * dying

    tone = np.zeros_like(time)
    brightness = draw["slope"] + 0.5 * (1 - velocity / 127)  # a note played softly is also darker
    grid = np.linspace(0.0, HIGHEST, len(instrument.colour))
    for k in range(1, PARTIALS + 1):
        stretch = k * np.sqrt((1 + draw["inharmonic"] * k * k) / (1 + draw["inharmonic"]))
        if stretch * fundamental > HIGHEST:
            break
        gain = k**-brightness * np.exp(np.interp(stretch * fundamental, grid, instrument.colour))
        gain *= draw["even"] if k % 2 == 0 else 1.0
        phase = cycles * stretch + rng.uniform()
        tone += (
            np.float32(gain) * envelope * np.sin(np.float32(2 * np.pi) * (phase - np.floor(phase)).astype(np.float32))
        )
        envelope = envelope * damped * late

    tremble = np.sin(2 * np.pi * draw["rate"] * seconds + rng.uniform(0, 2 * np.pi)).astype(np.float32)
    breath = draw["breath"] * attack * dying * rng.standard_normal(len(time), dtype=np.float32)
    tone = (tone / np.abs(tone).max() + breath) * (1 - np.float32(draw["tremble"]) * (0.5 + 0.5 * tremble))
    tone *= np.exp(-np.maximum(0.0, time - np.float32(HELD)) / np.float32(0.05))
    loudness = 0.6 * (velocity / 127) ** 1.5
    background = 10.0 ** rng.uniform(-2.7, -1.3) * rng.standard_normal(len(time), dtype=np.float32)
    return np.asarray(loudness * tone + 0.6 * background, dtype=np.float32)


def _properties(name: str, note: int, instrument: Instrument, pitch: int, velocity: int) -> dict[str, object]:
    """What NSynth's examples.json says about a note."""
    family = FAMILIES.index(instrument.family)
    return {
        "note": note,
        "note_str": name,
        "instrument": 1000 * family + instrument.number,
        "instrument_str": instrument.name,
        "pitch": pitch,
        "velocity": velocity,
        "sample_rate": SAMPLE_RATE,
        "qualities": [0] * 10,
        "qualities_str": [],
        "instrument_family": family,
        "instrument_family_str": instrument.family,
        "instrument_source": 2,
        "instrument_source_str": "synthetic",
    }
