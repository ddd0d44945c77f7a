"""Dataset folders: what is in them at every moment, and that a run goes on where another stopped."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from folder_runs import (
    METADATA,
    SCHEMA,
    Killed,
    done,
    errors,
    expected,
    fails,
    make_items,
    outcome,
    parts,
    record,
    rows,
    run,
)

from vggish_pt import read_dataset
from vggish_pt.audio.clip import Clip
from vggish_pt.dataset import outputs as output
from vggish_pt.dataset import writing
from vggish_pt.dataset.outputs import Failure, Schema, Session
from vggish_pt.dataset.outputs.part import read_part
from vggish_pt.errors import OutputError, SettingsError

STAMPS = [("s", None), ("ms", "UTC"), ("us", None), ("ns", "UTC")]


def _everything(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of four inputs."""
    monkeypatch.setattr("vggish_pt.dataset.outputs.folder._PART_BYTES", 4 * 3 * 512)


def test_what_a_folder_holds(tmp_path: Path, small_parts: None) -> None:
    folder = tmp_path / "made" / "out"
    failures = [Failure("none*", "matches no audio file", "AudioError")]
    run(folder, make_items(10), failures=failures, order=lambda pending: reversed(list(pending)))
    assert sorted(f.name for f in folder.iterdir()) == [
        ".vggish-pt.lock",
        "_errors.parquet",
        "_run.json",
        *(f"part-{i:05d}.parquet" for i in range(3)),
    ]
    seen: list[str] = []
    for part in parts(folder):
        table = pq.read_table(part)
        assert table.schema.field("embedding").type == pa.list_(pa.float32(), 128)
        assert json.loads(table.schema.metadata[b"vggish_pt"]) == METADATA
        paths = list(dict.fromkeys(table["path"].to_pylist()))
        assert paths == sorted(paths)  # in the order of the inputs, though they came in another
        seen += paths
        with part.open("rb") as file:
            told = read_part(file, part.name, "out")
        assert told.keys.tolist() == [item.key.rstrip(b"\0") for item in make_items(10) if item.path in paths]
        assert (told.windows, told.seconds) == (3 * len(paths), pytest.approx(3 * 0.96 * len(paths)))
    assert sorted(seen) == [item.path for item in make_items(10) if not fails(item)]
    assert pq.read_table(folder / "_errors.parquet").to_pylist() == [
        {"path": "größe/0007.wav", "reason": "broken", "type": "AudioError"},
        {"path": "none*", "reason": "matches no audio file", "type": "AudioError"},
    ]
    one = done(make_items(4)[3])
    assert rows(folder)[one.item.path, 2] == one.rows.embedding[2].tolist()

    told = record(folder)
    assert (told["format"], told["state"], told["inputs"]) == (1, "complete", ["x"])
    assert (told["weights"], told["settings"]) == (METADATA["weights"], METADATA["settings"])
    assert told["counts"] == {
        "inputs": 11,
        "files": 9,
        "windows": 27,
        "seconds": pytest.approx(27 * 0.96),
        "errors": 2,
        "repeated": 0,
        "passed_over": 0,
    }
    assert set(told["versions"]) == {"vggish_pt", "python", "torch", "numpy", "soxr", "soundfile", "pyarrow"}
    assert [sample["files"] for sample in told["timing"]["progress"]] == [4, 8, 9]
    assert [(s["files"], s["errors"]) for s in told["timing"]["sessions"]] == [(9, 1)]


def test_a_run_goes_on_wherever_it_was_stopped(tmp_path: Path, small_parts: None) -> None:
    items = make_items(20)
    run(tmp_path / "whole", items)
    assert rows(tmp_path / "whole") == expected(items)
    for stop in (0, 1, 4, 7, 8, 9, 15, 19):
        folder = tmp_path / f"stopped {stop}"
        with pytest.raises(Killed):
            run(folder, items, stop=stop)
        assert record(folder)["state"] == "running"
        assert {path for path, _ in rows(folder)}.isdisjoint(errors(folder))
        again = run(folder, items)
        assert len(again) <= 20 - stop + 4
        assert rows(folder) == rows(tmp_path / "whole")
        assert errors(folder) == errors(tmp_path / "whole")
        assert {**record(folder)["counts"]} == pytest.approx(record(tmp_path / "whole")["counts"])
        before = _everything(folder)
        assert run(folder, items) == []  # nothing is left to do
        assert _everything(folder) == before


