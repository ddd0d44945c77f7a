"""Tables that name audio files: what they say, and what is wrong with them."""

from __future__ import annotations

import decimal
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vggish_pt.dataset.inputs.manifest import MAX_LINE, Manifest, is_manifest
from vggish_pt.dataset.inputs.rows import BadRow, Row
from vggish_pt.errors import AudioError, SettingsError


def read(tmp_path: Path, name: str, content: bytes | str | pa.Table) -> tuple[list[Row | BadRow], Manifest]:
    path = tmp_path / name
    if isinstance(content, pa.Table):
        pq.write_table(content, path, row_group_size=2)
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with Manifest(str(path)) as manifest:
        return list(manifest.rows()), manifest


def reasons(rows: list[Row | BadRow]) -> list[tuple[int, str]]:
    return [(row.line, row.reason) for row in rows if isinstance(row, BadRow)]


# What they say


@pytest.mark.parametrize("end_of_line", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_csv(tmp_path: Path, end_of_line: str, mark: str) -> None:
    lines = [
        f"{mark}label, path ,start,end",
        "dog,a.wav,0.5,1e1",
        '"a, ""b""",ü 音.wav,,',
        "",
        '"two\nlines",s3://x/c.wav,1,',
        "cat,d.wav,,3",
    ]
    rows, manifest = read(tmp_path, "m.csv", end_of_line.join(lines))
    assert rows == [
        Row(2, "a.wav", 0.5, 10.0, {"label": "dog"}),
        Row(3, "ü 音.wav", None, None, {"label": 'a, "b"'}),
        Row(5, "s3://x/c.wav", 1.0, None, {"label": "two\nlines"}),
        Row(7, "d.wav", None, 3.0, {"label": "cat"}),
    ]
    assert manifest.schema == pa.schema([("label", pa.string())])
    assert manifest.segments


def test_tsv(tmp_path: Path) -> None:
    rows, manifest = read(tmp_path, "m.TSV", "path\tnote\na,b.wav\tx\n")
    assert rows == [Row(2, "a,b.wav", None, None, {"note": "x"})]
    assert not manifest.segments


def test_json_lines(tmp_path: Path) -> None:
    objects: list[dict[str, Any]] = [
        {"path": "a.wav", "n": 1, "tags": ["x"]},
        {"path": "b.wav", "start": 1, "end": 2.5, "text": "ü\U0001f600\u2028"},
        {"path": "c.wav", "start": None, "note": None},
    ]
    text = json.dumps(objects[0]) + "\n\n" + "\r\n".join(json.dumps(each) for each in objects[1:])
    rows, manifest = read(tmp_path, "m.jsonl", text)
    assert rows == [
        Row(1, "a.wav", None, None, {"n": 1, "tags": ["x"]}),
        Row(3, "b.wav", 1.0, 2.5, {"text": "ü\U0001f600\u2028"}),
        Row(4, "c.wav", None, None, {"note": None}),
    ]
    assert manifest.segments


def test_parquet_keeps_types(tmp_path: Path) -> None:
    table = pa.table(
        {
            "path": pa.array(["a.wav", "b.wav", "c.wav"]).dictionary_encode(),
            "start": pa.array([0, 1, None], pa.int32()),
            "end": pa.array([decimal.Decimal("0.5"), None, None], pa.decimal128(5, 2)),
            "label": pa.array(["x", None, "x"]).dictionary_encode(),
            "fold": pa.array([1, 2, 3], pa.int8()),
            "tags": [["a"], [], None],
        }
    )
    rows, manifest = read(tmp_path, "m.parquet", table)
    assert rows[0] == Row(0, "a.wav", 0.0, 0.5, {"label": "x", "fold": 1, "tags": ["a"]})
    assert rows[2] == Row(2, "c.wav", None, None, {"label": "x", "fold": 3, "tags": None})
    assert manifest.schema is not None
    assert [str(field.type) for field in manifest.schema] == ["string", "int8", "list<item: string>"]


def test_names_of_manifests() -> None:
    assert is_manifest("a.CSV") and is_manifest("s3://b/x.jsonl") and is_manifest("https://h/x.parquet?a=b.wav")
    assert not is_manifest("a.wav") and not is_manifest("csv") and not is_manifest("https://h/x.wav?list=a.csv")


# Rows that cannot be used


def test_bad_rows_of_a_csv_do_not_end_it(tmp_path: Path) -> None:
    lines = [
        b"path,start,end,note",
        b"a.wav,-1,,",
        b"a.wav,2,1,",
        b"a.wav,2,2,",
        b"a.wav,nan,,",
        b"a.wav,,inf,",
        b"a.wav,soon,,",
        b",,,",
        b"a.wav,,",
        b"a.wav,,,,",
        b"caf\xe9.wav,,,",
        b"a.wav,,," + b"x" * MAX_LINE,
        b"a\0.wav,,,",
        b"good.wav,,,",
    ]
    rows, _ = read(tmp_path, "m.csv", b"\n".join(lines))
    assert rows[-1] == Row(14, "good.wav", None, None, {"note": ""})
    assert reasons(rows) == [
        (2, "a.wav: start -1 is before 0"),
        (3, "a.wav: end 1 is not after start 2"),
        (4, "a.wav: end 2 is not after start 2"),
        (5, "a.wav: start nan is no time"),
        (6, "a.wav: end inf is no time"),
        (7, "a.wav: 'soon' is no number of seconds"),
        (8, "no path"),
        (9, "3 fields, and the header has 4"),
        (10, "5 fields, and the header has 4"),
        (11, "no UTF-8"),
        (12, "longer than 1 MB"),
        (13, "'a\\x00.wav' is no path"),
    ]


def test_a_quote_that_is_never_closed(tmp_path: Path) -> None:
    rows, _ = read(tmp_path, "m.csv", 'path,note\na.wav,x\nb.wav,"x\nc.wav,x\n')
    assert rows[0] == Row(2, "a.wav", None, None, {"note": "x"})
    assert reasons(rows) == [(3, "unexpected end of data; lines 3 to 4 are lost")]
    many = "".join(f"{i}.wav,{'y' * 50}\n" for i in range(10_000))  # longer than a field may be
    rows, _ = read(tmp_path, "m.csv", f'path,note\nb.wav,"x\n{many}')
    first, *others = rows
    assert isinstance(first, BadRow) and first.line == 2 and "lines 2 to" in first.reason
    assert others and all(isinstance(row, Row) for row in others)  # it goes on behind what is lost


def test_bad_rows_of_json_lines(tmp_path: Path) -> None:
    lines = [
        b'{"path": "good.wav"}',
        b"{",
        b"[1]",
        b'{"path": 3}',
        b'{"note": "x"}',
        b'{"path": "a.wav", "start": true}',
        b'{"path": "a.wav", "start": "1"}',
        b'{"path": "a.wav", "start": NaN}',
        b'{"path": "a.wav", "n": 99999999999999999999}',
        b'{"path": "a.wav", "text": "\\ud800"}',
        b'{"path": "\xff"}',
        b"[" * 100_000,
        b'{"path": "' + b"x" * MAX_LINE + b'"}',
    ]
    rows, _ = read(tmp_path, "m.ndjson", b"\n".join(lines))
    assert rows[0] == Row(1, "good.wav", None, None, {})
    assert rows[6] == Row(7, "a.wav", 1.0, None, {})
    assert [line for line, _ in reasons(rows)] == [2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13]


def test_bad_rows_of_parquet(tmp_path: Path) -> None:
    table = pa.table({"path": ["a.wav", None, "", "d.wav"], "start": [1.0, 0.0, 0.0, -2.0]})
    rows, _ = read(tmp_path, "m.parquet", table)
    assert reasons(rows) == [(1, "no path"), (2, "no path"), (3, "d.wav: start -2 is before 0")]


def test_a_parquet_that_is_damaged_further_on(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    table = pa.table({"path": [f"{i:06d}.wav" for i in range(50_000)]})
    pq.write_table(table, path, row_group_size=5000, compression="zstd", use_dictionary=False)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 4000] = bytes(4000)
    rows, _ = read(tmp_path, "m.parquet", bytes(data))
    assert isinstance(rows[-1], BadRow) and "from here on" in rows[-1].reason
    assert 10_000 < len(rows) < 40_000 and all(isinstance(row, Row) for row in rows[:-1])


def test_texts_that_fill_memory_when_they_are_written_out(tmp_path: Path) -> None:
    def repeated(size: int, rows: int) -> pa.Table:
        text = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["x" * size]))
        return pa.table({"path": ["a.wav"] * rows, "note": text})

    path = tmp_path / "m.parquet"
    pq.write_table(repeated(20_000_000, 5000), path, compression="zstd", dictionary_pagesize_limit=1 << 30)
    assert path.stat().st_size < 100_000  # of 100 GB
    with Manifest(str(path)) as manifest:
        assert reasons(list(manifest.rows())) == [
            (0, "cannot be read from here on (a text of 20000000 bytes; at most 16777216)")
        ]
    pq.write_table(repeated(4_000_000, 100), path, compression="zstd", dictionary_pagesize_limit=1 << 30)
    before, peak = pa.total_allocated_bytes(), 0
    with Manifest(str(path)) as manifest:
        for row in manifest.rows():
            assert isinstance(row, Row) and len(row.columns["note"]) == 4_000_000
            peak = max(peak, pa.total_allocated_bytes() - before)
    assert peak < 200_000_000  # of 400 MB


