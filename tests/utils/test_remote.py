"""Addresses: S3 and HTTP servers on this machine, and fsspec's memory."""

from __future__ import annotations

import io
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from audio_files import decode, encode, samples
from loopback import Answer, Server, closed_port, in_turn, s3_server, send, status
from tar_files import tar

from vggish_pt.audio.clip import Clip
from vggish_pt.dataset.inputs import Clips, find_clips
from vggish_pt.errors import AudioError
from vggish_pt.utils import remote, retries
from vggish_pt.utils.remote import RemoteFile, is_address, open_address, redacted, resolve_beside

RATE = 16000
PCM = samples(RATE * 2)
WAV = encode("s16.wav", PCM, RATE)
EXPECTED = PCM[0] / 32768


def sound(item: Clip) -> np.ndarray:
    again: Any = pickle.loads(pickle.dumps(item))  # noqa: S301 (our own; as it goes to a worker)
    return decode(again.source, name=again.path, start=again.start, end=again.end)


def failures(found: Clips) -> list[str]:
    return [str(error) for _, error in found.failures]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "_WAITS", (0.0, 0.0))


# Names


def test_what_is_an_address() -> None:
    assert all(
        map(is_address, ["s3://b/k", "https://h/x.wav", "memory://x", "simplecache::s3://b/k", "hf://datasets/a"])
    )
    assert not any(map(is_address, ["a.wav", "/a/b", "C:\\x.wav", "c:/x", "file:///a.wav", "shard.tar::a", "", "://x"]))


@pytest.mark.parametrize(
    ("address", "seen"),
    [
        ("s3://bucket/a b.wav", "s3://bucket/a b.wav"),
        ("https://me:secret@host/a.wav", "https://host/a.wav"),
        ("https://h/a.wav?id=5&X-Amz-Signature=secret&X-Amz-Date=1&X-Amz-Credential=secret", "https://h/a.wav?id=5"),
        ("https://h/a.wav?sv=1&se=2&sig=secret", "https://h/a.wav"),
        ("https://h/a.wav?access_token=secret", "https://h/a.wav"),
        ("https://h/a.wav?Expires=1&Signature=secret&Key-Pair-Id=k", "https://h/a.wav"),
        ("https://h/a.wav?id=5&monkey=b", "https://h/a.wav?id=5&monkey=b"),
    ],
)
def test_credentials_are_not_shown(address: str, seen: str) -> None:
    assert redacted(address) == seen
    assert "secret" not in repr(RemoteFile(address))


@pytest.mark.parametrize(
    ("file", "name", "found"),
    [
        ("m.csv", "a.wav", "a.wav"),
        ("x/m.csv", "../a.wav", "x/../a.wav"),
        ("x/m.csv", "/y/a.wav", "/y/a.wav"),
        ("x/m.csv", "s3://b/a.wav", "s3://b/a.wav"),
        ("file:///x/m.csv", "a.wav", "/x/a.wav"),
        ("s3://b/x/m.csv", "y/a.wav", "s3://b/x/y/a.wav"),
        ("s3://b/x/m.csv", "../a.wav", "s3://b/a.wav"),
        ("s3://b/m.csv", "../../a.wav", "s3://b/a.wav"),
        ("https://h/x/m.csv?token=t", "a.wav", "https://h/x/a.wav"),
        ("s3://b/m.csv", "/y/a.wav", "/y/a.wav"),
        ("s3://b/m.csv", "gs://c/a.wav", "gs://c/a.wav"),
    ],
)
@pytest.mark.skipif(os.name != "posix", reason="slashes")
def test_names_in_files(file: str, name: str, found: str) -> None:
    assert resolve_beside(file, name) == found


# fsspec's memory


@pytest.fixture
def memory() -> Iterator[Any]:
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]
    yield fs
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]


