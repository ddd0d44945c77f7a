"""Sound of chunked files (WAV and its relatives, AIFF, CAF) and of AU, whatever length their headers give."""

from __future__ import annotations

import re

from vggish_pt.audio import mpeg
from vggish_pt.audio.riff import UNKNOWN_LENGTH_32, DataChunk, behind_data, find_data
from vggish_pt.audio.structure import SNDFILE, Loss, Stream, Structure
from vggish_pt.audio.tags import before_tags
from vggish_pt.audio.view import Part, Scanner

_MPEG_CODECS = (0x50, 0x55, 0xFF, 0x1600)
_MAX_FILES = 10_000
_STRAY_BYTES = 16
# Samples that all are printable ASCII are none.
_TEXT = re.compile(rb"[\t\r\n -~]*")
_TEXT_BYTES = 1 << 16
_COUNTS_LESS = "its header counts less audio than the file holds"
FALLBACKS = {b"RIFF": "wav", b"RF64": "wav", b"BW64": "wav", b"caff": "caf", b"FORM": "aiff", b".snd": "au"}
"""FFmpeg's names of these formats, by the first bytes of a file."""


def parse(scanner: Scanner, start: int = 0) -> Structure | None:
    """Find the audio of a WAV, RF64, W64, AIFF, CAF or AU file, and of those joined to it.

    Args:
        scanner: the file.
        start: where its header begins.

    Returns:
        A stream for each file; None if there is no audio in the first.
    """
    streams: list[Stream] = []
    unknown, position = 0, start
    for _ in range(_MAX_FILES):
        data = find_data(scanner, position)
        if data is None:
            break
        found, after = _parse_one(scanner, position, data)
        streams += found
        left = scanner.size - after
        if left > _STRAY_BYTES and find_data(scanner, after) is None:
            unknown = left
        if left <= _STRAY_BYTES or unknown:
            break
        position = after
    return Structure(streams, unknown) if streams else None


def _parse_one(scanner: Scanner, start: int, data: DataChunk) -> tuple[list[Stream], int]:
    """Return the streams of one file, and its end with its tags and padding."""
    losses: list[Loss] = []
    length, after = _length(scanner, data, losses)
    end = data.start + length
    if data.codec in _MPEG_CODECS:
        inner = mpeg.parse(scanner, data.start, end)
        if inner is not None:
            inner.streams[-1].losses += losses
            return inner.streams, after
    head = scanner.read(start, 4)
    stream = Stream(_parts(scanner, start, data, length), SNDFILE, "WAV", losses=losses)
    stream.fallback = FALLBACKS.get(head)
    stream.seconds = data.seconds(length) or None
    return [stream], after


def _length(scanner: Scanner, data: DataChunk, losses: list[Loss]) -> tuple[int, int]:
    """Return the number of bytes of samples, and the end of the file with its tags and padding."""
    size, declared = scanner.size, data.declared
    if declared is None:
        end = before_tags(scanner, data.start, size)
        return end - data.start, size
    if data.available < declared:
        whole = data.frame and declared // data.frame * data.frame <= data.available
        if not whole:  # otherwise the length is a byte or two too large
            begin, stop = data.seconds(data.available), data.seconds(declared) or None
            losses.append(Loss(begin, begin, stop, "it is shorter than its header says", at_end=True))
        return data.available, size
    if data.field[1] == 4:  # a length above 4 GiB has wrapped
        declared += (data.available - declared) >> 32 << 32
    after = behind_data(scanner, data.start + declared, data)
    if size - after <= _STRAY_BYTES or find_data(scanner, after) is not None:
        return declared, after
    if _TEXT.fullmatch(scanner.read(after, min(_TEXT_BYTES, size - after))):
        return declared, after
    end = before_tags(scanner, data.start + declared, size)
    if not (data.outer is not None and abs(data.outer - size) <= 1):  # the file's own length says that it is audio
        begin = data.seconds(declared)
        stop = data.seconds(end - data.start) or None
        losses.append(Loss(begin, begin, stop, _COUNTS_LESS, readable=True))
    return end - data.start, size


def _parts(scanner: Scanner, start: int, data: DataChunk, length: int) -> list[Part]:
    """Return the file as libsndfile should see it: with the right length, and no tags after samples of open length."""
    end, size = data.start + length, scanner.size
    position, count = data.field
    value, limit = length + data.counted, (1 << 8 * count) - 1
    field = int.from_bytes(scanner.read(position, count), data.order)
    open_ended = field >= UNKNOWN_LENGTH_32 and length < UNKNOWN_LENGTH_32 and end == size  # read to the end anyway
    if data.counted and field == value:  # libsndfile reads W64 to the end of the file
        return [(start, end)]
    if open_ended or field == value or end == size < data.start + (data.declared or 0):
        return [(start, size)]
    if value > limit and scanner.read(start, 4) == b"RIFF":
        return _as_rf64(start, data, end)
    return [(start, position), min(value, limit).to_bytes(count, data.order), (position + count, end)]


def _as_rf64(start: int, data: DataChunk, end: int) -> list[Part]:
    """Return a WAV with the header of RF64, which has room for lengths above 4 GiB."""
    length = end - data.start
    sizes = b"".join(value.to_bytes(8, "little") for value in (length + 36, length, length // (data.frame or 1)))
    header = b"RF64\xff\xff\xff\xffWAVEds64" + (28).to_bytes(4, "little") + sizes + bytes(4)
    return [header, (start + 12, data.field[0]), b"\xff\xff\xff\xff", (data.start, end)]
