"""Downloads over the loopback: whole, continued, checked; and archives that would write where they must not."""

import gzip
import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from anystride.lab.data.archive import unpack
from anystride.lab.data.download import Remote, fetch, obtain
from anystride.lab.errors import UsageError

CONTENT = bytes(range(256)) * 64


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/short.bin":
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT[:1000])
        elif self.path == "/ranges.bin" and "Range" in self.headers:
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            if start >= len(CONTENT):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
            self.send_header("Content-Length", str(len(CONTENT) - start))
            self.end_headers()
            self.wfile.write(CONTENT[start:])
        else:
            super().do_GET()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    folder = tmp_path / "site"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", folder
    server.shutdown()
    thread.join()
    server.server_close()


def tar(path: Path, members: dict[str, bytes], link: str = "") -> bytes:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        if link:
            info = tarfile.TarInfo("link")
            info.type, info.linkname = tarfile.SYMTYPE, link
            archive.addfile(info)
    return path.read_bytes()


def test_an_archive_is_fetched_checked_and_unpacked_once(site: tuple[str, Path], tmp_path: Path) -> None:
    url, served = site
    body = tar(served / "set.tar.gz", {"words/a.wav": b"sound", "list.txt": b"a"})
    remote = Remote(f"{url}/set.tar.gz", f"md5:{hashlib.md5(body).hexdigest()}")
    folder = tmp_path / "data"
    with pytest.raises(UsageError, match=r"needs .*list\.txt.* or add --download"):
        obtain(folder, ["list.txt"], [remote], "the page", "a-set", download=False)
    assert not folder.exists()
    obtain(folder, ["list.txt", "words"], [remote], "the page", "a-set", download=True)
    assert (folder / "words" / "a.wav").read_bytes() == b"sound"
    assert not (folder / "set.tar.gz").exists()
    (served / "set.tar.gz").unlink()
    obtain(folder, ["list.txt", "words"], [remote], "the page", "a-set", download=True)


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_a_wrong_checksum_leaves_nothing(site: tuple[str, Path], tmp_path: Path, kind: str) -> None:
    url, served = site
    (served / "a.bin").write_bytes(CONTENT)
    with pytest.raises(UsageError, match=f"a file whose {kind} is"):
        fetch(Remote(f"{url}/a.bin", f"{kind}:00"), tmp_path)
    assert not list(tmp_path.glob("a.bin*"))


def test_a_download_that_ends_early_is_continued(site: tuple[str, Path], tmp_path: Path) -> None:
    url, _ = site
    with pytest.raises(UsageError, match="run the same command again to continue"):
        fetch(Remote(f"{url}/short.bin"), tmp_path)
    part = tmp_path / "short.bin.part"
    assert part.read_bytes() == CONTENT[:1000]
    assert not (tmp_path / "short.bin").exists()
    part.rename(tmp_path / "ranges.bin.part")
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert fetch(Remote(f"{url}/ranges.bin", f"sha256:{digest}"), tmp_path).read_bytes() == CONTENT


def test_a_missing_page_and_a_missing_server_are_one_line(site: tuple[str, Path], tmp_path: Path) -> None:
    url, _ = site
    for address, reason in ((f"{url}/nothing.zip", "404"), ("http://127.0.0.1:9/x.zip", "refused")):
        with pytest.raises(UsageError, match=reason) as caught:
            fetch(Remote(address), tmp_path)
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="only http and https"):
        fetch(Remote("file:///etc/hostname"), tmp_path)


@pytest.mark.parametrize("member", ["../escaped.txt", "/tmp/anystride-escaped.txt", "a/../../escaped.txt"])
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_no_member_leaves_the_folder(tmp_path: Path, member: str, kind: str) -> None:
    folder, path = tmp_path / "in" / "data", tmp_path / ("evil.zip" if kind == "zip" else "evil.tar.gz")
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("good.txt", "good")
            archive.writestr(member, "evil")
    else:
        tar(path, {"good.txt": b"good", member: b"evil"})
    with pytest.raises(UsageError, match="a path outside its folder"):
        unpack(path, folder)
    assert not list(tmp_path.rglob("*escaped*"))
    assert not Path("/tmp/anystride-escaped.txt").exists()
    assert not (folder / "good.txt").exists()


