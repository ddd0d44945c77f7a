"""The Ray engine on a local cluster: the same outcomes as on one machine, whatever dies."""

from __future__ import annotations

import os
import re
import runpy
import signal
import sys
import threading
import time
import types
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import REPOSITORY
from loopback import closed_port, s3_server
from worker_openers import Deadly, Failing, Sound, Waiting, Warning_, wav

from vggish_pt.audio.clip import Clip
from vggish_pt.dataset.engines import ray_actors as ray_worker
from vggish_pt.dataset.engines import ray_cluster, ray_engine
from vggish_pt.dataset.engines.local import local_outcomes
from vggish_pt.dataset.engines.ray_actors import Attempts, Embedder, decode, encode
from vggish_pt.dataset.engines.ray_blocks import inputs_per_block, pack, unpack
from vggish_pt.dataset.engines.ray_cluster import Allocation, share_out
from vggish_pt.dataset.engines.ray_engine import outcomes_on_ray
from vggish_pt.dataset.outcomes import EmbeddedClip
from vggish_pt.dataset.schema import Failure
from vggish_pt.errors import AudioWarning, MissingDependencyError, SettingsError, WeightsError, WorkerError
from vggish_pt.inference.settings import EmbedSettings

SETTINGS = EmbedSettings()


# How the work is shared out


@pytest.mark.parametrize(
    ("nodes", "device", "actors", "workers", "expected"),
    [
        ([{"CPU": 2}], "auto", None, 1, Allocation(1, 2, 0)),
        ([{"CPU": 2}], "cpu", 2, 1, Allocation(2, 1, 0)),
        ([{"CPU": 2}], "cpu", 5, 1, Allocation(5, 1, 0)),
        ([{"CPU": 16}, {"CPU": 8}], "auto", None, 1, Allocation(6, 4, 0)),
        ([{"CPU": 16}, {"CPU": 2}], "auto", None, 1, Allocation(9, 2, 0)),
        ([{"CPU": 0}, {"CPU": 16}], "auto", None, 1, Allocation(4, 4, 0)),
        ([{"CPU": 8}], "auto", 3, 1, Allocation(3, 2, 0)),
        ([{"CPU": 32, "GPU": 4}], "auto", None, 6, Allocation(4, 6, 1)),
        ([{"CPU": 8, "GPU": 4}, {"CPU": 64}], "cuda", None, 8, Allocation(4, 2, 1)),
        ([{"CPU": 1, "GPU": 2}], "auto", None, 1, Allocation(2, 0.5, 1)),
        ([{"CPU": 1, "GPU": 3}], "cuda:all", None, 0, Allocation(3, 0.33, 1)),
        ([{"CPU": 8, "GPU": 1}], "cpu", None, 1, Allocation(2, 4, 0)),
        ([{"CPU": 4}], "cuda", 2, 3, Allocation(2, 3, 1)),  # machines with GPUs may come
        ([{}], "auto", None, 1, Allocation(1, 4, 0)),
    ],
)
def test_sharing_out(nodes: Any, device: str, actors: int | None, workers: int, expected: Allocation) -> None:
    assert share_out(nodes, device, actors, workers) == expected


def test_devices() -> None:
    with pytest.raises(SettingsError, match="no GPU; use device cpu"):
        share_out([{"CPU": 4}], "cuda", None, 1)
    for device in ("cuda:1", "cuda:0,cuda:1", "mps"):
        with pytest.raises(SettingsError, match=f"assigns GPUs itself, device is auto, cpu or cuda, not '{device}'"):
            next(outcomes_on_ray("synthetic", [Clip("x")], SETTINGS, device=device))


@pytest.mark.parametrize("name", ["actors", "workers"])
@pytest.mark.parametrize("value", [-1, 1.5, True])
def test_bad_numbers(name: str, value: Any) -> None:
    with pytest.raises(SettingsError, match=name):
        next(outcomes_on_ray("synthetic", [Clip("x")], SETTINGS, **{name: value}))


