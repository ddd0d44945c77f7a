"""Boxes of MP4 and elements of Matroska: files joined to each other, cut, or damaged inside."""

from __future__ import annotations

import math
import re

from vggish_pt.audio.structure import Loss, Stream, Structure
from vggish_pt.audio.tags import skip_metadata
from vggish_pt.audio.view import Scanner

_MAX_BOXES = 1_000_000
_EBML, _SEGMENT, _CLUSTER = b"\x1aE\xdf\xa3", b"\x18S\x80g", b"\x1fC\xb6u"
# Elements of a segment: seek head, information, tracks, clusters, index, attachments, chapters, tags, padding.
_TOP = frozenset(
    bytes.fromhex(name)
    for name in ("114d9b74", "1549a966", "1654ae6b", "1f43b675", "1c53bb6b", "1941a469", "1043a770", "1254c367", "ec")
)
# Elements of a cluster: time, blocks, position, sizes, padding, checksum.
_INSIDE = frozenset(bytes.fromhex(name) for name in ("e7", "a3", "a0", "a7", "ab", "ec", "bf", "af", "5854"))
_BLOCK = re.compile(rb"[\xa3\xa0][\x20-\xff]")
_SURE_ELEMENTS = 3
_LONG_HEADER = 9
_BLOCK_HEADER = 4
_MAX_NUMBER = 8  # bytes of a number
CUT = Loss(math.inf, math.inf, None, "it is shorter than its header says", at_end=True)
"""Loss whose times are known only when all has been decoded."""


def parse_mp4(scanner: Scanner, start: int = 0) -> Structure:
    """Find the files in a file of MP4, M4A or QuickTime: one, or several that were joined.

    Args:
        scanner: the file.
        start: where the first box begins.
    """
    streams: list[Stream] = []
    position = begin = start
    seen: set[bytes] = set()
    cut = False
    for _ in range(_MAX_BOXES):
        header = scanner.read(position, 16)
        length, name = int.from_bytes(header[:4], "big"), header[4:8]
        if length == 1:  # the length follows, in 64 bits
            length = int.from_bytes(header[8:16], "big")
        if skip_metadata(scanner, position) >= scanner.size:
            break
        if len(header) < 8 or (length and length < 8) or not all(32 <= byte < 127 or byte == 0xA9 for byte in name):
            break
        if name == b"ftyp" and {b"moov", b"mdat"} <= seen | ({b"mdat"} if b"moof" in seen else set()):
            streams.append(Stream([(begin, position)], "mov", "MP4 or M4A"))
            begin, seen = position, set()
        seen.add(name)
        position = scanner.size if length == 0 else position + length
        if position > scanner.size:
            cut, position = True, scanner.size
            break
    last = Stream([(0 if begin == start == 0 and position == scanner.size else begin, position)], "mov", "MP4 or M4A")
    if cut or b"moov" not in seen:
        last.losses.append(CUT)
    return Structure([*streams, last], _left(scanner, position))


def _left(scanner: Scanner, position: int) -> int:
    return scanner.size - skip_metadata(scanner, position)


def parse_matroska(scanner: Scanner, start: int = 0) -> Structure:
    """Find the files in a file of Matroska or WebM, and damage between their blocks.

    Args:
        scanner: the file.
        start: where the EBML header begins.
    """
    streams: list[Stream] = []
    position, unknown = start, 0
    while position < scanner.size and len(streams) < _MAX_BOXES:
        stream = Stream([], "matroska", "WebM or Matroska")
        stop = _walk_segment(scanner, position, stream)
        streams.append(stream)
        position = skip_metadata(scanner, stop)
        if scanner.read(position, 4) != _EBML:
            unknown = scanner.size - position
            break
    return Structure(streams, unknown)


def _walk_segment(scanner: Scanner, start: int, stream: Stream) -> int:
    """Fill in a stream, and return where its file ends.

    FFmpeg skips the rest of a cluster after bytes that are no element. Therefore the view marks such bytes as padding.
    """
    size, done = scanner.size, start
    _, length, position = _element(scanner, start)
    name, length, position = _element(scanner, position + (length or 0))
    end = size if length is None or name != _SEGMENT else position + length
    limit, cluster = min(end, size), 0  # and the end of the present cluster
    while position < limit:
        name, length, body = _element(scanner, position)
        if name == _EBML and end == size:
            limit = end = position  # another file, after a segment of unknown length
            break
        inside = position < cluster and _is_inside(scanner, name, length, body, cluster)
        if (name in _TOP or inside) and (length is not None or name == _CLUSTER) and body + (length or 0) <= end:
            if name == _CLUSTER:
                cluster, position = limit if length is None else body + length, body
            else:
                position = body + (length or 0)
            continue
        if skip_metadata(scanner, position) >= limit:
            break
        stream.gaps = True
        found = _find_element(scanner, position + 1, min(cluster, limit)) if position < cluster else None
        if found is not None:
            padding = _padding(found - position)
            stream.parts += [(done, position), padding]
            done = position + max(1, len(padding))
        else:
            found = _find_cluster(scanner, position + 1, limit)
            if found is None:
                break
        position = found
    stream.parts.append((done, limit))
    if end > size or position > limit:
        stream.losses.append(CUT)
    return limit


def _is_inside(scanner: Scanner, name: bytes, length: int | None, body: int, cluster: int) -> bool:
    """Return True if an element may stand in a cluster that ends at a position."""
    if name not in _INSIDE or length is None or body + length > cluster:
        return False
    if name == b"\xa3":  # a block: number of the track, two bytes of time, flags
        return length > _BLOCK_HEADER and scanner.read(body, 1)[0] > 0x80
    return length <= _MAX_NUMBER or name in (b"\xa0", b"\xec", b"\xaf")


def _padding(count: int) -> bytes:
    """Return the start of an element that pads a number of bytes."""
    if count < _LONG_HEADER:
        return b"\xec" + bytes((0x80 | count - 2,)) if count > 1 else b""  # a single byte is left out
    return b"\xec\x01" + (count - _LONG_HEADER).to_bytes(7, "big")


def _find_element(scanner: Scanner, start: int, end: int) -> int | None:
    """Return the first position at which several elements of a cluster follow each other."""
    for base, data in scanner.blocks(start, end, 3):
        for match in _BLOCK.finditer(data):
            position = base + match.start()
            count = 0
            while count < _SURE_ELEMENTS and position < end:
                name, length, body = _element(scanner, position)
                if name not in _INSIDE or not length:
                    break
                position, count = body + length, count + 1
            if count == _SURE_ELEMENTS or (count and position == end):
                return base + match.start()
    return None


def _find_cluster(scanner: Scanner, start: int, end: int) -> int | None:
    for base, data in scanner.blocks(start, end, 3):
        at = data.find(_CLUSTER)
        if at >= 0:
            return base + at
    return None


def _element(scanner: Scanner, position: int) -> tuple[bytes, int | None, int]:
    """Return the name of the element at a position, its length (None if left open), and where its content begins."""
    head = scanner.read(position, 12)
    if not head or head[0] < 16:
        return b"", 0, position
    count = 9 - head[0].bit_length()
    length, after = _vint(head, count)
    return head[:count], length, position + after


def _vint(data: bytes, at: int) -> tuple[int | None, int]:
    """Return a number whose leading zero bits give its length in bytes, and its end; None if all its bits are 1."""
    if at >= len(data) or data[at] == 0:
        return None, at
    count = 9 - data[at].bit_length()
    value = int.from_bytes(data[at : at + count], "big") & ((1 << 7 * count) - 1)
    return (None if value == (1 << 7 * count) - 1 else value), at + count
