"""Downloads against a real server on loopback that misbehaves in the ways servers do."""

from __future__ import annotations

import errno
import itertools
import random
from pathlib import Path

import pytest
from loopback import (
    Server,
    blackhole,
    chunks,
    closed_port,
    good,
    in_turn,
    md5,
    redirect,
    send,
    sha256,
    status,
    truncated,
)

from vggish_pt.errors import DownloadError, OutputError, SettingsError, WeightsError
from vggish_pt.pretrained import connectivity as reach
from vggish_pt.pretrained import download
from vggish_pt.pretrained.download import Download, digest_matches, fetch, progress_bar

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


@pytest.mark.parametrize("digest", [sha256(DATA), sha256(DATA)[:15], md5(DATA)])
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


def test_progress_is_reported(server, tmp_path):
    pieces = [DATA[i : i + 100_000] for i in range(0, len(DATA), 100_000)]
    server.routes["/slow"] = chunks(iter(pieces))
    server.routes["/known"] = good(DATA)
    for path, total in (("/slow", None), ("/known", len(DATA))):
        seen = []
        fetch([source(server, path)], tmp_path, report=lambda *args, seen=seen: seen.append(args))
        done = [count for _, count, _ in seen]
        assert done[0] == 0 and done[-1] == len(DATA) and done == sorted(done) and len(done) > 5
        assert {(name, of) for name, _, of in seen} == {(path[1:], total)}


def test_progress_bar_names_the_file(server, tmp_path, capsys):
    server.routes["/a/file.bin"] = good(DATA)
    with progress_bar(True) as report:
        fetch([source(server)], tmp_path, report=report)
    captured = capsys.readouterr()
    assert "file.bin" in captured.err and captured.out == ""
    with progress_bar(False) as report:
        report("x", 1, 2)
    assert capsys.readouterr().err == ""


def test_wrong_digest_is_never_kept(server, tmp_path):
    server.routes["/a/file.bin"] = good(DATA[:-1] + b"x")
    with pytest.raises(DownloadError, match=r"file\.bin.*not the promised file"):
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
    assert "/a/file.bin: it answered 404" in str(caught.value) and "/b/file.bin: what it sends" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_always_truncated(server, tmp_path):
    server.routes["/a/file.bin"] = truncated(DATA, 1000)
    with pytest.raises(DownloadError, match=r"4 times"):
        fetch([source(server)], tmp_path)


@pytest.mark.parametrize("ranges", [True, False])
def test_dropped_half_way(server, tmp_path, ranges):
    half = len(DATA) // 2
    server.routes["/a/file.bin"] = in_turn(truncated(DATA, half), good(DATA, ranges=ranges))
    assert fetch([source(server)], tmp_path).read_bytes() == DATA
    assert [asked for *_, asked in server.requests] == [None, f"bytes={half}-"]


def test_resumes_what_an_earlier_run_left(server, tmp_path):
    server.routes["/a/file.bin"] = truncated(DATA, 1 << 17)
    with pytest.raises(DownloadError):
        fetch([source(server)], tmp_path)
    server.routes["/mirror/file.bin"] = good(DATA)  # the same digest, so the same bytes
    server.requests.clear()
    assert fetch([source(server, "/mirror/file.bin")], tmp_path).read_bytes() == DATA
    assert server.requests == [("GET", "/mirror/file.bin", f"bytes={1 << 17}-")]


@pytest.mark.parametrize("left", [b"x" * 1000, b"x" * len(DATA), b"x" * (len(DATA) + 1)])
@pytest.mark.parametrize("size", [None, len(DATA)])
def test_starts_again_when_what_was_left_is_wrong(server, tmp_path, left, size):
    server.routes["/a/file.bin"] = good(DATA)
    place = source(server, size=size)
    (tmp_path / f"file.bin.{place.tag}.part").write_bytes(left)
    assert fetch([place], tmp_path).read_bytes() == DATA
    assert leftovers(tmp_path) == ["file.bin"]


