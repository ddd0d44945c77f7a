"""Tar shards: WebDataset's own, and those that nobody should trust."""

from __future__ import annotations

import os
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audio_files import decode, encode, samples
from tar_files import tar

from vggish_pt.audio.clip import Opener
from vggish_pt.dataset.inputs import Clips, find_clips

RATE = 16000
SOUNDS = [encode("s16.wav", samples(RATE, seed=i), RATE) for i in range(3)]


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def find(data: bytes, name: str = "s.tar") -> Clips:
    Path(name).write_bytes(data)
    return find_clips([name])


def failures(found: Clips) -> list[str]:
    return [str(error) for _, error in found.failures]


def names(found: Clips) -> list[str]:
    return [item.path for item in found]


def test_shards_of_webdataset() -> None:
    webdataset = pytest.importorskip("webdataset")
    with webdataset.ShardWriter("s-%04d.tar", maxcount=2, verbose=0) as writer:
        for i, data in enumerate(SOUNDS):
            writer.write({"__key__": f"clips/{i:03d}", "wav": data, "json": {"n": i}, "cls": i, "txt": f"ü {i}"})
    found = find_clips(["s-{0000..0001}.tar"])
    assert names(found) == ["s-0000.tar::clips/000.wav", "s-0000.tar::clips/001.wav", "s-0001.tar::clips/002.wav"]
    assert sorted(found.columns.names) == ["cls", "json", "txt"]
    assert (found.failures, found.skipped, found.segments) == ([], 0, False)
    for i, item in enumerate(found):
        assert dict(item.columns) == {"cls": str(i), "json": f'{{"n": {i}}}', "txt": f"ü {i}"}
        source: Any = pickle.loads(pickle.dumps(item.source))  # noqa: S301 (our own)
        assert isinstance(source, Opener)
        with source.open() as file:
            assert file.read() == SOUNDS[i]
            assert file.seek(-4, os.SEEK_END) == len(SOUNDS[i]) - 4
            assert file.read() == SOUNDS[i][-4:]
        assert np.array_equal(decode(source), decode(SOUNDS[i]))


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names(form: int) -> None:
    long = "f" * 60 + "/" + "n" * 70 + ".wav"
    given = ["a.wav", "../../etc/x.wav", "/root/y.wav", "new\nline.wav", "ü 音.wav", "UPPER.WAV", long]
    found = find(tar(*((name, SOUNDS[0]) for name in given), form=form))
    assert names(found) == [f"s.tar::{name}" for name in given]
    assert failures(found) == []
    assert os.listdir() == ["s.tar"]  # nothing is unpacked


def test_samples() -> None:
    found = find(
        tar(
            ("a.json", b"{}"),  # before or behind the sound
            ("a.left.wav", SOUNDS[0]),
            ("a.right.wav", SOUNDS[1]),
            ("a.jpg", b"picture"),
            ("b.txt", b"without sound"),
            ("c.flac", SOUNDS[2]),
            ("c.txt", b"caf\xe9"),
            ("d/c.mp3", SOUNDS[2]),
            ("README", b""),
        )
    )
    assert [(item.path, {k: v for k, v in item.columns.items() if v is not None}) for item in found] == [
        ("s.tar::a.left.wav", {"json": "{}"}),
        ("s.tar::a.right.wav", {"json": "{}"}),
        ("s.tar::c.flac", {"txt": "caf\\xe9"}),
        ("s.tar::d/c.mp3", {}),
    ]
    assert found.skipped == 3
    assert failures(found) == []


def test_hidden_members() -> None:
    """macOS adds ``._a.wav`` to each file, between the members of a sample."""
    found = find(
        tar(
            *(("./._a.wav", b"\0\5\x16\7"), ("./a.wav", SOUNDS[0])),
            *(("./._a.txt", b"\0\5\x16\7"), ("./a.txt", b"dog")),
            ("./.cache/b.wav", SOUNDS[1]),
        )
    )
    assert [(item.path, dict(item.columns)) for item in found] == [("s.tar::./a.wav", {"txt": "dog"})]
    assert (failures(found), found.skipped) == ([], 0)


def test_texts_that_cannot_be_carried() -> None:
    found = find(
        tar(
            *(("a.wav", SOUNDS[0]), ("a.txt", b"x" * 300_000)),
            *(("b.wav", SOUNDS[0]), ("b.txt", b"1"), ("b.txt", b"2")),
            ("c.wav", SOUNDS[0]),
        )
    )
    assert names(found) == ["s.tar::c.wav"]
    assert failures(found) == [
        "s.tar::a.wav: its .txt has 300000 bytes; at most 262144",
        "s.tar::b.wav: it has two .txt",
    ]


def test_special_members() -> None:
    members = []
    for name, kind in [("l.wav", tarfile.SYMTYPE), ("h.wav", tarfile.LNKTYPE), ("d.wav", tarfile.CHRTYPE)]:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "/etc/passwd"
        members.append(info)
    folder = tarfile.TarInfo("folder.wav")
    folder.type = tarfile.DIRTYPE
    link = tarfile.TarInfo("note")
    link.type = tarfile.SYMTYPE
    found = find(tar(*members, folder, link, ("a.wav", SOUNDS[0])))
    assert names(found) == ["s.tar::a.wav"]
    assert [name for name, _ in found.failures] == ["s.tar::l.wav", "s.tar::h.wav", "s.tar::d.wav"]
    assert all("is a link or another special member" in text for text in failures(found))
    assert found.skipped == 1


