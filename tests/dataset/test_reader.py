"""Dumps read back: every format, memory-mapped, in batches, unfinished, damaged, and at an address."""

from __future__ import annotations

import json
import tracemalloc
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dump_folders import done, failed, make_schema, write_file, write_folder

from vggish_pt import OutputError, OutputWarning, SettingsError, read_dataset

COLUMNS = pa.schema([("label", pa.string()), ("fold", pa.int64())])


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(1)
    return [
        done(f"sounds/{i:02d}.wav", rng.normal(size=(1 + i % 4, 128)).astype(np.float32), i, {"label": "ab"[i % 2]})
        for i in range(30)
    ]


@pytest.fixture(scope="module")
def values(inputs):
    return np.concatenate([each.rows.embedding for each in inputs])


@pytest.fixture(scope="module")
def dumps(inputs, tmp_path_factory):
    """The same rows in every format, and a folder of 6 parts and 2 errors."""
    folder = tmp_path_factory.mktemp("dumps")
    for name in ("x.parquet", "x.npz", "x.npy"):
        write_file(folder / name, inputs, make_schema(columns=COLUMNS), [failed("bad.wav"), failed("worse.wav")])
    failures = [failed("bad.wav"), failed("worse.wav", "no such file")]
    write_folder(folder / "x", [*inputs, *failures], make_schema(columns=COLUMNS), parts=3, sessions=2)
    return folder


@pytest.mark.parametrize("name", ["x", "x.parquet", "x.npz", "x.npy"])
def test_every_format_reads_the_same(dumps, inputs, values, name):
    dataset = read_dataset(dumps / name)
    assert len(dataset) == len(values)
    assert (dataset.shape, dataset.dtype) == ((128,), np.float32)
    np.testing.assert_array_equal(dataset.embedding, values)
    assert dataset.columns[:5] == ["path", "window", "start", "end", "embedding"]
    assert set(dataset.columns[5:]) == {"label", "fold"}
    assert dataset.metadata["weights"]["name"] == "audioset"
    table = dataset.table()
    assert table.column_names == dataset.columns
    assert table["path"].to_pylist() == [each.item.path for each in inputs for _ in range(len(each.rows))]
    assert table["window"].to_pylist() == [i for each in inputs for i in range(len(each.rows))]
    assert table["label"].to_pylist() == [each.item.columns["label"] for each in inputs for _ in range(len(each.rows))]
    assert table["embedding"].type == pa.list_(pa.float32(), 128)
    np.testing.assert_array_equal(table["embedding"].combine_chunks().flatten().to_numpy().reshape(-1, 128), values)
    np.testing.assert_allclose(dataset.column("end") - dataset.column("start"), 0.975)
    assert dataset.errors["path"].to_pylist() == ["bad.wav", "worse.wav"]
    assert dataset.errors.column_names == ["path", "reason", "type"]
    assert repr(dataset).endswith(f": {len(values)} rows of (128,) float32, weights audioset)")


@pytest.mark.parametrize("name", ["x", "x.parquet", "x.npz", "x.npy"])
def test_some_columns_in_small_batches(dumps, values, name):
    dataset = read_dataset(dumps / name, ["embedding", "path"])
    assert dataset.columns == ["embedding", "path"]
    batches = list(dataset.batches(rows=7))
    assert max(map(len, batches)) <= 7 and {tuple(batch.schema.names) for batch in batches} == {("embedding", "path")}
    assert sum(map(len, batches)) == len(values)
    assert dataset.table(["path"]).column_names == ["path"]
    for wrong in (lambda: dataset.table(["label"]), lambda: list(dataset.batches(["x"])), lambda: dataset.column("y")):
        with pytest.raises(SettingsError, match=r"has no column '.*'; it has embedding, path"):
            wrong()
    with pytest.raises(SettingsError, match="has no column 'x'"):
        read_dataset(dumps / name, ["x"])


def test_what_a_run_says(dumps):
    run = read_dataset(dumps / "x").run
    assert (run["state"], run["counts"]["files"], run["counts"]["errors"]) == ("complete", 30, 2)
    assert len(run["timing"]["sessions"]) == 2
    assert read_dataset(dumps / "x.parquet").run is None


