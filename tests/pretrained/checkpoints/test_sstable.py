"""The table reader: any map survives a round trip, no damaged or hostile file gets further than an error."""

from __future__ import annotations

import tracemalloc

import pytest
import tensorflow_writer as w
from hypothesis import given, settings
from hypothesis import strategies as st

from vggish_pt.errors import CheckpointError
from vggish_pt.pretrained.checkpoints.sstable import Table

maps = st.dictionaries(st.binary(max_size=20), st.binary(max_size=60), max_size=40)


@given(maps, st.booleans(), st.integers(1, 50))
@settings(max_examples=60, deadline=None)
def test_round_trip(entries: dict[bytes, bytes], snappy: bool, per_block: int) -> None:
    table = Table(memoryview(w.table(entries, snappy=snappy, entries_per_block=per_block)))
    assert {key: bytes(value) for key, value in table.items()} == entries
    assert [key for key, _ in table.items()] == sorted(entries)
    for key, value in entries.items():
        assert bytes(table.get(key) or b"") == value
    for absent in (b"\xff" * 21, b"a" * 30):
        assert table.get(absent) is None


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_noise_before_a_valid_magic(noise: bytes) -> None:
    with pytest.raises(CheckpointError):
        list(Table(memoryview(noise + w.MAGIC)).items())


def hostile(data_block: bytes, *, snappy: bool = False) -> bytes:
    """A table, with all checksums right, whose only data block is the one given."""
    stored = data_block + (b"\1" if snappy else b"\0")
    stored += w.masked_crc(stored)
    index = w.sealed(w.block([(b"\xff", w.varint(0) + w.varint(len(stored) - 5))]))
    return stored + index + w.footer(w.varint(0) * 2, w.varint(len(stored)) + w.varint(len(index) - 5))


HUGE = (1 << 63) - 1
CASES = {
    "entry longer than block": hostile(w.varint(0) + w.varint(1) + w.varint(1 << 40) + b"k" + bytes(4)),
    "key longer than block": hostile(w.varint(0) + w.varint(HUGE) + w.varint(0) + b"k" + bytes(4)),
    "shares more than there is": hostile(w.varint(HUGE) + w.varint(1) + w.varint(0) + b"k" + bytes(4)),
    "too many restarts": hostile(b"\xff" * 8),
    "block too short for restarts": hostile(b"\1"),
    "varint without end": hostile(b"\xff" * 12 + bytes(4)),
    "keys out of order": hostile(w.block([(b"b", b""), (b"a", b"")], restart_interval=1)),
    "keys twice": hostile(w.block([(b"b", b""), (b"b", b"")], restart_interval=1)),
    "snappy bomb": hostile(w.varint(1 << 40) + b"\0" * 50, snappy=True),
    "snappy claims 4 GB": hostile(w.varint((1 << 32) - 1) + b"\xfe\x01\x00" * 1000, snappy=True),
    "snappy nonsense": hostile(w.varint(100) + b"\xff" * 50, snappy=True),
    "no footer": w.table({b"a": b"b"})[:-1],
    "only a magic": w.MAGIC,
    "index beyond the end": bytes(100) + w.footer(w.varint(0) * 2, w.varint(50) + w.varint(HUGE)),
    "index at infinity": bytes(100) + w.footer(w.varint(0) * 2, w.varint(HUGE) + w.varint(5)),
    "negative handle": bytes(100) + w.footer(w.varint(0) * 2, w.varint((1 << 64) - 10) + w.varint(20)),
    "unknown compression": w.table({b"a": b"b"}).replace(
        w.sealed(w.block([(b"a", b"b")])),
        (lambda raw: raw + w.masked_crc(raw))(w.block([(b"a", b"b")]) + b"\7"),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_hostile(case: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError) as caught:
            list(Table(memoryview(CASES[case])).items())
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)


def test_index_that_points_to_itself() -> None:
    # Its own entries are then read as data, which ends: nothing is followed from there.
    size = len(w.block([(b"k", w.varint(0) + w.varint(20))]))
    index = w.block([(b"k", w.varint(0) + w.varint(size))])
    table = Table(memoryview(w.sealed(index) + w.footer(w.varint(0) * 2, w.varint(0) + w.varint(size))))
    assert [key for key, _ in table.items()] == [b"k"]


def test_overlapping_blocks_repeat_keys() -> None:
    stored = w.sealed(w.block([(b"a", b"1"), (b"b", b"2")]))
    handle = w.varint(0) + w.varint(len(stored) - 5)
    index = w.sealed(w.block([(b"b", handle), (b"c", handle)]))
    data = stored + index + w.footer(w.varint(0) * 2, w.varint(len(stored)) + w.varint(len(index) - 5))
    with pytest.raises(CheckpointError, match="out of order"):
        list(Table(memoryview(data)).items())


def test_prefixes_that_grow_quadratically() -> None:
    # 100,000 entries of 4 bytes, each key one byte longer than the last: 5 GB of keys if they were all kept.
    entries = b"".join(w.varint(i) + w.varint(1) + w.varint(0) + b"a" for i in range(100_000))
    data = hostile(entries + (1).to_bytes(4, "little") * 2)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError):
            list(Table(memoryview(data)).items())
        assert tracemalloc.get_traced_memory()[1] < 40 * len(data)
    finally:
        tracemalloc.stop()


def test_every_flipped_bit_is_found_or_harmless() -> None:
    entries = {b"alpha": b"1" * 30, b"alphabet": b"2" * 30, b"beta": b"3", b"gamma": b"4" * 100}
    good = w.table(entries, entries_per_block=2)
    harmless = 0
    for position in range(len(good)):
        for bit in range(8):
            bad = bytearray(good)
            bad[position] ^= 1 << bit
            try:
                read = {key: bytes(value) for key, value in Table(memoryview(bytes(bad))).items()}
            except CheckpointError:
                continue
            assert read == entries
            harmless += 1
    # The meta-index and the footer's padding are not used.
    assert harmless < 8 * (len(w.sealed(w.block([]))) + 40)