@pytest.mark.parametrize("step", range(1, 24))
def test_killed_between_any_two_files(
    tmp_path: Path, small_parts: None, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    calls = 0
    replace = Path.replace

    def killed(self: Path, target: Path) -> Path:
        nonlocal calls
        calls += 1
        if calls > step:  # whatever tries to write afterwards
            raise Killed
        return replace(self, target)

    items = make_items(18)
    folder = tmp_path / "out"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Path, "replace", killed)
        while True:  # complete, and then again with what failed
            run(folder, items)
            run(folder, items, retry_errors=True)
    assert {path for path, _ in rows(folder)}.isdisjoint(errors(folder))
    (folder / ".part-00009.parquet.abc.tmp").write_bytes(b"half a part")
    run(folder, items)
    assert rows(folder) == expected(items)
    assert sorted(errors(folder)) == ["größe/0007.wav", "größe/0017.wav"]
    assert not list(folder.glob(".part*"))


def test_an_exception_keeps_what_was_done(tmp_path: Path) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        output.open_run(output.open_store(str(tmp_path / "out")), SCHEMA, Session(["x"])) as opened,
    ):
        for item in list(opened.plan(make_items(9)))[:8]:
            opened.add(outcome(item))
        raise KeyboardInterrupt
    assert len(rows(tmp_path / "out")) == 21
    assert errors(tmp_path / "out") == ["größe/0007.wav"]
    assert run(tmp_path / "out", make_items(9)) == ["größe/0008.wav"]


def test_the_checkpoint_is_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("vggish_pt.dataset.outputs.folder.time.monotonic", lambda: now)
    with output.open_run(output.open_store(str(tmp_path)), SCHEMA, Session(["x"]), checkpoint=10) as opened:
        for item in opened.plan(make_items(4)):
            opened.add(outcome(item))
            now += 6
            assert len(parts(tmp_path)) == item.index // 2
        opened.finish()
    assert len(parts(tmp_path)) == 2


def test_the_clock_may_jump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10**9, 0, -(10**6)))
    monkeypatch.setattr("vggish_pt.dataset.outputs.folder.time.time", lambda: float(next(clock)))
    assert len(run(tmp_path / "out", make_items(5))) == 5
    assert len(run(tmp_path / "out", make_items(6))) == 1
    timing = record(tmp_path / "out")["timing"]
    elapsed = [sample["elapsed"] for sample in timing["progress"]]
    assert elapsed == sorted(elapsed)
    assert elapsed[-1] < 100


