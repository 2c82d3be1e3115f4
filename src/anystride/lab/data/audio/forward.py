"""A sound file that is read from its beginning to its end."""

from __future__ import annotations

import soundfile


class ForwardFile(soundfile.SoundFile):  # type: ignore[misc]
    """A sound file in which nobody jumps.

    The library jumps to where it is after each block that it reads. In a FLAC stream of unknown length libsndfile
    cannot do that, and says that the file is damaged.
    """

    def seekable(self) -> bool:
        return False