def test_inputs_per_block(tmp_path: Path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"x")
    with large.open("wb") as file:
        file.truncate(1 << 30)
    many = [Clip(str(small))] * 100_000
    assert inputs_per_block(many, 4) == 256
    assert inputs_per_block(many[:320], 4) == 10  # each actor gets several
    assert inputs_per_block([Clip(str(large))] * 1000, 1) == 1  # a lost process costs little
    assert inputs_per_block([Clip(str(large), source=Sound(b""))] * 100_000, 1) == 64  # nobody knows
    assert inputs_per_block([Clip("gone")] * 100_000, 1) == 64
    assert inputs_per_block([Clip("x", source=bytes(1 << 23))] * 100_000, 1) == 8
    assert inputs_per_block(iter(many), 1) == 256
    assert inputs_per_block(many[:1], 8) == 1


def test_the_page_shows_what_the_formula_gives() -> None:
    example = runpy.run_path(str(REPOSITORY / "examples" / "how_long.py"))
    page = (REPOSITORY / "docs" / "how-to" / "cluster.md").read_text(encoding="utf-8")
    assert "\n".join(example["table"](2_000_000, 10)) in page
    assert f"{round(example['READ'])} times real time" in page
    measured = (REPOSITORY / "benchmarks" / "README.md").read_text(encoding="utf-8")
    for figures in ("| ours (default) | 144 ", "| ours, bf16 | 231 ", "| 1,900 |", "| 2,904 |"):
        assert figures in measured  # what the example computes with


# On the wire


def test_blocks_of_paths_are_small() -> None:
    items = [Clip(f"/data/audioset/eval/{i:06d}.flac", i, columns={"label": "dog"}) for i in range(256)]
    data = pack(items)
    assert len(data) < 256 * 25
    assert unpack(data) == items


@pytest.mark.parametrize("options", [{}, {"postprocess": "uint8"}, {"layer": "conv4"}, {"pool": "mean"}])
def test_tables(small_model: Any, options: dict[str, Any]) -> None:
    options = dict(options)
    pool = options.pop("pool", "none")
    settings = EmbedSettings(**options)
    part = {"start": 1.0, "end": 2.25, "columns": {"label": "dog"}}
    items = [Clip("a", 7, wav(2.5), **part), Clip("b", 8, b"junk", columns={"label": "x"}), Clip("c", 9, wav(1))]
    there = list(local_outcomes(small_model, items, settings, pool=pool))
    table = encode(5, enumerate(there), ["loud"])
    rows = [{name: table[name][i] for name in table.column_names} for i in range(4)]
    assert [row["place"].as_py() for row in rows] == [0, 1, 2, -1]
    assert (rows[3]["reason"].as_py(), rows[0]["block"].as_py()) == ("loud", 5)
    check_equal([decode(row, item) for row, item in zip(rows, items, strict=False)], there)


def test_a_table_of_failures_only() -> None:
    failed = Failure("a", "no", "AudioError", Clip("a"))
    table = encode(0, [(0, failed)])
    assert decode({name: table[name][0] for name in table.column_names}, Clip("a")) == failed


def check_equal(found: Any, expected: Any, atol: float = 0.0) -> None:
    """Checks that each input has one outcome, and the same."""
    found = sorted(found, key=lambda each: each.item.index)
    expected = sorted(expected, key=lambda each: each.item.index)
    assert [each.item for each in found] == [each.item for each in expected]
    for one, other in zip(found, expected, strict=True):
        assert type(one) is type(other), (one, other)
        if isinstance(one, Failure):
            assert one == other
            continue
        assert (one.windows, one.duration) == (other.windows, other.duration)
        assert (one.rows.path, one.rows.columns) == (other.rows.path, other.rows.columns)
        for name in ("window", "start", "end"):
            assert np.array_equal(getattr(one.rows, name), getattr(other.rows, name)), name
        assert one.rows.embedding.dtype == other.rows.embedding.dtype
        np.testing.assert_allclose(one.rows.embedding, other.rows.embedding, rtol=0, atol=atol)


# What is begun and not finished


def test_attempts() -> None:
    attempts = Attempts()
    assert attempts.begin(3) == (0, [])
    assert attempts.begin(3) == (1, [])
    assert attempts.begin(3) == (2, [])
    attempts.at(3, 0)
    attempts.at(3, 1)
    assert attempts.begin(3) == (3, [])  # died at 1
    attempts.at(3, 0)
    attempts.at(3, 1)
    assert attempts.begin(4) == (0, [])
    assert attempts.begin(3) == (4, [1])  # again: no more
    attempts.end(3)
    assert attempts.begin(3)[0] == 0  # a machine was lost with the result


