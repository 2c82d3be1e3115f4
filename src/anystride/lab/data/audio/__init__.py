"""Sound as log-mel spectrograms: public data sets (five tasks are in Table A.1), a computed stand-in, and folders.

`AUDIO` maps each task to the function that opens it; `open_audio` opens what a configuration names, one or several.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from anystride.lab.data.audio import birds, notes, nsynth, speech_commands, spoken_digits, tut_urban
from anystride.lab.data.audio.multi import MultiTask
from anystride.lab.data.source import Source
from anystride.lab.run.config import RunConfig

AUDIO: dict[str, Callable[[RunConfig, Path, bool], Source]] = {
    "speech-commands": speech_commands.open_source,
    "nsynth-instrument": nsynth.open_instrument,
    "nsynth-pitch": nsynth.open_pitch,
    "tut-urban-2018": tut_urban.open_source,
    "tut-urban-2018-fold1": tut_urban.open_fold,
    "dcase-2018-birds": birds.open_source,
    "notes-instrument": notes.open_instrument,
    "notes-pitch": notes.open_pitch,
    "spoken-digits": spoken_digits.open_source,
    "spoken-digits-speaker": spoken_digits.open_speaker,
}


def open_audio(config: RunConfig, root: Path, download: bool) -> Source:
    """The tasks that `config.data` names, joined by "+": one of them as it is, several for one network."""
    return multi_task([AUDIO[name](config, root, download) for name in config.data.split("+")])


def multi_task(sources: Sequence[Source]) -> Source:
    """One source for all tasks of `sources`; a single one is returned as it is."""
    return sources[0] if len(sources) == 1 else MultiTask(sources)
