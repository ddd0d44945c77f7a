"""Header of chunked files (WAV and its relatives, AIFF, CAF) and of AU: place and length of the samples.

A program that writes into a pipe cannot go back to fill in a length, so it leaves 0 or the largest number that fits.
A recorder that was interrupted leaves the length of an earlier moment, and a WAV above 4 GiB one that has wrapped.
libsndfile and FFmpeg read as much as the header says, or to the end of a file that was cut, without an error.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Literal

from vggish_pt.audio.tags import skip_metadata
from vggish_pt.audio.view import Scanner

# arecord writes 2 GiB, sox and espeak-ng a little less (sox 0x7F000008 in AIFF), ffmpeg 4 GiB - 1: at or above this a
# length that the file does not have is none.
UNKNOWN_LENGTH_32 = 0x7F00_0000
_UNKNOWN_LENGTH_64 = 1 << 62
_MAX_CHUNKS = 10_000
_LARGEST_32 = 0xFFFF_FFFF

# W64 names its chunks by GUIDs that start with RIFF's four letters.
_W64_FILE = b"riff" + bytes.fromhex("2e91cf11a5d628db04c10000")
_W64_DATA = b"data" + bytes.fromhex("f3acd3118cd100c04f8edb8a")
_W64_END = bytes.fromhex("f3acd3118cd100c04f8edb8a")

_WAV_PLAIN = (1, 3, 6, 7)  # integers, floating point, A-law, mu-law
_EXTENSIBLE = 0xFFFE
_AIFF_PLAIN = (b"", b"NONE", b"sowt", b"twos", b"fl32", b"FL32", b"fl64", b"FL64", b"in24", b"in32")
_AU_BYTES = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}


@dataclass(frozen=True)
class DataChunk:
    """The samples of a file, as its header describes them.

    Attributes:
        start: first byte of the samples.
        available: bytes from there to the end of the file.
        declared: bytes according to the header; None if the header leaves the length open.
        field: position and number of bytes of the declared length.
        order: byte order of the declared length.
        counted: number of bytes of the chunk's header that the declared length includes.
        align: chunks begin at multiples of this.
        outer: end of the file according to its first length; None if that is open.
        frame: bytes of one sample of all channels; 0 for codecs whose length says nothing about their samples.
        rate: samples per second; 0 if unknown.
        codec: WAV's number of the codec; 0 in other files.
        lead: bytes in front of the samples that the length counts: AIFF's offset and block size, CAF's edit count.
    """

    start: int
    available: int
    declared: int | None
    field: tuple[int, int]
    order: Literal["little", "big"]
    counted: int = 0
    align: int = 2
    outer: int | None = None
    frame: int = 0
    rate: int = 0
    codec: int = 0
    lead: int = 0

    @property
    def truncated(self) -> bool:
        """Return True if the file ends before the audio that the header declares."""
        return self.declared is not None and self.available < self.declared

    def seconds(self, length: int) -> float:
        """Return the duration of a number of bytes; 0 if it is unknown."""
        return max(0, length - self.lead) // self.frame / self.rate if self.frame and self.rate else 0.0


@dataclass(frozen=True)
class _Layout:
    label: str
    data: bytes
    byte_order: Literal["little", "big"]
    first: int = 12  # where the first chunk starts
    id_bytes: int = 4
    length_bytes: int = 4
    own_header: int = 0  # how much of a chunk's header its length counts
    align: int = 2
    lead: int = 0


def _layout(head: bytes) -> _Layout | None:
    if head[8:12] == b"WAVE" and head[:4] in (b"RIFF", b"RF64", b"BW64"):
        return _Layout("WAV", b"data", "little")
    if head[:4] == b"RIFX" and head[8:12] == b"WAVE":
        return _Layout("WAV", b"data", "big")
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return _Layout("AIFF", b"SSND", "big", lead=8)
    if head[:4] == b"caff":
        return _Layout("CAF", b"data", "big", first=8, length_bytes=8, align=1, lead=4)
    if head[:16] == _W64_FILE:
        return _Layout("W64", _W64_DATA, "little", first=40, id_bytes=16, length_bytes=8, own_header=24, align=8)
    return None


def find_data(scanner: Scanner, start: int = 0) -> DataChunk | None:
    """Find the samples of a WAV, RF64, W64, AIFF, CAF or AU file; None for other files, and if there are no samples.

    Args:
        scanner: the file.
        start: where the file begins in it.
    """
    head = scanner.read(start, 64)
    if head[:4] in (b".snd", b"dns."):
        return _find_au_data(scanner, start, head)
    layout = _layout(head)
    return None if layout is None else _walk(scanner, start, layout)


def _find_au_data(scanner: Scanner, start: int, head: bytes) -> DataChunk | None:
    order: Literal["little", "big"] = "big" if head[:4] == b".snd" else "little"
    if len(head) < 24:
        return None
    offset, length, encoding, rate, channels = (int.from_bytes(head[at : at + 4], order) for at in range(4, 24, 4))
    available = max(0, scanner.size - start - offset)
    unknown = length == _LARGEST_32 or (length == 0 and available > 0)
    frame = _AU_BYTES.get(encoding, 0) * channels
    declared = None if unknown else length
    return DataChunk(start + offset, available, declared, (start + 8, 4), order, align=1, frame=frame, rate=rate)


def _walk(scanner: Scanner, start: int, layout: _Layout) -> DataChunk | None:
    order, size = layout.byte_order, scanner.size
    header_bytes = layout.id_bytes + layout.length_bytes
    large: tuple[int, int] | None = None  # what RF64 says apart, as its chunks' own lengths have too few bits
    form = (0, 0, 0)
    outer = int.from_bytes(scanner.read(start + 4, 4), order) if layout.first == 12 else 0
    offset = start + layout.first
    for _ in range(_MAX_CHUNKS):
        header = scanner.read(offset, header_bytes + 48)
        if len(header) < header_bytes:
            return None
        chunk, body = header[: layout.id_bytes], header[header_bytes:]
        length = max(0, int.from_bytes(header[layout.id_bytes : header_bytes], order) - layout.own_header)
        if chunk == b"ds64":
            large = int.from_bytes(body[8:16], "little"), offset + header_bytes + 8
        elif chunk[:4] in (b"fmt ", b"COMM", b"desc"):
            form = _read_form(chunk[:4], body[:length], order)
        if chunk == layout.data:
            available = size - offset - header_bytes
            end = start + 8 + outer if 0 < outer < UNKNOWN_LENGTH_32 else None
            found = DataChunk(
                offset + header_bytes, available, length, (offset + layout.id_bytes, layout.length_bytes), order,
                layout.own_header, layout.align, end, *form, layout.lead,
            )  # fmt: skip
            return _with_open_length(scanner, found, large)
        offset += header_bytes + -(-length // layout.align) * layout.align
    return None


def _with_open_length(scanner: Scanner, found: DataChunk, large: tuple[int, int] | None) -> DataChunk:
    length = found.declared or 0
    if large is not None and length == _LARGEST_32:
        length = large[0]
        found = replace(found, declared=length, field=(large[1], 8))
    if length == 0 and _chunks_end(scanner, found.start, found) > found.start:
        return replace(found, available=0)  # no audio, and other chunks follow
    unknown = UNKNOWN_LENGTH_32 if found.field[1] == 4 else _UNKNOWN_LENGTH_64
    if (length == 0 and found.available > 0) or (length >= unknown and length > found.available):
        return replace(found, declared=None)
    return found


def _read_form(chunk: bytes, body: bytes, order: Literal["little", "big"]) -> tuple[int, int, int]:
    """Return bytes per frame, samples per second and codec, from the chunk that describes the samples."""
    if chunk == b"fmt ":
        codec, rate, align = (int.from_bytes(body[a:b], order) for a, b in ((0, 2), (4, 8), (12, 14)))
        codec = int.from_bytes(body[24:26], order) if codec == _EXTENSIBLE else codec
        fits = align == int.from_bytes(body[2:4], order) * int.from_bytes(body[14:16], order) // 8
        return (align if codec in _WAV_PLAIN and fits else 0), rate, codec
    if chunk == b"COMM":
        channels, bits = int.from_bytes(body[:2], "big"), int.from_bytes(body[6:8], "big")
        shift, mantissa = 16383 + 63 - int.from_bytes(body[8:10], "big"), int.from_bytes(body[10:18], "big")
        rate = mantissa >> shift if 0 <= shift < 64 else 0
        return (channels * -(-bits // 8) if body[18:22] in _AIFF_PLAIN else 0), rate, 0
    rate_hz, frames = struct.unpack(">d", body[:8].ljust(8, b"\0"))[0], int.from_bytes(body[20:24], "big")
    rate = round(rate_hz) if 0 < rate_hz < 1e9 else 0
    return (int.from_bytes(body[16:20], "big") if frames == 1 else 0), rate, 0


def _chunks_end(scanner: Scanner, position: int, data: DataChunk) -> int:
    """Return where a row of chunks that begins at a position ends; the position itself if none begins there."""
    id_bytes = 16 if data.counted else 4
    header_bytes = id_bytes + (8 if data.counted or data.align == 1 else 4)
    for _ in range(_MAX_CHUNKS):
        header = scanner.read(position, header_bytes)
        name = header[:4]
        if len(header) < header_bytes or not all(32 <= byte < 127 for byte in name) or name in (b"RIFF", b"FORM"):
            break
        if data.counted and header[6:16] != _W64_END[2:]:
            break
        length = max(0, int.from_bytes(header[id_bytes:], data.order) - data.counted)
        if position + header_bytes + length > scanner.size:
            break
        position += header_bytes + -(-length // data.align) * data.align
    return min(position, scanner.size)


def behind_data(scanner: Scanner, position: int, data: DataChunk) -> int:
    """Return the end of the chunks, tags and zeros that follow the samples at a position."""
    padding = -(position - data.start) % data.align
    return max(_skip_known(scanner, begin, data) for begin in {position, position + padding})


def _skip_known(scanner: Scanner, position: int, data: DataChunk) -> int:
    for _ in range(_MAX_CHUNKS):
        after = skip_metadata(scanner, _chunks_end(scanner, position, data))
        if after == position:
            break
        position = after
    return min(position, scanner.size)
