"""Decoder of the part of protocol buffers' wire format that checkpoints use.

A message is a memoryview. Nothing is copied, and each length is compared with the size of its message. Errors are
:class:`CheckpointError` without a file name, which the caller adds.

Format: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator

from vggish_pt.errors import CheckpointError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

# Messages of checkpoints have fewer fields.
_MAX_FIELDS = 1_000_000


def varint(data: memoryview, at: int) -> tuple[int, int]:
    """Read an unsigned variable-length integer.

    Returns:
        The integer, below 2^64, and the position after it.
    """
    value = 0
    for i, byte in enumerate(data[at : at + 10]):
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            if value >> 64:
                break
            return value, at + i + 1
    raise CheckpointError("a variable-length integer is cut off or too long")


def fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Iterate over the fields of a message in order.

    Yields:
        The number and value of a field. The value is an unsigned integer for a varint, else bytes: 4 or 8 for a
        fixed-width number, all bytes of a string, message or packed array.
    """
    at = count = 0
    while at < len(message):
        count += 1
        tag, at = varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            value, at = varint(message, at)
            yield number, value
            continue
        if wire == BYTES:
            length, at = varint(message, at)
        elif wire in (FIXED32, FIXED64):
            length = 4 if wire == FIXED32 else 8
        else:
            raise CheckpointError(f"a message has a field of unknown wire type {wire}")
        if length > len(message) - at or number == 0 or count > _MAX_FIELDS:
            raise CheckpointError("a message is malformed")
        yield number, message[at : at + length]
        at += length


def number(value: int | memoryview) -> int:
    """Return a varint field's value as a signed 64-bit integer."""
    if not isinstance(value, int):
        raise CheckpointError("a message has bytes where a number should be")
    return value - (1 << 64) if value >> 63 else value


def view(value: int | memoryview) -> memoryview:
    """Return a field's bytes."""
    if isinstance(value, int):
        raise CheckpointError("a message has a number where bytes should be")
    return value


def text(value: int | memoryview) -> str:
    """Return a string field's value."""
    try:
        return str(view(value), "utf-8")
    except UnicodeDecodeError:
        raise CheckpointError("a name is not valid UTF-8") from None
