"""Parquet with sound in it: the Hub's own, and others."""

from __future__ import annotations

import concurrent.futures
import json
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from audio_files import decode, encode, samples

from vggish_pt.audio.clip import Opener
from vggish_pt.dataset.inputs import Clips, find_clips
from vggish_pt.dataset.inputs import parquet as sounds
from vggish_pt.errors import AudioError, SettingsError

RATE = 16000
SOUNDS = [encode("free.flac", samples(1000 + i, seed=i), RATE) for i in range(25)]
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def column(names: list[str | None] | None = None, data: list[bytes | None] | None = None) -> pa.Array:
    data = list(SOUNDS) if data is None else data
    names = [f"{i}.flac" for i in range(len(data))] if names is None else names
    return pa.array([{"bytes": d, "path": n} for d, n in zip(data, names, strict=True)], STRUCT)


def write(columns: dict[str, Any], name: str = "s.parquet", rows: int = 10) -> Clips:
    pq.write_table(pa.table(columns), name, row_group_size=rows)
    return find_clips([name])


def data(found: Clips) -> list[bytes]:
    read = []
    for item in found:
        assert isinstance(item.source, Opener)
        with item.source.open() as file:
            read.append(file.read())
    return read


def test_a_parquet_of_datasets() -> None:
    datasets = pytest.importorskip("datasets")
    rows = [{"audio": {"bytes": d, "path": f"{i}.flac"}, "label": i % 3, "text": f"ü{i}"} for i, d in enumerate(SOUNDS)]
    made = datasets.Dataset.from_list(rows).cast_column("audio", datasets.Audio(decode=False))
    made.cast_column("label", datasets.ClassLabel(names=["a", "b", "c"])).to_parquet("train-00000-of-00001.parquet")
    assert b'"Audio"' in pq.read_schema("train-00000-of-00001.parquet").metadata[b"huggingface"]
    found = find_clips(["train-*-of-00001.parquet"])
    assert [item.path for item in found] == [f"train-00000-of-00001.parquet::{i}.flac" for i in range(25)]
    assert [dict(item.columns) for item in found] == [{"label": i % 3, "text": f"ü{i}"} for i in range(25)]
    assert found.columns == pa.schema([("label", pa.int64()), ("text", pa.string())])
    assert (found.failures, found.segments) == ([], False)
    assert data(found) == SOUNDS
    item: Any = pickle.loads(pickle.dumps(list(found)[7]))  # noqa: S301 (our own)
    assert np.array_equal(decode(item.source), decode(SOUNDS[7]))
    assert item.source.fetch() == SOUNDS[7]


@pytest.mark.parametrize("names", [[None] * 25, ["same.flac"] * 25, ["", *(f"{i}" for i in range(24))]])
def test_rows_without_names_of_their_own(names: list[str | None]) -> None:
    found = write({"audio": column(names)})
    assert [item.path for item in found] == [f"s.parquet::{i}" for i in range(25)]
    assert data(found) == SOUNDS
    assert found.duplicates == 0


def test_columns_with_names_of_outputs() -> None:
    found = write(
        {"path": ["x"] * 25, "start": [1.0] * 25, "window": [1] * 25, "audio": column(), "embedding": ["e"] * 25}
    )
    assert dict(next(iter(found)).columns) == {
        "source_path": "x",
        "source_start": 1.0,
        "source_window": 1,
        "source_embedding": "e",
    }
    assert next(iter(found)).start is None  # the sound is already the part
    with pytest.raises(SettingsError, match="two columns are called 'source_path'"):
        write({"path": ["x"] * 25, "source_path": ["y"] * 25, "audio": column()})


