"""Dataset folders: what is in them at every moment, and that a run goes on where another stopped."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vggish_pt import dump, output
from vggish_pt.dump import Done
from vggish_pt.errors import OutputError, SettingsError
from vggish_pt.item import Item
from vggish_pt.output import Failure, Layout, Rows, Session
from vggish_pt.output.part import read_part

METADATA = {
    "version": "1",
    "weights": {"name": "w", "sha256": "0" * 64, "final_relu": False},
    "settings": {"hop": 0.96, "pool": "none"},
}
LAYOUT = Layout((128,), "float32", METADATA)


def _items(count: int, first: int = 0, **more: Any) -> list[Item]:
    return [Item(f"größe/{first + i:04d}.wav", i, **more) for i in range(count)]


def _done(item: Item, windows: int = 3) -> Done:
    seed = int.from_bytes(item.key[:4], "little")
    values = np.random.default_rng(seed).standard_normal((windows, 128)).astype(np.float32)
    window = np.arange(windows, dtype=np.int32)
    columns = {**item.columns, "segment_start": item.start, "segment_end": item.end}
    rows = Rows(item.path, window, window * 0.96, window * 0.96 + 0.975, values, columns, windows * 0.96)
    return Done(item, rows, windows, rows.duration)


def _fails(item: Item) -> bool:
    return item.path.endswith("7.wav")


def _outcome(item: Item, *, fails: Callable[[Item], bool] = _fails) -> Any:
    return Failure(item.path, "broken", "AudioError", item) if fails(item) else _done(item)


class Killed(BaseException):
    """Stands for the end of a process: nothing is written any more."""


def _run(
    folder: Path,
    items: Sequence[Item],
    *,
    layout: Layout = LAYOUT,
    stop: int | None = None,
    failures: Sequence[Failure] = (),
    retry_errors: bool = False,
    fails: Callable[[Item], bool] = _fails,
    order: Callable[[Iterable[Item]], Iterable[Item]] = list,
    **options: Any,
) -> list[str]:
    """Runs; returns the paths that were done."""
    worked: list[str] = []
    with output.open_run(output.open_store(str(folder)), layout, Session(["x"]), **options) as run:
        pending = run.plan(items, failures, retry_errors=retry_errors)
        assert len(pending) == len(list(pending))
        for item in order(pending):
            if len(worked) == stop:
                run._done, run._failed = [], []  # as if the process were gone
                raise Killed
            worked.append(item.path)
            run.add(_outcome(item, fails=fails))
        run.finish()
    return worked


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.parquet"))


def _rows(folder: Path) -> dict[tuple[str, int], list[float]]:
    found: dict[tuple[str, int], list[float]] = {}
    for part in _parts(folder):
        for row in pq.read_table(part).to_pylist():
            key = (row["path"], row["window"])
            assert key not in found
            found[key] = row["embedding"]
    return found


def _expected(items: Iterable[Item]) -> dict[tuple[str, int], list[float]]:
    done = [_done(item) for item in items if not _fails(item)]
    return {(each.item.path, i): row for each in done for i, row in enumerate(each.rows.embedding.tolist())}


def _errors(folder: Path) -> list[str]:
    if not (folder / "errors.parquet").exists():
        return []
    return [row["path"] for row in pq.read_table(folder / "errors.parquet").to_pylist()]


def _record(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / "_run.json").read_text())
    return record


def _everything(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of four inputs."""
    monkeypatch.setattr("vggish_pt.output.run_folder._PART_BYTES", 4 * 3 * 512)


