"""Outputs: what is in the files, and that they are there whole or not at all."""

from __future__ import annotations

import csv
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vggish_pt.dataset import outputs as output
from vggish_pt.dataset.outputs import Failure, Format, Rows, Schema
from vggish_pt.errors import OutputError, SettingsError

METADATA = {"version": "1", "weights": {"name": "größe"}, "settings": {"hop": 0.96}}
SCHEMA = Schema((128,), "float32", METADATA)
PATHS = ["a.wav", 'a, b\n"c".wav', "größe 音.wav", "x/" * 60 + "d.wav"]


def _rows(path: str, count: int, seed: int = 0, schema: Schema = SCHEMA) -> Rows:
    values = np.random.default_rng(seed).integers(0, 256, (count, *schema.shape)).astype(schema.dtype)
    window = np.arange(count, dtype=np.int32)
    return Rows(path, window, window * 0.96, window * 0.96 + 0.975, values)


def _some(schema: Schema = SCHEMA) -> list[Rows]:
    return [_rows(path, i * 3 + 1, i, schema) for i, path in enumerate(PATHS)]


def _write(path: Path, rows: list[Rows], schema: Schema = SCHEMA, **options: Any) -> None:
    failures = options.pop("failures", ())
    fmt = output.choose_format(path)
    assert fmt is not None
    with output.open_output(path, fmt, schema, **options) as out:
        for r in rows:
            out.write(r)
        out.finish(failures)


