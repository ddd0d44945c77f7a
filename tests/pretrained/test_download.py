"""Downloads from a real server on loopback, which fails in the ways servers do."""

from __future__ import annotations

import errno
import itertools
import logging
import os
import random
import time
from pathlib import Path

import pooch
import pytest
import rich.progress
from loopback import (
    Server,
    blackhole,
    chunks,
    closed_port,
    good,
    in_turn,
    md5,
    redirect,
    sha256,
    status,
    truncated,
)

from vggish_pt.errors import DownloadError, OutputError, SettingsError, WeightsError
from vggish_pt.pretrained import download
from vggish_pt.pretrained.download import digest_of, fetch
from vggish_pt.pretrained.entries import Download

DATA = random.Random(0).randbytes(3 << 20)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(download, "_WAIT_SECONDS", 0)


@pytest.fixture
def server():
    with Server().running() as running:
        yield running


def source(server: Server, path: str = "/a/file.bin", data: bytes = DATA, size: int | None = None) -> Download:
    return Download(server.url + path, sha256(data), size)


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("digest", [sha256(DATA), md5(DATA)])
@pytest.mark.parametrize("size", [None, len(DATA)])
def test_good_file(server, tmp_path, digest, size):
    server.routes["/file.bin"] = good(DATA)
    path = fetch([Download(f"{server.url}/file.bin", digest, size)], tmp_path)
    assert path == tmp_path / "file.bin"
    assert path.read_bytes() == DATA
    assert leftovers(tmp_path) == ["file.bin"]


def test_file_that_is_there_is_used_only_if_its_digest_is_right(server, tmp_path):
    server.routes["/a/file.bin"] = good(DATA)
    (tmp_path / "file.bin").write_bytes(b"something else")
    assert fetch([source(server)], tmp_path).read_bytes() == DATA
    fetch([source(server)], tmp_path)
    assert server.count("/a/file.bin") == 1


def test_a_file_of_a_later_source_is_used_again(server, tmp_path):
    server.routes["/a/mirror.bin"] = good(DATA)
    sources = [source(server), source(server, "/a/mirror.bin")]
    fetch(sources, tmp_path)
    server.requests.clear()
    assert fetch(sources, tmp_path) == tmp_path / "mirror.bin"
    assert server.requests == []


@pytest.mark.parametrize("announced", [True, False])
def test_progress_is_shown_on_stderr_as_bytes_arrive(server, tmp_path, capsys, monkeypatch, announced):
    seen = []
    monkeypatch.setattr(rich.progress.Progress, "update", lambda self, task, **fields: seen.append(fields))
    pieces = [DATA[i : i + 100_000] for i in range(0, len(DATA), 100_000)]
    server.routes["/a/file.bin"] = good(DATA) if announced else chunks(iter(pieces))
    fetch([source(server)], tmp_path, progress=True)
    done = [fields["completed"] for fields in seen]
    assert done[0] == 0 and done[-1] == len(DATA) and done == sorted(done) and len(done) > 5
    assert {fields["total"] for fields in seen} == {len(DATA) if announced else None}
    captured = capsys.readouterr()
    assert "file.bin" in captured.err and captured.out == ""


@pytest.fixture
def logged():
    """Records that pass the filters of pooch's logger, which prints them on stderr."""
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    pooch.get_logger().addHandler(handler)
    yield records
    pooch.get_logger().removeHandler(handler)


@pytest.mark.parametrize("progress", [False, None])  # stderr is no terminal here
def test_quiet(server, tmp_path, capsys, logged, progress):
    server.routes["/a/file.bin"] = in_turn(status(503), good(DATA))
    fetch([source(server)], tmp_path, progress=progress)
    assert capsys.readouterr() == ("", "")
    assert logged == []


def test_other_threads_may_use_poochs_logger_meanwhile(server, tmp_path, logged):
    def answer(handler):  # runs in a thread of the server
        pooch.get_logger().info("of another thread")
        good(DATA)(handler)

    server.routes["/a/file.bin"] = answer
    before = list(pooch.get_logger().filters)
    fetch([source(server)], tmp_path, progress=False)
    assert [record.getMessage() for record in logged] == ["of another thread"]
    assert pooch.get_logger().filters == before