def test_which_column_holds_the_sound() -> None:
    assert data(write({"noise": column(data=[b"x"] * 25), "audio": column()})) == SOUNDS
    assert data(write({"speech": column()})) == SOUNDS
    with pytest.raises(SettingsError, match="several columns hold audio \\(left, right\\)"):
        write({"left": column(), "right": column()})
    table = pa.table({"cover": column(data=[b"picture"] * 25), "speech": column()})
    info = {"info": {"features": {"cover": {"_type": "Image"}, "speech": {"_type": "Audio"}}}}
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(info)}), "h.parquet")
    assert data(find_clips(["h.parquet"])) == SOUNDS
    pq.write_table(table.replace_schema_metadata({"huggingface": "[" * 100_000}), "h.parquet")
    with pytest.raises(SettingsError, match="several columns"):
        find_clips(["h.parquet"])


def test_a_row_without_sound() -> None:
    some: list[bytes | None] = [*SOUNDS]
    some[3] = None
    found = list(write({"audio": column(data=some)}))
    assert isinstance(found[3].source, Opener)
    with (
        pytest.raises(AudioError, match=r"^s\.parquet: row 3 of row group 0 holds no bytes of audio$"),
        found[3].source.open(),
    ):
        pass
    missing = pa.array([None if i == 4 else {"bytes": d, "path": "p"} for i, d in enumerate(SOUNDS)], STRUCT)
    found = list(write({"audio": missing}))
    with pytest.raises(AudioError, match="row 4 of row group 0 holds no bytes"), found[4].source.open():  # type: ignore[union-attr]
        pass


def test_in_any_order_and_from_threads() -> None:
    found = list(write({"audio": column()}))
    order = np.random.default_rng(0).permutation(100) % 25
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda i: found[i].source.fetch(), order))  # type: ignore[union-attr]
    assert read == [SOUNDS[i] for i in order]


def test_in_order_each_row_group_is_opened_once(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    monkeypatch.setattr(sounds, "open_file", lambda name, real=sounds.open_file: opened.append(name) or real(name))
    found = write({"audio": column()})
    opened.clear()
    assert data(found) == SOUNDS
    assert len(opened) == 3


def test_a_file_that_changes_or_goes() -> None:
    found = list(write({"audio": column()}))
    write({"audio": column(data=SOUNDS[:2])})
    with pytest.raises(AudioError, match=r"^s\.parquet: cannot be read"):
        found[-1].source.fetch()  # type: ignore[union-attr]
    Path("s.parquet").unlink()
    with pytest.raises(AudioError, match=r"^s\.parquet: no such file$"):
        found[12].source.fetch()  # type: ignore[union-attr]


def test_damage() -> None:
    pq.write_table(pa.table({"audio": column()}), "s.parquet", row_group_size=10, compression="zstd")
    content = bytearray(Path("s.parquet").read_bytes())
    at = pq.read_metadata("s.parquet").row_group(1).column(0).dictionary_page_offset
    content[at : at + 6000] = bytes(6000)
    Path("s.parquet").write_bytes(content)
    found = list(find_clips(["s.parquet"]))
    assert found[0].source.fetch() == SOUNDS[0]  # type: ignore[union-attr]
    with pytest.raises(AudioError, match=r"^s\.parquet: cannot be read"):
        found[12].source.fetch()  # type: ignore[union-attr]


def test_little_is_in_memory_however_large_the_file() -> None:
    large = [bytes([i]) * 500_000 for i in range(60)]
    pq.write_table(pa.table({"audio": column(data=large)}), "s.parquet", row_group_size=60, compression="none",
                   use_dictionary=False, data_page_size=1 << 20, write_batch_size=2)  # fmt: skip
    before = pa.total_allocated_bytes()
    pool = pa.default_memory_pool()
    tracemalloc.start()
    peak = 0
    found = find_clips(["s.parquet"])
    for item, expected in zip(found, large, strict=True):
        assert item.source.fetch() == expected  # type: ignore[union-attr]
        peak = max(peak, pool.bytes_allocated() - before)
    _, python_peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 15_000_000  # of 30 MB
    assert python_peak < 15_000_000
