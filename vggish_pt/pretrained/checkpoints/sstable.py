"""Reader of TensorFlow's sorted string table, LevelDB's format of an immutable map of byte strings.

A file consists of blocks and a footer of 48 bytes. The footer holds the handles (offset and size) of the meta-index
(unused here) and of the index, padding, and a magic number. The index is a block too. It maps a key not less than the
last key of each data block to the block's handle. Each block is followed by a byte for its compression and the masked
CRC-32C of both. In a block, each key is stored without the prefix that it shares with the previous key. The block ends
with an array of restart points, the positions of keys stored whole.

Format: https://github.com/google/leveldb/blob/main/doc/table_format.md
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

import cramjam

from vggish_pt.errors import CheckpointError
from vggish_pt.pretrained.checkpoints.base import MAX_VARIABLES
from vggish_pt.pretrained.checkpoints.protobuf import varint
from vggish_pt.utils.crc32c import crc32c, mask

MAGIC = (0xDB47_7524_8B80_FB57).to_bytes(8, "little")

SNAPPY_MAX_RATIO = 22
"""Upper bound of Snappy's compression ratio: its densest element expands 3 bytes to 64."""

_FOOTER = 48
_TRAILER = 5
_PLAIN, _SNAPPY = 0, 1
# Largest ratio of the size of all keys to the size of their block. Writers store a whole key at least every 16 entries,
# which bounds the ratio; in a hostile block, shared prefixes could make it grow quadratically.
_MAX_KEY_RATIO = 16
# Slices have their own keys, so there may be more keys than variables.
_MAX_KEYS = 4 * MAX_VARIABLES


class Table:
    """Table in memory.

    Args:
        data: the whole file.

    Raises:
        CheckpointError: the data are no table or damaged; the message lacks the file's name. All methods raise it too.
    """

    def __init__(self, data: memoryview) -> None:
        if len(data) < _FOOTER or data[-8:] != MAGIC:
            raise CheckpointError("does not end as a TensorFlow table does (truncated?)")
        self._data = data[:-_FOOTER]
        footer = data[-_FOOTER:-8]
        _, at = _handle(footer, 0)
        index, _ = _handle(footer, at)
        self._cached: tuple[tuple[int, int], memoryview] | None = None
        entries = list(_entries(self._block(index)))
        self._last_keys = [key for key, _ in entries]
        self._handles = [_handle(value, 0)[0] for _, value in entries]

    def get(self, key: bytes) -> memoryview | None:
        """Return the value of ``key``, or None; a view of the file unless its block is compressed."""
        block = bisect_left(self._last_keys, key)
        if block < len(self._handles):
            for candidate, value in _entries(self._block(self._handles[block])):
                if candidate == key:
                    return value
        return None

    def items(self) -> Iterator[tuple[bytes, memoryview]]:
        """Iterate over all keys and values in the order of the keys."""
        previous, count = b"", 0
        for handle in self._handles:
            for key, value in _entries(self._block(handle)):
                count += 1
                if count > _MAX_KEYS or (count > 1 and key <= previous):
                    raise CheckpointError("the table's keys are out of order or too many")
                yield key, value
                previous = key

    def _block(self, handle: tuple[int, int]) -> memoryview:
        # Neighbouring variables share a block. The last block is cached, so that it is verified only once.
        if self._cached is None or self._cached[0] != handle:
            self._cached = (handle, self._load(*handle))
        return self._cached[1]

    def _load(self, offset: int, size: int) -> memoryview:
        end = offset + size + _TRAILER
        if end > len(self._data):
            raise CheckpointError("a block is beyond the end of the file; the file may be truncated")
        stored = int.from_bytes(self._data[end - 4 : end], "little")
        if mask(crc32c(self._data[offset : end - 4])) != stored:
            raise CheckpointError("the checksum of a block does not match")
        block, compression = self._data[offset : offset + size], self._data[offset + size]
        if compression == _PLAIN:
            return block
        if compression != _SNAPPY:
            raise CheckpointError(f"a block has unknown compression {compression}")
        length, _ = varint(block, 0)
        if length > SNAPPY_MAX_RATIO * size:
            raise CheckpointError("a Snappy block claims more than it can hold")
        try:
            return memoryview(cramjam.snappy.decompress_raw(block)).toreadonly()
        except cramjam.DecompressionError:
            raise CheckpointError("a Snappy block cannot be decompressed") from None


def _handle(data: memoryview, at: int) -> tuple[tuple[int, int], int]:
    offset, at = varint(data, at)
    size, at = varint(data, at)
    return (offset, size), at


def _entries(block: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Iterate over the keys and values of a block; keys strictly increase."""
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 - 4 * restarts
    if end < 0:
        raise CheckpointError("a block's restart points do not fit in it")
    key, at, key_bytes = b"", 0, 0
    while at < end:
        first = at == 0
        shared, at = varint(block, at)
        unshared, at = varint(block, at)
        size, at = varint(block, at)
        key_bytes += shared + unshared
        if shared > len(key) or unshared + size > end - at or key_bytes > _MAX_KEY_RATIO * len(block):
            raise CheckpointError("a block's entry does not fit in it")
        previous, key = key, key[:shared] + bytes(block[at : at + unshared])
        if not first and key <= previous:
            raise CheckpointError("a block's keys are out of order")
        at += unshared + size
        yield key, block[at - size : at]