def _everything(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def _columns(rows: list[Rows]) -> dict[str, Any]:
    return {
        "path": [r.path for r in rows for _ in range(len(r))],
        "window": np.concatenate([r.window for r in rows]),
        "start": np.concatenate([r.start for r in rows]),
        "end": np.concatenate([r.end for r in rows]),
        "embedding": np.concatenate([r.embedding for r in rows]),
    }


def _check_table(table: pa.Table, rows: list[Rows], dtype: pa.DataType, size: int = 128) -> None:
    assert table.schema.equals(
        pa.schema(
            [
                ("path", pa.string()),
                ("window", pa.int32()),
                ("start", pa.float64()),
                ("end", pa.float64()),
                ("embedding", pa.list_(dtype, size)),
            ]
        )
    )
    assert json.loads(table.schema.metadata[b"vggish_pt"]) == METADATA
    expected = _columns(rows)
    assert table["path"].to_pylist() == expected["path"]
    for name in ("window", "start", "end"):
        np.testing.assert_array_equal(table[name].to_numpy(), expected[name])
    values = table["embedding"].combine_chunks().flatten().to_numpy()
    np.testing.assert_array_equal(values, expected["embedding"].reshape(-1))


@pytest.mark.parametrize(("dtype", "arrow"), [("float32", pa.float32()), ("uint8", pa.uint8())])
def test_parquet(tmp_path: Path, dtype: str, arrow: pa.DataType) -> None:
    schema = Schema((128,), dtype, METADATA)
    _write(tmp_path / "x.parquet", _some(schema), schema)
    _check_table(pq.read_table(tmp_path / "x.parquet"), _some(schema), arrow)
    assert os.listdir(tmp_path) == ["x.parquet"]


def test_row_groups_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vggish_pt.dataset.outputs.parquet._GROUP_BYTES", 4 * 512)
    rows = [_rows("a.wav", 2), _rows("b.wav", 1), _rows("c.wav", 11), _rows("d.wav", 1)]
    _write(tmp_path / "x.parquet", rows)
    file = pq.ParquetFile(tmp_path / "x.parquet")
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert max(sizes) <= 4
    assert sum(sizes) == 15
    _check_table(file.read(), rows, pa.float32())


def test_layers_of_more_dimensions_are_flattened(tmp_path: Path) -> None:
    schema = Schema((6, 4, 512), "float32", METADATA)
    rows = [_rows("a.wav", 3, schema=schema)]
    _write(tmp_path / "x.parquet", rows, schema)
    _check_table(pq.read_table(tmp_path / "x.parquet"), rows, pa.float32(), 6 * 4 * 512)
    _write(tmp_path / "x.npz", rows, schema)
    assert np.load(tmp_path / "x.npz", allow_pickle=False)["embedding"].shape == (3, 6, 4, 512)


def test_npz(tmp_path: Path) -> None:
    _write(tmp_path / "x.npz", _some())
    with np.load(tmp_path / "x.npz", allow_pickle=False) as archive:
        assert set(archive.files) == {"path", "window", "start", "end", "embedding", "metadata"}
        for name, expected in _columns(_some()).items():
            np.testing.assert_array_equal(archive[name], np.asarray(expected))
        assert archive["embedding"].dtype == np.float32
        assert archive["window"].dtype == np.int32
        assert json.loads(str(archive["metadata"])) == METADATA
    assert os.listdir(tmp_path) == ["x.npz"]


def test_npy_and_its_index(tmp_path: Path) -> None:
    _write(tmp_path / "x.npy", _some(), failures=[Failure("a,\nb", "gone", "AudioError")])
    expected = _columns(_some())
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy", allow_pickle=False, mmap_mode="r"), expected["embedding"])
    with (tmp_path / "x.npy.index.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [r["path"] for r in rows] == expected["path"]
    for name in ("window", "start", "end"):
        assert [float(r[name]) for r in rows] == expected[name].tolist()
    assert json.loads((tmp_path / "x.npy.json").read_text("utf-8")) == METADATA
    with (tmp_path / "x.npy.errors.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["path", "reason", "type"], ["a,\nb", "gone", "AudioError"]]
    assert len(list(tmp_path.iterdir())) == 4


def test_formats_by_ending() -> None:
    for name, fmt in (
        *(("x.parquet", "parquet"), ("x.NPZ", "npz"), ("a.b/x.npy", "npy"), ("x.tfrecord", "tfrecord")),
        *(("x", None), (".x", None), ("s3://bucket/x", None)),
    ):
        assert output.choose_format(name) == fmt
    assert output.choose_format(Path("x"), "npz") == "npz"
    assert output.choose_format(Path("x.bin"), "npz") == "npz"
    for path, given, message in (
        ("x.csv", None, "x.csv: unknown ending .csv; use .parquet, .npz, .npy or .tfrecord"),
        ("x", "csv", "format must be one of parquet, npz, npy, tfrecord, not 'csv'"),
        ("s3://b/x.npz", None, "s3://b/x.npz: at an address there can be a folder of parts, but no single file"),
        ("s3://b/x", "parquet", "s3://b/x: at an address there can be a folder of parts, but no single file"),
        ("x.npy", "npz", "x.npy: the ending is not that of format 'npz'"),
    ):
        with pytest.raises(SettingsError, match=message):
            output.choose_format(path, given)


OUTPUTS: list[tuple[str, Format]] = [("x.parquet", "parquet"), ("x.npz", "npz"), ("x.npy", "npy")]


@pytest.mark.parametrize(("name", "fmt"), OUTPUTS)
def test_existing_outputs(tmp_path: Path, name: str, fmt: Format) -> None:
    path = tmp_path / "new" / name
    _write(path, _some(), failures=[Failure("f", "r", "t")])
    before = _everything(tmp_path)
    with pytest.raises(OutputError, match=f"{name}: exists already; .*--overwrite"):
        _write(path, _some()[:1])
    assert _everything(tmp_path) == before

    # An overwriting run that fails, or finds nothing, leaves what there was.
    with pytest.raises(KeyboardInterrupt), output.open_output(path, fmt, SCHEMA, overwrite=True) as out:
        out.write(_rows("z.wav", 3))
        raise KeyboardInterrupt
    assert _everything(tmp_path) == before
    _write(path, [], overwrite=True, failures=[Failure("f", "r", "t")])
    assert _everything(tmp_path) == before

    _write(path, _some()[:1], overwrite=True)
    after = _everything(tmp_path)
    assert set(after) == {name for name in before if "errors.csv" not in name}
    assert all(after[name] != before[name] for name in after if not name.endswith(".json"))


@pytest.mark.parametrize(("name", "fmt"), OUTPUTS)
def test_nothing_stays_of_an_output_that_is_not_finished(tmp_path: Path, name: str, fmt: Format) -> None:
    with pytest.raises(ZeroDivisionError), output.open_output(tmp_path / "a" / "b" / name, fmt, SCHEMA) as out:
        out.write(_rows("a.wav", 3))
        assert any(tmp_path.rglob("*.tmp"))
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "fmt"), OUTPUTS)
def test_without_rows_there_is_only_the_list_of_failures(tmp_path: Path, name: str, fmt: Format) -> None:
    path = tmp_path / name
    errors = Path(output.errors_path(path, fmt))
    failures = [Failure("f", "r", "t")]
    _write(path, [], failures=failures)
    assert list(_everything(tmp_path)) == [str(errors.relative_to(tmp_path))]
    first = errors.read_bytes()
    output.write_errors(path, failures)
    assert errors.read_bytes() == first
    _write(path, _some())  # the list alone is no output that would have to be overwritten
    assert not errors.exists()


@pytest.mark.skipif(os.name != "posix", reason="limits of a process")
@pytest.mark.parametrize(("name", "fmt"), OUTPUTS)
def test_a_disk_that_fills_up(tmp_path: Path, name: str, fmt: Format, limit_files: Callable[[int], Any]) -> None:
    path = tmp_path / name
    _write(path, _some()[:2])
    before = _everything(tmp_path)
    with limit_files(200_000), pytest.raises(OutputError, match=f"{name}: cannot be written \\(File too large\\)"):
        _write(path, [_rows(f"{i}.wav", 100, i) for i in range(300)], overwrite=True)
    assert _everything(tmp_path) == before


@pytest.fixture
def limit_files() -> Callable[[int], Any]:
    """No file may grow beyond so many bytes: to a writer the same as a full disk."""
    import contextlib
    import resource

    @contextlib.contextmanager
    def limit(size: int) -> Any:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limit


@pytest.mark.parametrize("step", range(6))
def test_several_files_change_places_all_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    path = tmp_path / "x.npy"
    _write(path, _some())
    before = _everything(tmp_path)
    replace = Path.replace
    calls = 0

    def interrupted(self: Path, target: Path) -> Path:
        nonlocal calls
        calls += 1
        if calls == step + 1:
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _write(path, _some()[:1], overwrite=True)
    assert _everything(tmp_path) == before


def test_places_where_no_output_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder.parquet").mkdir()
    for name, message in (
        ("folder.parquet", "is a folder; name a file in it"),
        ("file", "is a file, but an output without an ending is a folder"),
        ("file/x.parquet", f"cannot be written, as {tmp_path / 'file'} is a file, not a folder"),
        ("file/deep/out", f"cannot be written, as {tmp_path / 'file'} is a file, not a folder"),
        ("x" * 300 + ".parquet", "cannot be written (File name too long)"),
    ):
        path = tmp_path / name
        for overwrite in (False, True):
            with pytest.raises(OutputError) as raised:
                output.check_output(path, output.choose_format(path), overwrite=overwrite)
            assert str(raised.value).startswith(f"{path}: {message}")
    assert sorted(f.name for f in tmp_path.iterdir()) == ["file", "folder.parquet"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_to(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        for name in ("x.parquet", "x"):
            with pytest.raises(OutputError, match="may not be written to"):
                output.check_output(tmp_path / name, output.choose_format(tmp_path / name))
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.skipif(os.name != "posix", reason="links")
def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "x.parquet").symlink_to("disk/y.parquet")
    _write(tmp_path / "x.parquet", _some(), overwrite=True, failures=[Failure("f", "r", "t")])
    assert Path(output.errors_path(tmp_path / "x.parquet", "parquet")).is_file()
    assert (tmp_path / "x.parquet").is_symlink()
    assert (tmp_path / "disk" / "y.parquet").is_file()


def test_outputs_side_by_side_do_not_disturb_each_other(tmp_path: Path) -> None:
    names = ["x.parquet", "x.npz", "x.npy"]
    threads = [
        threading.Thread(
            target=_write, args=(tmp_path / name, _some()), kwargs={"failures": [Failure(name, "r", "AudioError")]}
        )
        for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in names:
        errors = Path(output.errors_path(tmp_path / name, output.choose_format(Path(name))))
        assert errors.read_text().splitlines()[1] == f"{name},r,AudioError"


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(("name", "fmt"), OUTPUTS)
def test_a_second_run_into_the_same_file_is_refused(tmp_path: Path, name: str, fmt: Format, overwrite: bool) -> None:
    path = tmp_path / name
    with output.open_output(path, fmt, SCHEMA, overwrite=overwrite) as out:
        with pytest.raises(OutputError, match=f"{name}: another run is writing it; wait until it ends"):
            _write(path, _some(), overwrite=True)
        out.write(_rows("a.wav", 3))
        out.finish()
    assert not list(tmp_path.glob(".vggish-pt-*"))
    before = _everything(tmp_path)
    with pytest.raises(OutputError, match=f"{name}: exists already"):
        _write(path, _some())
    assert _everything(tmp_path) == before


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(("name", "fmt"), OUTPUTS)
def test_a_file_that_appears_during_a_run_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, fmt: Format, overwrite: bool
) -> None:
    """As on a file system without locks."""
    import filelock

    def refuse(*_: Any, **__: Any) -> None:
        raise NotImplementedError

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    path = tmp_path / name
    with (
        pytest.raises(OutputError, match=f"{name}: another run has written it since this one began"),
        output.open_output(path, fmt, SCHEMA, overwrite=overwrite) as out,
    ):
        out.write(_rows("a.wav", 3))
        _write(path, _some(), failures=[Failure("f", "r", "t")])
        before = _everything(tmp_path)
        out.finish()
    stays = {file: data for file, data in before.items() if not file.startswith(".vggish-pt-")}
    assert _everything(tmp_path) == stays