def test_members_of_one_name() -> None:
    found = find(tar(("a.wav", SOUNDS[0]), ("b.wav", SOUNDS[1]), ("a.wav", SOUNDS[2])))
    assert names(found) == ["s.tar::a.wav", "s.tar::b.wav"]
    assert len(found.failures) == 1
    assert failures(found)[0].endswith("a second member of this name; the first is used")
    assert found.failures[0][0].startswith("s.tar::a.wav@")


def test_a_shard_named_twice() -> None:
    Path("s.tar").write_bytes(tar(("a.wav", SOUNDS[0])))
    found = find_clips(["s.tar", "s.tar"])
    assert (len(found), found.duplicates) == (1, 1)


# Damage


def test_a_shard_that_is_cut_short() -> None:
    whole = tar(("a.wav", SOUNDS[0]), ("b.wav", SOUNDS[1]))
    block = 512 + -(-len(SOUNDS[0]) // 512) * 512
    found = find(whole[: block + 512 + 1000])
    assert names(found) == ["s.tar::a.wav"]
    assert failures(found) == [f"s.tar::b.wav: the shard is cut short: 1000 of {len(SOUNDS[1])} bytes"]
    found = find(whole[: block + 100])  # within a header
    assert names(found) == ["s.tar::a.wav"]
    assert failures(found) == ["s.tar: is cut short: it ends after its member 1 without an end mark"]
    found = find(whole[:block])  # between members
    assert failures(found) == ["s.tar: is cut short: it ends after its member 1 without an end mark"]


def test_damage_in_a_header() -> None:
    data = bytearray(tar(("a.wav", SOUNDS[0]), ("b.wav", SOUNDS[1]), ("c.wav", SOUNDS[2])))
    block = 512 + -(-len(SOUNDS[0]) // 512) * 512
    data[block + 10 : block + 20] = b"\xff" * 10
    found = find(bytes(data))
    assert names(found) == ["s.tar::a.wav"]
    assert failures(found) == ["s.tar: damaged after its member 1, or tars joined together; what follows is lost"]


def test_tars_joined_together_do_not_lose_the_second_silently() -> None:
    found = find(tar(("a.wav", SOUNDS[0])) + tar(("b.wav", SOUNDS[1])))
    assert names(found) == ["s.tar::a.wav"]
    assert "tars joined together" in failures(found)[0]


def _lying(name: str, size: bytes, kind: bytes = b"0") -> bytes:
    """A header whose length field holds any bytes."""
    header = bytearray(tarfile.TarInfo(name).tobuf(tarfile.USTAR_FORMAT)[:512])
    header[124:136] = size.ljust(12, b"\0")
    header[156:157] = kind
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (_lying("x.wav", b"77777777777"), "s.tar::x.wav: the shard is cut short"),
        (_lying("x.wav", b"\x80" + b"\x7f" * 11), "s.tar::x.wav: the shard is cut short"),
        (_lying("x.wav", b"\xff" * 11 + b"\x00"), "s.tar: damaged after its member 2"),  # -256
        (_lying("x.wav", b"\xff" * 10 + b"\xf0\x00"), "s.tar: damaged after its member 2"),
        (_lying("x", b"77777777777", b"L"), "s.tar: damaged after its member 1"),
        (_lying("x", b"77777777777", b"x"), "s.tar: damaged after its member 1"),
        (_lying("x", b"\xff" * 11 + b"\x00", b"x"), "s.tar: damaged after its member 1"),
        (_lying("x", b"77777777777", b"g"), "s.tar: damaged after its member 1"),
    ],
)
def test_lengths_that_lie(header: bytes, reason: str) -> None:
    data = tar(("a.wav", SOUNDS[0]))
    block = 512 + -(-len(SOUNDS[0]) // 512) * 512
    found = find(data[:block] + header + bytes(4096))
    assert names(found) == ["s.tar::a.wav"]
    assert len(failures(found)) == 1
    assert failures(found)[0].startswith(reason)


def test_headers_without_end_before_a_header() -> None:
    record = b"11 path=ab\n"
    chain = (_lying("x", b"%011o" % len(record), b"x") + record.ljust(512, b"\0")) * 3000
    found = find(tar(("a.wav", SOUNDS[0]))[: 512 + -(-len(SOUNDS[0]) // 512) * 512] + chain)
    assert names(found) == ["s.tar::a.wav"]
    assert failures(found)[0].startswith("s.tar: damaged after its member 1")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no tar"),
        (b"this is text, and no tar" * 100, "no tar"),
        (b"\x1f\x8b\x08" + bytes(600), "is compressed"),
        (bytes(10240), "holds no audio file"),
        (tar(("a.txt", b"x")), "holds no audio file"),
    ],
)
def test_what_is_no_shard(content: bytes, reason: str) -> None:
    found = find(content)
    assert len(found) == 0
    assert [text.startswith(f"s.tar: {reason}") for text in failures(found)] == [True]


@pytest.mark.parametrize("name", ["s.tar.gz", "s.tgz", "s.tar.zst"])
def test_compressed_shards(name: str) -> None:
    assert failures(find(b"\x1f\x8b", name)) == [
        f"{name}: is compressed, so that single members cannot be read; unpack it to a plain .tar"
    ]


def test_a_shard_that_is_not_there() -> None:
    assert failures(find_clips(["gone.tar"])) == ["gone.tar: no such file"]
