"""Archives and downloads that are damaged in strange ways, and two processes that want the same one."""

import io
import os
import subprocess
import sys
import tarfile
import threading
import zipfile
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from anystride.lab.data.archive import ArchiveError, unpack
from anystride.lab.data.download import Remote, fetch, obtain
from anystride.lab.errors import UsageError


def zipped(path, members, **options):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content, **options)
    return path


def refused(path, tmp_path, match="is damaged"):
    with pytest.raises(ArchiveError, match=match) as caught:
        unpack(path, tmp_path / "data")
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "data").rglob("*"))


class Nameless(zipfile.ZipInfo):
    def is_dir(self):
        return False


def test_a_member_without_a_name_is_refused(tmp_path):
    path = zipped(tmp_path / "set.zip", {"good.txt": "good"})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(Nameless(""), "bad")
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["good.txt", ""]
    refused(path, tmp_path, "a file without a name")
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("."), io.BytesIO())
    refused(tmp_path / "set.tar", tmp_path, "a file without a name")


def test_a_file_and_a_folder_of_one_name_are_refused(tmp_path):
    refused(zipped(tmp_path / "set.zip", {"a": "1", "a/b": "2"}), tmp_path)
    refused(zipped(tmp_path / "other.zip", {"a/b": "2", "a": "1"}), tmp_path)


def test_a_compression_that_nobody_knows_is_refused(tmp_path):
    path = zipped(tmp_path / "set.zip", {"a": "1"})
    content = bytearray(path.read_bytes())
    content[8] = content[content.index(b"PK\1\2") + 10] = 77
    path.write_bytes(content)
    refused(path, tmp_path)


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_damaged_archives_never_end_in_another_error(tmp_path, kind):
    path = tmp_path / f"whole.{kind}"
    members = {f"folder/{number}.txt": bytes(range(256)) * 3 for number in range(3)}
    if kind == "zip":
        zipped(path, members, compress_type=zipfile.ZIP_DEFLATED)
    else:
        with tarfile.open(path, "w:gz" if kind == "tar.gz" else "w") as archive:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    good = 0
    for number in range(200):
        content = bytearray(whole)
        for place in rng.integers(0, len(whole), 1 + number % 4):
            content[place] = rng.integers(256)
        if number % 5 == 0:
            content = content[: rng.integers(len(content))]
        damaged, folder = tmp_path / f"damaged.{kind}", tmp_path / f"data{number}"
        damaged.write_bytes(content)
        try:
            unpack(damaged, folder)
            good += 1
        except UsageError:
            assert not list(folder.rglob("*"))
    assert good < 200


def test_a_name_that_is_no_text_is_unpacked(tmp_path):
    with tarfile.open(tmp_path / "set.tar", "w", format=tarfile.GNU_FORMAT) as archive:
        info = tarfile.TarInfo(os.fsdecode(b"\xff.txt"))
        info.size = 1
        archive.addfile(info, io.BytesIO(b"1"))
    unpack(tmp_path / "set.tar", tmp_path / "data")
    assert [os.fsencode(path.name) for path in (tmp_path / "data").iterdir()] == [b"\xff.txt"]


@pytest.mark.parametrize("name", ["x" * 300, "/".join(["y" * 200] * 25)])
def test_a_name_that_is_too_long_is_one_line(tmp_path, name):
    with pytest.raises(UsageError, match="File name too long"):
        unpack(zipped(tmp_path / "set.zip", {name: "1"}), tmp_path / "data")
    assert not list((tmp_path / "data").rglob("*"))


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="mind the room"):
        unpack(zipped(tmp_path / "set.zip", {"a": "1"}), tmp_path / "file" / "data")
    with pytest.raises(UsageError, match="--root must be a folder"):
        obtain(tmp_path / ("x" * 5000), ["a"], [], "the page", "a-set", download=True)


class Answer(BaseHTTPRequestHandler):
    """Sends `content` with the header `length`; counts how often it was asked."""

    asked = 0

    def __init__(self, *arguments, length, content):
        self.length, self.content = length, content
        super().__init__(*arguments)

    def log_message(self, *_):
        pass

    def do_GET(self):
        Answer.asked += 1
        self.send_response(200)
        if self.length:
            self.send_header("Content-Length", self.length)
        self.end_headers()
        self.wfile.write(self.content)


@pytest.fixture
def serve():
    servers = []

    def start(length, content):
        Answer.asked = 0
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Answer, length=length, content=content))
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_address[1]}/set.zip"

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("length", ["abc", "-5", "1e3", "", "٣"])
def test_a_length_that_is_no_number_is_as_none(serve, tmp_path, length):
    length = length.encode().decode("latin-1")
    assert fetch(Remote(serve(length, b"content")), tmp_path).read_bytes() == b"content"


def test_a_length_with_too_many_digits_is_one_line(serve, tmp_path):
    with pytest.raises(UsageError, match=r"downloading http.* failed"):
        fetch(Remote(serve("9" * 5000, b"content")), tmp_path)


def test_an_address_that_is_none_is_one_line(tmp_path):
    with pytest.raises(UsageError, match=r"downloading http.* failed"):
        fetch(Remote("http://[::1/set.zip", name="set.zip"), tmp_path)


def test_a_full_disk_ends_a_download_with_one_line(serve, tmp_path, monkeypatch):
    from pathlib import Path

    real = Path.open

    def full(self, *arguments, **options):
        if self.name.endswith(".part"):
            raise OSError(28, "No space left on device")
        return real(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(UsageError, match="No space left"):
        fetch(Remote(serve("7", b"content")), tmp_path)


WORKER = """
import sys
from pathlib import Path
from anystride.lab.data.download import Remote, obtain
obtain(Path(sys.argv[1]), ["a.txt"], [Remote(sys.argv[2])], "the page", "a-set", download=True)
"""


def test_processes_that_want_one_data_set_fetch_it_once(serve, tmp_path):
    body = zipped(tmp_path / "made.zip", {"a.txt": os.urandom(3_000_000)}).read_bytes()
    url, folder = serve(str(len(body)), body), tmp_path / "root" / "data"
    running = [subprocess.Popen([sys.executable, "-c", WORKER, str(folder), url]) for _ in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert (folder / "a.txt").stat().st_size == 3_000_000
    assert Answer.asked == 1


def test_what_a_killed_process_was_unpacking_is_removed(serve, tmp_path):
    body = zipped(tmp_path / "made.zip", {"a.txt": b"1"}).read_bytes()
    folder = tmp_path / "data"
    for left in (folder / ".unpacking-abcdefgh", folder / "part" / ".unpacking-12345678"):
        left.mkdir(parents=True)
        (left / "half.wav").write_bytes(b"half")
    remote = Remote(serve(str(len(body)), body), into="part")
    obtain(folder, ["part/a.txt"], [remote], "the page", "a-set", download=True)
    assert not list(folder.rglob(".unpacking-*"))
    assert (folder / "part" / "a.txt").read_bytes() == b"1"