def test_what_a_folder_holds(tmp_path: Path, small_parts: None) -> None:
    folder = tmp_path / "made" / "out"
    failures = [Failure("none*", "matches no audio file", "AudioError")]
    _run(folder, _items(10), failures=failures, order=lambda pending: reversed(list(pending)))
    assert sorted(f.name for f in folder.iterdir()) == [
        ".vggish-pt.lock",
        "_run.json",
        "errors.parquet",
        *(f"part-{i:05d}.parquet" for i in range(3)),
    ]
    seen: list[str] = []
    for part in _parts(folder):
        table = pq.read_table(part)
        assert table.schema.field("embedding").type == pa.list_(pa.float32(), 128)
        assert json.loads(table.schema.metadata[b"vggish_pt"]) == METADATA
        paths = list(dict.fromkeys(table["path"].to_pylist()))
        assert paths == sorted(paths)  # in the order of the inputs, though they came in another
        seen += paths
        with part.open("rb") as file:
            told = read_part(file, part.name, "out")
        assert told.keys.tolist() == [item.key.rstrip(b"\0") for item in _items(10) if item.path in paths]
        assert (told.windows, told.seconds) == (3 * len(paths), pytest.approx(3 * 0.96 * len(paths)))
    assert sorted(seen) == [item.path for item in _items(10) if not _fails(item)]
    assert pq.read_table(folder / "errors.parquet").to_pylist() == [
        {"path": "größe/0007.wav", "reason": "broken", "type": "AudioError"},
        {"path": "none*", "reason": "matches no audio file", "type": "AudioError"},
    ]
    expected = _done(_items(4)[3])
    assert _rows(folder)[expected.item.path, 2] == expected.rows.embedding[2].tolist()

    record = _record(folder)
    assert (record["format"], record["state"], record["inputs"]) == (1, "complete", ["x"])
    assert (record["weights"], record["settings"]) == (METADATA["weights"], METADATA["settings"])
    assert record["counts"] == {
        "inputs": 11,
        "files": 9,
        "windows": 27,
        "seconds": pytest.approx(27 * 0.96),
        "errors": 2,
        "repeated": 0,
        "passed_over": 0,
    }
    assert set(record["versions"]) == {"vggish_pt", "python", "torch", "numpy", "soxr", "soundfile", "pyarrow"}
    assert [sample["files"] for sample in record["timing"]["progress"]] == [4, 8, 9]
    assert [(s["files"], s["errors"]) for s in record["timing"]["sessions"]] == [(9, 1)]


def test_a_run_goes_on_wherever_it_was_stopped(tmp_path: Path, small_parts: None) -> None:
    items = _items(20)
    _run(tmp_path / "whole", items)
    assert _rows(tmp_path / "whole") == _expected(items)
    for stop in (0, 1, 4, 7, 8, 9, 15, 19):
        folder = tmp_path / f"stopped {stop}"
        with pytest.raises(Killed):
            _run(folder, items, stop=stop)
        assert _record(folder)["state"] == "running"
        assert {path for path, _ in _rows(folder)}.isdisjoint(_errors(folder))
        again = _run(folder, items)
        assert len(again) <= 20 - stop + 4
        assert _rows(folder) == _rows(tmp_path / "whole")
        assert _errors(folder) == _errors(tmp_path / "whole")
        assert {**_record(folder)["counts"]} == pytest.approx(_record(tmp_path / "whole")["counts"])
        before = _everything(folder)
        assert _run(folder, items) == []  # nothing is left to do
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

    items = _items(18)
    folder = tmp_path / "out"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Path, "replace", killed)
        while True:  # complete, and then again with what failed
            _run(folder, items)
            _run(folder, items, retry_errors=True)
    assert {path for path, _ in _rows(folder)}.isdisjoint(_errors(folder))
    (folder / ".part-00009.parquet.abc.tmp").write_bytes(b"half a part")
    _run(folder, items)
    assert _rows(folder) == _expected(items)
    assert sorted(_errors(folder)) == ["größe/0007.wav", "größe/0017.wav"]
    assert not list(folder.glob(".part*"))


def test_an_exception_keeps_what_was_done(tmp_path: Path) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        output.open_run(output.open_store(str(tmp_path / "out")), LAYOUT, Session(["x"])) as run,
    ):
        for item in list(run.plan(_items(9)))[:8]:
            run.add(_outcome(item))
        raise KeyboardInterrupt
    assert len(_rows(tmp_path / "out")) == 21
    assert _errors(tmp_path / "out") == ["größe/0007.wav"]
    assert _run(tmp_path / "out", _items(9)) == ["größe/0008.wav"]


def test_the_checkpoint_is_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("vggish_pt.output.run_folder.time.monotonic", lambda: now)
    with output.open_run(output.open_store(str(tmp_path)), LAYOUT, Session(["x"]), checkpoint=10) as run:
        for item in run.plan(_items(4)):
            run.add(_outcome(item))
            now += 6
            assert len(_parts(tmp_path)) == item.index // 2
        run.finish()
    assert len(_parts(tmp_path)) == 2


def test_the_clock_may_jump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10**9, 0, -(10**6)))
    monkeypatch.setattr("vggish_pt.output.run_folder.time.time", lambda: float(next(clock)))
    assert len(_run(tmp_path / "out", _items(5))) == 5
    assert len(_run(tmp_path / "out", _items(6))) == 1
    timing = _record(tmp_path / "out")["timing"]
    elapsed = [sample["elapsed"] for sample in timing["progress"]]
    assert elapsed == sorted(elapsed)
    assert elapsed[-1] < 100


def test_inputs_that_came_and_went(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    _run(folder, _items(10), failures=[Failure("none*", "r", "t")])
    assert _run(folder, _items(10, first=5)) == [item.path for item in _items(5, first=10)]
    assert len(_rows(folder)) == 3 * 14
    assert _errors(folder) == ["größe/0007.wav"]  # what was named then and led nowhere is no longer named
    assert _record(folder)["counts"]["inputs"] == 15
    assert _run(folder, []) == []
    assert len(_rows(folder)) == 3 * 14


def test_an_input_is_its_path_its_part_and_its_columns(tmp_path: Path) -> None:
    items = [Item("a"), Item("a", 1, None, 1.0), Item("a", 2, None, 1.0, 2.0), Item("a", 3, columns={"label": "x"})]
    items.append(Item("a", 4))
    columns = pa.schema([("label", pa.string()), ("segment_start", pa.float64()), ("segment_end", pa.float64())])
    layout = Layout((128,), "float32", METADATA, columns)
    worked = _run(tmp_path / "out", items, layout=layout, fails=lambda item: item.end is not None)
    assert len(worked) == 4
    table = pq.read_table(_parts(tmp_path / "out")[0])
    assert table.schema.names[5:] == columns.names
    assert table["label"].to_pylist()[::3] == [None, None, "x"]
    assert table["segment_start"].to_pylist()[::3] == [None, 1.0, None]
    errors = pq.read_table(tmp_path / "out" / "errors.parquet")
    assert errors.to_pylist() == [
        {"path": "a", "reason": "broken", "type": "AudioError", "segment_start": 1.0, "segment_end": 2.0}
    ]
    assert _record(tmp_path / "out")["counts"]["repeated"] == 1
    assert _run(tmp_path / "out", items[:3], layout=layout) == []


def test_errors_are_tried_again_only_if_asked(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    items = _items(30)
    _run(folder, items)
    failed = _errors(folder)
    assert failed == ["größe/0007.wav", "größe/0017.wav", "größe/0027.wav"]
    assert _run(folder, items) == []
    assert _run(folder, items, retry_errors=True) == failed  # fails again
    assert _errors(folder) == failed
    better = {"fails": lambda item: "17" in item.path}
    assert _run(folder, items[:20], retry_errors=True, **better) == failed[:2]  # what is not named is not tried
    assert _errors(folder) == [failed[2], failed[1]]
    assert {path for path, _ in _rows(folder)} == {item.path for item in items} - set(failed[1:])
    assert _run(folder, items, retry_errors=True, fails=lambda item: False) == failed[1:]
    assert _errors(folder) == []
    assert len(_rows(folder)) == 90


def test_when_everything_fails_there_is_no_part(tmp_path: Path) -> None:
    _run(tmp_path / "out", _items(3), fails=lambda item: True)
    assert len(_errors(tmp_path / "out")) == 3
    assert _parts(tmp_path / "out") == []
    assert _record(tmp_path / "out")["counts"]["files"] == 0


def test_an_engine_that_gives_a_result_twice_or_never(tmp_path: Path) -> None:
    items = _items(6)
    twice = _run(tmp_path / "twice", items, order=lambda pending: [item for item in pending for _ in range(2)])
    assert len(twice) == 12
    assert len(_rows(tmp_path / "twice")) == 18
    with pytest.raises(OutputError, match="never: 2 inputs got no result; run the same command again"):
        _run(tmp_path / "never", items, order=lambda pending: list(pending)[:4])
    assert _record(tmp_path / "never")["state"] == "running"
    assert len(_run(tmp_path / "never", items)) == 2


def test_other_settings_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    _run(folder, _items(3))
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
            _run(copy, _items(3), layout=Layout((128,), "float32", other, columns))
        assert str(raised.value) == (
            f"{copy}: was made otherwise: weights: w (sha256 000000000000) in the folder, other (sha256 111111111111, "
            "final ReLU) now; hop: 0.96 in the folder, 0.48 now; new: absent in the folder, 1 now; column label: "
            "absent in the folder, string now; do as before, choose another output, or start afresh (--overwrite)"
        )
    assert _everything(folder) == before
    assert len(_run(folder, _items(3), layout=Layout((128,), "float32", other, columns), overwrite=True)) == 3
    assert _record(folder)["settings"]["hop"] == 0.48
    assert len(_record(folder)["timing"]["sessions"]) == 1
    # Weights are what their digest says, and a version decides nothing.
    renamed = {**other, "version": "3", "weights": {**other["weights"], "name": "renamed"}}
    assert _run(folder, _items(3), layout=Layout((128,), "float32", renamed, columns)) == []


def test_other_versions_are_noted(tmp_path: Path) -> None:
    _run(tmp_path, _items(2))
    record = _record(tmp_path)
    record["timing"]["sessions"][0]["versions"]["soxr"] = "0.0.1"
    (tmp_path / "_run.json").write_text(json.dumps(record))
    with output.open_run(output.open_store(str(tmp_path)), LAYOUT, Session(["x"])) as run:
        assert len(run.notes) == 1
        assert run.notes[0].startswith("soxr ")
        assert run.notes[0].endswith(" now, 0.0.1 in the run before")
        for item in run.plan(_items(3)):
            run.add(_outcome(item))
        run.finish()
    assert _record(tmp_path)["timing"]["sessions"][0]["versions"]["soxr"] == "0.0.1"


def test_overwriting_removes_only_what_is_ours(tmp_path: Path, small_parts: None) -> None:
    _run(tmp_path, _items(9))
    (tmp_path / "report.html").write_text("mine")
    (tmp_path / "part-x.parquet").write_text("mine")
    assert len(_run(tmp_path, _items(2), overwrite=True)) == 2
    assert len(_parts(tmp_path)) == 2  # with the foreign one
    assert (tmp_path / "part-x.parquet").read_text() == (tmp_path / "report.html").read_text() == "mine"


def test_a_second_run_is_refused(tmp_path: Path) -> None:
    with output.open_run(output.open_store(str(tmp_path)), LAYOUT, Session(["x"])) as run:
        run.plan(_items(3))
        before = _everything(tmp_path)
        for overwrite in (False, True):
            with pytest.raises(OutputError, match="another run is writing there"):
                _run(tmp_path, _items(3), overwrite=overwrite)
        assert _everything(tmp_path) == before
    assert len(_run(tmp_path, _items(3))) == 3


def test_of_runs_that_start_at_once_one_wins(tmp_path: Path) -> None:
    results: list[object] = []
    together = threading.Barrier(6)

    def start() -> None:
        together.wait()
        try:
            results.append(len(_run(tmp_path / "out", _items(200))))
        except OutputError as error:
            results.append(str(error))

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 6
    assert sum(result if isinstance(result, int) else 0 for result in results) == 200
    assert len(_rows(tmp_path / "out")) == 3 * 180


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
            ("errors.parquet", lambda data: data[:-100], "is damaged (.*); restore it, or remove it"),
            ("errors.parquet", strip, "was not written by this program"),
            ("_run.json", lambda data: data[:-9], "is damaged (.*); remove it: what is done stands in the parts"),
            ("_run.json", lambda data: b"[]", "is damaged (.*); remove it"),
            ("_run.json", lambda data: data.replace(b'"format": 1', b'"format": 2'), "has format 2, .*; update"),
        )
    ):
        folder = tmp_path / str(number)
        _run(folder, _items(12))
        whole = _rows(folder)
        _damage(folder, name, change)
        before = _everything(folder)
        with pytest.raises(OutputError, match=f"^{folder}/{name}: {message}".replace("(", "\\(").replace(")", "\\)")):
            _run(folder, _items(12))
        assert _everything(folder) == before
        (folder / name).unlink()  # as the message says
        again = _run(folder, _items(12))
        assert len(again) == {"p": 4, "e": 1, "_": 0}[name[0]]
        assert _rows(folder) == whole
        assert _errors(folder) == ["größe/0007.wav"]
        assert _record(folder)["state"] == "complete"


def test_a_part_twice(tmp_path: Path) -> None:
    _run(tmp_path, _items(3))
    (tmp_path / "part-00007.parquet").write_bytes((tmp_path / "part-00000.parquet").read_bytes())
    with pytest.raises(OutputError, match=r"part-00000.parquet and part-00007.parquet hold the same input; remove one"):
        _run(tmp_path, _items(3))
    (tmp_path / "part-00000.parquet").unlink()  # a gap in the numbers is none of our business
    _run(tmp_path, _items(5))
    assert [part.name for part in _parts(tmp_path)] == ["part-00007.parquet", "part-00008.parquet"]


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path: Path) -> None:
    for name in ("notes.txt", "part-00000-spark.parquet", "errors.csv", ".hidden"):
        folder = tmp_path / name / "out"
        folder.mkdir(parents=True)
        (folder / name).write_text("mine")
        for overwrite in (False, True):
            with pytest.raises(OutputError, match=r"out: a folder with other things in it \(.*\); choose another out"):
                _run(folder, _items(3), overwrite=overwrite)
        assert list(_everything(folder).values()) == [b"mine"]


@pytest.mark.skipif(os.name != "posix", reason="links")
def test_a_link_to_a_folder(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to("disk")
    _run(tmp_path / "out", _items(3))
    assert (tmp_path / "disk" / "part-00000.parquet").is_file()
    assert (tmp_path / "out").is_symlink()
    assert _run(tmp_path / "disk", _items(3)) == []


@pytest.mark.skipif(os.name != "posix", reason="limits of a process")
def test_a_file_that_cannot_be_written(tmp_path: Path, small_parts: None) -> None:
    """No file may grow beyond so many bytes: to a writer the same as a full disk."""
    import resource

    folder = tmp_path / "out"
    items = [*_items(4), *_items(1, first=4)]
    items = [Item(item.path, place) for place, item in enumerate(items)]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    large = _done(items[4], 1000)
    with (
        pytest.raises(OutputError, match=r"part-00001.parquet: cannot be written \(File too large\)"),
        output.open_run(output.open_store(str(folder)), LAYOUT, Session(["x"])) as run,
    ):
        list(run.plan(items))
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        try:
            for item in items[:4]:
                run.add(_done(item))
            run.add(large)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [part.name for part in _parts(folder)] == ["part-00000.parquet"]
    assert not list(folder.glob(".*.tmp"))
    assert _run(folder, items) == [items[4].path]


def test_single_files_take_results_in_any_order(tmp_path: Path) -> None:
    items = _items(9)
    outcomes = (_outcome(items[i]) for i in (3, 0, 1, 1, 8, 2, 7, 6, 5, 4, 0))
    with output.open_output(tmp_path / "x.parquet", "parquet", LAYOUT) as opened:
        summary = dump.dump(outcomes, opened, [], lambda _: None)
    assert (summary.files, summary.windows, len(summary.failures)) == (8, 24, 1)
    paths = pq.read_table(tmp_path / "x.parquet")["path"].to_pylist()
    assert list(dict.fromkeys(paths)) == [item.path for item in items if not _fails(item)]