def test_memory(memory: Any) -> None:
    for name in ("d/a.wav", "d/sub/b.flac", "d/notes.txt", "e.wav"):
        memory.pipe_file(f"/{name}", WAV)
    found = find_clips(["memory://d", "memory://e.wav", "memory://d/*.wav", "memory://d/", "memory://none/*.wav"])
    assert [item.path for item in found] == ["memory://d/a.wav", "memory://d/sub/b.flac", "memory://e.wav"]
    assert failures(found) == ["memory://none/*.wav: matches no audio file"]
    assert (found.skipped, found.duplicates) == (2, 3)
    assert np.array_equal(sound(next(iter(found))), EXPECTED)
    lost = next(iter(find_clips(["memory://gone.wav"])))
    with pytest.raises(AudioError, match=r"^memory://gone\.wav: no such file$"):
        sound(lost)


def test_hidden_files_are_found_only_if_they_are_named(memory: Any) -> None:
    for name in ("d/a.wav", "d/._a.wav", "d/.cache/b.wav", ".e/f.wav"):
        memory.pipe_file(f"/{name}", WAV)

    def found(name: str) -> list[str]:
        clips = find_clips([name])
        assert clips.skipped == 0
        return [item.path for item in clips]

    assert found("memory://d") == found("memory://d/*.wav") == found("memory://d/**") == ["memory://d/a.wav"]
    assert found("memory://d/._*.wav") == found("memory://d/._a.wav") == ["memory://d/._a.wav"]
    assert found("memory://.e") == found("memory://.e/*.wav") == ["memory://.e/f.wav"]


def test_what_exists_is_no_pattern(memory: Any) -> None:
    for name in ("[x].wav", "x.wav", "{a,b}.wav", "a.wav", "[y]/c.wav", "y/d.wav"):
        memory.pipe_file(f"/{name}", WAV)
    names = ["memory://[x].wav", "memory://{a,b}.wav", "memory://[y]"]
    assert [item.path for item in find_clips(names)] == [*names[:2], "memory://[y]/c.wav"]
    memory.rm_file("/[x].wav")
    assert [item.path for item in find_clips(["memory://[x].wav", "memory://{a,none}.wav"])] == [
        *("memory://x.wav", "memory://a.wav", "memory://none.wav"),
    ]


def test_kinds_of_inputs_at_addresses(memory: Any, tmp_path: Path) -> None:
    memory.pipe_file("/d/a.wav", WAV)
    memory.pipe_file("/d/m.csv", b"path,start,end,label\na.wav,0.5,1.5,dog\n")
    memory.pipe_file("/d/s-0.tar", tar(("x.wav", WAV), ("x.cls", b"7")))
    sink = io.BytesIO()
    pq.write_table(pa.table({"audio": [{"bytes": WAV, "path": "p.wav"}], "n": [1]}), sink)
    memory.pipe_file("/d/h.parquet", sink.getvalue())
    local = tmp_path / "m.jsonl"
    local.write_text('{"path": "memory://d/a.wav"}\n{"path": "foo://a.wav"}\n')
    found = find_clips(["memory://d/m.csv", "memory://d/s-{0..1}.tar", "memory://d/h.parquet", str(local)])
    assert [(item.path, dict(item.columns)) for item in found] == [
        ("a.wav", {"label": "dog"}),
        ("memory://d/s-0.tar::x.wav", {"cls": "7"}),
        ("memory://d/h.parquet::p.wav", {"n": 1}),
        ("memory://d/a.wav", {}),
    ]
    assert failures(found) == [
        "memory://d/s-1.tar: no such file",
        f"{local}:2: foo://a.wav: fsspec knows no addresses that begin with foo://",
    ]
    first, *others = (sound(item) for item in found)
    assert np.array_equal(first, EXPECTED[8000:24000])
    assert all(np.array_equal(other, EXPECTED) for other in others)


