"""Archives that are unpacked whole or not at all, and cannot write outside their folder."""

from __future__ import annotations

import gzip
import lzma
import shutil
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from anystride.lab.data.meter import Meter, progress
from anystride.lab.errors import UsageError

CHUNK = 1 << 20

ARCHIVES = (".tar.gz", ".tgz", ".tar", ".zip")

UNPACKING = ".unpacking-"
"""How the folder begins whose files have not reached their places yet."""

DAMAGES = (
    *(tarfile.TarError, gzip.BadGzipFile, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, RuntimeError, ValueError, LookupError, ArithmeticError, TypeError, AttributeError),
)
"""What the readers of archives raise for damaged ones."""

MISFITS = (IsADirectoryError, NotADirectoryError, FileExistsError)
"""What is raised where an archive has a file and a folder of one name."""


class ArchiveError(UsageError):
    """An archive that is damaged or that would write outside its folder: fetching it again is all that helps."""


def unpack(path: Path, folder: Path, meter: Meter = progress) -> None:
    """Unpack a tar or zip archive into `folder`: all of it or nothing.

    Only plain files and folders are written. Raises ArchiveError for an archive that is damaged or that holds an
    absolute path, one that leaves the folder, a link or a device, and UsageError where nothing can be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=UNPACKING, dir=folder))
    except OSError as error:
        raise UsageError(f"unpacking {str(path)!r} failed: {error}; mind the room on the disk") from error
    try:
        with meter(f"unpacking {path.name}", None) as advance:
            for name, content in _members(path):
                target = new / _inside(name, path)
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as file:
                    shutil.copyfileobj(content, file, CHUNK)
                advance(1)
        for file_path in [entry for entry in new.rglob("*") if entry.is_file()]:
            target = folder / file_path.relative_to(new)
            target.parent.mkdir(parents=True, exist_ok=True)
            file_path.replace(target)
    except ArchiveError:
        raise
    except (*DAMAGES, *MISFITS) as error:
        raise ArchiveError(f"{str(path)!r} is damaged ({error}); download it again") from error
    except OSError as error:
        raise UsageError(f"unpacking {str(path)!r} failed: {error}; mind the room on the disk") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def sweep_unpacking(folder: Path) -> None:
    """Remove what killed processes left in `folder`; nobody may be unpacking there."""
    for left in folder.glob(f"{UNPACKING}*"):
        shutil.rmtree(left, ignore_errors=True)


def _members(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """The plain files of an archive, by name; folders are passed over, anything else is refused."""
    if path.name.endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                kind = stat.S_IFMT(info.external_attr >> 16)
                if info.filename.endswith("/"):
                    _inside(info.filename, path)
                elif kind in (0, stat.S_IFREG):
                    with archive.open(info) as content:
                        yield info.filename, content
                else:
                    raise _refusal(path, info.filename)
        return
    with tarfile.open(path) as tar:
        for member in tar:
            if member.isdir():
                _inside(member.name, path)
            elif member.isfile() and (file := tar.extractfile(member)) is not None:
                yield member.name, file
            else:
                raise _refusal(path, member.name)
        # A header that is damaged looks like the end. Reading on reaches the checksum of the compression.
        while tar.fileobj is not None and tar.fileobj.read(CHUNK):
            pass


def _inside(name: str, archive: Path) -> PurePosixPath:
    """The relative path of a member; ArchiveError if it has no name, is absolute or climbs out."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or any(":" in part for part in path.parts[:1]):
        raise _refusal(archive, name)
    if not path.parts and not name.endswith("/"):
        raise ArchiveError(f"{str(archive)!r} is damaged (it holds a file without a name); download it again")
    return path


def _refusal(archive: Path, member: str) -> ArchiveError:
    return ArchiveError(
        f"{str(archive)!r} holds {member!r}, a link, a device or a path outside its folder, and was not unpacked; "
        "get the data set from its publishers"
    )