@pytest.mark.parametrize("name", ["x.npz", "x.npy"])
def test_arrays_are_mapped_not_read(tmp_path, name):
    write_file(tmp_path / name, [done("a.wav", np.full((40_000, 128), 2, np.float32))])
    dataset = read_dataset(tmp_path / name)
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    embedding, table = dataset.embedding, dataset.table(["embedding"])
    assert embedding[123, 4] == 2 and len(table) == 40_000
    assert tracemalloc.get_traced_memory()[1] < 5e6  # of 20 MB
    tracemalloc.stop()
    assert isinstance(embedding, np.memmap) and not embedding.flags.writeable
    assert pa.total_allocated_bytes() - before < 5e6
    column = table["embedding"].chunk(0).flatten()
    assert column.buffers()[1].address == embedding.ctypes.data  # Arrow sees the same pages


def test_a_folder_mapped_through_a_copy(dumps, values, tmp_path, inputs):
    copy = tmp_path / "copy.npy"
    dataset = read_dataset(dumps / "x", mmap=copy)
    np.testing.assert_array_equal(dataset.embedding, values)
    assert isinstance(dataset.embedding.base, np.memmap) or isinstance(dataset.embedding, np.memmap)
    np.testing.assert_array_equal(np.load(copy), values)
    assert dataset.table()["embedding"].chunk(0).flatten().buffers()[1].address == dataset.embedding.ctypes.data
    assert read_dataset(copy).metadata["weights"]["name"] == "audioset"
    made = copy.stat().st_mtime_ns
    np.testing.assert_array_equal(read_dataset(dumps / "x", mmap=copy).embedding, values)
    assert copy.stat().st_mtime_ns == made  # used again

    copy.write_bytes(copy.read_bytes()[:-1])  # cut off
    np.testing.assert_array_equal(read_dataset(dumps / "x", mmap=copy).embedding, values)
    write_folder(tmp_path / "other", inputs[:5])  # other rows
    assert len(read_dataset(tmp_path / "other", mmap=copy).embedding) == sum(len(each.rows) for each in inputs[:5])
    with pytest.raises(SettingsError, match="give a name with that ending"):
        read_dataset(dumps / "x", mmap="copy.bin")


def test_batches_stay_small_however_long_the_dump(tmp_path):
    rng = np.random.default_rng(0)
    write_folder(tmp_path / "x", [done(f"{i}.wav", rng.normal(size=(2000, 128)).astype(np.float32)) for i in range(30)])
    pool = pa.default_memory_pool()
    before, most = pool.bytes_allocated(), 0
    for _ in read_dataset(tmp_path / "x").batches(["embedding"], rows=1000):
        most = max(most, pool.bytes_allocated() - before)
    assert most < 30e6  # of 31 MB times two, as it is packed and unpacked


def test_quantised_and_layers(tmp_path):
    rng = np.random.default_rng(2)
    quantised = rng.integers(0, 256, (5, 128), dtype=np.uint8)
    write_folder(tmp_path / "q", [done("a.wav", quantised)], make_schema(dtype="uint8", postprocess="uint8"))
    np.testing.assert_array_equal(read_dataset(tmp_path / "q").embedding, quantised)
    maps = rng.normal(size=(3, 512, 6, 4)).astype(np.float32)
    for name in ("l", "l.npy", "l.npz"):
        rows = make_schema((512, 6, 4), layer="conv4")
        write_file(tmp_path / name, [done("a.wav", maps)], rows) if "." in name else write_folder(
            tmp_path / name, [done("a.wav", maps)], rows
        )
        dataset = read_dataset(tmp_path / name)
        np.testing.assert_array_equal(dataset.embedding, maps)
        assert len(next(iter(dataset.batches(["embedding"])))) == 3


def test_an_unfinished_run_is_read_with_a_warning(inputs, tmp_path):
    write_folder(tmp_path / "x", inputs[:20], parts=2, finish=False)
    record = json.loads((tmp_path / "x" / "_run.json").read_text())
    record["counts"]["inputs"] = 30
    (tmp_path / "x" / "_run.json").write_text(json.dumps(record))
    with pytest.warns(OutputWarning, match=r"x: is not finished \(20 of 30 files embedded so far\)"):
        dataset = read_dataset(tmp_path / "x")
    assert len(dataset) == sum(len(each.rows) for each in inputs[:20])
    assert len(dataset.errors) == 0