def test_wrong_digest_is_never_kept(server, tmp_path):
    server.routes["/a/file.bin"] = good(DATA[:-1] + b"x")
    with pytest.raises(DownloadError, match=r"file\.bin.*sends another file.*expected sha256:"):
        fetch([source(server)], tmp_path)
    assert leftovers(tmp_path) == []


def test_next_address_when_the_first_has_not_the_file(server, tmp_path):
    server.routes["/mirror/file.bin"] = good(DATA)
    server.routes["/wrong/file.bin"] = good(b"wrong")
    places = [source(server, path) for path in ("/gone/file.bin", "/wrong/file.bin", "/mirror/file.bin")]
    assert fetch(places, tmp_path).read_bytes() == DATA
    assert [path for _, path, _ in server.requests] == ["/gone/file.bin", "/wrong/file.bin", "/mirror/file.bin"]


def test_all_addresses_are_named_when_all_fail(server, tmp_path):
    server.routes["/b/file.bin"] = good(b"wrong")
    with pytest.raises(DownloadError) as caught:
        fetch([source(server, "/a/file.bin"), source(server, "/b/file.bin")], tmp_path)
    assert "/a/file.bin: it answered 404" in str(caught.value) and "/b/file.bin: it sends another file" in str(
        caught.value
    )
    assert "\n" not in str(caught.value)


def test_always_truncated(server, tmp_path):
    server.routes["/a/file.bin"] = truncated(DATA, 1000)
    with pytest.raises(DownloadError, match=r"4 times"):
        fetch([source(server)], tmp_path)


def test_dropped_half_way(server, tmp_path):
    server.routes["/a/file.bin"] = in_turn(truncated(DATA, len(DATA) // 2), good(DATA))
    assert fetch([source(server)], tmp_path).read_bytes() == DATA
    assert server.count("/a/file.bin") == 2
    assert leftovers(tmp_path) == ["file.bin"]


def test_a_busy_server_is_asked_again(server, tmp_path):
    server.routes["/a/file.bin"] = in_turn(status(503), status(429), good(DATA))
    assert fetch([source(server)], tmp_path).read_bytes() == DATA


def test_an_unknown_file_is_asked_for_once(server, tmp_path):
    with pytest.raises(DownloadError, match="404"):
        fetch([source(server)], tmp_path)
    assert server.count("/a/file.bin") == 1


def test_a_server_that_never_stops_is_cut_off(server, tmp_path, monkeypatch):
    server.routes["/endless"] = chunks(itertools.repeat(bytes(1 << 16)))
    with pytest.raises(DownloadError, match=f"more than the {len(DATA)} bytes"):
        fetch([source(server, "/endless", size=len(DATA))], tmp_path)
    monkeypatch.setattr(download, "MAX_BYTES", 1 << 20)
    with pytest.raises(DownloadError, match=f"more than the {1 << 20} bytes"):
        fetch([source(server, "/endless")], tmp_path)
    server.routes["/large"] = good(DATA)
    with pytest.raises(DownloadError, match=f"offers {len(DATA)} bytes, where at most {1 << 20}"):
        fetch([source(server, "/large")], tmp_path)
    assert leftovers(tmp_path) == []


def test_a_wrong_size_is_refused_before_reading(server, tmp_path):
    server.routes["/a/file.bin"] = good(DATA)
    with pytest.raises(DownloadError, match="offers"):
        fetch([source(server, size=len(DATA) + 1)], tmp_path)
    assert leftovers(tmp_path) == []


def test_redirects(server, tmp_path):
    server.routes["/a/file.bin"] = redirect("/b/real.bin")
    server.routes["/b/real.bin"] = good(DATA)
    assert fetch([source(server)], tmp_path).read_bytes() == DATA


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "/a/file.bin", "http://"])
def test_redirects_elsewhere(server, tmp_path, target):
    server.routes["/a/file.bin"] = redirect(target)
    with pytest.raises(DownloadError):
        fetch([source(server)], tmp_path)


def test_nobody_listens(tmp_path):
    with pytest.raises(DownloadError, match="connection"):
        fetch([Download(f"{closed_port()}/file.bin", sha256(DATA))], tmp_path)


def test_a_file_where_the_folder_should_be(server, tmp_path):
    server.routes["/a/file.bin"] = good(DATA)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="VGGISH_PT_CACHE"):
        fetch([source(server)], tmp_path / "file" / "cache")


