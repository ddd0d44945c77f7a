"""Statistics in one pass, however the embeddings come; their file, whole, damaged and hostile."""

from __future__ import annotations

import io
import json
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vggish_pt import AudioError, OutputError, SettingsError
from vggish_pt.fad.statistics import MAX_DIMENSIONS, Statistics

METADATA = {"weights": {"name": "x", "sha256": "0" * 64, "final_relu": False}, "settings": {"hop": 0.96}}


def of(rows: Any, metadata: Any = None, files: int = 0) -> Statistics:
    statistics = Statistics(metadata)
    statistics.update(rows, files=files)
    return statistics


def assert_same(statistics: Statistics, rows: np.ndarray[Any, Any]) -> None:
    assert statistics.windows == len(rows)
    np.testing.assert_allclose(statistics.mean, rows.mean(axis=0), rtol=1e-11, atol=1e-11)
    covariance = np.cov(rows, rowvar=False).reshape(rows.shape[1], -1)
    np.testing.assert_allclose(statistics.covariance, covariance, rtol=1e-10, atol=1e-11 * np.abs(covariance).max())
    assert len(statistics.factor) <= rows.shape[1]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3000), min_size=1, max_size=6), st.integers(1, 20), st.integers(0, 9), st.booleans())
def test_any_cutting_and_merging(cuts: list[int], dimensions: int, seed: int, merge: bool) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((sum(cuts) + 2, dimensions)) * 3 + 5
    statistics = Statistics()
    for part in np.split(rows, np.cumsum(cuts)):
        if merge:
            statistics.merge(of(part, files=1))
        else:
            statistics.update(part, files=1)
        assert statistics.windows == 0 or statistics.factor.shape[1] == dimensions
    assert_same(statistics, rows)
    assert statistics.files == len(cuts) + 1


def test_small_variances_far_from_zero_keep_their_digits() -> None:
    rows = np.random.default_rng(0).integers(-1000, 1000, (4000, 3)).astype(np.float64)
    exact = np.cov(rows, rowvar=False)  # of whole numbers: nothing is lost in any sum
    statistics = Statistics()
    for part in np.split(rows + 2.0**36, 100):
        statistics.update(part)
        _ = statistics.mean  # a join for each part
    np.testing.assert_allclose(statistics.covariance, exact, rtol=0, atol=1e-7 * exact.max())


def test_types(rng: np.random.Generator) -> None:
    rows = rng.integers(0, 255, (40, 5))
    for kind in (np.uint8, np.float16, np.float32, np.int64):
        assert_same(of(rows.astype(kind)), rows.astype(kind).astype(np.float64))
    assert_same(of(rows.tolist()), rows.astype(np.float64))
    for bad in (
        rows > 3,
        rows * 1j,
        rows.astype(str),
        rows[0],
        rows[None],
        np.zeros((3, 0)),
        np.zeros((1, MAX_DIMENSIONS + 1)),
    ):
        with pytest.raises(SettingsError):
            of(bad)
    statistics = of(rows)
    with pytest.raises(SettingsError, match="embeddings of 4 values after embeddings of 5"):
        statistics.update(rows[:, :4])
    with pytest.raises(SettingsError, match="5 and 4 values"):
        statistics.merge(of(rows[:, :4]))
    with pytest.raises(SettingsError, match="at least two windows, not 1"):
        _ = of(rows[:1]).covariance
    with pytest.raises(AudioError, match="row 2055 has NaN"):
        of(np.vstack([np.zeros((2055, 2)), [[0, np.nan]]]))


def test_later_changes_of_an_array_do_not_matter(rng: np.random.Generator) -> None:
    rows = rng.standard_normal((30, 3))
    statistics = Statistics()
    buffer = np.empty((10, 3))
    for part in np.split(rows, 3):
        buffer[:] = part
        statistics.update(buffer)
    assert_same(statistics, rows)


def test_memory_does_not_grow(rng: np.random.Generator) -> None:
    block = rng.standard_normal((500, 32)).astype(np.float32)
    peaks = []
    for blocks in (10, 400):
        statistics = Statistics()
        tracemalloc.start()
        for _ in range(blocks):
            statistics.update(block)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.1 + 100_000
    assert statistics.windows == 200_000


