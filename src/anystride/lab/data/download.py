"""Fetching public data: downloads that resume, checksums, archives that cannot write outside their folder."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import shutil
import stat
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import urlsplit

from anystride.lab.errors import UsageError

CHUNK = 1 << 20
TIMEOUT = 60.0
"""Seconds without a byte after which a server counts as gone."""

ARCHIVES = (".tar.gz", ".tgz", ".tar", ".zip")

OTHERS = (EOFError, RuntimeError, ValueError, lzma.LZMAError)
"""What else the readers of archives raise for damaged ones."""

Advance = Callable[[int], None]


class ArchiveError(UsageError):
    """An archive that is damaged or that would write outside its folder: fetching it again is all that helps."""


@dataclass(frozen=True)
class Remote:
    """A file to fetch. `checksum` is "sha256:..." or "md5:..." as its publishers state it, empty where none is known:
    then the length that the server announces and the archive's own checksums have to do."""

    url: str
    checksum: str = ""
    name: str = ""
    into: str = ""
    """The folder, relative to the data set's, that an archive is unpacked into or a plain file is put in."""

    @property
    def filename(self) -> str:
        return self.name or PurePosixPath(urlsplit(self.url).path).name


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Advance]:
    """Shows on a terminal's error stream how far something is that takes long; elsewhere it is silent."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=30), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as shown:
        task = shown.add_task(what, total=total)
        yield lambda amount: shown.advance(task, amount)


Meter = Callable[[str, "int | None"], AbstractContextManager[Advance]]
"""`progress` or what replaces it: called with a description and a total, gives a context that counts."""


def obtain(
    folder: Path, needed: Sequence[str], remotes: Sequence[Remote], page: str, title: str, download: bool
) -> None:
    """Make sure that `folder` holds the files `needed` (relative paths).

    Without `download` a missing file is a UsageError that names it, the page to get it from and the remedy. Archives
    that were unpacked before are not fetched again; an archive is deleted once it is unpacked. While a download of
    several parts has not come to its end, `folder` counts as incomplete whatever it holds.
    """
    missing = _missing(folder, needed)
    begun = folder / ".incomplete"
    if not missing and not begun.is_file():
        return
    if not download and not missing:
        raise UsageError(
            f"--data {title}: the download of {page} into {str(folder)!r} was interrupted; add --download to continue, "
            f"or remove {str(begun)!r} if all of it was unpacked there by hand"
        )
    if not download:
        raise UsageError(
            f"--data {title} needs {str(folder / missing[0])!r}, which is missing: "
            f"unpack {page} into {str(folder)!r}, or add --download"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        begun.touch()
    except OSError as error:
        raise UsageError(f"--root must be a folder that can be written to: {error}") from error
    for remote in remotes:
        done = folder / f".{remote.filename}.unpacked"
        if done.is_file():
            continue
        path = fetch(remote, folder)
        if path.name.endswith(ARCHIVES):
            try:
                unpack(path, folder / remote.into)
            except ArchiveError:
                path.unlink()  # it would be taken for a good one the next time
                raise
            done.touch()
            path.unlink()
        else:
            (folder / remote.into).mkdir(parents=True, exist_ok=True)
            path.replace(folder / remote.into / path.name)
            done.touch()
    begun.unlink()
    missing = _missing(folder, needed)
    if missing:
        raise UsageError(
            f"--data {title}: {str(folder / missing[0])!r} is not in what {page} offers; "
            f"remove {str(folder)!r} and download again, or unpack the data set there by hand"
        )


def _missing(folder: Path, needed: Sequence[str]) -> list[str]:
    return [path for path in needed if not (folder / path).exists()]


def fetch(remote: Remote, folder: Path, meter: Meter = progress) -> Path:
    """Download into `folder`; an earlier attempt is continued. The file has its name only when it is whole and right.

    Raises UsageError when the server cannot be reached, ends early or sends something else than the checksum says.
    """
    path = folder / remote.filename
    if path.is_file():
        return path
    part = path.with_name(f"{path.name}.part")
    try:
        _receive(remote.url, part, meter)
    except (OSError, HTTPException) as error:
        reason = str(error) or type(error).__name__
        raise UsageError(
            f"downloading {remote.url} failed ({reason}); run the same command again to continue"
        ) from error
    if remote.checksum:
        kind, _, expected = remote.checksum.partition(":")
        found = _digest(part, kind)
        if found != expected:
            part.unlink()
            raise UsageError(
                f"downloading {remote.url} gave a file whose {kind} is {found} instead of {expected}; "
                "it was removed, run the same command again"
            )
    part.replace(path)
    return path


def _digest(path: Path, kind: str) -> str:
    digest = hashlib.new(kind, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _receive(url: str, part: Path, meter: Meter) -> None:
    """Append to `part` what it lacks; OSError when the connection ends before the announced length."""
    if not url.startswith(("https://", "http://")):
        raise UsageError(f"only http and https addresses can be downloaded, got {url}")
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != 416 or not have:
            raise
        if error.headers.get("Content-Range") == f"bytes */{have}":
            return None  # all of it was here already
        part.unlink()
        return _receive(url, part, meter)
    with response:
        if response.status != 206 or not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            have = 0  # the server starts over
        length = _length(response)
        total = None if length is None else have + length
        with part.open("ab" if have else "wb") as file, meter(part.name.removesuffix(".part"), total) as advance:
            advance(have)
            while chunk := response.read(CHUNK):
                file.write(chunk)
                advance(len(chunk))
    size = part.stat().st_size
    if total is not None and size != total:
        raise OSError(f"the connection ended after {size:,} of {total:,} bytes")
    return None


def _length(response: HTTPResponse) -> int | None:
    announced = response.headers.get("Content-Length")
    return int(announced) if announced else None


def unpack(path: Path, folder: Path, meter: Meter = progress) -> None:
    """Unpack a tar or zip archive into `folder`: all of it or nothing.

    Only plain files and folders are written. Raises ArchiveError for an archive that is damaged or that holds an
    absolute path, one that leaves the folder, a link or a device, and UsageError where nothing can be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=folder))
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
    except (tarfile.TarError, gzip.BadGzipFile, zipfile.BadZipFile, zlib.error, *OTHERS) as error:
        raise ArchiveError(f"{str(path)!r} is damaged ({error}); download it again") from error
    except OSError as error:
        raise UsageError(f"unpacking {str(path)!r} failed: {error}; mind the room on the disk") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _members(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """The plain files of an archive, by name; folders are passed over, anything else is refused."""
    if path.name.endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                kind = stat.S_IFMT(info.external_attr >> 16)
                if info.is_dir():
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
    """The relative path of a member; UsageError if it is absolute or climbs out."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or any(":" in part for part in path.parts[:1]):
        raise _refusal(archive, name)
    return path


def _refusal(archive: Path, member: str) -> ArchiveError:
    return ArchiveError(
        f"{str(archive)!r} holds {member!r}, a link, a device or a path outside its folder, and was not unpacked; "
        "get the data set from its publishers"
    )
