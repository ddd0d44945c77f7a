"""CRC-32C checksums as TensorFlow stores them."""

from __future__ import annotations

import google_crc32c

# google_crc32c takes only bytes. Blocks of this size stay in the processor's cache, so that copying them costs little.
_BLOCK_BYTES = 1 << 18
_MASK_DELTA = 0xA282EAD8


def crc32c(data: memoryview, crc: int = 0) -> int:
    """Return the CRC-32C of ``data``, continued from ``crc``."""
    for start in range(0, len(data), _BLOCK_BYTES):
        crc = google_crc32c.extend(crc, data[start : start + _BLOCK_BYTES].tobytes())
    return crc


def mask(crc: int) -> int:
    """Return a CRC in its stored form, rotated and shifted, so that data that contain CRCs can be checked by a CRC."""
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFF_FFFF
