"""Types, shapes, slices of variables and keys of slices in both of TensorFlow's formats.

Messages: tensor_shape.proto, tensor_slice.proto and types.proto of tensorflow/core/framework. Keys of slices:
TensorFlow's "ordered code", whose encodings sort like the values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import islice

import numpy as np

from vggish_pt.errors import CheckpointError
from vggish_pt.pretrained.checkpoints.base import Array, Variable
from vggish_pt.pretrained.checkpoints.protobuf import fields, number, view

# Names of types by their numbers in types.proto. NumPy lacks some of them.
DTYPES = {
    1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 7: "string", 8: "complex64",
    9: "int64", 10: "bool", 11: "qint8", 12: "quint8", 13: "qint32", 14: "bfloat16", 15: "qint16", 16: "quint16",
    17: "uint16", 18: "complex128", 19: "float16", 20: "resource", 21: "variant", 22: "uint32", 23: "uint64",
}  # fmt: skip
_READABLE = {
    "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool",
}  # fmt: skip

# All supported versions of NumPy allow 32 dimensions, and no address space holds more elements.
_MAX_RANK = 32
_MAX_ELEMENTS = 1 << 44
_MAX_SLICES = 10_000

Extents = tuple[tuple[int, int | None], ...]
"""Region of a slice: for each dimension the start and the length, None for the whole dimension."""


def numpy_dtype(variable: Variable) -> np.dtype[np.generic]:
    """Return the little-endian NumPy type of a variable's data.

    Raises:
        CheckpointError: the type cannot be read.
    """
    if variable.type not in _READABLE:
        raise CheckpointError(f"is of type {variable.type}, which cannot be read")
    return np.dtype(variable.type).newbyteorder("<")


def type_name(value: int | memoryview) -> str:
    """Return the name of a DataType field."""
    return DTYPES.get(number(value), f"unknown ({number(value)})")


def parse_shape(message: memoryview) -> tuple[int, ...]:
    """Parse a TensorShapeProto, which must be fully known."""
    shape = []
    for field, value in fields(message):
        if field == 3 and number(value):
            raise CheckpointError("a shape has unknown rank")
        if field == 2:
            sizes = [number(size) for f, size in fields(view(value)) if f == 1]
            shape.append(sizes[-1] if sizes else 0)
        if len(shape) > _MAX_RANK:
            raise CheckpointError("a shape has too many dimensions")
    if any(size < 0 for size in shape) or math.prod(max(size, 1) for size in shape) > _MAX_ELEMENTS:
        raise CheckpointError("a shape is negative or impossibly large")
    return tuple(shape)


def parse_extents(message: memoryview, shape: tuple[int, ...]) -> Extents:
    """Parse a TensorSliceProto, which must lie within ``shape``."""
    extents: list[tuple[int, int | None]] = []
    for field, value in fields(message):
        if field != 1:
            continue
        start, length = 0, None
        for part, amount in fields(view(value)):
            if part == 1:
                start = number(amount)
            elif part == 2:
                length = number(amount)
        extents.append((start, length))
        if len(extents) > len(shape):
            break
    if len(extents) != len(shape):
        raise CheckpointError("a slice has another number of dimensions than its variable")
    for (start, length), size in zip(extents, shape, strict=True):
        inside = start == 0 if length is None else min(start, length) >= 0 and start + length <= size
        if not inside:
            raise CheckpointError("a slice is outside its variable")
    return tuple(extents)


def slice_shape(extents: Extents, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a slice of a variable."""
    return tuple(size if length is None else length for (_, length), size in zip(extents, shape, strict=True))


def slice_key(name: str, extents: Extents) -> bytes:
    """Return the key of a slice in the table."""
    key = _ordered_unsigned(0) + _ordered_string(name.encode()) + _ordered_unsigned(len(extents))
    for start, length in extents:
        key += _ordered_signed(start) + _ordered_signed(-1 if length is None else length)
    return key


def _ordered_string(value: bytes) -> bytes:
    # Byte 255 would need an escape too, but UTF-8 has none.
    return value.replace(b"\x00", b"\x00\xff") + b"\x00\x01"


def _ordered_unsigned(value: int) -> bytes:
    # The number of bytes, then the bytes, big-endian.
    length = (value.bit_length() + 7) // 8
    return bytes([length]) + value.to_bytes(length, "big")


def _ordered_signed(value: int) -> bytes:
    # As many leading ones as bytes, then the sign, then the rest; all inverted for negative values.
    length = (value if value >= 0 else ~value).bit_length() // 7 + 1
    bits = 8 * length
    return ((value & ((1 << bits) - 1)) ^ (((1 << length) - 1) << (bits - length))).to_bytes(bits // 8, "big")


def assemble(
    variable: Variable,
    slices: Iterable[memoryview],
    read_slice: Callable[[Extents], Array],
    max_elements: int,
) -> Array:
    """Assemble a variable from its slices.

    Args:
        variable: the variable.
        slices: TensorSliceProto messages.
        read_slice: reads one slice and checks its shape.
        max_elements: largest number of elements that the file can hold; a larger variable is refused before memory is
            allocated.

    Raises:
        CheckpointError: slices overlap, leave gaps or are damaged.
    """
    shape = variable.shape
    extents = [parse_extents(message, shape) for message in islice(slices, _MAX_SLICES + 1)]
    if len(extents) == 1 and slice_shape(extents[0], shape) == shape:
        return read_slice(extents[0])
    total = math.prod(shape)
    covered = sum(math.prod(slice_shape(extent, shape)) for extent in extents)
    if covered != total or len(extents) > _MAX_SLICES or total > max_elements:
        raise CheckpointError("the slices do not make up the variable")
    whole = np.empty(shape, numpy_dtype(variable))
    seen = np.zeros(shape, np.bool_)
    for extent in extents:
        at = tuple(slice(start, None if length is None else start + length) for start, length in extent)
        if seen[at].any():
            raise CheckpointError("the slices of the variable overlap")
        whole[at] = read_slice(extent)
        seen[at] = True
    return whole
