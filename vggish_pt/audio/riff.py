"""What the header of a chunked file (WAV and its relatives, AIFF, CAF) promises, against what there is.

A program that writes WAV into a pipe cannot go back to fill in the length, so it leaves 0 or the largest number that
fits. libsndfile reads the latter to the end of the file, takes the former for no audio, and silently reads a file that
was cut short up to where it ends. All three are told apart here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO, Literal

from vggish_pt.audio.view import from_start

# arecord writes 2 GiB, sox and espeak-ng a little less (sox 0x7F000008 in AIFF), ffmpeg 4 GiB - 1: at or above this a
# length is no promise.
UNKNOWN_LENGTH_32 = 0x7F00_0000
_UNKNOWN_LENGTH_64 = 1 << 62
_MAX_CHUNKS = 10_000

# W64 names its chunks by GUIDs that start with RIFF's four letters.
_W64_FILE = b"riff" + bytes.fromhex("2e91cf11a5d628db04c10000")
_W64_DATA = b"data" + bytes.fromhex("f3acd3118cd100c04f8edb8a")


@dataclass(frozen=True)
class DataChunk:
    """The chunk that holds the samples.

    Attributes:
        declared: its length in bytes according to the header; None if the header leaves it open.
        available: how many bytes the file really has from its start.
        length_offset: where in the file the declared length stands.
        length_field: what should stand there, up to what it can say.
    """

    declared: int | None
    available: int
    length_offset: int
    length_field: bytes

    @property
    def truncated(self) -> bool:
        """Whether the file ends before the audio that the header promises."""
        return self.declared is not None and self.available < self.declared

    @property
    def zero_length(self) -> bool:
        """Whether the header says that there is no audio, although there is."""
        return self.declared == 0 and self.available > 0


@dataclass(frozen=True)
class _Layout:
    data: bytes
    byte_order: Literal["little", "big"]
    first: int = 12  # where the first chunk starts
    id_bytes: int = 4
    length_bytes: int = 4
    own_header: int = 0  # how much of a chunk's header its length counts
    align: int = 2


def _layout(head: bytes) -> _Layout | None:
    if head[8:12] == b"WAVE" and head[:4] in (b"RIFF", b"RF64", b"BW64"):
        return _Layout(b"data", "little")
    if head[:4] == b"RIFX" and head[8:12] == b"WAVE":
        return _Layout(b"data", "big")
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return _Layout(b"SSND", "big")
    if head[:4] == b"caff":
        return _Layout(b"data", "big", first=8, length_bytes=8, align=1)
    if head == _W64_FILE:
        return _Layout(_W64_DATA, "little", first=40, id_bytes=16, length_bytes=8, own_header=24, align=8)
    return None


def find_data(file: BinaryIO) -> DataChunk | None:
    """Finds the chunk of samples of a WAV, RF64, W64, AIFF or CAF file; None if it is no such file or has none.

    Args:
        file: a seekable binary file; its position is restored.
    """
    with from_start(file) as size:
        layout = _layout(file.read(16))
        return None if layout is None else _walk(file, size, layout)


def _walk(file: BinaryIO, size: int, layout: _Layout) -> DataChunk | None:
    header_bytes = layout.id_bytes + layout.length_bytes
    large: int | None = None  # what RF64 says apart, as its chunks' own lengths have too few bits
    offset = layout.first
    for _ in range(_MAX_CHUNKS):
        if offset + header_bytes > size:
            return None
        file.seek(offset)
        header = file.read(header_bytes + 16)
        chunk = header[: layout.id_bytes]
        length = int.from_bytes(header[layout.id_bytes : header_bytes], layout.byte_order)
        length = max(0, length - layout.own_header)
        if chunk == b"ds64":
            large = int.from_bytes(header[16:24], "little") or None
        if chunk == layout.data:
            available = size - offset - header_bytes
            if length == 0 and _is_chunk(header[header_bytes:], available, layout):
                available = 0  # no audio, and other chunks behind it
            unknown = length >= (UNKNOWN_LENGTH_32 if layout.length_bytes == 4 else _UNKNOWN_LENGTH_64)
            actual = min(available + layout.own_header, (1 << 8 * layout.length_bytes) - 1)
            return DataChunk(
                large if unknown else length,
                available,
                offset + layout.id_bytes,
                actual.to_bytes(layout.length_bytes, layout.byte_order),
            )
        offset += header_bytes + -(-length // layout.align) * layout.align
    return None


def _is_chunk(header: bytes, available: int, layout: _Layout) -> bool:
    if available < 8 or not all(32 <= byte < 127 for byte in header[:4]):
        return False
    return int.from_bytes(header[4:8], layout.byte_order) <= available - 8
