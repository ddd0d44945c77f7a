"""Whether a file ends before its own header says.

libsndfile and FFmpeg read most formats up to wherever the file ends, and say nothing. FLAC is not looked at here: its
decoder counts.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import BinaryIO, Literal

from vggish_pt.audio import riff
from vggish_pt.audio.view import from_start

_MAX_BOXES = 10_000
_OGG_TAIL_BYTES = 1 << 17  # a page is shorter than half of this
_MAX_OGG_STREAMS = 64
_MAX_ID3_TAGS = 8
_MPEG_SLACK_BYTES = 4096  # more than a frame

# An MPEG audio frame that carries no sound but the length of what follows: header, side information of one of three
# sizes (two bytes more with a checksum), mark, flags, fields.
_LENGTH_FRAME = re.compile(rb"..(?:.{11}|.{13}|.{19}|.{21}|.{34}|.{36})(?:Xing|Info)...(.)(.{8})", re.DOTALL)


def is_cut_short(file: BinaryIO) -> bool:
    """Whether a file is shorter than it says; False where it does not say.

    Args:
        file: a seekable binary file; its position is restored.
    """
    with from_start(file) as size:
        head = file.read(64)
        chunk = riff.find_data(file)
        if chunk is not None:
            return chunk.truncated
        if head.startswith(b"OggS"):
            return _ogg_cut_short(file)
        if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
            length = int.from_bytes(head[4:8], "little")
            return length < riff.UNKNOWN_LENGTH_32 and size < 8 + length
        if head.startswith((b".snd", b"dns.")):
            return _au_cut_short(head, size)
        if head[4:8] in (b"ftyp", b"moov", b"mdat"):
            return _mp4_cut_short(file, size)
        if head.startswith(b"\x1aE\xdf\xa3"):
            return _matroska_cut_short(head, size)
        return _mpeg_audio_cut_short(file, size)


@dataclass(frozen=True)
class MpegAudio:
    """What an MPEG audio file (MP3) says of its length, in a Xing or Info frame at its start.

    Attributes:
        counted: whether it says how many frames there are, and rightly; if not, decoders guess from the bit rate.
        end: where in the file its frames end; None if it does not say.
        mark: where in the file that frame has its mark; None if there is none.
    """

    counted: bool
    end: int | None
    mark: int | None


def find_mpeg_audio(file: BinaryIO) -> MpegAudio | None:
    """Reads the start of an MPEG audio file; None if it is no such file.

    Args:
        file: a seekable binary file; its position is restored.
    """
    with from_start(file) as size:
        start = 0
        for _ in range(_MAX_ID3_TAGS):
            file.seek(start)
            head = file.read(64)
            if head[:3] != b"ID3" or len(head) < 10:
                break
            start += 10 + sum((byte & 127) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        if not _is_mpeg_frame(head):
            return None
        found = _LENGTH_FRAME.match(head)
        flags, fields = (found[1][0], found[2]) if found else (0, b"")
        counted = bool(flags & 1 and any(fields[:4]))
        length = int.from_bytes(fields[4:8] if flags & 1 else fields[:4], "big") if flags & 2 else 0
        end = start + length if length else None
        if end is not None and size > end + _MPEG_SLACK_BYTES:
            file.seek(end)
            follows = file.read(4)
            counted = counted and not _is_mpeg_frame(follows) and follows[:3] != b"ID3"  # files joined by "cat"
        return MpegAudio(counted, end, start + found.start(1) - 7 if found else None)


def _is_mpeg_frame(head: bytes) -> bool:
    # Eleven bits of synchronisation, then a layer that is not 0 (AAC has 0 there).
    return len(head) >= 4 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0 and head[1] & 0x06 != 0


def _mpeg_audio_cut_short(file: BinaryIO, size: int) -> bool:
    found = find_mpeg_audio(file)
    return found is not None and found.end is not None and size < found.end


def _last_ogg_page(file: BinaryIO) -> bytes:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _OGG_TAIL_BYTES))
    tail = file.read(_OGG_TAIL_BYTES)
    at = tail.rfind(b"OggS")
    return tail[at:] if at >= 0 else b""


def _ogg_cut_short(file: BinaryIO) -> bool:
    # The last page must be whole and carry the end-of-stream flag.
    page = _last_ogg_page(file)
    if len(page) < 27 or len(page) < 27 + page[26]:
        return True
    return not page[5] & 4 or len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]])


def is_chained(file: BinaryIO) -> bool:
    """Whether an Ogg file holds streams one after the other, of which libsndfile reads only the first.

    Args:
        file: a seekable binary file; its position is restored.
    """
    with from_start(file):
        last = _last_ogg_page(file)[14:18]
        file.seek(0)
        for _ in range(_MAX_OGG_STREAMS):  # those that run side by side all begin before any goes on
            page = file.read(27)
            if page[:4] != b"OggS" or len(page) < 27:
                return False
            if not page[5] & 2:
                return True
            if page[14:18] == last:
                return False
            file.seek(sum(file.read(page[26])), os.SEEK_CUR)
        return False


def _au_cut_short(head: bytes, size: int) -> bool:
    order: Literal["big", "little"] = "big" if head.startswith(b".snd") else "little"
    start, length = int.from_bytes(head[4:8], order), int.from_bytes(head[8:12], order)
    return length != 0xFFFF_FFFF and size < start + length


def _mp4_cut_short(file: BinaryIO, size: int) -> bool:
    offset = 0
    for _ in range(_MAX_BOXES):
        file.seek(offset)
        header = file.read(16)
        length = int.from_bytes(header[:4], "big")
        if length == 1:  # the length stands behind, in 64 bits
            length = int.from_bytes(header[8:16], "big")
        if len(header) < 8 or length < 8:  # the end, or a box that reaches up to it
            return False
        offset += length
        if offset > size:
            return True
    return False


def _matroska_cut_short(head: bytes, size: int) -> bool:
    # An EBML header, then one segment that holds the rest.
    length, start = _ebml_length(head, 4)
    segment = start + (length or 0)
    if length is None or head[segment : segment + 4] != b"\x18S\x80g":
        return False
    length, start = _ebml_length(head, segment + 4)
    return length is not None and size < start + length


def _ebml_length(data: bytes, at: int) -> tuple[int | None, int]:
    """A length whose leading zero bits say how many bytes it has (None if left open), and where it ends."""
    if at >= len(data) or data[at] == 0:
        return None, at
    count = 9 - data[at].bit_length()
    value = int.from_bytes(data[at : at + count], "big") & ((1 << 7 * count) - 1)
    return (None if value == (1 << 7 * count) - 1 else value), at + count
