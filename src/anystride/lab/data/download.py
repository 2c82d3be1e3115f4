"""Fetching public data: downloads that resume, and checksums."""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from anystride.lab.data.archive import ARCHIVES, CHUNK, ArchiveError, sweep_unpacking, unpack
from anystride.lab.data.locks import alone
from anystride.lab.data.meter import Meter, progress
from anystride.lab.errors import UsageError

TIMEOUT = 60.0
"""Seconds without a byte after which a server counts as gone."""


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
        folder.parent.mkdir(parents=True, exist_ok=True)
        with alone(folder):
            _fetch_all(folder, needed, remotes, begun)
    except OSError as error:
        raise UsageError(f"--root must be a folder that can be written to: {error}") from error
    missing = _missing(folder, needed)
    if missing:
        raise UsageError(
            f"--data {title}: {str(folder / missing[0])!r} is not in what {page} offers; "
            f"remove {str(folder)!r} and download again, or unpack the data set there by hand"
        )


def _fetch_all(folder: Path, needed: Sequence[str], remotes: Sequence[Remote], begun: Path) -> None:
    """Fetch and unpack what is lacking; nobody else may work on `folder`."""
    if not _missing(folder, needed) and not begun.is_file():
        return  # another process did it while this one was waiting
    folder.mkdir(parents=True, exist_ok=True)
    begun.touch()
    for place in {folder, *(folder / remote.into for remote in remotes)}:
        sweep_unpacking(place)
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


def _missing(folder: Path, needed: Sequence[str]) -> list[str]:
    return [path for path in needed if not _is_there(folder / path)]


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long
        return False


def fetch(remote: Remote, folder: Path, meter: Meter = progress) -> Path:
    """Download into `folder`; an earlier attempt is continued. The file has its name only when it is whole and right.

    Raises UsageError when the server cannot be reached, ends early or sends something else than the checksum says.
    """
    path = folder / remote.filename
    part = path.with_name(f"{path.name}.part")
    try:
        if path.is_file():
            return path
        _receive(remote.url, part, meter)
    except (OSError, HTTPException, ValueError) as error:
        if isinstance(error, UsageError):
            raise
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
    """How many bytes the server announces; None where it does not, or where that is no number."""
    announced = response.headers.get("Content-Length") or ""
    return int(announced) if announced.isascii() and announced.isdigit() else None
