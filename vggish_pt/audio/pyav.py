"""Audio streams through PyAV, which carries its own FFmpeg: what libsndfile cannot read, such as M4A and WebM."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO

from vggish_pt.audio.decoder import Decoder, Samples, UnreadableError
from vggish_pt.audio.structure import Loss, Stream
from vggish_pt.audio.view import View, buffered
from vggish_pt.errors import AudioError
from vggish_pt.utils.optional import require

_MICROSECONDS = 1_000_000  # FFmpeg's unit of a container's duration
# Formats without a header that counts: FFmpeg guesses their duration from the bit rate.
_GUESSED = frozenset(("aac", "ac3", "eac3", "amr", "dts", "mp3", "mpegts", "mpeg", "flv"))
# Formats whose time stamps go on through a loss, and that have no structure of their own here.
_TIMED = frozenset(("mpegts", "mpeg", "flv", "asf", "avi"))
_GAP_SECONDS = 0.1  # in those
_SMALL_GAP_SECONDS = 0.012  # where the structure is damaged: Matroska's times are rounded to a millisecond
# Encoders' delay and padding, which containers count and decoders cut off, or the other way round.
_SLACK_SECONDS = 0.12
_MAX_UNREAD_BYTES = 1 << 16
_MAX_FAILURES = 1000  # in a row


def open_stream(file: BinaryIO, stream: Stream, name: str, fmt: str, track: int = 0) -> Decoder[Samples | Loss]:
    """Open the audio of a stream.

    Args:
        file: the file, seekable.
        stream: what of it to decode.
        name: name of the file in errors.
        fmt: FFmpeg's name of the format.
        track: number of the audio track, from 0.

    Raises:
        AudioError: without audio, or without such a track.
        UnreadableError: damaged, or of an unknown codec.
        MissingDependencyError: PyAV is not installed.
    """
    av = require("av", f"{name}: this format")
    av.logging.set_level(av.logging.PANIC)  # FFmpeg would print its own lines between ours
    view = View(file, stream.parts)
    try:
        container = av.open(buffered(view), mode="r", format=fmt, metadata_errors="ignore")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise UnreadableError(_reason(error)) from None
    try:
        sound = _choose(container, name, track)
    except BaseException:
        container.close()
        raise
    duration = sound.duration * sound.time_base if sound.duration else (container.duration or 0) / _MICROSECONDS
    frames = round(duration * sound.rate) if duration and duration > 0 else None
    reader = _Reader(av, container, sound, name, stream, view)
    return Decoder(
        int(sound.rate),
        int(sound.channels),
        frames if frames and fmt not in _GUESSED else None,
        container.format.name,
        sound.codec_context.name,
        reader.blocks(),
        container.close,
        slack=round(_SLACK_SECONDS * sound.rate) if sound.duration else frames or 0,
    )


def _choose(container: Any, name: str, track: int) -> Any:
    tracks = container.streams.audio
    if not tracks:
        raise AudioError(f"{name}: contains no audio", name)
    if track >= len(tracks):
        raise AudioError(f"{name}: has no audio track {track}; its tracks are 0 to {len(tracks) - 1}", name)
    sound = tracks[track]
    if sound.codec_context is None:
        raise UnreadableError("its codec is unknown")
    if not sound.rate or not sound.channels:
        raise UnreadableError("its audio stream has no sample rate or no channels")
    return sound


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


@dataclass
class _Reader:
    av: Any
    container: Any
    sound: Any
    name: str
    stream: Stream
    view: View

    def __post_init__(self) -> None:
        self.rate, self.channels = int(self.sound.rate), int(self.sound.channels)
        self.decoded = 0
        self.lost = 0.0  # seconds
        self.origin: float | None = None  # time of the first frame
        self.failure: str | None = None
        fmt = self.container.format.name.split(",")[0]
        self.gap = _SMALL_GAP_SECONDS if self.stream.gaps else _GAP_SECONDS if fmt in _TIMED else None
        self.raw = fmt in _GUESSED and fmt not in _TIMED

    def blocks(self) -> Iterator[Samples | Loss]:
        """Iterate over the samples, with a :class:`Loss` where some are missing."""
        # Interleaved: of planes, PyAV reads beyond the eighth from where there are none.
        convert = self.av.AudioResampler(format="dbl", layout=self.sound.layout, rate=self.rate)
        for frame in self._frames():
            if frame is not None:
                loss = self._missing_before(frame)
                if loss is not None:
                    yield loss
            try:
                frames = convert.resample(frame)  # None drains it
            except (self.av.error.FFmpegError, OSError, ValueError) as error:
                self.failure = self.failure or _reason(error)
                continue
            for part in frames:
                if part.layout.nb_channels != self.channels:
                    message = f"{self.name}: the number of channels changes at {self._now():.3f} s"
                    raise AudioError(message, self.name)
                block = part.to_ndarray().reshape(-1, self.channels)
                self.decoded += len(block)
                yield block
        if self.failure is not None:
            yield self._loss(None, self.failure)
        elif self.raw and (unread := self._unread()) > _MAX_UNREAD_BYTES:
            yield self._loss(None, f"{unread} bytes are not decoded")

    def _now(self) -> float:
        return self.decoded / self.rate + self.lost

    def _unread(self) -> int:
        return self.view.seek(0, 2) - self.view.furthest

    def _loss(self, end: float | None, reason: str) -> Loss:
        begin = self._now()
        if end is not None:
            self.lost += end - begin
        return Loss(self.decoded / self.rate, begin, end, reason)

    def _missing_before(self, frame: Any) -> Loss | None:
        """Return what is missing before a frame, after an error or by the time stamps."""
        time = None if frame.pts is None else float(frame.pts * frame.time_base)
        if self.origin is None and time is not None:
            self.origin = time - self._now()
        step = 0.0 if time is None or self.origin is None else time - self.origin - self._now()
        failure, self.failure = self.failure, None
        if failure is not None:
            length = step if step > 0 else frame.samples / self.rate
            return self._loss(self._now() + length, failure)
        if self.gap is not None and step > self.gap:
            return self._loss(self._now() + step, "audio is missing there")
        return None

    def _frames(self) -> Iterator[Any]:
        """Iterate over decoded frames, and None at the end; packets that cannot be decoded are skipped."""
        packets = self.container.demux(self.sound)
        failures = 0
        while failures < _MAX_FAILURES:
            try:
                packet = next(packets, None)
            except (self.av.error.FFmpegError, OSError, ValueError) as error:
                self.failure = self.failure or _reason(error)
                failures += 1
                packets = self.container.demux(self.sound)  # a generator that has raised is over
                if isinstance(error, self.av.error.EOFError):
                    break
                continue
            if packet is None:
                break
            try:
                frames = packet.decode()
            except (self.av.error.FFmpegError, OSError, ValueError) as error:
                if not isinstance(error, self.av.error.EOFError):
                    self.failure = self.failure or _reason(error)
                    failures += 1
                continue
            if frames:
                failures = 0
            yield from frames
        with suppress(self.av.error.FFmpegError):
            yield None
