"""Frames of FLAC: their number against that of STREAMINFO, joined streams, and the next frame after damage.

The decoder of libsndfile stops at the number of samples that STREAMINFO gives, and at the first damaged frame.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from vggish_pt.audio.structure import SNDFILE, Loss, Stream, Structure
from vggish_pt.audio.tags import before_tags, skip_metadata
from vggish_pt.audio.view import Scanner

_INFO_BYTES = 34
_MAX_BLOCKS = 10_000
_MAX_HEADER_BYTES = 16
_MAX_FRAME_BYTES = 1 << 18
_MAX_STREAMS = 100_000
# The start of a frame: 14 bits of synchronisation, a reserved bit that is 0, a block size; and that of a stream with
# its STREAMINFO. One pattern for both takes ten times as long.
_FRAME = re.compile(rb"\xff[\xf8\xf9][\x10-\xff]")
_STREAM = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22")
_RATES = (0, 88200, 176400, 192000, 8000, 16000, 22050, 24000, 32000, 44100, 48000, 96000)
_BITS = (0, 8, 12, 0, 16, 20, 24, 32)


def _crc8_table() -> bytes:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte << 1) ^ 0x07 if byte & 0x80 else byte << 1
        table.append(byte & 0xFF)
    return bytes(table)


def _crc16_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        crc = byte << 8
        for _ in range(8):
            crc = crc << 1 ^ 0x8005 if crc & 0x8000 else crc << 1
        table.append(crc & 0xFFFF)
    return tuple(table)


_CRC8 = _crc8_table()
_CRC16 = _crc16_table()


@dataclass(frozen=True)
class _Info:
    """STREAMINFO: the properties of a stream, and its samples per channel (0 if it does not say)."""

    block: bytes
    block_size: int
    rate: int
    channels: int
    bits: int
    total: int

    def with_total(self, total: int) -> bytes:
        """Return the start of a stream with these properties and another count of samples."""
        block = bytearray(self.block)
        block[13] = block[13] & 0xF0 | total >> 32 & 15
        block[14:18] = (total & 0xFFFF_FFFF).to_bytes(4, "big")
        block[18:34] = bytes(16)  # the digest of all samples, of which some may be missing
        return b"fLaC\x80\x00\x00\x22" + bytes(block)


@dataclass
class _Run:
    """Frames whose numbers follow each other."""

    info: _Info
    start: int  # first byte
    first: int  # number of the first sample
    end: int = 0  # the byte after the last frame
    next: int = 0  # number of the sample after the last


def _read_info(block: bytes) -> _Info | None:
    if len(block) < _INFO_BYTES:
        return None
    rate = int.from_bytes(block[10:13], "big") >> 4
    total = (block[13] & 15) << 32 | int.from_bytes(block[14:18], "big")
    channels, bits = (block[12] >> 1 & 7) + 1, ((block[12] & 1) << 4 | block[13] >> 4) + 1
    return _Info(block[:_INFO_BYTES], int.from_bytes(block[2:4], "big"), rate, channels, bits, total)


def _read_frame(data: bytes, info: _Info) -> tuple[int, int] | None:
    """Return the number of the first sample and the samples of the frame that begins here; None if it is none."""
    if len(data) < 6:
        return None
    code, rate_code = data[2] >> 4, data[2] & 15
    assignment, bits_code = data[3] >> 4, data[3] >> 1 & 7
    if code == 0 or rate_code == 15 or assignment > 10 or data[3] & 1 or bits_code == 3:
        return None
    if rate_code and rate_code < len(_RATES) and _RATES[rate_code] != info.rate:
        return None
    if (assignment + 1 if assignment < 8 else 2) != info.channels or (bits_code and _BITS[bits_code] != info.bits):
        return None
    lead = data[4]
    extra = 0 if lead < 0x80 else 7 - (lead ^ 0xFF).bit_length()
    if lead >= 0x80 and (extra < 1 or extra > 6):
        return None
    number = lead if lead < 0x80 else lead & ((1 << 6 - extra) - 1 if extra < 6 else 0)
    for byte in data[5 : 5 + extra]:
        if byte & 0xC0 != 0x80:
            return None
        number = number << 6 | byte & 0x3F
    position = 5 + extra
    size = 192 if code == 1 else 144 << code if code < 6 else 1 << code
    if code in (6, 7):
        size = int.from_bytes(data[position : position + code - 5], "big") + 1
        position += code - 5
    position += {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    crc = 0
    for byte in data[:position]:
        crc = _CRC8[crc ^ byte]
    if position >= len(data) or crc != data[position]:
        return None
    return (number if data[1] & 1 else number * info.block_size), size


def _headers(scanner: Scanner, start: int, end: int, info: _Info) -> Iterator[tuple[int, _Info, int, int]]:
    """Iterate over the frame headers in a range: position, properties of the stream, first sample, samples."""
    for base, data in scanner.blocks(start, end, 64):
        marks = [match.start() for match in _FRAME.finditer(data)]
        if b"fLaC" in data:
            marks = sorted([*marks, *(match.start() for match in _STREAM.finditer(data))])
        for at in marks:
            if at > len(data) - 64 and base + len(data) < end:
                break  # the next block has it whole
            if data[at] != 0xFF:
                other = _read_info(data[at + 8 : at + 8 + _INFO_BYTES])
                if other is not None and other.rate and base + at > start:
                    info = other
                    yield base + at, info, -1, 0
                continue
            found = _read_frame(data[at : at + _MAX_HEADER_BYTES], info)
            if found is not None:
                yield base + at, info, *found


def _first_frame(scanner: Scanner, start: int) -> int:
    """Return where the metadata of a stream ends."""
    position = start + 4
    for _ in range(_MAX_BLOCKS):
        head = scanner.read(position, 4)
        if len(head) < 4 or head[0] == 0xFF:
            break
        position += 4 + int.from_bytes(head[1:4], "big")
        if head[0] & 0x80:
            break
    return min(position, scanner.size)


def _find_runs(scanner: Scanner, start: int, end: int, info: _Info) -> list[_Run]:
    runs: list[_Run] = []
    strays: list[tuple[int, int, int]] = []  # headers out of order: position, first sample, samples
    fresh: int | None = start  # where the metadata of a new stream begins
    for position, form, first, size in _headers(scanner, start, end, info):
        if first < 0:
            if runs:
                runs[-1].end = position
            fresh, strays = position, []
            info = form
            continue
        run = runs[-1] if runs and fresh is None else None
        if run is not None and first == run.next:
            run.next, strays = first + size, []
            continue
        # Out of order: a coincidence in the bytes of a frame, unless the next header follows on it.
        before = next((stray for stray in strays if stray[1] + stray[2] == first), None)
        if fresh is not None or before is not None:
            begin = before or (position, first, size)
            if run is not None:
                run.end = begin[0]
            runs.append(_Run(info, begin[0], begin[1], next=first + size))
            fresh, strays = None, []
        else:
            strays = [*strays[-8:], (position, first, size)]
        if len(runs) > _MAX_STREAMS:
            break
    if runs:
        runs[-1].end = end
        last = runs[-1]
        if strays and strays[-1][1] > last.next and strays[-1][1] + strays[-1][2] == info.total:
            last.end = strays[-1][0]  # a single last frame, after damage
            runs.append(_Run(info, strays[-1][0], strays[-1][1], end, info.total))
    return runs


def parse_counted(scanner: Scanner, start: int, seconds: float) -> Structure | None:
    """Return the stream of a file without a scan of its frames; None if STREAMINFO counts less than ``seconds``."""
    head = scanner.read(start, 8 + _INFO_BYTES)
    info = _read_info(head[8:]) if head[4:5] in (b"\x00", b"\x80") else None
    if info is None or not info.rate or seconds * info.rate > info.total:
        return None
    return Structure([Stream([(start, scanner.size)], SNDFILE, "FLAC", seconds=info.total / info.rate)])


def parse(scanner: Scanner, start: int = 0, end: int | None = None) -> Structure | None:
    """Find the frames of a FLAC file.

    Args:
        scanner: the file.
        start: where "fLaC" stands.
        end: the byte after the file's audio; None for the end of the file.

    Returns:
        A stream for each run of frames; None if there is no STREAMINFO.
    """
    size = scanner.size if end is None else end
    info = _read_info(scanner.read(start + 8, _INFO_BYTES))
    if info is None or not info.rate:
        return None
    runs = _find_runs(scanner, _first_frame(scanner, start), size, info)
    if not runs:
        return Structure([Stream([(start, size)], SNDFILE, "FLAC")])
    runs[-1].end = before_tags(scanner, runs[-1].start, size)
    streams = [_stream(scanner, run) for run in runs]
    first = runs[0]
    if len(runs) == 1 and first.first == 0 and info.total in (0, first.next):
        streams[0].parts = [(start, first.end)]  # unchanged
    elif first.first and info.total:
        streams[0].losses.append(Loss(0.0, 0.0, first.first / info.rate, "frames are missing"))
    for index, run in enumerate(runs):
        behind = runs[index + 1] if index + 1 < len(runs) else None
        goes_on = behind is not None and behind.info is run.info
        counted = sum(other.next - other.first for other in runs if other.info is run.info)
        if behind is not None and goes_on and behind.first > run.next:
            streams[index].losses.append(_loss(run, behind.first, "frames are missing"))
        elif not goes_on and run.info.total > max(run.next, counted):
            at_end = behind is None
            streams[index].losses.append(
                _loss(run, run.info.total, "it is shorter than its header says", at_end=at_end)
            )
    return Structure(streams)


def _stream(scanner: Scanner, run: _Run) -> Stream:
    samples = run.next - run.first
    stream = Stream([run.info.with_total(samples), (run.start, run.end)], SNDFILE, "FLAC")
    stream.seconds = samples / run.info.rate
    stream.resume = partial(_resume, scanner, run)
    return stream


def _loss(run: _Run, stop: int, reason: str, *, at_end: bool = False) -> Loss:
    samples, rate = run.next - run.first, run.info.rate
    return Loss(samples / rate, samples / rate, (stop - run.first) / rate, reason, at_end=at_end)


def _resume(scanner: Scanner, run: _Run, decoded: int) -> tuple[Stream, int] | None:
    """Return a run from its first frame at or after a sample, and the number of samples before that frame."""
    for position, _, first, size in _headers(scanner, run.start, run.end, run.info):
        if run.first + decoded <= first and first + size <= run.next:
            rest = _Run(run.info, position, first, run.end, run.next)
            return _stream(scanner, rest), first - run.first
    return _last_frame(scanner, run, decoded)


def _last_frame(scanner: Scanner, run: _Run, decoded: int) -> tuple[Stream, int] | None:
    """Return the last frame of a run without the bytes after it, if any, because they make libFLAC drop the frame."""
    for position, _, first, size in _headers(scanner, max(run.start, run.end - _MAX_FRAME_BYTES), run.end, run.info):
        if first + size != run.next or not first <= run.first + decoded <= run.next:
            continue
        crc, end = 1, 0
        for index, byte in enumerate(scanner.read(position, run.end - position), 1):
            before, crc = crc, (crc << 8 & 0xFFFF) ^ _CRC16[crc >> 8 ^ byte] if index > 1 else _CRC16[byte]
            if crc == 0 and before and index > _MAX_HEADER_BYTES:  # zeros after a frame leave the CRC at 0
                end = position + index
        if not end or end >= run.end:
            return None
        rest = _stream(scanner, _Run(run.info, position, first, end, run.next))
        rest.resume, rest.unknown = None, run.end - min(run.end, skip_metadata(scanner, end))
        if run.first + decoded == run.next:
            rest.parts = []  # all is decoded
        return rest, min(first - run.first, decoded)
    return None
