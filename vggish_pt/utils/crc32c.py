"""CRC-32C as TensorFlow stores it."""

from __future__ import annotations

import google_crc32c

# google_crc32c takes bytes only. Pieces that stay in the cache are copied almost for free.
_PIECE = 1 << 18
_MASK_DELTA = 0xA282EAD8


def crc32c(data: memoryview, crc: int = 0) -> int:
    """CRC-32C of ``data``, continuing from ``crc``."""
    for start in range(0, len(data), _PIECE):
        crc = google_crc32c.extend(crc, data[start : start + _PIECE].tobytes())
    return crc


def mask(crc: int) -> int:
    """The form in which a CRC is stored: rotated and shifted, so that a CRC over data with CRCs in them stays good."""
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFF_FFFF
