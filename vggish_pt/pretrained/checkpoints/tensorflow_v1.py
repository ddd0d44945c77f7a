"""Reader of TensorFlow's first checkpoint format, one table file.

The value of the empty key is a SavedTensorSlices message whose ``meta`` lists all variables and their slices. Each
other key encodes a variable's name and a slice; its value is a SavedTensorSlices message whose ``data`` holds the
slice's values.

Messages: saved_tensor_slice.proto of tensorflow/core/util and tensor.proto of tensorflow/core/framework.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vggish_pt.errors import CheckpointError
from vggish_pt.pretrained.checkpoints import tensors
from vggish_pt.pretrained.checkpoints.base import MAX_VARIABLES, Array, Checkpoint, Variable, map_file, naming
from vggish_pt.pretrained.checkpoints.protobuf import fields, text, view
from vggish_pt.pretrained.checkpoints.sstable import SNAPPY_MAX_RATIO, Table

# SavedTensorSlices: meta = 1, data = 2. SavedTensorSliceMeta: tensor = 1. SavedSliceMeta: name = 1, shape = 2,
# type = 3, slice = 4. SavedSlice: name = 1, slice = 2, data = 3.
_TENSOR_CONTENT = 4
# Number of the field of TensorProto that holds values of a type, packed as in memory or as varints.
_FIXED_WIDTH = {"float32": 5, "float64": 6}
_VARINTS = {
    "int32": 7, "uint8": 7, "int16": 7, "int8": 7, "uint16": 7, "int64": 10, "bool": 11, "float16": 13, "uint32": 16,
    "uint64": 17,
}  # fmt: skip


class TensorFlowV1(Checkpoint):
    """TensorFlow V1 checkpoint.

    Args:
        path: the file.

    Raises:
        CheckpointError: the file is no V1 checkpoint, or damaged.
    """

    format = "tensorflow-v1"

    def __init__(self, path: Path) -> None:
        data = map_file(path)
        with naming(path):
            self._table = Table(data)
            # An element takes at least one byte before compression.
            self._max_elements = SNAPPY_MAX_RATIO * len(data)
            self._meta = dict(_read_meta(self._table))
            variables = {name: _describe(name, meta) for name, meta in self._meta.items()}
        super().__init__(path, (path,), variables)

    def _read(self, variable: Variable) -> Array:
        slices = (view(value) for field, value in fields(self._meta[variable.name]) if field == 4)
        return tensors.assemble(
            variable, slices, lambda extents: self._read_slice(variable, extents), self._max_elements
        )

    def _read_slice(self, variable: Variable, extents: tensors.Extents) -> Array:
        record = self._table.get(tensors.slice_key(variable.name, extents))
        if record is None:
            raise CheckpointError("a slice of it is not in the file")
        content = memoryview(b"")
        for field, value in fields(record):
            if field == 2:
                content = view(value)
        name, tensor = "", memoryview(b"")
        for field, value in fields(content):
            if field == 1:
                name = text(value)
            elif field == 2 and tensors.parse_extents(view(value), variable.shape) != extents:
                raise CheckpointError("a slice is stored under the key of another")
            elif field == 3:
                tensor = view(value)
        if name != variable.name:
            raise CheckpointError(f"is stored under the key of {name}")
        shape = tensors.slice_shape(extents, variable.shape)
        return _values(tensor, variable, math.prod(shape)).reshape(shape)

    def _release(self) -> None:
        del self._table, self._meta


def _read_meta(table: Table) -> Iterator[tuple[str, memoryview]]:
    """Iterate over the name and the SavedSliceMeta message of each variable."""
    record = table.get(b"")
    metas = [view(value) for field, value in fields(record) if field == 1] if record is not None else []
    if not metas:
        raise CheckpointError("is a TensorFlow table without a list of variables")
    names: set[str] = set()
    for field, value in fields(metas[-1]):
        if field != 1:
            continue
        name = next((text(part) for f, part in fields(view(value)) if f == 1), "")
        if name in names or len(names) >= MAX_VARIABLES:
            raise CheckpointError(f"lists a variable twice, or too many ({name})")
        names.add(name)
        yield name, view(value)


def _describe(name: str, meta: memoryview) -> Variable:
    shape: tuple[int, ...] = ()
    kind = "unknown"
    for field, value in fields(meta):
        if field == 2:
            shape = tensors.parse_shape(view(value))
        elif field == 3:
            kind = tensors.type_name(value)
    return Variable(name, shape, kind)


def _values(tensor: memoryview, variable: Variable, count: int) -> Array:
    """Return the values of a TensorProto as a flat array."""
    dtype = tensors.numpy_dtype(variable)
    wanted = _FIXED_WIDTH.get(variable.type) or _VARINTS[variable.type]
    packed, as_stored = memoryview(b""), variable.type in _FIXED_WIDTH
    for field, value in fields(tensor):
        if field in (wanted, _TENSOR_CONTENT):
            if packed:
                raise CheckpointError("a slice has its values in several parts, which TensorFlow does not write")
            packed, as_stored = view(value), as_stored or field == _TENSOR_CONTENT
    if as_stored:
        if len(packed) != count * dtype.itemsize:
            raise CheckpointError(f"a slice has {len(packed)} bytes where {count * dtype.itemsize} should be")
        return np.frombuffer(packed, dtype)
    integers = _unpack_varints(packed, count)
    if variable.type == "float16":
        return integers.astype(np.uint16).view(np.float16)
    return integers.astype(dtype)


def _unpack_varints(packed: memoryview, count: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    raw = np.frombuffer(packed, np.uint8)
    ends = np.flatnonzero(raw < 0x80)
    if len(ends) != count or (len(raw) and raw[-1] >= 0x80):
        raise CheckpointError(f"a slice has {len(ends)} values where {count} should be")
    starts = np.concatenate([ends[:0], [0], ends[:-1] + 1])[:count]
    lengths = ends - starts + 1
    if count and lengths.max() > 10:
        raise CheckpointError("a variable-length integer is too long")
    values = np.zeros(count, np.uint64)
    for i in range(int(lengths.max()) if count else 0):
        long_enough = lengths > i
        values[long_enough] |= (raw[starts[long_enough] + i].astype(np.uint64) & np.uint64(0x7F)) << np.uint64(7 * i)
    return values
