"""Audio streams through libsndfile."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from vggish_pt.audio.decoder import BLOCK_VALUES, MIN_BLOCK_FRAMES, Decoder, Samples, UnreadableError
from vggish_pt.audio.structure import Loss, Stream
from vggish_pt.audio.view import QuietView, buffered
from vggish_pt.errors import AudioError

_UNKNOWN_FRAMES = 1 << 60  # libsndfile gives 2**63 - 1 where a FLAC's header leaves the length open
# MP3 decoders differ by a frame or two in how they treat the encoder's delay.
_MPEG_SLACK = 2 * 1152

# Where libsndfile finds a sample without decoding all before it, and decodes from there on just as from the start.
_PLAIN = frozenset(("PCM_U8", "PCM_S8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"))
_SEEKABLE = dict.fromkeys(("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC"), _PLAIN)


def open_stream(
    file: BinaryIO, stream: Stream, path: Path | None, name: str, *, known: bool
) -> Decoder[Samples | Loss]:
    """Open a stream.

    Args:
        file: the file, seekable.
        stream: what of it to decode.
        path: path of the file, if it has one.
        name: name of the file in errors.
        known: True if its content is of a known kind. Otherwise libsndfile must not see the path: it would take the
            bytes of any file called .gsm or .vox for audio.

    Raises:
        UnreadableError: libsndfile cannot read it.
        OSError: the file cannot be read.
    """
    import soundfile

    class Sequential(soundfile.SoundFile):  # type: ignore[misc]
        """File that never seeks: soundfile seeks to its position after each read, which breaks MP3 decoders."""

        def seekable(self) -> bool:
            return False

    view = QuietView(file, stream.parts)
    if stream.padded:
        view.padded_length = 64 * file.seek(0, os.SEEK_END)
    source: Any = buffered(view)
    # libsndfile's own reading is faster than calling back, but of a name that ends in .raw soundfile asks the format.
    plain = known and view.plain and not stream.padded
    if path is not None and os.name == "posix" and plain and path.suffix.lower() != ".raw":
        source = os.fsencode(path)
    try:
        opened = Sequential(source)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        if view.error is not None:
            raise view.error from None
        raise UnreadableError(str(getattr(error, "error_string", error)).rstrip(".")) from None
    counted = not stream.padded and 0 <= opened.frames < _UNKNOWN_FRAMES
    if stream.padded:
        view.padded_length = None
        position = source.tell()
        source.seek(0, os.SEEK_END)  # empties the buffer, which may hold some of the padding
        source.seek(position)
    frames = opened.frames if counted else None
    exact = frames is not None and opened.subtype in _SEEKABLE.get(opened.format, ())
    return Decoder(
        opened.samplerate,
        opened.channels,
        frames,
        opened.format,
        opened.subtype,
        _read(opened, view, name, seekable=exact),
        opened.close,
        partial(_seek, opened, view, name) if exact else None,
        _MPEG_SLACK if opened.subtype.startswith("MPEG") else 0,
    )


def _seek(opened: Any, view: QuietView, name: str, frame: int) -> None:
    import soundfile

    try:
        opened.seek(frame)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        reason = view.error or getattr(error, "error_string", str(error)).rstrip(".")
        message = f"{name}: damaged or truncated: nothing is found at {frame / opened.samplerate:.3f} s ({reason})"
        raise AudioError(message, name) from None


def _read(opened: Any, view: QuietView, name: str, *, seekable: bool) -> Iterator[Samples | Loss]:
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
            if len(block):
                yield block
            seconds = (decoded + len(block)) / opened.samplerate
            yield Loss(
                seconds, seconds, None, getattr(error, "error_string", str(error)).rstrip(".").removeprefix("Error : ")
            )
            return
        if len(block) == 0 or view.error is not None:
            break
        decoded += len(block)
        yield block
    if view.error is not None:
        raise AudioError(f"{name}: cannot be read ({view.error})", name)