# What is no manifest


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.csv", "", "it needs a column 'path', and has none"),
        ("m.csv", "file,label\na.wav,x\n", "it needs a column 'path', and has 'file', 'label'"),
        ("m.csv", "path,window\n", "a column 'window', which outputs have themselves; rename it"),
        ("m.csv", "path,embedding\n", "a column 'embedding', which"),
        ("m.csv", "path,segment_start\n", "a column 'segment_start', which"),
        ("m.csv", "path,a,a\n", "two columns are called 'a'"),
        ("m.csv", "path,path\n", "two columns are called 'path'"),
        ("m.csv", ",path\n", "a column without a name"),
        ("m.csv", "path,label\n".encode("utf-16"), "first line is no UTF-8"),
        ("m.csv", "path" + ",x" * 5000, "5001 columns; at most 1000"),
        ("m.csv", "path," + "x" * MAX_LINE, "first line is longer than 1 MB"),
        ("m.csv", 'path,"x', "first line is no header"),
        ("m.jsonl", "", "it is empty"),
        ("m.jsonl", "path,label\n", "line 1 is no JSON"),
        ("m.jsonl", '{"file": "a.wav"}\n', "line 1 is an object without path"),
        ("m.jsonl", '{"path": "a"}\n{"path": "a", "window": 1}', "a column 'window', which"),
        ("m.jsonl", "".join(f'{{"path": "a", "x{i}": 1}}\n' for i in range(2000)), "more than 1000 columns"),
        ("m.parquet", b"PAR1 no, it is not PAR1", "no Parquet file"),
        ("m.parquet", b"", "no Parquet file"),
        ("m.parquet", pa.table({"path": [1]}), "its column 'path' is int64; it must be text"),
        ("m.parquet", pa.table({"path": ["a"], "start": ["1"]}), "its column 'start' is string; it must be numbers"),
        ("m.parquet", pa.table({"file": ["a"]}), "it needs a column 'path', and has 'file'"),
    ],
)
def test_what_is_no_manifest(tmp_path: Path, name: str, content: Any, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, name, content)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_a_manifest_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"m\.csv: no such file$"):
        Manifest(str(tmp_path / "m.csv"))
    with pytest.raises(AudioError, match=r"cannot be opened \(Is a directory\)$"):
        (tmp_path / "d.csv").mkdir()
        Manifest(str(tmp_path / "d.csv"))
