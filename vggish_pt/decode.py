"""Audio files → blocks of samples, through libsndfile, and through PyAV for what that can't read.

A decoder yields every sample that the file holds, or raises; a file that ends before its header says is an error
unless the caller allows it.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from vggish_pt import riff
from vggish_pt.errors import AudioError, AudioWarning, MissingDependencyError

# Values (samples times channels) in one block, as float64 2 MiB.
BLOCK_VALUES = 1 << 18
MIN_BLOCK_FRAMES = 256

_UNKNOWN_FRAMES = 1 << 60  # libsndfile gives 2**63 - 1 where a FLAC's header leaves the length open


@dataclass
class Decoder:
    """An opened audio file.

    Attributes:
        sample_rate: hertz.
        channels: how many.
        frames: samples per channel that the header promises; None if it does not say.
        container: name of the file format.
        encoding: name of the sample format or codec.
        blocks: iterates over (n, channels) float64 blocks in [-1, 1].
        close: releases the file.
    """

    sample_rate: int
    channels: int
    frames: int | None
    container: str
    encoding: str
    blocks: Iterator[NDArray[np.float64]]
    close: Callable[[], None]


def open_file(file: BinaryIO, path: Path | None, name: str, *, allow_truncated: bool = False) -> Decoder:
    """Opens an audio file.

    Args:
        file: the file, seekable, at its start; closed by the decoder's ``close``.
        path: where it lies, if it has a path.
        name: how to call it in errors.
        allow_truncated: True gives what a truncated file still holds, with a warning.

    Raises:
        AudioError: empty, not audio, damaged, or in a format that needs PyAV where that is missing.
    """
    head = file.read(4096)
    file.seek(0)
    if not head:
        raise AudioError(f"{name}: the file is empty (0 bytes)", name)
    chunk = riff.find_data(file)
    try:
        opened = _open_sndfile(file, path, chunk)
    except _Unreadable as error:
        return _open_other(file, head, name, str(error), allow_truncated)
    promise = Promise(name, allow_truncated, _promised_frames(opened, head))
    if (chunk is not None and chunk.truncated) or _ogg_cut_short(file, head):
        promise.cut_short()
    frames = opened.frames if 0 <= opened.frames < _UNKNOWN_FRAMES else None

    def close() -> None:
        opened.close()
        file.close()

    return Decoder(
        opened.samplerate,
        opened.channels,
        frames,
        opened.format,
        opened.subtype,
        _read(opened, promise),
        close,
    )


class _Unreadable(Exception):
    pass


def _open_sndfile(file: BinaryIO, path: Path | None, chunk: riff.DataChunk | None) -> Any:
    import soundfile

    source: Any = file
    if chunk is not None and chunk.zero_length:
        source = io.BufferedReader(riff.with_length(file, chunk))
    elif path is not None and os.name == "posix":
        source = os.fsencode(path)  # libsndfile's own reading is faster than calling back into Python
    try:
        return soundfile.SoundFile(source)
    except soundfile.LibsndfileError as error:
        raise _Unreadable(error.error_string.rstrip(".")) from None
    except (TypeError, ValueError) as error:  # a name ending in .raw makes soundfile ask for the format
        raise _Unreadable(str(error)) from None


@dataclass
class Promise:
    """Holds a file to the length that it promises.

    Attributes:
        name: how to call it in errors.
        allow_truncated: whether a shorter one is used, with a warning.
        frames: samples per channel that it promises; None if none.
    """

    name: str
    allow_truncated: bool
    frames: int | None = None

    def cut_short(self, detail: str = "it ends before its header says") -> None:
        """The file is known to end too early."""
        self._refuse(f"{self.name}: the file is truncated: {detail}")

    def damaged(self, decoded: int, sample_rate: int, reason: str) -> None:
        """Decoding broke off after so many samples."""
        message = (
            f"{self.name}: damaged or truncated: cannot be decoded beyond {decoded / sample_rate:.3f} s ({reason})"
        )
        if decoded == 0:
            raise AudioError(message, self.name)
        self._refuse(message)

    def _refuse(self, message: str) -> None:
        if not self.allow_truncated:
            advice = "get it again, or allow truncated files (allow_truncated=True, --allow-truncated)"
            raise AudioError(f"{message}; {advice}", self.name)
        warnings.warn(f"{message}; using what is there", AudioWarning, stacklevel=2)

    def check(self, decoded: int, sample_rate: int) -> None:
        """Decoding came to the end after so many samples."""
        if self.frames is not None and decoded < self.frames:
            self.cut_short(f"{decoded / sample_rate:.3f} s of {self.frames / sample_rate:.3f} s")


def _promised_frames(opened: Any, head: bytes) -> int | None:
    if opened.format == "MP3":
        # Only a Xing or Info header promises a length; otherwise it is estimated from the bit rate. Decoders
        # differ by a frame or two in how they treat the encoder's delay.
        return max(0, opened.frames - 2 * 1152) if b"Xing" in head or b"Info" in head else None
    return opened.frames if 0 <= opened.frames < _UNKNOWN_FRAMES else None


def _ogg_cut_short(file: BinaryIO, head: bytes) -> bool:
    # A complete Ogg stream's last page carries the end-of-stream flag; libsndfile does not ask for it.
    if not head.startswith(b"OggS"):
        return False
    file.seek(0, os.SEEK_END)
    size = file.tell()
    file.seek(max(0, size - (1 << 17)))  # a page is below 64 KiB
    tail = file.read(1 << 17)
    file.seek(0)
    page = tail.rfind(b"OggS")
    return page < 0 or page + 6 > len(tail) or not tail[page + 5] & 4


def _read(opened: Any, promise: Promise) -> Iterator[NDArray[np.float64]]:
    import soundfile

    decoded = 0
    size = max(MIN_BLOCK_FRAMES, BLOCK_VALUES // opened.channels)
    while True:
        try:
            block = opened.read(size, dtype="float64", always_2d=True)
        except (soundfile.LibsndfileError, RuntimeError) as error:
            promise.damaged(decoded, opened.samplerate, getattr(error, "error_string", str(error)).rstrip("."))
            return
        if len(block) == 0:
            break
        decoded += len(block)
        yield block
    promise.check(decoded, opened.samplerate)


# How a file starts → the name that FFmpeg gives the format. The format is passed on explicitly: left to guess, FFmpeg
# would also follow playlists, which can name other files and addresses.
_SIGNATURES: tuple[tuple[int, bytes, str, str], ...] = (
    (4, b"ftyp", "mov", "MP4 or M4A"),
    (4, b"moov", "mov", "QuickTime"),
    (4, b"mdat", "mov", "QuickTime"),
    (0, b"\x1aE\xdf\xa3", "matroska", "WebM or Matroska"),
    (0, b"\xff\xf1", "aac", "AAC"),
    (0, b"\xff\xf9", "aac", "AAC"),
    (0, b"0&\xb2u\x8ef\xcf\x11", "asf", "WMA or ASF"),
    (8, b"AVI ", "avi", "AVI"),
    (8, b"WAVE", "wav", "WAV with an unusual codec"),
    (0, b"FLV\x01", "flv", "FLV"),
    (0, b"\x00\x00\x01\xba", "mpeg", "MPEG programme stream"),
    (0, b"#!AMR", "amr", "AMR"),
    (0, b"wvpk", "wv", "WavPack"),
    (0, b"MAC ", "ape", "Monkey's Audio"),
    (0, b"TTA1", "tta", "True Audio"),
    (0, b"\x0bw", "ac3", "AC-3"),
    (0, b"OggS", "ogg", "Ogg with an unusual codec"),
    (0, b"caff", "caf", "CAF with an unusual codec"),
    (0, b"ID3", "mp3", "MP3"),
)


def _sniff(head: bytes) -> tuple[str, str] | None:
    for offset, magic, fmt, label in _SIGNATURES:
        if head[offset : offset + len(magic)] == magic:
            return fmt, label
    if head[0:1] == b"G" and head[188:189] == b"G" and head[376:377] == b"G":
        return "mpegts", "MPEG transport stream"
    return None


def _open_other(file: BinaryIO, head: bytes, name: str, reason: str, allow_truncated: bool) -> Decoder:
    known = _sniff(head)
    if known is None:
        raise AudioError(f"{name}: not audio in a format that can be read ({reason})", name)
    fmt, label = known
    try:
        from vggish_pt import decode_av

        return decode_av.open_file(file, fmt, name, allow_truncated=allow_truncated)
    except MissingDependencyError:
        need = f'{label}, which needs PyAV: pip install "vggish_pt[av]"'
        if fmt in ("wav", "ogg", "caf", "mp3"):  # libsndfile's own formats: damage is likelier than an odd codec
            need = f"cannot be decoded ({reason}); it is damaged, or {need}"
        raise AudioError(f"{name}: {need}", name) from None
