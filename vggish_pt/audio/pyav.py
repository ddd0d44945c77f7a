"""What libsndfile can't read (M4A, Opus in WebM, the sound of a video), through PyAV, which carries its own FFmpeg."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from vggish_pt.audio.decoder import DeclaredLength, Decoder
from vggish_pt.errors import AudioError
from vggish_pt.utils.optional import require

_MICROSECONDS = 1_000_000  # FFmpeg's unit of a container's duration


def open_file(file: BinaryIO, fmt: str, promise: DeclaredLength) -> Decoder:
    """Opens the first audio stream of a file.

    Args:
        file: the file, seekable, at its start; closed by the decoder's ``close``.
        fmt: FFmpeg's name of the format.
        promise: how to call it in errors, and whether a damaged one is used as far as it goes.

    Raises:
        AudioError: damaged, or without sound.
        MissingDependencyError: PyAV is not installed.
    """
    name = promise.name
    av = require("av", f"{name}: this format")
    av.logging.set_level(av.logging.PANIC)  # FFmpeg would print its own lines between ours
    try:
        container = av.open(file, mode="r", format=fmt, metadata_errors="ignore")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise AudioError(f"{name}: cannot be decoded ({_reason(error)}); the file is damaged", name) from None
    if not container.streams.audio:
        container.close()
        raise AudioError(f"{name}: has no sound in it", name)
    stream = container.streams.audio[0]
    if stream.codec_context is None:
        container.close()
        raise AudioError(f"{name}: cannot be decoded: its codec is unknown; it is damaged or unusual", name)
    if not stream.rate or not stream.channels:
        container.close()
        raise AudioError(f"{name}: its audio stream has no sample rate or no channels; the file is damaged", name)
    frames = round(container.duration / _MICROSECONDS * stream.rate) if container.duration else None

    def close() -> None:
        container.close()
        file.close()

    blocks = _read(av, container, stream, promise)
    return Decoder(
        int(stream.rate),
        int(stream.channels),
        frames,
        container.format.name,
        stream.codec_context.name,
        blocks,
        close,
    )


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def _read(av: Any, container: Any, stream: Any, promise: DeclaredLength) -> Iterator[NDArray[np.float64]]:
    rate, channels = int(stream.rate), int(stream.channels)
    # Interleaved: of planes, PyAV reads beyond the eighth from where there are none.
    convert = av.AudioResampler(format="dbl", layout=stream.layout, rate=rate)
    decoded = 0
    frames = container.decode(stream)
    while True:
        try:
            frame = next(frames, None)
            pieces = convert.resample(frame)  # None drains it
        except (av.error.FFmpegError, OSError, ValueError) as error:
            promise.damaged(decoded, rate, _reason(error))
            return
        for piece in pieces:
            if piece.layout.nb_channels != channels:
                raise AudioError(
                    f"{promise.name}: the number of channels changes at {decoded / rate:.3f} s", promise.name
                )
            block = piece.to_ndarray().reshape(-1, channels)
            decoded += len(block)
            yield block
        if frame is None:
            return