@pytest.mark.parametrize("windows", [3, 500])
def test_saved_and_loaded(rng: np.random.Generator, tmp_path: Path, windows: int) -> None:
    statistics = of(rng.standard_normal((windows, 20)), METADATA, files=2)
    path = tmp_path / "x.npz"
    statistics.save(path)
    loaded = Statistics.load(path)
    assert (loaded.windows, loaded.files, loaded.metadata) == (windows, 2, METADATA)
    np.testing.assert_array_equal(loaded.mean, statistics.mean)
    np.testing.assert_array_equal(loaded.factor, statistics.factor)
    loaded.update(np.zeros((5, 20)))  # it goes on
    statistics.update(np.zeros((5, 20)))
    np.testing.assert_array_equal(loaded.covariance, statistics.covariance)
    with np.load(path, allow_pickle=False) as archive:  # any NumPy can read it
        covariance = archive["factor"].T @ archive["factor"] / (archive["windows"] - 1)
        assert json.loads(str(archive["metadata"])) == METADATA
    np.testing.assert_allclose(covariance, Statistics.load(path).covariance)
    with pytest.raises(OutputError, match="exists already"):
        statistics.save(path)
    statistics.save(path, overwrite=True)
    assert Statistics.load(path).windows == windows + 5
    with pytest.raises(SettingsError, match=r"saved as \.npz"):
        statistics.save(tmp_path / "x.npy")
    with pytest.raises(OutputError, match="no folder"):
        statistics.save(tmp_path / "none" / "x.npz")
    assert [p.name for p in tmp_path.iterdir()] == ["x.npz"]


def saved(tmp_path: Path, **changes: Any) -> Path:
    """A file of statistics with some entries replaced; bytes are an entry's whole contents."""
    rows = np.random.default_rng(0).standard_normal((50, 6))
    source, target = tmp_path / "good.npz", tmp_path / "bad.npz"
    of(rows, METADATA).save(source, overwrite=True)
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = changes.get(name.removesuffix(".npy"), old.read(name))
            if isinstance(data, np.ndarray | np.generic):
                buffer = io.BytesIO()
                np.save(buffer, data, allow_pickle=True)
                data = buffer.getvalue()
            if data is not None:
                new.writestr(name, data)
    return target


def npy_header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


HUGE = npy_header("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000), }\n")


@pytest.mark.parametrize(
    "changes",
    [
        {"factor": None},
        {"factor": HUGE},
        {"mean": HUGE},
        {"factor": np.array([[{"an": "object"}]], dtype=object)},
        {"factor": np.full((6, 6), np.nan)},
        {"factor": np.zeros((7, 6))},
        {"factor": np.zeros((6, 5))},
        {"factor": np.asfortranarray(np.ones((6, 6)) * 2)},
        {"factor": np.zeros((6, 6), dtype=complex)},
        {"mean": np.full(6, np.inf)},
        {"mean": np.zeros(0)},
        {"mean": npy_header("not a dict")},
        {"windows": np.int64(-1)},
        {"windows": np.int64(0)},
        {"windows": np.float64(50)},
        {"windows": np.array([50])},
        {"files": np.int64(51)},
        {"metadata": np.array("{")},
        {"metadata": np.array("[1, 2]")},
        {"metadata": np.array("7")},
        {"metadata": np.array("[" * 100_000)},
        {"metadata": np.array(" " * (5 << 20))},
        {"fad_statistics": np.int64(2)},
        {"fad_statistics": b""},
        {"fad_statistics": b"\x93NUMPY\x09\x00" + b" " * 50},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_hostile_files(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = saved(tmp_path, **changes)
    tracemalloc.start()
    with pytest.raises(
        AudioError, match=r"bad\.npz: cannot be read as statistics \(.+\); compute them again"
    ) as caught:
        Statistics.load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert peak < 50_000_000


def test_damaged_files(tmp_path: Path, rng: np.random.Generator) -> None:
    data = saved(tmp_path).read_bytes()
    path = tmp_path / "damaged.npz"
    expected = Statistics.load(tmp_path / "bad.npz").factor
    for position in [*rng.integers(0, len(data), 150), 0, len(data) - 1]:
        path.write_bytes(data[:position])
        with pytest.raises(AudioError):
            Statistics.load(path)
        changed = bytearray(data)
        changed[position] ^= 1 << rng.integers(8)
        path.write_bytes(changed)
        try:
            np.testing.assert_array_equal(
                Statistics.load(path).factor, expected
            )  # the change was where nothing matters
        except AudioError as error:
            assert "\n" not in str(error)
    with pytest.raises(AudioError, match="No such file"):
        Statistics.load(tmp_path / "nothing.npz")
