"""Both TensorFlow formats: what TensorFlow wrote is read bit for bit, and damage never goes unnoticed."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import tensorflow_writer as w
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tensorflow_small import FORMATS, assert_reads_as_tensorflow, assert_same, expected_values, read_all

from vggish_pt.errors import CheckpointError
from vggish_pt.pretrained.checkpoints import open_checkpoint
from vggish_pt.pretrained.checkpoints.sstable import Table
from vggish_pt.pretrained.checkpoints.tensors import slice_key

DATA = Path(__file__).with_name("data")
ROUNDS = int(os.environ.get("VGGISH_PT_FUZZ_ROUNDS", "150"))


@pytest.mark.parametrize("version", FORMATS)
def test_what_tensorflow_wrote(version: str) -> None:
    assert_reads_as_tensorflow(DATA, version)


def test_golden_formats_agree(golden_v1: Path, golden_v2: Path) -> None:
    with open_checkpoint(golden_v1) as first, open_checkpoint(golden_v2) as second:
        assert len(first.variables) == 18
        assert dict(first.variables) == dict(second.variables)
        for name in first.variables:
            assert np.array_equal(first.read(name).view(np.uint32), second.read(name).view(np.uint32))


@pytest.mark.parametrize("ending", ["", ".index", ".data-00000-of-00001"])
def test_any_part_names_a_v2_checkpoint(ending: str) -> None:
    with open_checkpoint(DATA / f"small_v2.ckpt{ending}") as checkpoint:
        assert checkpoint.format == "tensorflow-v2"
        assert [file.name for file in checkpoint.files] == [
            "small_v2.ckpt.index",
            "small_v2.ckpt.data-00000-of-00001",
        ]


arrays = hnp.arrays(
    st.sampled_from([np.float32, np.float64, np.float16, np.int64]),
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6),
)
names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)


@given(st.dictionaries(names, arrays, min_size=1, max_size=6), st.booleans(), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory, variables: dict[str, np.ndarray], snappy: bool, parts: int
) -> None:
    folder = tmp_path_factory.mktemp("round")
    cut = {name: min(parts, len(a)) for name, a in variables.items() if a.ndim and len(a)}
    first = w.write_v1(folder / "one.ckpt", variables, parts=cut, snappy=snappy)
    second = w.write_v2(folder / "two.ckpt", variables, parts=cut, snappy=snappy, shards=parts)
    for path in (first, second):
        with open_checkpoint(path) as checkpoint:
            values = read_all(checkpoint)
        assert values.keys() == variables.keys()
        for name, value in values.items():
            assert_same(value, variables[name])


@pytest.mark.parametrize("version", FORMATS)
def test_mutations_are_found_or_harmless(version: str, tmp_path: Path) -> None:
    name = f"small_{version}.ckpt"
    expected = {**expected_values(DATA, "small_v2.ckpt"), **expected_values(DATA, name)}
    files = {p.name: p.read_bytes() for p in DATA.glob(name + "*") if p.suffix not in (".json", ".npz")}
    for file, data in files.items():
        (tmp_path / file).write_bytes(data)
    rng = random.Random(1)
    outcomes = {"error": 0, "right": 0}
    for file, good in files.items():
        for _ in range(400):
            bad = bytearray(good)
            kind = rng.randrange(4)
            at = rng.randrange(len(bad))
            if kind == 0:
                bad[at] ^= 1 << rng.randrange(8)
            elif kind == 1:
                del bad[at:]
            elif kind == 2:
                bad[at : at + rng.randrange(1, 9)] = rng.randbytes(rng.randrange(9))
            else:
                bad[-48 + rng.randrange(40)] ^= 1 << rng.randrange(8)
            (tmp_path / file).write_bytes(bad)
            outcomes[read_or_error(tmp_path / name, expected)] += 1
        (tmp_path / file).write_bytes(good)
    assert outcomes["error"] > 250 * len(files)
    assert read_or_error(tmp_path / name, expected) == "right"


@pytest.mark.parametrize("version", FORMATS)
def test_mutations_under_good_checksums(version: str, tmp_path: Path) -> None:
    # A hostile writer computes checksums, so that everything behind them is reached.
    name = f"small_{version}.ckpt"
    table = DATA / (name if version == "v1" else name + ".index")
    entries = {key: bytes(value) for key, value in Table(memoryview(table.read_bytes())).items()}
    if version == "v2":
        data = DATA / f"{name}.data-00000-of-00001"
        (tmp_path / data.name).write_bytes(data.read_bytes())
    rng = random.Random(3)
    errors = 0
    tracemalloc.start()
    try:
        for _ in range(ROUNDS):
            mutated = dict(entries)
            for key in rng.sample(sorted(entries), rng.randrange(1, 4)) + [b""] * rng.randrange(2):
                value = bytearray(mutated[key])
                for _ in range(rng.randrange(1, 4)):
                    at = rng.randrange(min(len(value), 64 if rng.random() < 0.5 else 1 << 20))
                    value[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
                    value = value or bytearray(b"\x0a")
                mutated[key] = bytes(value)
            (tmp_path / table.name).write_bytes(w.table(mutated, entries_per_block=3))
            try:
                with open_checkpoint(tmp_path / name) as checkpoint:
                    for variable in checkpoint.variables:
                        with contextlib.suppress(CheckpointError):
                            assert checkpoint.read(variable).shape == checkpoint.variables[variable].shape
            except CheckpointError:
                errors += 1
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert errors > ROUNDS // 20


def read_or_error(path: Path, expected: dict[str, np.ndarray]) -> str:
    outcome = "right"
    try:
        with open_checkpoint(path) as checkpoint:
            assert {n for n, v in checkpoint.variables.items() if v.type != "string"} == expected.keys()
            for name in expected:
                try:
                    assert_same(checkpoint.read(name), expected[name])
                except CheckpointError as error:
                    assert str(path) in str(error) or path.name in str(error)
                    outcome = "error"
    except CheckpointError as error:
        assert path.name in str(error)
        assert "\n" not in str(error)
        return "error"
    return outcome


ONE = np.arange(6, dtype=np.float32).reshape(2, 3)


def v1_with(meta: bytes, data: bytes = b"") -> bytes:
    """A V1 file whose list of variables is ``meta`` and whose record of the whole variable x is ``data``."""
    return w.table({b"": w.field(1, meta), slice_key("x", ((0, None), (0, None))): w.field(2, data)})


def x_meta(shape: bytes, slices: bytes = w.field(4, w.slice_proto(((0, None), (0, None)))), kind: int = 1) -> bytes:
    return w.field(1, w.field(1, b"x") + w.field(2, shape) + w.field(3, kind) + slices)


def dims(*sizes: int) -> bytes:
    return b"".join(w.field(2, w.field(1, size % (1 << 64))) for size in sizes)


def x_data(values: bytes, name: bytes = b"x") -> bytes:
    return w.field(1, name) + w.field(2, w.slice_proto(((0, None), (0, None)))) + w.field(3, values)


GOOD_DATA = x_data(w.field(5, ONE.tobytes()))
HOSTILE_V1 = {
    "terabytes": v1_with(x_meta(dims(1 << 20, 1 << 20)), GOOD_DATA),
    "product overflows": v1_with(x_meta(dims(1 << 33, 1 << 33)), GOOD_DATA),
    "huge beside zero": v1_with(x_meta(dims(0, 1 << 62)), GOOD_DATA),
    "negative": v1_with(x_meta(dims(-2, -3)), GOOD_DATA),
    "300 dimensions": v1_with(x_meta(dims(*[1] * 300)), GOOD_DATA),
    "larger than the data": v1_with(x_meta(dims(2, 4)), GOOD_DATA),
    "smaller than the data": v1_with(x_meta(dims(2, 2)), GOOD_DATA),
    "no slices": v1_with(x_meta(dims(2, 3), b""), GOOD_DATA),
    "terabytes in slices": v1_with(
        x_meta(
            dims(1 << 20, 1 << 20),
            w.field(4, w.slice_proto(((0, 1 << 19), (0, None))))
            + w.field(4, w.slice_proto(((1 << 19, 1 << 19), (0, None)))),
        )
    ),
    "slices overlap": v1_with(x_meta(dims(2, 3), w.field(4, w.slice_proto(((0, 1), (0, None)))) * 2), GOOD_DATA),
    "slice outside": v1_with(x_meta(dims(2, 3), w.field(4, w.slice_proto(((1, 2), (0, None))))), GOOD_DATA),
    "slice of other rank": v1_with(x_meta(dims(2, 3), w.field(4, w.slice_proto(((0, None),)))), GOOD_DATA),
    "another's record": v1_with(x_meta(dims(2, 3)), x_data(w.field(5, ONE.tobytes()), name=b"y")),
    "twice": v1_with(x_meta(dims(2, 3)) * 2, GOOD_DATA),
    "values twice": v1_with(x_meta(dims(2, 3)), x_data(w.field(5, ONE.tobytes()) * 2)),
    "no values": v1_with(x_meta(dims(2, 3)), x_data(b"")),
    "no meta": w.table({b"a": b"b"}),
    "meta is a number": w.table({b"": w.field(1, 5)}),
    "length of terabytes": w.table({b"": w.varint(1 << 3 | 2) + w.varint(1 << 50)}),
    "a group": v1_with(w.varint(1 << 3 | 3)),
    "name is no UTF-8": v1_with(w.field(1, w.field(1, b"\xff\xfe"))),
    "too few varints": v1_with(x_meta(dims(2, 3), kind=3), x_data(w.field(7, b"\1\2\3"))),
    "varint cut off": v1_with(x_meta(dims(2, 3), kind=3), x_data(w.field(7, b"\1\2\3\4\5\x80"))),
    "varint too long": v1_with(x_meta(dims(2, 3), kind=3), x_data(w.field(7, b"\1\2\3\4\5" + b"\x80" * 11 + b"\1"))),
    "unknown type": v1_with(x_meta(dims(2, 3), kind=99), GOOD_DATA),
}


def test_the_base_of_the_hostile_files_is_good(tmp_path: Path) -> None:
    (tmp_path / "x.ckpt").write_bytes(v1_with(x_meta(dims(2, 3)), GOOD_DATA))
    with open_checkpoint(tmp_path / "x.ckpt") as checkpoint:
        assert_same(checkpoint.read("x"), ONE)


@pytest.mark.parametrize("case", HOSTILE_V1)
def test_hostile_v1(case: str, tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    path.write_bytes(HOSTILE_V1[case])
    assert_refused(path)


def assert_refused(path: Path) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError) as caught, open_checkpoint(path) as checkpoint:
            checkpoint.read("x")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)


def entry(
    shape: bytes, size: int, *, shard: int = 0, offset: int = 0, kind: int = 1, crc: bytes | None = None
) -> bytes:
    fields = w.field(1, kind) + w.field(2, shape) + w.field(3, shard) + w.field(4, offset % (1 << 64))
    crc = w.masked_crc(ONE.tobytes()) if crc is None else crc
    return fields + w.field(5, size % (1 << 64)) + w.varint(6 << 3 | 5) + crc


HEADER = w.field(1, 1)
HOSTILE_V2 = {
    "terabytes": {b"": HEADER, b"x": entry(dims(1 << 20, 1 << 20), 4 << 40)},
    "size is not the shape's": {b"": HEADER, b"x": entry(dims(2, 3), 20)},
    "negative size": {b"": HEADER, b"x": entry(dims(2, 3), -24)},
    "negative offset": {b"": HEADER, b"x": entry(dims(2, 3), 24, offset=-8)},
    "beyond the end": {b"": HEADER, b"x": entry(dims(2, 3), 24, offset=1)},
    "no such shard": {b"": HEADER, b"x": entry(dims(2, 3), 24, shard=1)},
    "negative shard": {b"": HEADER, b"x": entry(dims(2, 3), 24, shard=(1 << 64) - 1)},
    "wrong checksum": {b"": HEADER, b"x": entry(dims(2, 3), 24, crc=b"abcd")},
    "string": {b"": HEADER, b"x": entry(dims(), 24, kind=7)},
    "no header": {b"x": entry(dims(2, 3), 24)},
    "no shards": {b"": b"", b"x": entry(dims(2, 3), 24)},
    "a billion shards": {b"": w.field(1, 10**9), b"x": entry(dims(2, 3), 24)},
    "negative shards": {b"": w.field(1, (1 << 64) - 1), b"x": entry(dims(2, 3), 24)},
    "missing shard": {b"": w.field(1, 2), b"x": entry(dims(2, 3), 24)},
    "big-endian": {b"": HEADER + w.field(2, 1), b"x": entry(dims(2, 3), 24)},
    "slice without entry": {
        b"": HEADER,
        b"x": w.field(1, 1) + w.field(2, dims(2, 3)) + w.field(7, w.slice_proto(((0, 1), (0, None)))) * 2,
    },
    "slices overlap": {
        b"": HEADER,
        b"x": w.field(1, 1) + w.field(2, dims(2, 3)) + w.field(7, w.slice_proto(((0, 1), (0, None)))) * 2,
        slice_key("x", ((0, 1), (0, None))): entry(dims(1, 3), 12, crc=w.masked_crc(ONE[:1].tobytes())),
    },
    "slice of itself": {
        b"": HEADER,
        b"x": w.field(1, 1) + w.field(2, dims(2, 3)) + w.field(7, w.slice_proto(((0, None), (0, None)))),
        slice_key("x", ((0, None), (0, None))): w.field(1, 1)
        + w.field(2, dims(2, 3))
        + w.field(7, w.slice_proto(((0, None), (0, None)))),
    },
}


@pytest.mark.parametrize("case", HOSTILE_V2)
def test_hostile_v2(case: str, tmp_path: Path) -> None:
    prefix = tmp_path / "x.ckpt"
    (tmp_path / "x.ckpt.index").write_bytes(w.table(HOSTILE_V2[case]))
    (tmp_path / "x.ckpt.data-00000-of-00001").write_bytes(ONE.tobytes())
    if case == "missing shard":
        (tmp_path / "x.ckpt.data-00000-of-00002").write_bytes(ONE.tobytes())
    assert_refused(prefix)


def test_many_slices_of_few_bytes_are_not_expanded(tmp_path: Path) -> None:
    # 2,000 entries show the same 64 KiB: 128 MB if they were believed.
    piece = np.zeros(1 << 14, np.float32)
    slices = [((i << 14, 1 << 14),) for i in range(2000)]
    crc = w.masked_crc(piece.tobytes())
    entries = {slice_key("x", s): entry(dims(1 << 14), 1 << 16, crc=crc) for s in slices}
    listed = b"".join(w.field(7, w.slice_proto(s)) for s in slices)
    entries |= {b"": HEADER, b"x": w.field(1, 1) + w.field(2, dims(2000 << 14)) + listed}
    (tmp_path / "x.ckpt.index").write_bytes(w.table(entries, entries_per_block=50))
    (tmp_path / "x.ckpt.data-00000-of-00001").write_bytes(piece.tobytes())
    with open_checkpoint(tmp_path / "x.ckpt") as checkpoint:
        tracemalloc.start()
        try:
            with pytest.raises(CheckpointError, match="do not make up"):
                checkpoint.read("x")
            assert tracemalloc.get_traced_memory()[1] < 16 << 20
        finally:
            tracemalloc.stop()


def test_hostile_sizes_under_a_memory_limit(tmp_path: Path) -> None:
    # Not Python's own counting: the process may not have more than its start and 64 MB.
    for name in ("terabytes", "terabytes in slices", "product overflows"):
        (tmp_path / f"{name}.ckpt").write_bytes(HOSTILE_V1[name])
    code = """
