"""Frames of MPEG audio (layers I to III) and of AAC in ADTS: runs of them, and the bytes between runs.

libsndfile and FFmpeg give up, or continue silently, where frames are interrupted. Here frames are counted first, so
that decoders see nothing but frames and missing audio is known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from vggish_pt.audio.structure import SNDFILE, Loss, Stream, Structure
from vggish_pt.audio.tags import skip_id3, skip_metadata
from vggish_pt.audio.view import Part, Scanner

# The first frame must begin within this number of bytes.
_MAX_FRONT_BYTES = 1 << 18
_MAX_FRAME_BYTES = 8192
_HEADER_BYTES = 7
_SYNC = re.compile(rb"\xff(?=[\xe0-\xff])(?!\xff\xff)")
# This number of frames in a row is no coincidence where the format is not known yet, or changes.
_SURE_FRAMES = 4
# A text in front, such as the answer of a streaming server.
_TEXT = re.compile(rb"[\t\r\n -~]*")
_MAX_RUNS = 100_000

_BIT_RATES = {
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
_AAC_SAMPLES = 1024

# A frame that carries no audio but the length of what follows: header, side information of one of three sizes (two
# bytes more with a checksum), mark, flags, fields.
_LENGTH_FRAME = re.compile(rb"..(?:.{11}|.{13}|.{19}|.{21}|.{34}|.{36})(?:Xing|Info)...(.)(.{8})", re.DOTALL)


@dataclass(frozen=True)
class _Format:
    """Properties that all frames of a run share; ``lengths`` is by the second and third byte, empty for ADTS."""

    key: tuple[int, int, int]
    rate: int
    samples: int
    lengths: dict[int, int]


@dataclass
class _Run:
    """Frames with nothing between them."""

    start: int
    end: int
    frames: int
    format: _Format


_formats: dict[tuple[int, int, int], _Format | None] = {}


def _is_adts(second: int) -> bool:
    return second & 0xF6 == 0xF0  # twelve bits of synchronisation and layer 0


def _key(header: bytes) -> tuple[int, int, int]:
    if _is_adts(header[1]):
        return header[1] & 0xF6, header[2] & 0xFD, header[3] & 0xC0
    return header[1] & 0xFE, header[2] & 0x0C, int(header[3] >= 0xC0)


def _format_of(header: bytes) -> _Format | None:
    """Return the format of the frame that begins with a header; None if it is no header."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    key = _key(header)
    if key not in _formats:
        _formats[key] = _make_format(key, header)
    return _formats[key]


