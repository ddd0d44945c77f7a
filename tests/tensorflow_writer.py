"""Writes TensorFlow's checkpoint formats, for tests that need files which TensorFlow does not or cannot write.

What it writes is held against TensorFlow in ``checkpoints/test_oracle.py``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path

import cramjam
import numpy as np

from vggish_pt.pretrained.checkpoints.sstable import MAGIC
from vggish_pt.pretrained.checkpoints.tensors import DTYPES, slice_key
from vggish_pt.utils.crc32c import crc32c, mask

_TYPES = {name: number for number, name in DTYPES.items()}
_FLOAT_VAL, _TENSOR_CONTENT = 5, 4


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def masked_crc(data: bytes) -> bytes:
    return mask(crc32c(memoryview(data))).to_bytes(4, "little")


def block(entries: Iterable[tuple[bytes, bytes]], restart_interval: int = 16) -> bytes:
    out, restarts, previous = b"", [], b""
    for i, (key, value) in enumerate(entries):
        shared = 0
        if i % restart_interval == 0:
            restarts.append(len(out))
        else:
            while shared < min(len(key), len(previous)) and key[shared] == previous[shared]:
                shared += 1
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        previous = key
    restarts = restarts or [0]
    return out + b"".join(r.to_bytes(4, "little") for r in restarts) + len(restarts).to_bytes(4, "little")


def sealed(contents: bytes, *, snappy: bool = False) -> bytes:
    """A block as it is stored: compressed or not, with its trailer."""
    if snappy:
        contents = bytes(cramjam.snappy.compress_raw(contents))
    contents += b"\1" if snappy else b"\0"
    return contents + masked_crc(contents)


def table(entries: Mapping[bytes, bytes], *, snappy: bool = False, entries_per_block: int = 5) -> bytes:
    out, index = b"", []
    items = sorted(entries.items())

    def add(contents: bytes) -> bytes:
        nonlocal out
        stored = sealed(contents, snappy=snappy)
        handle = varint(len(out)) + varint(len(stored) - 5)
        out += stored
        return handle

    for start in range(0, len(items), entries_per_block):
        chunk = items[start : start + entries_per_block]
        index.append((chunk[-1][0], add(block(chunk))))
    handles = add(block([])), add(block(index, restart_interval=1))
    return out + footer(*handles)


def footer(meta_index: bytes, index: bytes) -> bytes:
    return (meta_index + index).ljust(40, b"\0") + MAGIC


def shape_proto(shape: tuple[int, ...]) -> bytes:
    return b"".join(field(2, field(1, size)) for size in shape)


def slice_proto(extents: tuple[tuple[int, int | None], ...]) -> bytes:
    parts = [b"" if length is None else field(1, start) + field(2, length) for start, length in extents]
    return b"".join(field(1, part) for part in parts)


def pieces(array: np.ndarray, parts: int) -> dict[tuple[tuple[int, int | None], ...], np.ndarray]:
    """Cuts an array along its first axis: extents → part. One part: the whole."""
    if parts == 1 or array.ndim == 0:
        return {((0, None),) * array.ndim: array}
    starts = np.linspace(0, len(array), parts + 1).astype(int)
    return {
        ((int(a), int(b - a)),) + ((0, None),) * (array.ndim - 1): array[a:b] for a, b in itertools.pairwise(starts)
    }


def v1_entries(variables: Mapping[str, np.ndarray], parts: Mapping[str, int] | None = None) -> dict[bytes, bytes]:
    """The table of a V1 checkpoint. float32 goes to float_val as TensorFlow has it, other types to tensor_content."""
    entries, meta = {}, b""
    for name, array in variables.items():
        cut = pieces(array, (parts or {}).get(name, 1))
        description = field(1, name.encode()) + field(2, shape_proto(array.shape))
        description += field(3, _TYPES[array.dtype.name])
        meta += field(1, description + b"".join(field(4, slice_proto(extents)) for extents in cut))
        for extents, part in cut.items():
            values = field(_FLOAT_VAL if array.dtype == np.float32 else _TENSOR_CONTENT, part.tobytes())
            saved = field(1, name.encode()) + field(2, slice_proto(extents)) + field(3, values)
            entries[slice_key(name, extents)] = field(2, saved)
    return {b"": field(1, meta), **entries}


def write_v1(
    path: Path,
    variables: Mapping[str, np.ndarray],
    *,
    parts: Mapping[str, int] | None = None,
    snappy: bool = False,
) -> Path:
    path.write_bytes(table(v1_entries(variables, parts), snappy=snappy))
    return path


def write_v2(
    prefix: Path,
    variables: Mapping[str, np.ndarray],
    *,
    parts: Mapping[str, int] | None = None,
    snappy: bool = False,
    shards: int = 1,
    header: bytes | None = None,
) -> Path:
    data = [b""] * shards
    header = field(1, shards) + field(3, field(1, 1)) if header is None else header
    entries = {b"": header}
    for i, (name, array) in enumerate(variables.items()):
        cut = pieces(array, (parts or {}).get(name, 1))
        kind = field(1, _TYPES[array.dtype.name])
        if len(cut) > 1:
            listed = b"".join(field(7, slice_proto(extents)) for extents in cut)
            entries[name.encode()] = kind + field(2, shape_proto(array.shape)) + listed
        for j, (extents, part) in enumerate(cut.items()):
            shard = (i + j) % shards
            raw = part.tobytes()
            where = field(3, shard) + field(4, len(data[shard])) + field(5, len(raw))
            key = slice_key(name, extents) if len(cut) > 1 else name.encode()
            crc = varint(6 << 3 | 5) + masked_crc(raw)
            entries[key] = kind + field(2, shape_proto(part.shape)) + where + crc
            data[shard] += raw
    for shard, raw in enumerate(data):
        prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{shards:05d}").write_bytes(raw)
    prefix.with_name(f"{prefix.name}.index").write_bytes(table(entries, snappy=snappy))
    return prefix