import resource, sys
from vggish_pt.pretrained.checkpoints import open_checkpoint
from vggish_pt.pretrained.checkpoints import ports, tensorflow_v1, tensorflow_v2
from vggish_pt.errors import CheckpointError
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + (64 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for path in sys.argv[1:]:
    try:
        with open_checkpoint(path) as checkpoint:
            checkpoint.read("x")
    except CheckpointError:
        continue
    raise SystemExit(f"{path} was accepted")
"""
    if not sys.platform.startswith("linux"):
        pytest.skip("memory limits are Linux's")
    done = subprocess.run([sys.executable, "-c", code, *map(str, tmp_path.iterdir())], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.ckpt", b""),
        ("page.ckpt", b"<html>not found</html>"),
        ("zeros.ckpt", bytes(1000)),
        ("magic.ckpt", w.MAGIC),
        ("file.ckpt.xz", b"\xfd7zXZ\0" + bytes(100)),
    ],
)
def test_other_files(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        open_checkpoint(tmp_path / name)


def test_missing_directory_and_closed(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        open_checkpoint(tmp_path / "nothing.ckpt")
    with pytest.raises(CheckpointError, match="folder"):
        open_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="index"):
        open_checkpoint(tmp_path / "nothing.ckpt.index")
    for version in FORMATS:
        with open_checkpoint(DATA / f"small_{version}.ckpt") as checkpoint:
            kept = checkpoint.read("net/plain")
        assert np.isfinite(kept).all()
        with pytest.raises(CheckpointError, match="closed"):
            checkpoint.read("net/plain")
        with (
            open_checkpoint(DATA / f"small_{version}.ckpt") as checkpoint,
            pytest.raises(CheckpointError, match="no variable net/none"),
        ):
            checkpoint.read("net/none")