def test_another_range_than_asked_for(server, tmp_path):
    def shifted(handler):
        send(handler, 206, DATA[10:], Content_Range=f"bytes 10-{len(DATA) - 1}/{len(DATA)}")

    server.routes["/a/file.bin"] = in_turn(truncated(DATA, 1 << 17), shifted, good(DATA))
    assert fetch([source(server)], tmp_path).read_bytes() == DATA


def test_a_busy_server_is_asked_again(server, tmp_path):
    server.routes["/a/file.bin"] = in_turn(status(503), status(429), good(DATA))
    assert fetch([source(server)], tmp_path).read_bytes() == DATA


def test_many_drops_are_fine_as_long_as_it_gets_further(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "_PROGRESS_BYTES", 1 << 16)
    step = len(DATA) // 8

    def some(handler):
        first = int((handler.headers.get("Range") or "bytes=0-")[6:-1])
        code, extra = (206, {"Content_Range": f"bytes {first}-{len(DATA) - 1}/{len(DATA)}"}) if first else (200, {})
        send(handler, code, DATA[first : first + step], Content_Length=str(len(DATA) - first), **extra)

    server.routes["/a/file.bin"] = some
    assert fetch([source(server)], tmp_path).read_bytes() == DATA
    assert len(server.requests) >= 8


def test_a_server_that_never_stops_is_cut_off(server, tmp_path, monkeypatch):
    server.routes["/endless"] = chunks(itertools.repeat(bytes(1 << 16)))
    with pytest.raises(DownloadError, match=f"more than the {len(DATA)} bytes"):
        fetch([source(server, "/endless", size=len(DATA))], tmp_path)
    monkeypatch.setattr(download, "MAX_BYTES", 1 << 20)
    with pytest.raises(DownloadError, match=f"more than the {1 << 20} bytes"):
        fetch([source(server, "/endless")], tmp_path)
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
    place = source(server)
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    (tmp_path / f"file.bin.{place.tag}.part").symlink_to("/dev/full")
    with pytest.raises(OutputError, match=errno.errorcode[errno.ENOSPC] + "|No space left"):
        fetch([place], tmp_path)


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
        {"digest": "crc32:00000000"},
        {"digest": None},
        {"size": 0},
        {"size": True},
        {"size": 1 << 40},
    ],
)
def test_nonsense_in_a_registry(fields):
    with pytest.raises(WeightsError):
        Download(**({"url": "https://host/file", "digest": "sha256:10086976", "size": None} | fields))


def test_digest_matches(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(DATA)
    assert digest_matches(path, sha256(DATA)) and digest_matches(path, sha256(DATA)[:15])
    assert not digest_matches(path, sha256(b"")) and not digest_matches(path, md5(b""))


def test_unreachable(server, monkeypatch):
    monkeypatch.setenv("VGGISH_PT_CONNECT_TIMEOUT", "0.5")
    closed, unknown = closed_port() + "/x", "http://no-such-host.invalid/x"
    with blackhole() as hole:
        found = reach.unreachable([server.url + "/x", hole + "/x", closed, unknown])
    assert found.keys() == {hole + "/x", closed, unknown}
    assert "no answer within 0.5 s" in found[hole + "/x"] and "refused" in found[closed]


def test_a_proxy_is_what_must_be_reachable(server, monkeypatch):
    for name in ("no_proxy", "NO_PROXY", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", server.url)
    assert reach.unreachable(["http://no-such-host.invalid/x"]) == {}
    monkeypatch.setenv("http_proxy", closed_port())
    assert reach.unreachable(["http://no-such-host.invalid/x"]).keys() == {"http://no-such-host.invalid/x"}


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "inf"])
def test_connect_timeout_must_be_a_number(monkeypatch, text):
    monkeypatch.setenv("VGGISH_PT_CONNECT_TIMEOUT", text)
    with pytest.raises(SettingsError, match="VGGISH_PT_CONNECT_TIMEOUT"):
        reach.unreachable(["http://127.0.0.1/x"])


def test_through_a_proxy(server, tmp_path, monkeypatch):
    for name in ("no_proxy", "NO_PROXY", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", server.url)
    url = "http://no-such-host.invalid/file.bin"
    server.routes[url] = good(DATA)
    assert fetch([Download(url, sha256(DATA))], tmp_path).read_bytes() == DATA
