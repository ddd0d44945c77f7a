"""Audio files → blocks of samples, through libsndfile, and through PyAV for what that can't read.

A decoder yields every sample that the file holds, or raises; a file that ends before its header says is an error
unless the caller allows it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from vggish_pt.audio import riff
from vggish_pt.audio.decoder import BLOCK_VALUES, MIN_BLOCK_FRAMES, DeclaredLength, Decoder
from vggish_pt.audio.truncation import find_mpeg_audio, is_chained, is_cut_short
from vggish_pt.audio.view import QuietView, buffered
from vggish_pt.errors import AudioError, MissingDependencyError

_UNKNOWN_FRAMES = 1 << 60  # libsndfile gives 2**63 - 1 where a FLAC's header leaves the length open


# Where libsndfile finds a sample without decoding all before it, and decodes from there on just as from the start.
_PLAIN = frozenset(("PCM_U8", "PCM_S8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"))
_SEEKABLE = dict.fromkeys(("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC"), _PLAIN)


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
    promise = DeclaredLength(name, allow_truncated)
    if is_cut_short(file):
        promise.cut_short()
    try:
        return _open_sndfile(file, path, promise)
    except _Unreadable as error:
        return _open_other(file, head, str(error), promise)


class _Unreadable(Exception):
    pass


def _open_sndfile(file: BinaryIO, path: Path | None, promise: DeclaredLength) -> Decoder:
    import soundfile

    if is_chained(file):
        raise _Unreadable("several Ogg streams one after the other")

    class Sequential(soundfile.SoundFile):  # type: ignore[misc]
        """Never seeks: after each read soundfile would seek to where it is, and MP3 decoders stumble over that."""

        def seekable(self) -> bool:
            return False

    chunk, mpeg = riff.find_data(file), find_mpeg_audio(file)
    if chunk is not None and chunk.zero_length:
        view = QuietView(file, chunk.length_offset, chunk.length_field)
    elif mpeg is not None and not mpeg.counted:
        # libsndfile would stop where a wrong count or the bit rate of the first frame makes it believe the end to be.
        # Without the count, and made to look longer than any bit rate allows, the file is read to its end.
        view = QuietView(file, mpeg.mark or 0, b"" if mpeg.mark is None else bytes(4))
        view.padded_length = 64 * file.seek(0, os.SEEK_END)
    else:
        view = QuietView(file)
    source: Any = buffered(view)
    # libsndfile's own reading is faster than calling back, but of a name that ends in .raw soundfile asks the format.
    if path is not None and os.name == "posix" and view.plain and path.suffix.lower() != ".raw":
        source = os.fsencode(path)
    try:
        opened = Sequential(source)
    except soundfile.LibsndfileError as error:
        if view.error is not None:
            raise view.error from None
        file.seek(0)
        raise _Unreadable(error.error_string.rstrip(".")) from None
    known = view.padded_length is None and 0 <= opened.frames < _UNKNOWN_FRAMES
    if view.padded_length is not None:
        view.padded_length = None
        position = source.tell()
        source.seek(0, os.SEEK_END)  # empties the buffer, which may hold some of the padding
        source.seek(position)
    frames = opened.frames if known else None
    # MP3 decoders differ by a frame or two in how they treat the encoder's delay.
    promise.frames = max(0, frames - 2 * 1152) if frames is not None and mpeg is not None else frames

    def close() -> None:
        opened.close()
        file.close()

    exact = frames is not None and opened.subtype in _SEEKABLE.get(opened.format, ())
    blocks = _read(opened, view, promise, seekable=exact)
    seek = partial(_seek, opened, view, promise) if exact else None
    return Decoder(opened.samplerate, opened.channels, frames, opened.format, opened.subtype, blocks, close, seek)


def _seek(opened: Any, view: QuietView, promise: DeclaredLength, frame: int) -> None:
    import soundfile

    try:
        opened.seek(frame)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        reason = view.error or getattr(error, "error_string", str(error)).rstrip(".")
        message = (
            f"{promise.name}: damaged or truncated: nothing is found at {frame / opened.samplerate:.3f} s ({reason})"
        )
        raise AudioError(message, promise.name) from None


def _read(opened: Any, view: QuietView, promise: DeclaredLength, *, seekable: bool) -> Iterator[NDArray[np.float64]]:
    import soundfile

    decoded = opened.tell() if seekable else 0
    size = max(MIN_BLOCK_FRAMES, BLOCK_VALUES // opened.channels)
    while True:
        block = np.full((size, opened.channels), np.nan)
        try:
            block = opened.read(out=block)
        except (soundfile.LibsndfileError, RuntimeError) as error:
            if view.error is not None:
                break
            block = block[: int(np.isnan(block[:, -1]).argmax())]  # up to where the decoder came
            decoded += len(block)
            promise.damaged(decoded, opened.samplerate, getattr(error, "error_string", str(error)).rstrip("."))
            yield block
            return
        if len(block) == 0 or view.error is not None:
            break
        decoded += len(block)
        yield block
    if view.error is not None:
        raise AudioError(f"{promise.name}: cannot be read ({view.error})", promise.name)
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
    (0, b"OggS", "ogg", "Ogg with an unusual codec or several streams"),
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


def _open_other(file: BinaryIO, head: bytes, reason: str, promise: DeclaredLength) -> Decoder:
    name = promise.name
    known = _sniff(head)
    if known is None:
        raise AudioError(f"{name}: not audio in a format that can be read ({reason})", name)
    fmt, label = known
    try:
        from vggish_pt.audio import pyav as decode_av

        return decode_av.open_file(file, fmt, promise)
    except MissingDependencyError:
        need = f'{label}, which needs PyAV: pip install "vggish_pt[av]"'
        if fmt in ("wav", "ogg", "caf", "mp3"):  # libsndfile's own formats: damage is likelier than an odd codec
            need = f"cannot be decoded ({reason}); it is damaged, or {need}"
        raise AudioError(f"{name}: {need}", name) from None
