"""Reader of TensorFlow's second checkpoint format: ``PREFIX.index`` and ``PREFIX.data-SHARD-of-SHARDS``.

The index is a table. The value of its empty key is a BundleHeaderProto. The value of each variable's name is a
BundleEntryProto, which holds the shard, offset, size and masked CRC-32C of the variable's bytes. The entry of a sliced
variable lists its slices instead, and each slice has an entry under its own key.

Messages: tensor_bundle.proto of tensorflow/core/protobuf.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vggish_pt.errors import CheckpointError
from vggish_pt.pretrained.checkpoints import tensors
from vggish_pt.pretrained.checkpoints.base import MAX_VARIABLES, Array, Checkpoint, Variable, map_file, naming
from vggish_pt.pretrained.checkpoints.protobuf import fields, number, text, view
from vggish_pt.pretrained.checkpoints.sstable import Table
from vggish_pt.utils.crc32c import crc32c, mask

_MAX_SHARDS = 10_000


class TensorFlowV2(Checkpoint):
    """TensorFlow V2 checkpoint.

    Args:
        prefix: path without ``.index``.

    Raises:
        CheckpointError: the checkpoint is damaged, of another format, or lacks files.
    """

    format = "tensorflow-v2"

    def __init__(self, prefix: Path) -> None:
        index = prefix.with_name(prefix.name + ".index")
        variables = {}
        data = map_file(index)
        with naming(index):
            self._table = Table(data)
            shards = _count_shards(self._table.get(b""))
            for key, value in self._table.items():
                if key and not key.startswith(b"\0"):  # "": the header; "\0...": slices
                    name = text(memoryview(key))
                    variables[name] = _Entry.parse(value).variable(name)
                if len(variables) > MAX_VARIABLES:
                    raise CheckpointError("lists too many variables")
        paths = [prefix.with_name(f"{prefix.name}.data-{i:05d}-of-{shards:05d}") for i in range(shards)]
        for path in paths:
            if not path.is_file():
                raise CheckpointError(
                    f"{path}: is missing, a part of the checkpoint; put it into the folder of {index.name}"
                )
        self._max_elements = sum(path.stat().st_size for path in paths)
        self._paths = paths
        self._shards: dict[int, memoryview] = {}
        super().__init__(prefix, (index, *paths), variables)

    def _read(self, variable: Variable) -> Array:
        entry = self._entry(variable.name.encode())
        if not entry.slices:
            return self._read_entry(entry, variable.name)
        return tensors.assemble(
            variable,
            entry.slices,
            lambda extents: self._read_slice(variable, extents),
            self._max_elements,
        )

    def _read_slice(self, variable: Variable, extents: tensors.Extents) -> Array:
        entry = self._entry(tensors.slice_key(variable.name, extents))
        if entry.shape != tensors.slice_shape(extents, variable.shape) or entry.type != variable.type or entry.slices:
            raise CheckpointError("a slice of it has another shape or type than its variable")
        return self._read_entry(entry, variable.name)

    def _entry(self, key: bytes) -> _Entry:
        value = self._table.get(key)
        if value is None:
            raise CheckpointError("a slice of it is not in the index")
        return _Entry.parse(value)

    def _read_entry(self, entry: _Entry, name: str) -> Array:
        dtype = tensors.numpy_dtype(entry.variable(name))
        size = math.prod(entry.shape) * dtype.itemsize
        if not 0 <= entry.shard < len(self._paths):
            raise CheckpointError(f"is in shard {entry.shard}, but there are {len(self._paths)} shards")
        if entry.size != size:
            raise CheckpointError(f"has {entry.size} bytes where its shape asks for {size}")
        if size == 0:
            return np.empty(entry.shape, dtype)
        if entry.shard not in self._shards:
            self._shards[entry.shard] = map_file(self._paths[entry.shard])
        shard = self._shards[entry.shard]
        if entry.offset < 0 or entry.offset + size > len(shard):
            raise CheckpointError(f"is beyond the end of {self._paths[entry.shard].name}; the file may be truncated")
        data = shard[entry.offset : entry.offset + size]
        if mask(crc32c(data)) != entry.crc:
            raise CheckpointError(f"its checksum does not match its bytes in {self._paths[entry.shard].name}")
        return np.frombuffer(data, dtype).reshape(entry.shape)

    def _release(self) -> None:
        del self._table, self._shards


@dataclass(frozen=True)
class _Entry:
    """Fields of a BundleEntryProto."""

    type: str
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int
    slices: tuple[memoryview, ...]

    @classmethod
    def parse(cls, message: memoryview) -> _Entry:
        kind, crc, slices = "unknown", 0, []
        shape: tuple[int, ...] = ()
        numbers = {3: 0, 4: 0, 5: 0}
        for field, value in fields(message):
            if field == 1:
                kind = tensors.type_name(value)
            elif field == 2:
                shape = tensors.parse_shape(view(value))
            elif field in numbers:
                numbers[field] = number(value)
            elif field == 6:
                crc = int.from_bytes(view(value), "little")
            elif field == 7:
                slices.append(view(value))
        return cls(kind, shape, numbers[3], numbers[4], numbers[5], crc, tuple(slices))

    def variable(self, name: str) -> Variable:
        return Variable(name, self.shape, self.type)


def _count_shards(header: memoryview | None) -> int:
    """Return the number of data files in a BundleHeaderProto."""
    if header is None:
        raise CheckpointError("is a TensorFlow table without the header of a V2 checkpoint's index")
    shards = 0
    for field, value in fields(header):
        if field == 1:
            shards = number(value)
        elif field == 2 and number(value) != 0:
            raise CheckpointError("was written on a big-endian machine; restore and save it on a little-endian one")
    if not 1 <= shards <= _MAX_SHARDS:
        raise CheckpointError(f"claims {shards} data files")
    return shards
