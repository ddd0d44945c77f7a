"""Kind of a file by its content, never by its name, and the structure of its audio."""

from __future__ import annotations

from vggish_pt.audio import boxes, chunked, flac, mpeg, ogg
from vggish_pt.audio.boxes import CUT
from vggish_pt.audio.riff import UNKNOWN_LENGTH_32
from vggish_pt.audio.structure import SNDFILE, Stream, Structure
from vggish_pt.audio.tags import skip_metadata
from vggish_pt.audio.view import Scanner

# The audio may begin after this number of bytes that are no metadata.
_MAX_FRONT_BYTES = 1 << 16
_HEAD_BYTES = 600

# The start of a file, and FFmpeg's name of the format. The format is passed on explicitly: left to guess, FFmpeg would
# also follow playlists, which can name other files and addresses.
_SIGNATURES: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"0&\xb2u\x8ef\xcf\x11", "asf", "WMA or ASF"),
    (8, b"AVI ", "avi", "AVI"),
    (0, b"FLV\x01", "flv", "FLV"),
    (0, b"\x00\x00\x01\xba", "mpeg", "MPEG programme stream"),
    (0, b"#!AMR", "amr", "AMR"),
    (0, b"wvpk", "wv", "WavPack"),
    (0, b"MAC ", "ape", "Monkey's Audio"),
    (0, b"TTA1", "tta", "True Audio"),
    (0, b"\x0bw", "ac3", "AC-3"),
)
_CHUNKED = (b"RIFF", b"RIFX", b"RF64", b"BW64", b"riff", b"FORM", b"caff", b".snd", b"dns.")
_MP4 = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp")
_TS_BYTES = 188


def find_structure(scanner: Scanner, seconds: float | None = None) -> Structure | None:
    """Parse a file.

    Args:
        scanner: the file.
        seconds: duration that is read, from the start; None for the whole file. It saves the scan of a FLAC file, of
            which a decoder can read a segment without the rest.

    Returns:
        Its audio streams; None if its content is of no known kind.
    """
    for start in dict.fromkeys((0, skip_metadata(scanner, 0))):
        found = _parse_at(scanner, start, seconds)
        if found is not None:
            return found
    found = mpeg.parse(scanner)
    if found is not None:
        return found
    front = scanner.read(0, _MAX_FRONT_BYTES)
    for mark in (b"OggS\x00\x02", b"fLaC\x00\x00\x00\x22"):
        at = front.find(mark)
        if at > 0:
            return ogg.parse(scanner, at) if mark[0] == ord("O") else flac.parse(scanner, at)
    return None


def _parse_at(scanner: Scanner, start: int, seconds: float | None) -> Structure | None:
    head = scanner.read(start, _HEAD_BYTES)
    if head[:4] == b"OggS":
        return ogg.parse(scanner, start)
    if head[:4] == b"fLaC":
        counted = None if seconds is None else flac.parse_counted(scanner, start, seconds)
        return counted or flac.parse(scanner, start)
    if head[:4] in _CHUNKED and (found := chunked.parse(scanner, start)) is not None:
        return found
    if head[4:8] in _MP4 and int.from_bytes(head[:4], "big") != 0:
        return boxes.parse_mp4(scanner, start)
    if head[:4] == b"\x1aE\xdf\xa3":
        return boxes.parse_matroska(scanner, start)
    signature = next((row for row in _SIGNATURES if head[row[0] : row[0] + len(row[1])] == row[1]), None)
    if signature is not None:
        return _parse_other(scanner, start, head, *signature[2:])
    if head[:1] == b"G" and head[_TS_BYTES : _TS_BYTES + 1] == b"G" and head[2 * _TS_BYTES : 2 * _TS_BYTES + 1] == b"G":
        return _parse_other(scanner, start, head, "mpegts", "MPEG transport stream")
    if head[:4] in _CHUNKED:
        fallback = chunked.FALLBACKS.get(head[:4])
        return Structure([Stream([(start, scanner.size)], SNDFILE, "WAV", fallback=fallback)])
    return None


def _parse_other(scanner: Scanner, start: int, head: bytes, fmt: str, label: str) -> Structure:
    stream = Stream([(start, scanner.size)], fmt, label)
    if fmt == "avi":
        length = int.from_bytes(head[4:8], "little")
        if length < UNKNOWN_LENGTH_32 and scanner.size < start + 8 + length:
            stream.losses.append(CUT)
    return Structure([stream])
