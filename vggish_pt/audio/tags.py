"""Metadata around and between the audio of a file: ID3v1 and ID3v2, APE, Lyrics3, and padding with zeros."""

from __future__ import annotations

from vggish_pt.audio.view import Scanner

_MAX_TAGS = 64
_MAX_LYRICS = 1 << 20
_ZEROS = bytes(1 << 16)
_ID3V1_BYTES, _ID3V1_EXTENDED_BYTES = 128, 227
_APE_BYTES = 32


def skip_metadata(scanner: Scanner, position: int) -> int:
    """Return the position after all tags and zeros that begin at a position; the position itself if there are none.

    Args:
        scanner: the file.
        position: where the first tag may begin.
    """
    for _ in range(_MAX_TAGS):
        after = _skip_tag(scanner, _skip_zeros(scanner, position))
        if after == position:
            break
        position = after
    return min(position, scanner.size)


def skip_id3(scanner: Scanner, position: int = 0) -> int:
    """Return the position after the ID3v2 tags that begin at a position."""
    for _ in range(_MAX_TAGS):
        length = _id3v2_length(scanner.read(position, 10))
        if not length:
            break
        position += length
    return position


def _skip_zeros(scanner: Scanner, position: int) -> int:
    while position < scanner.size:
        data = scanner.read(position, len(_ZEROS))
        if data != _ZEROS[: len(data)]:
            return position + len(data) - len(data.lstrip(b"\0"))
        position += len(data)
    return position


def _id3v2_length(head: bytes) -> int:
    if len(head) < 10 or head[:3] != b"ID3" or 0xFF in head[3:5] or any(byte & 128 for byte in head[6:10]):
        return 0
    size = sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    return 10 + size + (10 if head[5] & 16 else 0)  # with a footer


def _skip_tag(scanner: Scanner, position: int) -> int:
    head = scanner.read(position, _APE_BYTES)
    if head[:3] == b"ID3":
        return position + _id3v2_length(head)
    if head[:4] == b"TAG+" and scanner.read(position + _ID3V1_EXTENDED_BYTES, 3) == b"TAG":
        return position + _ID3V1_EXTENDED_BYTES
    if head[:3] == b"TAG":
        return position + _ID3V1_BYTES
    if head[:8] == b"APETAGEX" and len(head) == _APE_BYTES:
        size, flags = int.from_bytes(head[12:16], "little"), int.from_bytes(head[20:24], "little")
        return position + _APE_BYTES + (size if flags & 1 << 29 else 0)  # the header or, alone, the footer
    if head[:11] == b"LYRICSBEGIN":
        text = scanner.read(position, _MAX_LYRICS)
        ends = [text.find(mark) + len(mark) for mark in (b"LYRICSEND", b"LYRICS200") if mark in text]
        return position + min(ends, default=0)
    return position + _ape_without_header(scanner, position)


def _ape_without_header(scanner: Scanner, position: int) -> int:
    """Return the length of an APE tag that has only a footer, at the end of the file or before an ID3v1 tag."""
    for end in (scanner.size, scanner.size - _ID3V1_BYTES):
        footer = scanner.read(max(0, end - _APE_BYTES), _APE_BYTES)
        if footer[:8] == b"APETAGEX" and position + int.from_bytes(footer[12:16], "little") == end:
            return end - position
    return 0


def before_tags(scanner: Scanner, start: int, end: int) -> int:
    """Return where the tags at the end of a range begin; its end if there are none. Zeros are no tags here.

    Args:
        scanner: the file.
        start: first byte of the range; tags do not reach before it.
        end: the byte after the range.
    """
    for _ in range(_MAX_TAGS):
        length = _tag_before(scanner, end)
        if not length or end - length < start:
            break
        end -= length
    return end


def _tag_before(scanner: Scanner, end: int) -> int:
    tail = scanner.read(max(0, end - _ID3V1_EXTENDED_BYTES - _ID3V1_BYTES), _ID3V1_EXTENDED_BYTES + _ID3V1_BYTES)
    if tail[-_ID3V1_BYTES:][:3] == b"TAG":
        return len(tail) if tail[:4] == b"TAG+" else _ID3V1_BYTES
    footer = tail[-_APE_BYTES:]
    if footer[:8] == b"APETAGEX":
        header = _APE_BYTES if int.from_bytes(footer[20:24], "little") & 1 << 31 else 0
        return int.from_bytes(footer[12:16], "little") + header
    if tail.endswith(b"LYRICS200") and tail[-15:-9].isdigit():
        return int(tail[-15:-9]) + 15
    if tail[-10:-7] == b"3DI":
        return _id3v2_length(b"ID3" + tail[-7:]) if tail[-5] & 16 else 0
    return 0
