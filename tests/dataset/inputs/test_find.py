"""All that can be named, and the items that it leads to."""

from __future__ import annotations

import io
import json
import os
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from audio_files import decode, encode, samples

from vggish_pt.audio.clip import Clip
from vggish_pt.dataset.inputs import Clips, find_clips, find_inputs
from vggish_pt.dataset.inputs.braces import expand_braces
from vggish_pt.errors import SettingsError

posix = pytest.mark.skipif(os.name != "posix", reason="file names of any bytes")
RATE = 16000


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def put(name: str, content: bytes | str = b"") -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def paths(found: Iterable[Clip]) -> list[str]:
    return [item.path.replace(os.sep, "/") for item in found]


def sound(item: Clip) -> np.ndarray:
    return decode(item.audio_source, start=item.start, end=item.end)


def failures(found: Clips) -> list[str]:
    return [str(error) for _, error in found.failures]


def test_files_folders_and_patterns_as_before() -> None:
    for name in ("t/b.wav", "t/a.FLAC", "t/c/z.ogg", "t/notes.txt", "x.txt", "u/1.wav", "u/2.wav"):
        put(name)
    named = ["t", "x.txt", "missing.wav", "u/*.wav", "t/../t/b.wav", "nothing/*.wav", ""]
    found, expected = find_clips(named), find_inputs(named)
    assert [item.path for item in found] == expected.files
    assert failures(found) == [str(error) for _, error in expected.failures]
    assert (found.skipped, found.duplicates) == (expected.skipped, expected.duplicates) == (1, 1)
    assert [item.index for item in found] == list(range(7))
    assert (found.segments, found.columns) == (False, pa.schema([]))
    assert all(item.source is None for item in found)
    assert list(found) == list(found)


@posix
def test_names_of_any_bytes() -> None:
    name = os.fsdecode(b"t/\xff\n.wav")
    put(name)
    assert [item.path for item in find_clips(["t"])] == [name]


# Lists on standard input


@pytest.mark.parametrize("mark", [b"\n", b"\r\n", b"\0"])
def test_a_list(mark: bytes) -> None:
    put("folder/b.wav")
    put("m.csv", "path\nx.wav\n")
    lines = [b"a.wav", b"", b"[1]*.wav", "ü 音.wav".encode(), b"folder", b"m.csv", b"-", b"s3://bucket/c [d].wav"]
    for text in (mark.join(lines), mark.join(lines) + mark):
        found = find_clips(["first.wav", "-", "last.wav"], stdin=io.BytesIO(text))
        assert paths(found) == [
            *("first.wav", "a.wav", "[1]*.wav", "ü 音.wav", "folder/b.wav", "x.wav", "-"),
            *("s3://bucket/c [d].wav", "last.wav"),
        ]
        assert failures(found) == []


def test_a_list_with_nuls_may_have_line_breaks_in_names() -> None:
    assert paths(find_clips(["-"], stdin=io.BytesIO(b"a\nb.wav\0c.wav\0"))) == ["a\nb.wav", "c.wav"]


def test_a_list_with_a_byte_order_mark() -> None:
    assert paths(find_clips(["-"], stdin=io.BytesIO(b"\xef\xbb\xbfa.wav\nb.wav\n"))) == ["a.wav", "b.wav"]


@pytest.mark.parametrize(
    ("lines", "encoding"),
    [
        *(("./a.wav\r\n/b.wav\r\n", encoding) for encoding in ("utf-16", "utf-16-le", "utf-16-be")),
        ("音声/ü.wav\nb.wav\n", "utf-16"),
    ],
)
def test_a_list_in_utf_16_searches_no_folder(lines: str, encoding: str) -> None:
    put("a.wav")
    with pytest.raises(SettingsError, match=r"^standard input: the list of paths is in UTF-16; write it in UTF-8$"):
        find_clips(["-"], stdin=io.BytesIO(lines.encode(encoding)))


@posix
def test_lists_that_resemble_utf_16() -> None:
    mark = os.fsdecode(b"\xff\xfe.wav")
    for text, names in ((b"a\0b\0", ["a", "b"]), (b"\xff\xfe.wav\0b.wav\0", [mark, "b.wav"]), (b"a\n", ["a"])):
        assert paths(find_clips(["-"], stdin=io.BytesIO(text))) == names