def test_large_files_are_read_in_blocks(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_WHOLE_BYTES", 1000)
    monkeypatch.setattr(remote, "_BLOCK_BYTES", 1001)
    content = np.random.default_rng(0).bytes(50_000)
    memory.pipe_file("/x", content)
    with open_address("memory://x") as file:
        generator = np.random.default_rng(1)
        for _ in range(200):
            at, size = (int(n) for n in generator.integers(0, 51_000, 2))
            file.seek(at)
            assert file.read(size) == content[at : at + size]
        assert file.seek(-3, os.SEEK_END) == 49_997
        assert file.read() == content[-3:]
    memory.pipe_file("/a.wav", WAV)
    assert np.array_equal(decode(RemoteFile("memory://a.wav"), start=1.0), EXPECTED[RATE:])


def test_a_kind_of_address_that_is_not_known() -> None:
    found = find_clips(["foo://bucket/a.wav"])
    assert failures(found) == ["foo://bucket/a.wav: fsspec knows no addresses that begin with foo://"]


@pytest.mark.parametrize(
    ("address", "module", "extra"),
    [("s3://b/a.wav", "s3fs", "s3"), ("gs://b/a.wav", "gcsfs", "gs"), ("https://h/a.wav", "aiohttp", "http")],
)
def test_a_library_that_is_missing(tmp_path: Path, address: str, module: str, extra: str) -> None:
    (tmp_path / "m.csv").write_text(f"path\n{address}\n")
    code = f"""if True:
        import sys
        sys.modules[{module!r}] = None
        from vggish_pt.errors import MissingDependencyError
        from vggish_pt.dataset.inputs import find_clips
        for name in ({address!r}, {str(tmp_path / "m.csv")!r}):
            try:
                find_clips([name])
            except MissingDependencyError as error:
                print(error)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert line.startswith(f"{address}: reading this address needs {module} (")
        assert line.endswith(f'install it with: pip install "vggish_pt[{extra}]"')


# HTTP


def ranged(data: bytes) -> Answer:
    """Gives parts of a file, as servers of files do."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", handler.headers.get("Range") or "")
        if not found:
            return send(handler, 200, data, Accept_Ranges="bytes")
        first, last = int(found[1]), min(int(found[2]), len(data) - 1)
        return send(
            handler,
            206,
            data[first : last + 1],
            Content_Range=f"bytes {first}-{last}/{len(data)}",
            Accept_Ranges="bytes",
        )

    return answer