def test_nothing_but_failures(tmp_path):
    write_folder(tmp_path / "x", [failed("a.wav"), failed("b.wav", "no such file")])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = read_dataset(tmp_path / "x")
    assert (len(dataset), dataset.embedding.shape) == (0, (0, 128))
    assert len(dataset.table()) == 0 and list(dataset.batches()) == []
    assert dataset.errors["reason"].to_pylist() == ["it is empty", "no such file"]


def test_parts_of_different_settings_do_not_mix(inputs, tmp_path):
    write_folder(tmp_path / "x", inputs[:4], make_schema(hop=0.5))
    write_folder(tmp_path / "y", inputs[4:8])
    (tmp_path / "y" / "part-00000.parquet").rename(tmp_path / "x" / "part-00001.parquet")
    with pytest.raises(
        OutputError, match=r"part-00001.parquet was written with different settings .*hop: 0.5 in the folder, 0.96 now"
    ):
        read_dataset(tmp_path / "x")


def test_other_versions_of_the_package_do_mix(inputs, tmp_path):
    write_folder(tmp_path / "x", inputs[:4])
    later = make_schema()
    later.metadata["version"] = "0.2"
    write_folder(tmp_path / "x", inputs[:8], later)
    assert len(read_dataset(tmp_path / "x")) == sum(len(each.rows) for each in inputs[:8])


def test_what_is_not_a_dump(tmp_path):
    (tmp_path / "sounds").mkdir()
    (tmp_path / "sounds" / "a.wav").touch()
    pq.write_table(pa.table({"x": [1]}), tmp_path / "x.parquet")
    np.save(tmp_path / "objects.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    for name, message in (
        ("nothing", "nothing: holds no embeddings"),
        ("sounds", "sounds: holds no embeddings"),
        ("sounds/a.wav", "a.wav: holds no embeddings"),
        ("nothing.parquet", "nothing.parquet: cannot be read as embeddings"),
        ("x.parquet", "no column 'embedding'"),
        ("objects.npy", "Python objects"),
    ):
        with pytest.raises(OutputError, match=message) as caught:
            read_dataset(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_damage_is_one_line(dumps, tmp_path):
    rng = np.random.default_rng(3)
    for name in ("x.parquet", "x.npz", "x.npy"):
        data = (dumps / name).read_bytes()
        for position in rng.integers(0, len(data), 25):
            changed = bytearray(data[: position if position % 3 else None])
            if len(changed) > position:
                changed[position] ^= 1 << rng.integers(8)
            (tmp_path / name).write_bytes(changed)
            try:
                dataset = read_dataset(tmp_path / name)
                sum(map(len, dataset.batches()))
                dataset.embedding.sum()
            except OutputError as error:
                assert "\n" not in str(error)


def test_at_an_address(dumps, values, tmp_path):
    import fsspec

    fs = fsspec.filesystem("memory")
    fs.put(str(dumps / "x"), "memory://read-back/x", recursive=True)
    fs.put(str(dumps / "x.parquet"), "memory://read-back/x.parquet")
    for name in ("memory://read-back/x", "memory://read-back/x/", "memory://read-back/x.parquet", f"file://{dumps}/x"):
        dataset = read_dataset(name)
        np.testing.assert_array_equal(dataset.embedding, values)
        assert len(dataset.arrow().to_table(columns=["path"])) == len(values)
    assert len(read_dataset("memory://read-back/x").errors) == 2
    with pytest.raises(OutputError, match="holds no embeddings"):
        read_dataset("memory://read-back/nothing")


def test_arrow_filters(dumps):
    import pyarrow.dataset as ds

    found = read_dataset(dumps / "x").arrow().to_table(columns=["path"], filter=ds.field("label") == "a")
    assert len(set(found["path"].to_pylist())) == 15
    with pytest.raises(OutputError, match="holds no Parquet"):
        read_dataset(dumps / "x.npy").arrow()