def test_lists_that_are_none() -> None:
    assert failures(find_clips(["-"], stdin=io.BytesIO(b"\n"))) == ["-: no path on standard input"]
    text = b"a.wav\n" * 20_000 + b"b\0.wav\n" + b"x" * 100_000 + b"\nc.wav\n"
    found = find_clips(["-"], stdin=io.BytesIO(text))
    assert paths(found) == ["a.wav", "c.wav"]
    assert found.duplicates == 19_999
    assert failures(found) == [f"standard input, path {n}: is no path" for n in (20_001, 20_002)]


# Manifests


def test_a_manifest_leads_to_parts_of_files_beside_it() -> None:
    pcm = samples(RATE * 2)
    put("data/a.wav", encode("s16.wav", pcm, RATE))
    absolute = str(put("b.wav", encode("s16.wav", pcm, RATE)).resolve())
    put("data/m.csv", f"path,start,end,label\na.wav,0.5,1,dog\n../b.wav,1.5,,cat\n{absolute},,,\n")
    found = find_clips(["data/m.csv"])
    assert [(item.path, item.start, item.end, item.columns) for item in found] == [
        ("a.wav", 0.5, 1.0, {"label": "dog"}),
        ("../b.wav", 1.5, None, {"label": "cat"}),
        (absolute, None, None, {"label": ""}),
    ]
    assert found.segments
    assert found.columns == pa.schema([("label", pa.string())])
    x = pcm[0] / 32768
    for item, expected in zip(found, (x[8000:16000], x[24000:], x), strict=True):
        np.testing.assert_array_equal(sound(item), expected)


def test_types_of_all_inputs_together() -> None:
    put("a.jsonl", '{"path": "a", "n": 1, "nothing": null}\n{"path": "b", "n": 2, "tags": []}\n')
    put("b.jsonl", '{"path": "c", "n": 0.5, "tags": ["x"], "deep": {"k": 1}}\n')
    pq.write_table(pa.table({"path": ["d"], "fold": pa.array([3], pa.int8()), "tags": [["y"]]}), "c.parquet")
    put("d.wav")
    found = find_clips(["a.jsonl", "b.jsonl", "c.parquet", "d.wav"])
    assert found.columns == pa.schema(
        [
            ("n", pa.float64()),
            ("nothing", pa.string()),
            ("tags", pa.list_(pa.string())),
            ("deep", pa.struct([("k", pa.int64())])),
            ("fold", pa.int8()),
        ]
    )
    columns = [dict(item.columns) for item in found]
    assert columns == [
        {"n": 1.0, "nothing": None, "tags": None},
        {"n": 2.0, "nothing": None, "tags": []},
        {"n": 0.5, "tags": ["x"], "deep": {"k": 1}},
        {"fold": 3, "tags": ["y"]},
        {},
    ]
    assert [type(each["n"]) for each in columns[:3]] == [float] * 3
    for each in columns:  # as an output will store them
        pa.Table.from_pylist([each], schema=found.columns)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (['{"path": "a", "x": 1}\n{"path": "b", "x": "1"}\n'], r"^0\.jsonl: the column 'x' holds values of different"),
        (['{"path": "a", "x": 1}\n', '{"path": "b", "x": "1"}\n'], "^the inputs: a column's values are of different"),
        (['{"path": "a", "x": 1}\n' * 8192 + '{"path": "b", "x": "1"}\n'], r"^0\.jsonl: a column's values are of diff"),
        (['{"path": "a", "x": {}}\n'], "^the column 'x' holds empty objects"),
    ],
)
def test_types_that_do_not_fit(contents: list[str], message: str) -> None:
    for number, content in enumerate(contents):
        put(f"{number}.jsonl", content)
    with pytest.raises(SettingsError, match=message):
        find_clips([f"{number}.jsonl" for number in range(len(contents))])