def _make_format(key: tuple[int, int, int], header: bytes) -> _Format | None:
    if _is_adts(header[1]):
        index = header[2] >> 2 & 15
        return _Format(key, _AAC_RATES[index], _AAC_SAMPLES, {}) if index < len(_AAC_RATES) else None
    version, layer, rate_index = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3), header[2] >> 2 & 3
    if version == 1 or layer == 4 or rate_index == 3:
        return None
    first = version == 3
    rate = (44100, 48000, 32000)[rate_index] >> {3: 0, 2: 1, 0: 2}[version]
    samples = 384 if layer == 1 else 1152 if first or layer == 2 else 576
    lengths = {}
    for index, kilobits in enumerate(_BIT_RATES[first, layer][1:], 1):
        for padding in (0, 1):
            if layer == 1:
                length = (12 * 1000 * kilobits // rate + padding) * 4
            else:
                length = samples // 8 * 1000 * kilobits // rate + padding
            for other in (0, 1):  # the private bit; and the checksum's, in the byte before
                third = index << 4 | rate_index << 2 | padding << 1 | other
                for second in (header[1] & 0xFE, header[1] | 1):
                    lengths[second << 8 | third] = length
    return _Format(key, rate, samples, lengths)


def _walk(scanner: Scanner, start: int, end: int, form: _Format, most: int | None = None) -> tuple[int, int]:
    """Return the end and the number of the frames of one format that begin at a position."""
    position, frames, known, mono = start, 0, form.lengths.get, form.key[2]
    limit = scanner.size if most is None else most
    while position + _HEADER_BYTES <= end and frames < limit:
        data = scanner.read(position, min(1 << 16, end - position))
        last, offset = len(data) - _HEADER_BYTES, 0
        while offset <= last and frames < limit:
            if data[offset] != 0xFF:
                return position + offset, frames
            if form.lengths:
                length = known(data[offset + 1] << 8 | data[offset + 2], 0)
                if not length or (data[offset + 3] >= 0xC0) != mono:
                    return position + offset, frames
            else:
                length = (data[offset + 3] & 3) << 11 | data[offset + 4] << 3 | data[offset + 5] >> 5
                if length < _HEADER_BYTES or _key(data[offset : offset + 4]) != form.key:
                    return position + offset, frames
            if position + offset + length > end:
                return position + offset, frames
            offset += length
            frames += 1
        position += offset
    return position, frames


def _find(scanner: Scanner, start: int, end: int, limit: int, known: _Format | None) -> tuple[int, _Format] | None:
    """Return the first position from ``start`` at which frames begin, before ``limit``, and their format."""
    for base, data in scanner.blocks(start, min(limit, end), 8):
        for match in _SYNC.finditer(data):
            position = base + match.start()
            form = _format_of(scanner.read(position, 8))
            if form is None:
                continue
            enough = 2 if form is known else _SURE_FRAMES
            stop, frames = _walk(scanner, position, end, form, enough)
            if frames >= enough or (frames and form is known and stop >= end):
                return position, form
    return None


def _runs(scanner: Scanner, start: int, end: int) -> Iterator[_Run]:
    """Iterate over the runs of frames in a range."""
    position = min(skip_metadata(scanner, start), end)
    form = _format_of(scanner.read(position, 8))
    if form is not None and _walk(scanner, position, end, form, 2)[1] < min(2, (end - position) // _MAX_FRAME_BYTES):
        form = None
    limit = position + _MAX_FRONT_BYTES
    for _ in range(_MAX_RUNS):
        if form is None or not _walk(scanner, position, end, form, 1)[1]:
            found = _find(scanner, position, end, limit, form)
            if found is None:
                return
            position, form = found
        stop, frames = _walk(scanner, position, end, form)
        yield _Run(position, stop, frames, form)
        position = min(skip_metadata(scanner, stop), end)
        limit = end


def parse(scanner: Scanner, start: int = 0, end: int | None = None) -> Structure | None:
    """Find the frames of MPEG audio or of AAC in ADTS in a file, or in a range of it.

    Args:
        scanner: the file.
        start: first byte of the range.
        end: the byte after the last; None for the end of the file.

    Returns:
        A stream for each stretch of frames of one sample rate and number of channels. None if there are no frames.
    """
    whole = start == 0 and end is None
    end = scanner.size if end is None else end
    streams: list[Stream] = []
    pending: list[_Run] = []
    for run in _runs(scanner, start, end):
        if pending and run.format is not pending[0].format:
            streams.append(_stream(scanner, pending, run.start, whole=False))
            pending = []
        pending.append(run)
    if not pending:
        return None
    first = not streams
    streams.append(_stream(scanner, pending, end, whole=whole and first))
    front = pending[0].start if first else streams[0].parts[0][0]
    lost_front = _front_loss(scanner, start, front if isinstance(front, int) else start)
    if lost_front:
        streams[0].losses.insert(0, Loss(0.0, 0.0, 0.0, lost_front))
    return Structure(streams)


def _front_loss(scanner: Scanner, start: int, first: int) -> str | None:
    after = skip_metadata(scanner, start)
    if first - after <= 2 * _MAX_FRAME_BYTES // 4 or _TEXT.fullmatch(scanner.read(after, first - after)):
        return None  # a text, or the rest of a frame that was cut
    return f"the first {first - after} bytes are no frames"


def _stream(scanner: Scanner, runs: list[_Run], end: int, *, whole: bool) -> Stream:
    form = runs[0].format
    mean = sum(run.end - run.start for run in runs) / sum(run.frames for run in runs)
    losses: list[Loss] = []
    frames, lost = 0, 0
    for index, run in enumerate(runs):
        frames += run.frames
        last = index + 1 == len(runs)
        after = skip_metadata(scanner, run.end)
        missing = (end if last else runs[index + 1].start) - after
        if missing <= 0 or (last and missing <= _MAX_FRAME_BYTES // 4):  # or the rest of a frame, cut off
            continue
        count = max(1, round(missing / mean))
        before, begin = frames * form.samples / form.rate, (frames + lost) * form.samples / form.rate
        lost += count
        stop = (frames + lost) * form.samples / form.rate
        losses.append(Loss(before, begin, stop, f"{missing} bytes are no frames"))
    plain = whole and not losses and len(runs) == 1 and _is_plain(scanner, runs[0])
    parts: list[Part] = [(0, scanner.size)] if plain else [(run.start, run.end) for run in runs]
    stream = Stream(parts, SNDFILE, "MP3", losses=losses)
    stream.slack = 3 * form.samples / form.rate
    if not form.lengths:
        stream.reader, stream.label = "aac", "AAC"
        stream.parts = [(run.start, run.end) for run in runs]
        stream.seconds = frames * form.samples / form.rate
        if skip_metadata(scanner, runs[-1].end) < end and not any(loss.after == stream.seconds for loss in losses):
            begin = (frames + lost) * form.samples / form.rate
            losses.append(Loss(stream.seconds, begin, None, "it ends inside a frame", at_end=True))
        return stream
    _apply_length_frame(scanner, runs, stream, frames, lost, end)
    return stream


def _is_plain(scanner: Scanner, run: _Run) -> bool:
    """Return True if nothing but ID3 tags is around the frames; libsndfile would print notes about other bytes."""
    behind = scanner.read(run.end, 129)
    return run.start == skip_id3(scanner) and (not behind or (len(behind) == 128 and behind[:3] == b"TAG"))


def _read_length_frame(scanner: Scanner, position: int) -> tuple[int, int, int] | None:
    """Return the count of frames and of bytes in a Xing or Info frame, and where its mark is; None if it is none."""
    found = _LENGTH_FRAME.match(scanner.read(position, 64))
    if found is None:
        return None
    flags, fields = found[1][0], found[2]
    count = int.from_bytes(fields[:4], "big") if flags & 1 else 0
    length = int.from_bytes(fields[4:8] if flags & 1 else fields[:4], "big") if flags & 2 else 0
    return count, length, position + found.start(1) - 7


def _apply_length_frame(scanner: Scanner, runs: list[_Run], stream: Stream, frames: int, lost: int, end: int) -> None:
    """Compare the frames with the count of a Xing or Info frame, and choose how libsndfile finds the end."""
    form, first = runs[0].format, runs[0].start
    found = _read_length_frame(scanner, first)
    count, length, mark = found or (0, 0, 0)
    frames -= 1 if found else 0
    stream.seconds = frames * form.samples / form.rate
    if count and abs(count - frames) <= 1:
        stream.slack += 8 * form.samples / form.rate  # the encoder's delay and padding are cut off
    if not count or frames > count + 1:
        # libsndfile would stop where a wrong count or the bit rate of the first frame makes it believe the end to be.
        # Without the count, and made to look longer than any bit rate allows, the file is read to its end.
        stream.padded = True
        if found:
            stream.parts = _replaced(stream.parts, mark, bytes(4))
    stop = first + length
    while length and stop < end and (joined := _read_length_frame(scanner, stop)) is not None:
        length = joined[1]  # of another file, joined to this one
        stop, count = stop + length, count + 1 + joined[0]
    cut = length > 0 and end < stop and runs[-1].end < stop
    if cut or (count and frames + lost < count - 1):
        begin = (frames + lost) * form.samples / form.rate
        whole = max(begin, count * form.samples / form.rate) if count else None
        stream.losses.append(Loss(stream.seconds, begin, whole, "it is shorter than its header says", at_end=True))


def _replaced(parts: list[Part], offset: int, replacement: bytes) -> list[Part]:
    """Return parts in which bytes at an offset into the file, inside the first range, are replaced."""
    start, end = parts[0][0], parts[0][1]
    assert isinstance(start, int) and isinstance(end, int)
    return [(start, offset), replacement, (offset + len(replacement), end), *parts[1:]]