def unsized(data: bytes) -> Answer:
    """Says neither how long it is nor that it gives parts."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.command == "HEAD":
            send(handler, 405)
            return
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def deaf(data: bytes) -> Answer:
    """Says that it gives parts, and always gives all."""
    return lambda handler: send(handler, 200, data, Accept_Ranges="bytes")


@pytest.fixture
def server() -> Iterator[Server]:
    pytest.importorskip("aiohttp")
    with Server().running() as running:
        yield running


def test_http(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.routes = {"/a.wav": ranged(WAV), "/unsized.wav": unsized(WAV), "/deaf.wav": deaf(WAV)}
    found = list(find_clips([f"{server.url}/{name}.wav" for name in ("a", "unsized", "deaf")]))
    assert server.requests == []  # nothing is asked before it is needed
    for item in found:
        assert np.array_equal(sound(item), EXPECTED)
    monkeypatch.setattr(remote, "_WHOLE_BYTES", 1000)
    monkeypatch.setattr(remote, "_BLOCK_BYTES", 10_000)
    for item in found:
        assert np.array_equal(sound(item), EXPECTED)


def test_of_a_part_at_an_http_address_the_rest_is_not_fetched(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_WHOLE_BYTES", 1000)
    monkeypatch.setattr(remote, "_BLOCK_BYTES", 1 << 16)
    pcm = samples(RATE * 60)
    server.routes = {"/a.wav": ranged(encode("s16.wav", pcm, RATE))}  # 30 blocks
    part = decode(RemoteFile(f"{server.url}/a.wav"), start=59.5)
    assert np.array_equal(part, pcm[0, round(59.5 * RATE) :] / 32768)
    assert sum(method == "GET" for method, *_ in server.requests) <= 8


def test_http_folders_manifests_and_tars(server: Server) -> None:
    page = b'<a href="a.wav">a</a> <a href="b.txt">b</a> <a href="http://elsewhere.invalid/c.wav">c</a>'
    server.routes = {
        "/d/": lambda handler: send(handler, 200, page, Content_Type="text/html"),
        "/d/a.wav": ranged(WAV),
        "/d/m.csv": ranged(b"path,start\na.wav,1\n"),
        "/d/s.tar": ranged(tar(("x.wav", WAV), ("y.wav", WAV))),
    }
    url = f"{server.url}/d"
    found = find_clips([f"{url}/", f"{url}/m.csv?v=1&token=secret", f"{url}/s.tar?token=secret"])
    assert [item.path for item in found] == [
        *(f"{url}/a.wav", "a.wav", f"{url}/s.tar::x.wav", f"{url}/s.tar::y.wav"),
    ]
    assert found.skipped == 1
    assert [len(sound(item)) for item in found] == [RATE * 2, RATE, RATE * 2, RATE * 2]


def test_http_errors(server: Server, quick: None) -> None:
    server.routes = {"/403.wav": status(403), "/500.wav": status(500), "/429.wav": in_turn(status(429), ranged(WAV))}
    refused = f"{closed_port()}/x.wav"
    reasons = {
        f"{server.url}/404.wav": "no such file",
        f"{server.url}/403.wav": "access is denied; check the credentials",
        f"{server.url}/500.wav": "the server answers with status 500",
        refused: "cannot be reached or read (ClientConnectorError: ",
    }
    for address, reason in reasons.items():
        item = next(iter(find_clips([address])))
        with pytest.raises(AudioError) as caught:
            sound(item)
        assert str(caught.value).startswith(f"{address}: {reason}")
    assert failures(find_clips([f"{server.url}/404.tar"])) == [f"{server.url}/404.tar: no such file"]
    assert server.count("/404.wav") + server.count("/403.wav") <= 4  # not tried again


def test_http_is_tried_again(server: Server, quick: None) -> None:
    def drop(handler: BaseHTTPRequestHandler) -> None:
        handler.connection.close()

    def half(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(206)
        handler.send_header("Content-Length", str(len(WAV)))
        handler.end_headers()
        handler.wfile.write(WAV[:1000])
        handler.wfile.flush()
        handler.connection.close()

    for trouble in (status(503), status(429), drop, half):
        bodies = in_turn(trouble, ranged(WAV))

        def answer(handler: BaseHTTPRequestHandler, bodies: Answer = bodies) -> None:
            (ranged(WAV) if handler.command == "HEAD" else bodies)(handler)

        server.routes = {"/a.wav": answer}
        assert np.array_equal(sound(next(iter(find_clips([f"{server.url}/a.wav"])))), EXPECTED)


def test_credentials_stay_out_of_outputs_and_errors(server: Server, quick: None) -> None:
    server.routes = {"/a.wav": ranged(WAV), "/500.wav": status(500)}
    host = server.url.removeprefix("http://")
    address = f"http://me:hunter2@{host}/a.wav?X-Amz-Signature=hunter3"
    item = next(iter(find_clips([address])))
    assert item.path == f"http://{host}/a.wav"
    assert np.array_equal(sound(item), EXPECTED)
    for bad in ("404.wav", "500.wav", "x.tar", "m.csv"):
        found = find_clips([f"http://me:hunter2@{host}/{bad}?X-Amz-Signature=hunter3"])
        texts = [f"{error} {error!r}" for _, error in found.failures] + [name for name, _ in found.failures]
        for item in found:
            with pytest.raises(AudioError) as caught:
                sound(item)
            texts += [str(caught.value), repr(item)]
        assert texts and not any("hunter" in text for text in texts)


# S3


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    s3fs = pytest.importorskip("s3fs")
    pytest.importorskip("moto.server")
    keys = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "hunter2",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with s3_server() as address, pytest.MonkeyPatch.context() as patch:
        for name, value in {**keys, "AWS_ENDPOINT_URL": address}.items():
            patch.setenv(name, value)
        fs = s3fs.S3FileSystem()
        fs.mkdir("bucket")
        for name in ("d/a.wav", "d/e/b.wav", "d/c d.wav", "d/notes.txt"):
            fs.pipe_file(f"bucket/{name}", WAV)
        fs.pipe_file("bucket/m.csv", b"path,start,label\nd/a.wav,1,dog\ns3://bucket/d/c d.wav,,cat\n")
        fs.pipe_file("bucket/s-000.tar", tar(("x.wav", WAV), ("x.txt", b"t"), ("y.wav", WAV)))
        yield fs


def test_s3(s3: Any) -> None:
    found = find_clips(["s3://bucket/d", "s3://bucket/d/*.wav", "s3://bucket/m.csv", "s3://bucket/s-{000..001}.tar"])
    assert [(item.path, {k: v for k, v in item.columns.items() if v}) for item in found] == [
        ("s3://bucket/d/a.wav", {}),
        ("s3://bucket/d/c d.wav", {}),
        ("s3://bucket/d/e/b.wav", {}),
        ("d/a.wav", {"label": "dog"}),
        ("s3://bucket/d/c d.wav", {"label": "cat"}),
        ("s3://bucket/s-000.tar::x.wav", {"txt": "t"}),
        ("s3://bucket/s-000.tar::y.wav", {}),
    ]
    assert (found.skipped, found.duplicates) == (1, 2)
    assert failures(found) == ["s3://bucket/s-001.tar: no such file"]
    for item in found:
        assert np.array_equal(sound(item), EXPECTED[RATE:] if item.start else EXPECTED)


def test_s3_objects_with_names_like_patterns(s3: Any) -> None:
    for name in ("[x].wav", "x.wav", "{y,z}.wav", "*.wav", "._x.wav", "o{0..1}.tar"):
        s3.pipe_file(f"bucket/p/{name}", tar(("a.wav", WAV)) if name.endswith("tar") else WAV)
    names = [f"s3://bucket/p/{name}" for name in ("[x].wav", "{y,z}.wav", "*.wav", "o{0..1}.tar")]
    found = find_clips(names)
    assert [item.path for item in found] == [*names[:3], f"{names[3]}::a.wav"]
    assert [item.path for item in find_clips(["s3://bucket/p/?.wav"])] == ["s3://bucket/p/*.wav", "s3://bucket/p/x.wav"]
    assert "s3://bucket/p/._x.wav" not in [item.path for item in find_clips(["s3://bucket/p/"])]
    assert found.failures == []


def test_s3_errors(s3: Any, quick: None) -> None:
    found = find_clips(["s3://bucket/gone.wav", "s3://bucket/none/", "s3://nobucket/a.wav", "s3://bucket/none*.tar"])
    assert failures(found) == [
        "s3://bucket/none/: holds no audio file",
        "s3://bucket/none*.tar: matches no audio file",
    ]
    for item in found:
        with pytest.raises(AudioError, match=f"^{item.path}: no such file$"):
            sound(item)


def test_s3_in_a_process_of_its_own(s3: Any, tmp_path: Path) -> None:
    (tmp_path / "items").write_bytes(pickle.dumps(list(find_clips(["s3://bucket/d/a.wav", "s3://bucket/s-000.tar"]))))
    code = "import pickle, sys; from vggish_pt.audio import open_audio\n" \
        "for item in pickle.load(open(sys.argv[1], 'rb')):\n" \
        "    with open_audio(item.source) as audio: print(sum(map(len, audio.blocks())))"  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "items")], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split() == ["32000"] * 3
