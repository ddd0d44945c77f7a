"""Audio files: their streams are decoded one after the other, until the whole file is read or reported as missing.

A decoder yields every sample that the file holds, or raises an error that says which are missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from vggish_pt.audio import pyav, sndfile
from vggish_pt.audio.accounting import Accounting
from vggish_pt.audio.decoder import Decoder, Samples, UnreadableError
from vggish_pt.audio.kinds import find_structure
from vggish_pt.audio.structure import SNDFILE, Loss, Stream, Structure
from vggish_pt.audio.view import Scanner, from_start
from vggish_pt.errors import AudioError, MissingDependencyError


@dataclass(frozen=True)
class _Source:
    """Audio file, with a method that opens its streams."""

    file: BinaryIO
    path: Path | None
    name: str
    known: bool
    track: int

    def open(self, stream: Stream) -> Decoder[Samples | Loss]:
        """Open a stream with the library that can read it.

        Raises:
            AudioError: no library does, or PyAV is missing.
        """
        reason = ""
        fmt: str | None = stream.reader
        if stream.reader == SNDFILE:
            try:
                return sndfile.open_stream(self.file, stream, self.path, self.name, known=self.known)
            except UnreadableError as error:
                reason, fmt = str(error), stream.fallback
        if fmt is None:
            what = "cannot be decoded" if self.known else "not audio in a format that can be read"
            raise AudioError(f"{self.name}: {what} ({reason})" + ("; it is damaged" if self.known else ""), self.name)
        try:
            return pyav.open_stream(self.file, stream, self.name, fmt, self.track)
        except UnreadableError as error:
            text = f"{self.name}: cannot be decoded ({error}); the file is damaged or its codec unusual"
            raise AudioError(text, self.name) from None
        except MissingDependencyError:
            need = f"{stream.label}, which needs PyAV: pip install av"
            if reason:  # a format of libsndfile: damage is likelier than an odd codec
                need = f"cannot be decoded ({reason}); it is damaged, or {need}"
            raise AudioError(f"{self.name}: {need}", self.name) from None


def open_file(
    file: BinaryIO,
    path: Path | None,
    name: str,
    *,
    allow_truncated: bool = False,
    track: int = 0,
    seconds: float | None = None,
) -> Decoder[Samples]:
    """Open an audio file.

    Args:
        file: the file, seekable, at its start; closed by the decoder's ``close``.
        path: path of the file, if it has one.
        name: name of the file in errors.
        allow_truncated: True decodes the readable part of a truncated or damaged file, with a warning.
        track: number of the audio track of a video, from 0.
        seconds: duration that the caller reads at most, from the start; None for the whole file.

    Raises:
        AudioError: empty, not audio, damaged from its start, or in a format that needs PyAV where that is missing.
            Sound that is missing further on is an error when that place is reached.
    """
    with from_start(file) as size:
        if not size:
            raise AudioError(f"{name}: the file is empty (0 bytes)", name)
        # The readable part of a damaged file may lie anywhere in it.
        structure = find_structure(Scanner(file), None if allow_truncated else seconds)
    known = structure is not None
    structure = structure or Structure([Stream([(0, size)], SNDFILE, "audio")])
    source = _Source(file, path, name, known, track)
    accounting = Accounting(name, allow_truncated)
    return _Chain(source, structure, accounting).decoder()


class _Chain:
    """Decoder of the streams of a file, one after the other, as one recording."""

    def __init__(self, source: _Source, structure: Structure, accounting: Accounting) -> None:
        self._source = source
        self._structure = structure
        self._accounting = accounting
        self._first_sample = 0
        self._open: Decoder[Samples | Loss] | None = None

    def decoder(self) -> Decoder[Samples]:
        """Open the first stream, and return all of them as one decoder."""
        streams = list(self._structure.streams)
        while True:
            try:
                first = self._open = self._source.open(streams[0])
                break
            except AudioError:
                lost = [loss for loss in streams[0].losses if loss.start == 0]
                if lost:
                    self._accounting.report(lost[0])  # a clearer message, if that is an error
                    self._accounting.settle()
                raise
        alone = len(streams) == 1 and not streams[0].losses
        return Decoder(
            first.sample_rate,
            first.channels,
            first.frames if alone else None,
            first.container,
            first.encoding,
            self._blocks(first, streams),
            self._close,
            self._seek if alone and first.seek is not None else None,
        )

    def _seek(self, frame: int) -> None:
        assert self._open is not None and self._open.seek is not None
        self._open.seek(frame)
        self._first_sample = frame

    def _close(self) -> None:
        if self._open is not None:
            self._open.close()
        self._source.file.close()

    def _blocks(self, first: Decoder[Samples | Loss], streams: list[Stream]) -> Iterator[Samples]:
        accounting = self._accounting
        for index, stream in enumerate(streams):
            if index:
                try:
                    self._open = self._source.open(stream)
                except AudioError as error:
                    accounting.report(Loss(0.0, 0.0, stream.seconds, str(error).partition(": ")[2]))
                    accounting.elapsed += stream.seconds or 0.0
                    continue
            assert self._open is not None
            convert = _Converter(self._open, first)
            decoder = replace(self._open, blocks=self._resuming(stream, self._open, self._first_sample))
            for block in accounting.blocks(stream, decoder, self._first_sample):
                yield from convert.push(block)
            yield from convert.flush()
            self._first_sample = 0
            self._open.close()
        accounting.settle()
        if self._structure.unknown:
            accounting.report_unknown(self._structure.unknown)

    def _resuming(self, stream: Stream, decoder: Decoder[Samples | Loss], decoded: int) -> Iterator[Samples | Loss]:
        """Iterate over the blocks of a stream. If decoding fails, open the stream again after the damage."""
        lost = base = 0  # samples that are missing, and those before the part that is decoded now
        resume = stream.resume
        while True:
            failure, before, passed = None, decoded, lost
            for block in decoder.blocks:
                if isinstance(block, Loss) and block.end is None and resume is not None:
                    failure = block
                    break
                if isinstance(block, Loss):
                    loss = block.later(before / decoder.sample_rate, passed / decoder.sample_rate)
                    yield _until_end(loss, stream)
                else:
                    decoded += len(block)
                    yield block
            if failure is None or resume is None:
                return
            rest = resume(decoded + lost - base + (1 if decoded == before else 0))
            seconds = (decoded + lost) / decoder.sample_rate
            if rest is None:
                loss = replace(failure, after=decoded / decoder.sample_rate, start=seconds)
                yield _until_end(loss, stream)
                return
            self._structure.unknown += rest[0].unknown
            if not rest[0].parts:
                return
            base += rest[1]
            skipped = base - decoded - lost
            if skipped > 0:
                end = seconds + skipped / decoder.sample_rate
                yield Loss(decoded / decoder.sample_rate, seconds, end, failure.reason)
                lost += skipped
            resume = rest[0].resume
            decoder.close()
            decoder = self._open = self._source.open(replace(rest[0], losses=[]))


def _until_end(loss: Loss, stream: Stream) -> Loss:
    """Return the loss of the rest of a stream, with the time at which the stream ends."""
    if loss.end is None and stream.seconds is not None and stream.seconds > loss.start:
        return replace(loss, end=stream.seconds)
    return loss


class _Converter:
    """Converter of a stream to the sample rate and the channels of the first stream."""

    def __init__(self, decoder: Decoder[Samples | Loss], first: Decoder[Samples | Loss]) -> None:
        self._channels = first.channels
        self._resampler = None
        if decoder.sample_rate != first.sample_rate:
            import soxr

            self._resampler = soxr.ResampleStream(
                decoder.sample_rate, first.sample_rate, first.channels, dtype="float64", quality="HQ"
            )

    def push(self, block: Samples) -> Iterator[Samples]:
        """Convert a block. If the number of channels differs, they are averaged, as embedding averages them anyway."""
        if block.shape[1] != self._channels:
            block = np.repeat(block.mean(axis=1, keepdims=True), self._channels, axis=1)
        if self._resampler is not None:
            block = self._resampler.resample_chunk(block)
        if len(block):
            yield block

    def flush(self) -> Iterator[Samples]:
        """Return the remaining samples at the end of the stream."""
        if self._resampler is not None:
            rest = self._resampler.resample_chunk(np.zeros((0, self._channels)), last=True)
            if len(rest):
                yield rest