def test_inputs_that_came_and_went(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    run(folder, make_items(10), failures=[Failure("none*", "r", "t")])
    assert run(folder, make_items(10, first=5)) == [item.path for item in make_items(5, first=10)]
    assert len(rows(folder)) == 3 * 14
    assert errors(folder) == ["größe/0007.wav"]  # what was named then and led nowhere is no longer named
    assert record(folder)["counts"]["inputs"] == 15
    assert run(folder, []) == []
    assert len(rows(folder)) == 3 * 14


def test_an_input_is_its_path_its_part_and_its_columns(tmp_path: Path) -> None:
    items = [Clip("a"), Clip("a", 1, None, 1.0), Clip("a", 2, None, 1.0, 2.0), Clip("a", 3, columns={"label": "x"})]
    items.append(Clip("a", 4))
    columns = pa.schema([("label", pa.string()), ("segment_start", pa.float64()), ("segment_end", pa.float64())])
    schema = Schema((128,), "float32", METADATA, columns)
    worked = run(tmp_path / "out", items, schema=schema, broken=lambda item: item.end is not None)
    assert len(worked) == 4
    table = pq.read_table(parts(tmp_path / "out")[0])
    assert table.schema.names[5:] == columns.names
    assert table["label"].to_pylist()[::3] == [None, None, "x"]
    assert table["segment_start"].to_pylist()[::3] == [None, 1.0, None]
    listed = pq.read_table(tmp_path / "out" / "_errors.parquet")
    assert listed.to_pylist() == [
        {"path": "a", "reason": "broken", "type": "AudioError", "segment_start": 1.0, "segment_end": 2.0}
    ]
    assert record(tmp_path / "out")["counts"]["repeated"] == 1
    assert run(tmp_path / "out", items[:3], schema=schema) == []


TYPES: list[tuple[pa.DataType, object]] = [
    (pa.list_(pa.string()), ["a", None]),
    (pa.list_(pa.field("tag", pa.list_(pa.int8()))), [[1], []]),
    (pa.large_list(pa.float32()), [0.5]),
    (pa.list_(pa.int16(), 2), [1, 2]),
    (pa.struct([("a", pa.list_(pa.string())), ("b", pa.int64())]), {"a": ["x"], "b": 1}),
    (pa.map_(pa.string(), pa.int32()), [("k", 1)]),
    (pa.dictionary(pa.int32(), pa.string()), "x"),
    (pa.large_string(), "x"),
    (pa.binary(), b"x"),
    (pa.binary(2), b"xy"),
    (pa.bool_(), True),
    *((getattr(pa, name)(), 7) for name in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")),
    (pa.float16(), np.float16(0.5)),
    (pa.decimal128(5, 2), Decimal("1.25")),
    (pa.date32(), date(2026, 1, 2)),
    (pa.date64(), date(2026, 1, 2)),
    (pa.time32("s"), clock(1, 2, 3)),
    (pa.time64("ns"), clock(1, 2, 3)),
    *((pa.timestamp(unit, zone), datetime(2026, 1, 2, tzinfo=UTC if zone else None)) for unit, zone in STAMPS),
    (pa.duration("s"), timedelta(seconds=3)),
    (pa.null(), None),
]


@pytest.mark.parametrize(("kind", "value"), TYPES, ids=[str(kind) for kind, _ in TYPES])
def test_columns_of_every_type_are_resumed(tmp_path: Path, kind: pa.DataType, value: object) -> None:
    items = [Clip(f"{i}.wav", i, columns={"x": value}) for i in range(4)]
    schema = Schema((128,), "float32", METADATA, pa.schema([("x", kind)]))
    with pytest.raises(KeyboardInterrupt), output.open_run(*_to(tmp_path)[:1], schema, Session(["x"])) as opened:
        opened.plan(items)
        opened.add(done(items[0]))
        raise KeyboardInterrupt
    for keep in (True, False):
        if not keep:
            (tmp_path / "_run.json").unlink()
        assert run(tmp_path, items[: 4 if keep else 3], schema=schema) == (
            [item.path for item in items[1:]] if keep else []
        )
    dataset = read_dataset(tmp_path)
    values = pa.array([value] * 4, kind).cast(dataset.schema.field("x").type).to_pylist()
    assert dataset.table(["x"])["x"].to_pylist() == [entry for entry in values for _ in range(3)]
    other = Schema((128,), "float32", METADATA, pa.schema([("x", pa.list_(pa.list_(pa.bool_())))]))
    with pytest.raises(SettingsError, match="column x: "):
        run(tmp_path, items, schema=other)


def test_errors_are_tried_again_only_if_asked(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    items = make_items(30)
    run(folder, items)
    failed = errors(folder)
    assert failed == ["größe/0007.wav", "größe/0017.wav", "größe/0027.wav"]
    assert run(folder, items) == []
    assert run(folder, items, retry_errors=True) == failed  # fails again
    assert errors(folder) == failed
    better = {"broken": lambda item: "17" in item.path}
    assert run(folder, items[:20], retry_errors=True, **better) == failed[:2]  # what is not named is not tried
    assert errors(folder) == [failed[2], failed[1]]
    assert {path for path, _ in rows(folder)} == {item.path for item in items} - set(failed[1:])
    assert run(folder, items, retry_errors=True, broken=lambda item: False) == failed[1:]
    assert errors(folder) == []
    assert len(rows(folder)) == 90


def test_when_everything_fails_there_is_no_part(tmp_path: Path) -> None:
    run(tmp_path / "out", make_items(3), broken=lambda item: True)
    assert len(errors(tmp_path / "out")) == 3
    assert parts(tmp_path / "out") == []
    assert record(tmp_path / "out")["counts"]["files"] == 0


def test_an_engine_that_gives_a_result_twice_or_never(tmp_path: Path) -> None:
    items = make_items(6)
    twice = run(tmp_path / "twice", items, order=lambda pending: [item for item in pending for _ in range(2)])
    assert len(twice) == 12
    assert len(rows(tmp_path / "twice")) == 18
    with pytest.raises(OutputError, match="never: 2 inputs got no result; run the same command again"):
        run(tmp_path / "never", items, order=lambda pending: list(pending)[:4])
    assert record(tmp_path / "never")["state"] == "running"
    assert len(run(tmp_path / "never", items)) == 2


def test_other_settings_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    run(folder, make_items(3))
    before = _everything(folder)
    other = {
        **METADATA,
        "version": "2",
        "weights": {"name": "other", "sha256": "1" * 64, "final_relu": True},
        "settings": {"hop": 0.48, "pool": "none", "new": 1},
    }
    columns = pa.schema([("label", pa.string())])
    for keep in (("_run.json",), ("part-00000.parquet",), ("_run.json", "part-00000.parquet")):
        copy = tmp_path / "-".join(keep)
        copy.mkdir()
        for name in keep:
            (copy / name).write_bytes(before[name])
        with pytest.raises(SettingsError) as raised:
            run(copy, make_items(3), schema=Schema((128,), "float32", other, columns))
        assert str(raised.value) == (
            f"{copy}: was written with different settings: weights: w (sha256 000000000000) in the folder, other "
            "(sha256 111111111111, final ReLU) now; hop: 0.96 in the folder, 0.48 now; new: absent in the folder, 1 "
            "now; column label: absent in the folder, string now; use the same settings, choose another output, or "
            "start again (--overwrite)"
        )
    assert _everything(folder) == before
    assert len(run(folder, make_items(3), schema=Schema((128,), "float32", other, columns), overwrite=True)) == 3
    assert record(folder)["settings"]["hop"] == 0.48
    assert len(record(folder)["timing"]["sessions"]) == 1
    # Weights are what their digest says, and a version decides nothing.
    renamed = {**other, "version": "3", "weights": {**other["weights"], "name": "renamed"}}
    assert run(folder, make_items(3), schema=Schema((128,), "float32", renamed, columns)) == []


def test_other_versions_are_noted(tmp_path: Path) -> None:
    run(tmp_path, make_items(2))
    told = record(tmp_path)
    told["timing"]["sessions"][0]["versions"]["soxr"] = "0.0.1"
    (tmp_path / "_run.json").write_text(json.dumps(told))
    with output.open_run(output.open_store(str(tmp_path)), SCHEMA, Session(["x"])) as opened:
        assert len(opened.notes) == 1
        assert opened.notes[0].startswith("soxr ")
        assert opened.notes[0].endswith(" now, 0.0.1 in the run before")
        for item in opened.plan(make_items(3)):
            opened.add(outcome(item))
        opened.finish()
    assert record(tmp_path)["timing"]["sessions"][0]["versions"]["soxr"] == "0.0.1"


def test_overwriting_removes_only_what_is_ours(tmp_path: Path, small_parts: None) -> None:
    run(tmp_path, make_items(9))
    (tmp_path / "report.html").write_text("mine")
    (tmp_path / "part-x.parquet").write_text("mine")
    assert len(run(tmp_path, make_items(2), overwrite=True)) == 2
    assert len(parts(tmp_path)) == 2  # with the foreign one
    assert (tmp_path / "part-x.parquet").read_text() == (tmp_path / "report.html").read_text() == "mine"


def test_a_second_run_is_refused(tmp_path: Path) -> None:
    with output.open_run(output.open_store(str(tmp_path)), SCHEMA, Session(["x"])) as opened:
        opened.plan(make_items(3))
        before = _everything(tmp_path)
        for overwrite in (False, True):
            with pytest.raises(OutputError, match="another run is writing there"):
                run(tmp_path, make_items(3), overwrite=overwrite)
        assert _everything(tmp_path) == before
    assert len(run(tmp_path, make_items(3))) == 3


def test_of_runs_that_start_at_once_one_wins(tmp_path: Path) -> None:
    results: list[object] = []
    together = threading.Barrier(6)

    def start() -> None:
        together.wait()
        try:
            results.append(len(run(tmp_path / "out", make_items(200))))
        except OutputError as error:
            results.append(str(error))

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 6
    assert sum(result if isinstance(result, int) else 0 for result in results) == 200
    assert len(rows(tmp_path / "out")) == 3 * 180


def _damage(folder: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    (folder / name).write_bytes(change((folder / name).read_bytes()))


def test_damaged_files_are_named(tmp_path: Path, small_parts: None) -> None:
    def strip(data: bytes) -> bytes:
        table = pq.read_table(pa.BufferReader(data))
        sink = pa.BufferOutputStream()
        pq.write_table(table.replace_schema_metadata({}), sink)
        return sink.getvalue().to_pybytes()

    for number, (name, change, message) in enumerate(
        (
            ("part-00001.parquet", lambda data: data[:-100], "is damaged (.*); restore it, or remove it"),
            ("part-00001.parquet", lambda data: b"", "is damaged (.*); restore it, or remove it"),
            ("part-00001.parquet", strip, "does not say which inputs it holds"),
            ("_errors.parquet", lambda data: data[:-100], "is damaged (.*); restore it, or remove it"),
            ("_errors.parquet", strip, "was not written by this program"),
            ("_run.json", lambda data: data[:-9], "is damaged (.*); remove it: the parts themselves say which"),
            ("_run.json", lambda data: b"[]", "is damaged (.*); remove it"),
            ("_run.json", lambda data: b"[" * 100_000, "is damaged (.*); remove it"),
            (
                "_run.json",
                lambda data: data.replace(b'"sessions": [', b'"sessions": 5, "": ['),
                "is damaged (.*); remo",
            ),
            ("_run.json", lambda data: data.replace(b'"format": 1', b'"format": 2'), "has format 2, .*; update"),
        )
    ):
        folder = tmp_path / str(number)
        run(folder, make_items(12))
        whole = rows(folder)
        _damage(folder, name, change)
        before = _everything(folder)
        with pytest.raises(OutputError, match=f"^{folder}/{name}: {message}".replace("(", "\\(").replace(")", "\\)")):
            run(folder, make_items(12))
        assert _everything(folder) == before
        (folder / name).unlink()  # as the message says
        again = run(folder, make_items(12))
        assert len(again) == {"pa": 4, "_e": 1, "_r": 0}[name[:2]]
        assert rows(folder) == whole
        assert errors(folder) == ["größe/0007.wav"]
        assert record(folder)["state"] == "complete"


def test_other_readers_skip_the_list_of_failures(tmp_path: Path, small_parts: None) -> None:
    run(tmp_path, make_items(9))
    assert errors(tmp_path) == ["größe/0007.wav"]
    assert pq.read_table(tmp_path).num_rows == 3 * 8


@pytest.mark.parametrize("complete", [True, False])
def test_the_list_of_failures_under_its_old_name(tmp_path: Path, complete: bool) -> None:
    if complete:
        run(tmp_path, make_items(9))
    else:
        with pytest.raises(KeyboardInterrupt), output.open_run(*_to(tmp_path)) as opened:
            for item in list(opened.plan(make_items(9)))[:8]:
                opened.add(outcome(item))
            raise KeyboardInterrupt
    failed = pq.read_table(tmp_path / "_errors.parquet")
    (tmp_path / "_errors.parquet").rename(tmp_path / "errors.parquet")
    if complete:
        assert read_dataset(tmp_path).errors["path"].to_pylist() == ["größe/0007.wav"]
    assert run(tmp_path, make_items(9)) == ([] if complete else ["größe/0008.wav"])
    assert not (tmp_path / "errors.parquet").exists()
    assert pq.read_table(tmp_path / "_errors.parquet").equals(failed, check_metadata=True)
    # A run that was killed between writing the new list and removing the old one.
    (tmp_path / "errors.parquet").write_bytes(b"outdated")
    assert run(tmp_path, make_items(9)) == []
    assert not (tmp_path / "errors.parquet").exists()
    (tmp_path / "_errors.parquet").rename(tmp_path / "errors.parquet")
    run(tmp_path, make_items(2), overwrite=True)
    assert sorted(f.name for f in tmp_path.iterdir())[1:] == ["_errors.parquet", "_run.json", "part-00000.parquet"]


def _to(folder: Path) -> tuple[output.FolderStore, Schema, Session]:
    return output.open_store(str(folder)), SCHEMA, Session(["x"])


def test_a_part_twice(tmp_path: Path) -> None:
    run(tmp_path, make_items(3))
    (tmp_path / "part-00007.parquet").write_bytes((tmp_path / "part-00000.parquet").read_bytes())
    with pytest.raises(OutputError, match=r"part-00000.parquet and part-00007.parquet hold the same input; remove one"):
        run(tmp_path, make_items(3))
    (tmp_path / "part-00000.parquet").unlink()  # a gap in the numbers is none of our business
    run(tmp_path, make_items(5))
    assert [part.name for part in parts(tmp_path)] == ["part-00007.parquet", "part-00008.parquet"]


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path: Path) -> None:
    for name in ("notes.txt", "part-00000-spark.parquet", "errors.csv", ".hidden"):
        folder = tmp_path / name / "out"
        folder.mkdir(parents=True)
        (folder / name).write_text("mine")
        for overwrite in (False, True):
            with pytest.raises(OutputError, match=r"out: a folder with other things in it \(.*\); choose another out"):
                run(folder, make_items(3), overwrite=overwrite)
        assert list(_everything(folder).values()) == [b"mine"]


@pytest.mark.skipif(os.name != "posix", reason="links")
def test_a_link_to_a_folder(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to("disk")
    run(tmp_path / "out", make_items(3))
    assert (tmp_path / "disk" / "part-00000.parquet").is_file()
    assert (tmp_path / "out").is_symlink()
    assert run(tmp_path / "disk", make_items(3)) == []


@pytest.mark.skipif(os.name != "posix", reason="limits of a process")
def test_a_file_that_cannot_be_written(tmp_path: Path, small_parts: None) -> None:
    """No file may grow beyond so many bytes: to a writer the same as a full disk."""
    import resource

    folder = tmp_path / "out"
    items = [*make_items(4), *make_items(1, first=4)]
    items = [Clip(item.path, place) for place, item in enumerate(items)]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    large = done(items[4], 1000)
    with (
        pytest.raises(OutputError, match=r"part-00001.parquet: cannot be written \(File too large\)"),
        output.open_run(output.open_store(str(folder)), SCHEMA, Session(["x"])) as opened,
    ):
        list(opened.plan(items))
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        try:
            for item in items[:4]:
                opened.add(done(item))
            opened.add(large)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [part.name for part in parts(folder)] == ["part-00000.parquet"]
    assert not list(folder.glob(".*.tmp"))
    assert run(folder, items) == [items[4].path]


def test_single_files_take_results_in_any_order(tmp_path: Path) -> None:
    items = make_items(9)
    outcomes = (outcome(items[i]) for i in (3, 0, 1, 1, 8, 2, 7, 6, 5, 4, 0))
    with output.open_output(tmp_path / "x.parquet", "parquet", SCHEMA) as opened:
        summary = writing.write_file(outcomes, opened, [], lambda _: None)
    assert (summary.files, summary.windows, len(summary.failures)) == (8, 24, 1)
    paths = pq.read_table(tmp_path / "x.parquet")["path"].to_pylist()
    assert list(dict.fromkeys(paths)) == [item.path for item in items if not fails(item)]