def test_attempts_end_where_nothing_gets_done() -> None:
    attempts = Attempts()
    for block in range(5):
        attempts.begin(block)
        attempts.begin(block)
        attempts.begin(block)
    with pytest.raises(WorkerError, match=r"processes on the cluster died 11 times.*memory may be too small"):
        attempts.begin(0)
    attempts.end(1)
    attempts.begin(0)


class FakeRay(types.ModuleType):
    """An actor's methods, called here."""

    @staticmethod
    def get(value: Any) -> Any:
        return value


class Handle:
    def __init__(self, attempts: Attempts) -> None:
        self._attempts = attempts

    def __getattr__(self, name: str) -> Any:
        return types.SimpleNamespace(remote=getattr(self._attempts, name))


class Died(BaseException):
    """What stands for the end of the actor's process."""


def test_an_input_that_ends_the_actor_however_it_is_decoded(small_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as one whose embeddings take more memory than there is."""
    monkeypatch.setitem(sys.modules, "ray", FakeRay("ray"))
    seen: list[tuple[int, bool]] = []
    real = ray_worker.local_outcomes

    def fatal(model: Any, items: Any, settings: Any, *, processes: bool, **options: Any) -> Any:
        items = list(items)
        seen.append((len(items), processes))
        if any(item.path == "fatal" for item in items):
            raise Died
        return real(model, items, settings, processes=False, **options)

    monkeypatch.setattr(ray_worker, "local_outcomes", fatal)
    worker = Embedder.__new__(Embedder)
    worker._model, worker._settings, worker._pool, worker._workers = small_model, SETTINGS, "none", 1
    worker._attempts = Handle(Attempts())
    items = [Clip(name, i, wav(1, i)) for i, name in enumerate(["a", "fatal", "b", "fatal", "c"])]
    deaths = 0
    while True:
        try:
            table = worker._embed(0, items)
            break
        except Died:
            deaths += 1
    assert seen[:3] == [(5, False), (5, True), (1, True)]  # threads, processes, one at a time
    assert deaths == 2 + 2 + 2
    rows = table.select(["place", "type", "reason"]).to_pylist()
    assert [row["place"] for row in rows] == [0, 1, 2, 3, 4]
    assert [row["type"] for row in rows] == [None, "AudioError", None, "AudioError", None]
    assert "died, 2 times" in rows[1]["reason"]


# Clusters that are not there


def test_no_cluster_there(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    address = closed_port().removeprefix("http://")
    with pytest.raises(WorkerError, match=rf"no Ray cluster answers at {address} \(.*refused\); check RAY_ADDRESS"):
        next(outcomes_on_ray("synthetic", [Clip("x")], SETTINGS, address=address))
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(WorkerError, match=address):
        next(outcomes_on_ray("synthetic", [Clip("x")], SETTINGS))
    for wrong in ("ray://head:10001", "head", "http://head:8265", "head:70000000"):
        with pytest.raises(SettingsError, match="'ray job submit'"):
            next(outcomes_on_ray("synthetic", [Clip("x")], SETTINGS, address=wrong))


def test_another_version_of_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")

    def init(**options: Any) -> None:
        raise RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.1\nThis process was: 2.60")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(WorkerError, match=r"Ray: 2\.1 This process was: 2\.60\); install the cluster's versions"):
        ray_cluster._connect(ray, "auto", None)


def test_no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r'the engine ray needs ray.*pip install "vggish_pt\[ray\]"'):
        next(outcomes_on_ray("synthetic", [Clip("x")], SETTINGS))


def test_errors_from_there() -> None:
    text = "The actor died\n  File x\nvggish_pt.errors.WeightsError: the weights differ\nmore"
    error = ray_engine.explained(RuntimeError(text))
    assert isinstance(error, WeightsError)
    assert str(error) == "the weights differ"
    error = ray_engine.explained(RuntimeError("x\nModuleNotFoundError: No module named 'vggish_pt'"))
    assert isinstance(error, WorkerError)
    assert "is not installed on all machines" in str(error)
    error = ray_engine.explained(ValueError("first\nKeyError: 'last'\nray.exceptions.UserCodeException: UDF\nadvice"))
    assert str(error) == "the work on the Ray cluster failed (KeyError: 'last')"
    interrupt = KeyboardInterrupt()
    assert ray_engine.explained(interrupt) is interrupt


def test_weights_on_their_way(small_folder: Path) -> None:
    config, weights = ((small_folder / name).read_bytes() for name in ("config.json", "model.safetensors"))
    job = {"threads": 1, "digest": "0" * 64, "device": "cpu", "precision": "fp32"}
    with pytest.raises(WeightsError, match=f"SHA-256 .*, not {'0' * 64}"):
        ray_worker._load(job, config, weights)


# On a cluster


@pytest.fixture(scope="module")
def s3() -> Iterator[str | None]:
    """The address of an S3 server in this process; None without the libraries for one."""
    with ExitStack() as stack:
        try:
            address = stack.enter_context(s3_server())
        except ImportError:
            address = None
        yield address


@pytest.fixture(scope="module")
def ray_address(s3: str | None) -> Iterator[str]:
    """A cluster of four CPUs, to which this process is connected; what it starts finds the S3 server."""
    pytest.importorskip("ray.data")
    with pytest.MonkeyPatch.context() as patch:
        # Workers import what the tests' modules define, and see no GPU.
        environment = {**ray_cluster._ENVIRONMENT, "CUDA_VISIBLE_DEVICES": "", **s3_environment(s3)}
        environment["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
        for name, value in environment.items():
            patch.setenv(name, value)
        import ray

        started = ray.init(
            address="local", num_cpus=4, num_gpus=0, include_dashboard=False, log_to_driver=False, logging_level=50
        )
        yield started.address_info["address"]
        ray.shutdown()


def s3_environment(address: str | None) -> dict[str, str]:
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
    return {} if address is None else {"AWS_ENDPOINT_URL": address, **keys}


@pytest.mark.slow
def test_equal_to_the_local_engine(
    ray_address: str, small_folder: Path, small_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files by relative paths, bytes, openers, parts, warnings, and what fails; each once."""
    monkeypatch.chdir(tmp_path)
    items = []
    for i in range(12):
        Path(f"{i}.wav").write_bytes(wav(1 + i % 4, i))
        items.append(Clip(f"{i}.wav", i, columns={"label": f"l{i}"}))
    items += [
        Clip("bytes", 12, wav(2)),
        Clip("opener", 13, Sound(wav(3))),
        Clip("0.wav", 14, start=0.25),
        Clip("3.wav", 15, start=1.0, end=3.5),
        Clip("junk", 16, b"junk"),
        Clip("gone.wav", 17),
        Clip("failing", 18, Failing()),
        Clip("loud", 19, Warning_(wav(1))),
        Clip("\udcff.wav", 20),
    ]
    local = Unsendable(wav(1))
    with pytest.warns(AudioWarning, match="loud"):
        found = list(outcomes_on_ray(small_folder, [*items, Clip("local", 21, local)], SETTINGS, actors=2))
    failed = [each for each in found if each.item is not None and each.item.index == 21]
    assert [(each.type, each.reason) for each in failed] == [("AudioError", "cannot be sent to a cluster (stays here)")]
    with pytest.warns(AudioWarning, match="loud"):
        expected = list(local_outcomes(small_model, items, SETTINGS))
    check_equal([each for each in found if each not in failed], expected, atol=1e-5)


@dataclass
class Unsendable(Sound):
    def __reduce__(self) -> Any:
        raise TypeError("stays\nhere")


@pytest.mark.slow
def test_a_lost_process_costs_no_row(ray_address: str, small_folder: Path, small_model: Any, tmp_path: Path) -> None:
    here, until = tmp_path / "here", tmp_path / "until"
    items = [Clip(f"{i}", i, Sound(wav(1 + i % 3, i))) for i in range(40)]
    items[17] = Clip("17", 17, Waiting(wav(2), here, until))
    expected = list(local_outcomes(small_model, [*items[:17], *items[18:]], SETTINGS))
    killed = []

    def kill() -> None:
        while not (here.exists() and here.read_text()):
            time.sleep(0.05)
        killed.append(int(here.read_text()))
        os.kill(killed[0], signal.SIGKILL)
        until.touch()

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    found = list(outcomes_on_ray(small_folder, items, SETTINGS, actors=2))
    thread.join()
    assert killed
    assert int(here.read_text()) not in (killed[0], os.getpid())  # another process did it again
    seventeen = [each for each in found if each.item is not None and each.item.index == 17]
    assert [type(each) for each in seventeen] == [EmbeddedClip]
    check_equal([each for each in found if each not in seventeen], expected, atol=1e-5)


@pytest.mark.slow
def test_an_input_that_kills_every_process(
    ray_address: str, small_folder: Path, small_model: Any, tmp_path: Path
) -> None:
    items = [Clip(f"{i}", i, Sound(wav(1, i))) for i in range(8)]
    items[3] = Clip("3", 3, Deadly(wav(1), tmp_path / "log", how="SIGKILL"))
    found = list(outcomes_on_ray(small_folder, items, SETTINGS, actors=1))
    failures = [each for each in found if isinstance(each, Failure)]
    assert [each.path for each in failures] == ["3"]
    assert "died, twice" in failures[0].reason
    check_equal(
        [each for each in found if isinstance(each, EmbeddedClip)],
        local_outcomes(small_model, [*items[:3], *items[4:]], SETTINGS),
        atol=1e-5,
    )
    pids = (tmp_path / "log").read_text().split()
    assert 3 <= len(pids) <= 4  # the actor, then two processes of its successor


@pytest.mark.slow
def test_no_room_ends(ray_address: str, small_folder: Path) -> None:
    results = outcomes_on_ray(small_folder, [Clip("x", 0, b"")], SETTINGS, device="cuda", actors=1, patience=2)
    with (
        pytest.warns(UserWarning, match="no room for any of 1 actors of 1 CPUs and a GPU yet"),
        pytest.raises(WorkerError, match=r"has no room for any of 1 actors of 1 CPUs and a GPU after \d+ s"),
    ):
        next(results)
    assert not [thread for thread in threading.enumerate() if thread.name == "vggish-pt-ray"]


@pytest.mark.slow
def test_another_version_of_the_package(ray_address: str, small_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_engine, "__version__", "0.0.0")
    with pytest.raises(WorkerError, match=r"vggish_pt is of version .* on .*, of 0\.0\.0 where the run was started"):
        next(outcomes_on_ray(small_folder, [Clip("x", 0, b"")], SETTINGS))


@pytest.mark.slow
def test_settings_and_loggers_stay_as_they_were(ray_address: str) -> None:
    import logging

    import ray.data

    context = ray.data.DataContext.get_current()
    before = (context.target_max_block_size, context.enable_progress_bars, logging.getLogger("ray.data").level)
    with ray_cluster.cluster():
        assert context.target_max_block_size is None
    assert ray.is_initialized()
    assert before == (
        context.target_max_block_size,
        context.enable_progress_bars,
        logging.getLogger("ray.data").level,
    )


@pytest.mark.slow
def test_objects_in_and_out(
    ray_address: str, s3: str | None, small_folder: Path, run_cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 on both sides, the command line on both engines."""
    if s3 is None:
        pytest.skip("needs moto and s3fs")
    environment = s3_environment(s3)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    files = s3fs.S3FileSystem()
    files.mkdir("sounds")
    for i in range(6):
        files.pipe_file(f"sounds/in/{i}.wav", wav(1 + i % 3, i))
    files.pipe_file("sounds/in/broken.wav", b"junk")
    tables = []
    for engine, more in (("local", {}), ("ray", {"RAY_ADDRESS": ray_address})):
        out = f"s3://sounds/{engine}"
        arguments = ["embed", "s3://sounds/in", "--out", out, "--weights", small_folder, "--engine", engine]
        result = run_cli(*arguments, "--device", "cpu", env={**os.environ, **environment, **more})
        assert result.returncode == 3, result.stderr
        assert result.stdout == ""
        lines = [re.split(r": | \(", line)[0] for line in result.stderr.splitlines() if "left" not in line]
        assert lines == ["vggish-pt", f"6 files, 12 windows → {out}", "vggish-pt"], result.stderr
        errors = pq.read_table(f"sounds/{engine}/_errors.parquet", filesystem=files).to_pylist()
        assert [(row["path"], row["type"]) for row in errors] == [("s3://sounds/in/broken.wav", "AudioError")]
        parts = files.glob(f"sounds/{engine}/part-*.parquet")
        tables.append([row for part in parts for row in pq.read_table(part, filesystem=files).to_pylist()])
    local, ray = tables
    assert len(local) == 12
    for one, other in zip(local, ray, strict=True):
        np.testing.assert_allclose(one.pop("embedding"), other.pop("embedding"), rtol=0, atol=1e-5)
        assert one == other
