from __future__ import annotations

import gzip
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from training.data import download, idx

CONTENTS = {
    "train-images-idx3-ubyte": b"\0\0\x08\x03" + bytes(range(250)) * 40,
    "train-labels-idx1-ubyte": b"\0\0\x08\x01 train labels",
    "t10k-images-idx3-ubyte": b"\0\0\x08\x03 test images",
    "t10k-labels-idx1-ubyte": b"\0\0\x08\x01 test labels",
}
FIRST = "train-images-idx3-ubyte.gz"


@dataclass
class Mirror:
    """A web server that answers with `answers[path]`: status, headers and body."""

    url: str = ""
    answers: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def publish(self, prefix: str) -> None:
        for file, content in CONTENTS.items():
            body = gzip.compress(content)
            headers = {"Content-Length": str(len(body)), "Content-Type": "application/gzip"}
            self.answers[f"{prefix}/{file}.gz"] = (200, headers, body)

    def replace(self, path: str, body: bytes, **headers: str) -> None:
        self.answers[path] = (200, {"Content-Length": str(len(body)), **headers}, body)


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Mirror]:
    """A server, the two mirrors of mnist set to /a and /b on it, and an empty cache in `tmp_path`."""
    mirror = Mirror()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            mirror.asked.append(self.path)
            status, headers, body = mirror.answers.get(self.path, (404, {"Content-Length": "0"}, b""))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    mirror.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("DUET_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("DUET_DATA_MIRROR", raising=False)
    monkeypatch.setitem(download.MIRRORS, "mnist", (f"{mirror.url}/a", f"{mirror.url}/b"))
    sums = {file: hashlib.sha256(content).hexdigest() for file, content in CONTENTS.items()}
    monkeypatch.setattr(download, "SHA256", {"mnist": sums})
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield mirror
    server.shutdown()
    thread.join()
    server.server_close()


def left_in(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.rglob("*") if path.is_file())


def assert_complete(home: Path) -> None:
    assert left_in(home) == sorted(f"{file}.gz" for file in CONTENTS)
    for file, content in CONTENTS.items():
        assert gzip.decompress((home / f"{file}.gz").read_bytes()) == content


def test_downloads_once(mirror: Mirror, tmp_path: Path) -> None:
    mirror.publish("/a")
    home = download.fetch("mnist")
    assert home == tmp_path / "mnist"
    assert_complete(home)
    assert mirror.asked == [f"/a/{file}.gz" for file in CONTENTS]
    assert download.fetch("mnist") == home
    assert len(mirror.asked) == 4


def test_only_what_is_missing_is_downloaded(mirror: Mirror, tmp_path: Path) -> None:
    mirror.publish("/a")
    download.fetch("mnist")
    (tmp_path / "mnist" / FIRST).unlink()
    assert_complete(download.fetch("mnist"))
    assert mirror.asked[4:] == [f"/a/{FIRST}"]


def test_second_mirror_after_404_for_that_file_only(mirror: Mirror) -> None:
    mirror.publish("/a")
    mirror.publish("/b")
    del mirror.answers[f"/a/{FIRST}"]
    assert_complete(download.fetch("mnist"))
    assert mirror.asked[:3] == [f"/a/{FIRST}", f"/b/{FIRST}", "/a/train-labels-idx1-ubyte.gz"]


def test_second_mirror_after_a_host_that_refuses_the_connection(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.publish("/b")
    monkeypatch.setitem(download.MIRRORS, "mnist", ("http://127.0.0.1:1/a", f"{mirror.url}/b"))
    assert_complete(download.fetch("mnist"))


def damage(kind: str, body: bytes) -> bytes:
    if kind == "corrupted":
        return body[:100] + bytes([body[100] ^ 1]) + body[101:]
    if kind == "cut gzip":
        return body[:-50]
    if kind == "other content":
        return gzip.compress(CONTENTS["train-images-idx3-ubyte"] + b"!")
    return b"<html>Please sign in to the network</html>"


@pytest.mark.parametrize("kind", ["corrupted", "cut gzip", "other content", "sign-in page"])
def test_wrong_content_is_never_kept(mirror: Mirror, tmp_path: Path, kind: str) -> None:
    mirror.publish("/a")
    mirror.publish("/b")
    mirror.replace(f"/a/{FIRST}", damage(kind, mirror.answers[f"/a/{FIRST}"][2]))
    assert_complete(download.fetch("mnist"))
    assert mirror.asked[:2] == [f"/a/{FIRST}", f"/b/{FIRST}"]


def test_connection_cut_in_the_middle_is_never_kept(mirror: Mirror) -> None:
    mirror.publish("/a")
    mirror.publish("/b")
    _, headers, body = mirror.answers[f"/a/{FIRST}"]
    mirror.answers[f"/a/{FIRST}"] = (200, headers, body[: len(body) // 2])
    assert_complete(download.fetch("mnist"))
    assert mirror.asked[:2] == [f"/a/{FIRST}", f"/b/{FIRST}"]


def test_when_no_mirror_helps_the_error_tells_all_and_nothing_is_left(mirror: Mirror, tmp_path: Path) -> None:
    mirror.replace(f"/a/{FIRST}", b"<html>", **{"Content-Type": "text/html"})
    with pytest.raises(download.DownloadError) as caught:
        download.fetch("mnist")
    message = str(caught.value)
    for part in (
        f"{mirror.url}/a/{FIRST}: received 6 bytes of text/html",
        f"{mirror.url}/b/{FIRST}",
        "404",
        "--data-dir",
        "DUET_DATA_DIR",
        "DUET_DATA_MIRROR",
    ):
        assert part in message
    assert str(tmp_path) not in message  # the temporary file's name helps nobody
    assert left_in(tmp_path) == []


def test_a_cut_file_is_told_by_what_came(mirror: Mirror, tmp_path: Path) -> None:
    mirror.publish("/a")
    mirror.replace(f"/a/{FIRST}", mirror.answers[f"/a/{FIRST}"][2][:-50])
    with pytest.raises(
        download.DownloadError, match=r"a/train-images.*received \d+ bytes of no type: not readable as gzip"
    ) as caught:
        download.fetch("mnist")
    assert str(tmp_path) not in str(caught.value)
    assert left_in(tmp_path) == []


def test_what_came_whole_stays_when_a_later_file_fails(mirror: Mirror, tmp_path: Path) -> None:
    mirror.publish("/a")
    del mirror.answers["/a/t10k-labels-idx1-ubyte.gz"]
    with pytest.raises(download.DownloadError, match=r"t10k-labels-idx1-ubyte\.gz"):
        download.fetch("mnist")
    assert len(left_in(tmp_path)) == 3
    mirror.publish("/b")
    assert_complete(download.fetch("mnist"))


def test_interrupt_leaves_nothing_behind(mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror.publish("/a")
    present = []

    def interrupt(content: bytes, source: str) -> bytes:
        present.extend(left_in(tmp_path))
        raise KeyboardInterrupt

    monkeypatch.setattr(idx, "decompress", interrupt)
    with pytest.raises(KeyboardInterrupt):
        download.fetch("mnist")
    assert len(present) == 1  # there was something to clean up
    assert left_in(tmp_path) == []


def test_own_mirror_replaces_the_usual_ones(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror.publish("/own/mnist")
    monkeypatch.setenv("DUET_DATA_MIRROR", f"{mirror.url}/own/")
    assert_complete(download.fetch("mnist"))
    assert all(path.startswith("/own/mnist/") for path in mirror.asked)


@pytest.mark.parametrize("url", ["example.org/data", "ftp://example.org", "http://[", "http://127.0.0.1:1"])
def test_a_mirror_that_cannot_be_asked_is_named(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str
) -> None:
    monkeypatch.setenv("DUET_DATA_MIRROR", url)
    with pytest.raises(download.DownloadError) as caught:
        download.fetch("mnist")
    assert f"{url}/mnist/{FIRST}: " in str(caught.value)
    assert mirror.asked == []
    assert left_in(tmp_path) == []


def test_redirects_are_followed(mirror: Mirror) -> None:
    mirror.publish("/moved")
    for file in CONTENTS:
        mirror.answers[f"/a/{file}.gz"] = (302, {"Location": f"/moved/{file}.gz", "Content-Length": "0"}, b"")
    assert_complete(download.fetch("mnist"))
    assert mirror.asked[:2] == [f"/a/{FIRST}", f"/moved/{FIRST}"]


def test_server_that_declares_the_gzip_as_an_encoding(mirror: Mirror) -> None:
    mirror.publish("/a")
    for _, headers, _ in mirror.answers.values():
        headers["Content-Encoding"] = "gzip"
    assert_complete(download.fetch("mnist"))


def test_default_cache_follows_the_desktop_standard(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DUET_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert download.cache_directory() == tmp_path / "duet"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert download.cache_directory() == tmp_path / ".cache" / "duet"


def test_every_file_has_a_sum_and_every_set_two_mirrors() -> None:
    assert download.SHA256.keys() == download.MIRRORS.keys()
    assert len({sha256 for sums in download.SHA256.values() for sha256 in sums.values()}) == 8
    assert all(len(set(mirrors)) == 2 for mirrors in download.MIRRORS.values())