def test_disk_full(server, tmp_path, monkeypatch):
    server.routes["/a/file.bin"] = good(DATA)

    def full(self, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(download._Output, "write", full)
    with pytest.raises(OutputError, match="No space left"):
        fetch([source(server)], tmp_path)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"url": "ftp://host/file"},
        {"url": "file:///etc/passwd"},
        {"url": "https://host/"},
        {"url": "https://host/.."},
        {"url": "https://host/a/..%2fb"},
        {"url": "https:///file"},
        {"url": 3},
        {"digest": "md5:d1c7011e"},
        {"digest": "sha256:1008697"},
        {"digest": "sha256:" + "0" * 65},
        {"digest": "sha256:10086976"},
        {"digest": "sha256:" + "0" * 63},
        {"digest": "crc32:00000000"},
        {"digest": None},
        {"digest": None, "url": "https://host/file-1008697.pth"},
        {"size": 0},
        {"size": True},
        {"size": 1 << 40},
    ],
)
def test_nonsense_in_a_registry(fields):
    with pytest.raises(WeightsError):
        Download(**({"url": "https://host/file", "digest": "sha256:" + "0" * 64, "size": None} | fields))


def test_a_source_without_a_digest_is_not_used(server, tmp_path):
    server.routes["/vggish-10086976.pth"] = good(DATA)
    with pytest.raises(DownloadError, match=r"10086976\.pth: its full digest is not known here.*--mirror-sha256"):
        fetch([Download(f"{server.url}/vggish-10086976.pth")], tmp_path)
    assert server.requests == []


def test_digest_of(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(DATA)
    assert digest_of(path) == sha256(DATA) and digest_of(path, "md5") == md5(DATA)


def test_unreachable(server, tmp_path, monkeypatch):
    monkeypatch.setenv("VGGISH_PT_CONNECT_TIMEOUT", "0.5")
    server.routes["/x"] = good(DATA)
    start = time.monotonic()
    with blackhole() as hole:
        urls = [f"{hole}/x", f"{closed_port()}/x", "http://no-such-host.invalid/x"]
        with pytest.raises(DownloadError) as caught:
            fetch([Download(url, sha256(DATA)) for url in urls], tmp_path)
        assert fetch([Download(url, sha256(DATA)) for url in (f"{hole}/x", f"{server.url}/x")], tmp_path).is_file()
    assert time.monotonic() - start < 30  # one attempt each
    reasons = dict(reason.split(": ", 1) for reason in str(caught.value).split(": ", 1)[1].split("; "))
    assert reasons.keys() == set(urls)
    assert "no answer within 0.5 s" in reasons[urls[0]] and "refused" in reasons[urls[1]]


@pytest.mark.parametrize("proxied", [True, False])
def test_a_proxy_that_cannot_be_reached(server, tmp_path, monkeypatch, proxied):
    for name in ("no_proxy", "NO_PROXY", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    if proxied:
        monkeypatch.setenv("http_proxy", closed_port())
    server.routes["/x"] = good(DATA)
    place = Download(f"{server.url}/x", sha256(DATA))
    if proxied:
        with pytest.raises(DownloadError, match="the connection failed"):
            fetch([place], tmp_path)
    else:
        assert fetch([place], tmp_path).is_file()


def test_passwords_are_not_shown(tmp_path):
    url = closed_port().replace("//", "//user:secret@") + "/x?token=abc"
    with pytest.raises(DownloadError) as caught:
        fetch([Download(url, sha256(DATA))], tmp_path)
    assert "secret" not in str(caught.value) and "abc" not in str(caught.value)


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "inf"])
def test_connect_timeout_must_be_a_number(monkeypatch, tmp_path, text):
    monkeypatch.setenv("VGGISH_PT_CONNECT_TIMEOUT", text)
    with pytest.raises(SettingsError, match="VGGISH_PT_CONNECT_TIMEOUT"):
        fetch([Download("http://127.0.0.1/x", sha256(DATA))], tmp_path)


def test_through_a_proxy(server, tmp_path, monkeypatch):
    for name in ("no_proxy", "NO_PROXY", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", server.url)
    url = "http://no-such-host.invalid/file.bin"
    server.routes[url] = good(DATA)
    assert fetch([Download(url, sha256(DATA))], tmp_path).read_bytes() == DATA