def test_bad_rows_and_bad_manifests() -> None:
    put("m.csv", "path,start\na.wav,x\nb.wav,1\nfoo://x,\n")
    found = find_clips(["m.csv", "missing.csv"])
    assert paths(found) == ["b.wav"]
    assert [name for name, _ in found.failures] == ["m.csv:2", "m.csv:4", "missing.csv"]
    assert failures(found) == [
        "m.csv:2: a.wav: 'x' is no number of seconds",
        "m.csv:4: foo://x: fsspec knows no addresses that begin with foo://",
        "missing.csv: no such file",
    ]
    put("n.csv", "file\na.wav\n")
    with pytest.raises(SettingsError, match=r"^n\.csv: no manifest"):
        find_clips(["n.csv"])


def test_a_manifest_among_other_names_keeps_its_place() -> None:
    for name in ("a.wav", "c.wav"):
        put(name)
    put("m.csv", "path\nb.wav\n")
    put("n.jsonl", '{"path": "d.wav"}\n')
    assert paths(find_clips(["a.wav", "m.csv", "c.wav", "n.jsonl", "e.wav"])) == [f"{x}.wav" for x in "abcde"]


# What is the same


def test_inputs_are_kept_once() -> None:
    put("a.wav")
    put("m.csv", "path,start,label\na.wav,,x\na.wav,,y\na.wav,1,x\na.wav,1.0,x\na.wav,,x\n")
    put("n.csv", "path\n./a.wav\na.wav\n")
    found = find_clips(["a.wav", "m.csv", "n.csv", "m.csv"])
    assert [(item.path, item.start, dict(item.columns)) for item in found] == [
        ("a.wav", None, {}),
        ("a.wav", None, {"label": "x"}),
        ("a.wav", None, {"label": "y"}),
        ("a.wav", 1.0, {"label": "x"}),
        ("./a.wav", None, {}),  # another name in the output
    ]
    assert len({item.key for item in found}) == len(found) == 5
    assert found.duplicates == 2 + 1 + 5
    assert [item.index for item in found] == [0, 1, 2, 3, 4]


# Braces


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("s-{0008..0011}.tar", ["s-0008.tar", "s-0009.tar", "s-0010.tar", "s-0011.tar"]),
        ("{9..11}", ["9", "10", "11"]),
        ("{2..0}", ["2", "1", "0"]),
        ("{a,b}/{1..2}.wav", ["a/1.wav", "a/2.wav", "b/1.wav", "b/2.wav"]),
        ("{,x}.wav", [".wav", "x.wav"]),
        ("{a}{}{1..}", ["{a}{}{1..}"]),
    ],
)
def test_braces(pattern: str, names: list[str]) -> None:
    assert list(expand_braces(pattern)) == names
    braceexpand = pytest.importorskip("braceexpand")  # what WebDataset uses
    assert list(braceexpand.braceexpand(pattern)) == names


def test_names_with_braces() -> None:
    put("{a,b}.wav")
    assert paths(find_clips(["{a,b}.wav", "{c,d}.wav"])) == ["{a,b}.wav", "c.wav", "d.wav"]
    with pytest.raises(SettingsError, match="more than 1000000 names"):
        find_clips(["{0..9999}{0..9999}{0..99999999999999999999999999}.tar"])


# Many


def test_many() -> None:
    rows = [{"path": f"{i % 9000}.wav", "start": i % 3, "n": i % 9000} for i in range(10_000)]
    put("m.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
    found = find_clips(["m.jsonl", "z.wav"])
    expected = {(row["path"], row["start"]): row["n"] for row in rows}
    assert len(found) == len(expected) + 1
    assert 0 < found.table.nbytes < 25 * len(rows)
    first, second = list(found), list(found)
    assert first == second
    assert [((i.path, i.start), i.columns["n"]) for i in first[:-1]] == list(expected.items())
    assert (first[-1].path, first[-1].index) == ("z.wav", len(expected))
    one, two = iter(found), iter(found)  # side by side
    assert all(next(one) == next(two) for _ in range(5000))


def test_items_can_go_to_other_processes() -> None:
    put("m.csv", "path\ns3://bucket/a.wav\nb.wav\n")
    found = list(find_clips(["m.csv", "memory://x/c.wav"]))
    again: Any = pickle.loads(pickle.dumps(found))  # noqa: S301 (our own)
    assert again == found