def test_links_are_refused(tmp_path: Path) -> None:
    tar(tmp_path / "evil.tar.gz", {"good.txt": b"good"}, link="/etc/hostname")
    with pytest.raises(UsageError, match="'link', a link"):
        unpack(tmp_path / "evil.tar.gz", tmp_path / "data")
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        info = zipfile.ZipInfo("link")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/hostname")
    with pytest.raises(UsageError, match="'link', a link"):
        unpack(tmp_path / "evil.zip", tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


def test_what_was_all_there_before_the_end_is_not_sent_again(site: tuple[str, Path], tmp_path: Path) -> None:
    url, _ = site
    (tmp_path / "ranges.bin.part").write_bytes(CONTENT)
    assert fetch(Remote(f"{url}/ranges.bin"), tmp_path).read_bytes() == CONTENT


def test_a_full_disk_does_not_cost_the_download(
    site: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, served = site
    tar(served / "set.tar.gz", {"list.txt": b"a"})

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    remote = Remote(f"{url}/set.tar.gz")
    (tmp_path / "data").mkdir()
    fetch(remote, tmp_path / "data")
    monkeypatch.setattr("shutil.copyfileobj", full)  # only now: the server copies with it too
    with pytest.raises(UsageError, match="No space left"):
        obtain(tmp_path / "data", ["list.txt"], [remote], "the page", "a-set", download=True)
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"set.tar.gz", ".incomplete"}


def test_a_root_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="--root must be a folder"):
        obtain(tmp_path / "file" / "set", ["list.txt"], [], "the page", "a-set", download=True)


def test_a_damaged_archive_is_not_taken_for_a_good_one_later(site: tuple[str, Path], tmp_path: Path) -> None:
    url, served = site
    whole = tar(served / "set.tar.gz", {"list.txt": CONTENT})
    (served / "set.tar.gz").write_bytes(whole[: len(whole) // 2])
    folder, remote = tmp_path / "data", Remote(f"{url}/set.tar.gz")
    with pytest.raises(UsageError, match="is damaged"):
        obtain(folder, ["list.txt"], [remote], "the page", "a-set", download=True)
    (served / "set.tar.gz").write_bytes(whole)
    obtain(folder, ["list.txt"], [remote], "the page", "a-set", download=True)
    assert (folder / "list.txt").read_bytes() == CONTENT


def test_a_set_of_which_a_part_is_lacking_is_not_taken_for_whole(site: tuple[str, Path], tmp_path: Path) -> None:
    url, served = site
    tar(served / "one.tar.gz", {"list.txt": b"a", "audio/1.wav": b"1"})
    folder, remotes = tmp_path / "data", [Remote(f"{url}/one.tar.gz"), Remote(f"{url}/two.tar.gz")]
    needed = ["list.txt", "audio"]
    with pytest.raises(UsageError, match="404"):
        obtain(folder, needed, remotes, "the page", "a-set", download=True)
    with pytest.raises(UsageError, match="was interrupted; add --download"):
        obtain(folder, needed, remotes, "the page", "a-set", download=False)
    tar(served / "two.tar.gz", {"audio/2.wav": b"2"})
    (served / "one.tar.gz").unlink()
    obtain(folder, needed, remotes, "the page", "a-set", download=True)
    assert (folder / "audio" / "2.wav").read_bytes() == b"2"
    obtain(folder, needed, remotes, "the page", "a-set", download=False)


def test_a_damaged_header_is_not_the_end(tmp_path: Path) -> None:
    path = tmp_path / "set.tar.gz"
    plain = bytearray(gzip.decompress(tar(path, {"1.wav": b"1", "2.wav": b"2"})))
    whole = gzip.compress(bytes(plain))
    plain[1024] ^= 1  # the second member's header
    path.write_bytes(gzip.compress(bytes(plain))[:-8] + whole[-8:])
    with pytest.raises(UsageError, match="is damaged"):
        unpack(path, tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []
