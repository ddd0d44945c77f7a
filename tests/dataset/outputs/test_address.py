"""Dataset folders at addresses: S3, on a real server on loopback, and others."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import folder_runs as local
import loopback
import pytest

from vggish_pt.dataset import outputs as output
from vggish_pt.dataset.outputs import Session
from vggish_pt.dataset.outputs.lock import LOCK_NAME
from vggish_pt.errors import OutputError


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    pytest.importorskip("s3fs")
    pytest.importorskip("moto.server")
    with loopback.s3_server() as address:
        yield address


@pytest.fixture(params=["s3", "memory", "dir"])
def address(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> str:
    """A new folder: on S3, in memory, and where an upload can be seen before it is complete."""
    import fsspec

    if request.param == "dir":
        monkeypatch.setitem(fsspec.config.conf, "dir", {"path": str(tmp_path), "target_protocol": "file"})
        return "dir://made/x"
    if request.param == "memory":
        return f"memory://{tmp_path.name}/x"
    for name, value in (("ACCESS_KEY_ID", "x"), ("SECRET_ACCESS_KEY", "x"), ("DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", request.getfixturevalue("s3_server"))
    bucket = f"bucket{time.time_ns()}"
    fsspec.filesystem("s3").mkdir(bucket)
    return f"s3://{bucket}/deep/x"


def _read(address: str, name: str) -> bytes:
    with output.open_store(address).open(name) as file:
        return file.read()


def _fetch(address: str, folder: Any) -> Any:
    folder.mkdir(exist_ok=True)
    for name in output.open_store(address).names():
        (folder / name).write_bytes(_read(address, name))
    return folder


def test_a_run_goes_on_at_an_address(address: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vggish_pt.dataset.outputs.folder._PART_BYTES", 4 * 3 * 512)
    items = local.make_items(20)
    with pytest.raises(local.Killed):
        local.run(address, items, stop=13)
    assert json.loads(_read(address, "_run.json"))["state"] == "running"
    assert output.open_store(address).names() == [
        "_errors.parquet",
        "_run.json",
        *(f"part-{i:05d}.parquet" for i in range(3)),
    ]
    again = local.run(address, items)
    assert again == [item.path for item in items[13:]]
    assert local.run(address, items) == []
    folder = _fetch(address, tmp_path / "fetched")
    assert local.rows(folder) == local.expected(items)
    assert local.errors(folder) == ["größe/0007.wav", "größe/0017.wav"]
    assert local.record(folder)["state"] == "complete"
    assert local.run(folder, items) == []  # a copy is a dataset folder too

    assert len(local.run(address, items[:2], overwrite=True)) == 2
    assert len([name for name in output.open_store(address).names() if name.startswith("part")]) == 1


def test_a_second_run_at_an_address_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    items = local.make_items(3)
    with output.open_run(output.open_store(address), local.SCHEMA, Session(["x"])) as run:
        with pytest.raises(
            OutputError, match=r"another run is writing there \(on .*, process \d+\); wait until it ends"
        ):
            local.run(address, items)
        for item in run.plan(items):
            run.add(local.outcome(item))
        run.finish()
    assert LOCK_NAME not in output.open_store(address).names()


def test_a_killed_run_at_an_address(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lock stays, until it has not beaten for a while; and if it was only asleep, it must not go on."""
    monkeypatch.setattr("vggish_pt.dataset.outputs.lock._SETTLE_SECONDS", 0.05)
    items = local.make_items(6)
    asleep = output.open_run(output.open_store(address), local.SCHEMA, Session(["x"]))
    run = asleep.__enter__()
    pending = list(run.plan(items))
    with pytest.raises(OutputError, match="another run is writing there"):
        local.run(address, items)
    monkeypatch.setattr("vggish_pt.dataset.outputs.lock.STALE_SECONDS", 0.0)
    assert len(local.run(address, items)) == 6
    for item in pending:
        run.add(local.outcome(item))
    with pytest.raises(OutputError, match="another run has taken over there; this one stops"):
        run.finish()
    run.close()
    names = output.open_store(address).names()
    assert [name for name in names if name.startswith("part")] == ["part-00000.parquet"]


def test_a_lock_beats(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vggish_pt.dataset.outputs.lock.BEAT_SECONDS", 0.05)
    lock = output.open_store(address).lock()
    output.open_store(address).create()
    lock.acquire()
    first_raw = _read(address, LOCK_NAME)
    deadline = time.monotonic() + 20
    while (_read(address, LOCK_NAME) or first_raw) == first_raw:  # empty while it is written, in a plain folder
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not lock.check()
    lock.release()
    assert LOCK_NAME not in output.open_store(address).names()


def test_no_part_is_ever_replaced(address: str) -> None:
    store = output.open_store(address)
    store.create()
    store.write("part-00000.parquet", lambda file: file.write(b"one") and None, new=True)
    with pytest.raises(OutputError, match=r"part-00000.parquet: cannot be written .it is there already"):
        store.write("part-00000.parquet", lambda file: file.write(b"two") and None, new=True)
    assert _read(address, "part-00000.parquet") == b"one"


def test_addresses_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch, s3_server: str) -> None:
    with pytest.raises(OutputError, match="fsspec knows no addresses that begin with nothing://"):
        output.check_output("nothing://x", None)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    with pytest.raises(OutputError, match="s3://no-such-bucket/x"):
        local.run("s3://no-such-bucket/x", local.make_items(2))
