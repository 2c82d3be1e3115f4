"""How much sound a file's header announces, and how much is there.

libsndfile reads what is there of an uncompressed file and says nothing about the rest. So the announced length is
looked up here for the formats made of chunks (RIFF, RIFX, RF64, W64, AIFF, CAF), for AU and for the pages of Ogg; the
other formats carry checksums that libsndfile reads.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

SLACK = 64
"""Bytes by which a file may be shorter than its header says: programs count the last chunk's padding differently."""
CHUNKS = 10_000
"""Chunks that are looked at; a file with more of them before its sound is damaged."""
W64_DATA = bytes.fromhex("64617461f3acd3118cd100c04f8edb8a")
PAGE = 65_307
"""The largest page of Ogg, in bytes."""
HEAD = 27
"""Bytes with which a page begins; the last one counts the sizes that follow."""
FIRST_PAGE = 2
"""The flag of the page that begins a stream."""


@dataclass(frozen=True)
class Extent:
    """Where the sound of a file lies.

    Args:
        missing: bytes that the header announces and the file lacks.
        at: where a header that does not know the length holds a number, None where it knows the length.
        number: what the number must be for all that is there to be read, as bytes.
        several: whether one sound follows after another in an Ogg file.
    """

    missing: int = 0
    at: int | None = None
    number: bytes = b""
    several: bool = False

    @property
    def cut_off(self) -> bool:
        """Whether sound is lacking."""
        return self.missing > SLACK


@dataclass(frozen=True)
class _Layout:
    """How a format made of chunks is laid out: `head` holds a chunk's name and size."""

    first: int
    head: str
    sound: bytes
    whole: str = ""
    """The size of the file without its first eight bytes, at byte 4."""
    counts_head: bool = False
    align: int = 2


_LAYOUTS = {
    b"RIFF": _Layout(12, "<4sI", b"data", "<I"),
    b"RIFX": _Layout(12, ">4sI", b"data", ">I"),
    b"RF64": _Layout(12, "<4sI", b"data"),
    b"FORM": _Layout(12, ">4sI", b"SSND", ">I"),
    b"riff": _Layout(40, "<16sQ", W64_DATA, counts_head=True, align=8),
    b"caff": _Layout(8, ">4sq", b"data", align=1),
}


def extent(path: Path) -> Extent:
    """Compare the header of a sound file with the file. A format that is not known here lacks nothing."""
    length = path.stat().st_size
    with path.open("rb") as file:
        kind = file.read(4)
        if kind in _LAYOUTS:
            return _of_chunks(file, _LAYOUTS[kind], kind, length)
        if kind == b".snd":
            start, size = struct.unpack(">II", file.read(8).ljust(8, b"\0"))
            return _compared(start, size, length, 8, ">I", False)
        return _of_pages(file, length) if kind == b"OggS" else Extent()


def _of_chunks(file: BinaryIO, layout: _Layout, kind: bytes, length: int) -> Extent:
    width = struct.calcsize(layout.head)
    number = layout.head[0] + layout.head[-1]
    place, long_at, long_size = layout.first, 0, 0
    for _ in range(CHUNKS):
        file.seek(place)
        head = file.read(width)
        if len(head) < width:
            break  # there is no sound, which the reader says
        name, size = struct.unpack(layout.head, head)
        start, at = place + width, place + width - struct.calcsize(number)
        if name == b"ds64" and kind == b"RF64":
            long_at = start + 8
            long_size = struct.unpack("<Q", file.read(16).ljust(16, b"\0")[8:])[0]
        if name == layout.sound:
            if long_at and size in (0, 2**32 - 1):
                return _compared(start, long_size, length, long_at, "<Q", False)
            size -= width if layout.counts_head else 0
            honest = bool(layout.whole) and _whole(file, layout.whole) == length - 8
            return _compared(start, size, length, at, number, honest, width if layout.counts_head else 0)
        body = size - width if layout.counts_head else size
        if body < 0:
            break
        place = start + body + (-body % layout.align)
    return Extent()


def _whole(file: BinaryIO, number: str) -> int:
    file.seek(4)
    return int(struct.unpack(number, file.read(4))[0])


def _compared(start: int, size: int, length: int, at: int, number: str, honest: bool, more: int = 0) -> Extent:
    """What follows from `size` bytes of sound being announced from `start` on."""
    there = max(0, length - start)
    if there and ((size <= 0 and not honest) or (size > there and _is_unknown(size))):
        return Extent(at=at, number=struct.pack(number, there + more))
    return Extent(missing=max(0, size - there))


def _is_unknown(size: int) -> bool:
    """Whether a size is one of those that programs write into a pipe: nearly 2 GiB, nearly 4 GiB or all ones."""
    return 0x7F00_0000 <= size <= 0x8000_0000 or 0xFFFF_0000 <= size < 2**32 or size >= 2**62


def _of_pages(file: BinaryIO, length: int) -> Extent:
    """Whether the last page of an Ogg file is all there, and whether all pages are of one sound."""
    place, begun = 0, False
    while place < length:
        file.seek(place)
        head = file.read(HEAD)
        if head[:4] != b"OggS"[: len(head)]:
            break  # something else behind the sound, such as a tag
        sizes = file.read(head[HEAD - 1]) if len(head) == HEAD else b""
        if len(head) < HEAD or len(sizes) < head[HEAD - 1]:
            return Extent(missing=PAGE)
        place += HEAD + len(sizes) + sum(sizes)
        if place > length:
            return Extent(missing=PAGE)
        is_first = bool(head[5] & FIRST_PAGE)
        if is_first and begun:
            return Extent(several=True)
        begun = begun or not is_first  # tracks that run side by side have their first pages next to each other
    return Extent()
