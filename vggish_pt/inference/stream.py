"""Streams: embeddings of audio that arrives in chunks of any size, each window as soon as it is complete.

The results equal those of :meth:`vggish_pt.VGGish.embed` for the whole recording. Positions are whole numbers of
samples, so that times stay exact over days. The state of a stream is small, bounded, and can be saved.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vggish_pt.audio.resample import Resampler, Waveform, make_resampler
from vggish_pt.audio.samples import LevelCheck, as_array, channels_first, check_format, mono, scaled, whole_rate
from vggish_pt.errors import SettingsError
from vggish_pt.inference.batching import Batch
from vggish_pt.inference.embeddings import Embeddings
from vggish_pt.inference.pipeline import check_model
from vggish_pt.inference.settings import EmbedSettings
from vggish_pt.inference.stream_state import State, StateReader
from vggish_pt.nn.streaming import StreamingLogMel
from vggish_pt.nn.windows import hop_frames, window_times

if TYPE_CHECKING:
    from vggish_pt.nn.extractor import Extractor

Chunk: TypeAlias = "NDArray[Any] | Tensor"
"""Samples: (T,) or (channels, T), T from 0; floating point in [-1, 1] or integer PCM."""

STATE_VERSION = 1

# Blocks per second for resamplers that need whole signals. A window is delayed by up to one block.
_BLOCKS_PER_SECOND = 50

# Samples that are converted at a time, so that a long chunk takes little memory.
_BLOCK = 1 << 16

_Accepted: TypeAlias = "tuple[int | None, list[Waveform]]"
"""Number of channels of a chunk, and the mean of its channels in blocks."""


class EmbeddingStream:
    """One stream of audio, made by :meth:`vggish_pt.VGGish.stream`.

    The stream is a context manager: leaving it without :meth:`flush` discards an incomplete window. Use a stream in one
    thread at a time; streams of different threads may share a model.

    Args:
        model: the model.
        sample_rate: hertz.
        settings: settings of the embedding.
        channels: number of channels; None for that of the first chunk.
        name: name of the stream in errors and results.
        state: :meth:`state` of the stream to resume.

    Attributes:
        model, sample_rate, settings, name: the arguments.
        channels: number of channels; None before the first chunk.
        received: samples per channel received so far.
    """

    def __init__(
        self,
        model: Extractor,
        sample_rate: float,
        settings: EmbedSettings,
        *,
        channels: int | None = None,
        name: str = "stream",
        state: State | None = None,
    ) -> None:
        self.model = model
        self.sample_rate = whole_rate(sample_rate)
        self.settings = settings
        self.channels = channels
        self.name = name
        self.received = 0
        if channels is not None and (isinstance(channels, bool) or not isinstance(channels, int)):
            raise SettingsError(f"channels must be a whole number, or None for the first chunk's, not {channels!r}")
        check_format(name, self.sample_rate, 1 if channels is None else channels)
        check_model(model, settings)
        block = max(1, self.sample_rate // _BLOCKS_PER_SECOND)
        self._resampler: Resampler = make_resampler(self.sample_rate, settings.resampler, block)
        self._examples = StreamingLogMel(model.frontend, settings.hop, settings.pad, model.device)
        self._level = LevelCheck(name, self.sample_rate)
        self._ended = False
        self._nothing: Tensor | None = None
        if state is not None:
            self._restore(state)

    def push(self, chunk: Chunk) -> Embeddings:
        """Add the next samples, and return the windows that they complete.

        Args:
            chunk: (T,) or (channels, T), T from 0: floating point in [-1, 1], int8, int16, int32, or uint8 centred
                on 128.

        Returns:
            Zero or more windows, with their times since the beginning of the stream. ``duration`` is the number of
            seconds received so far.

        Raises:
            AudioError: samples that are not finite; the message has their position. The stream has not changed.
            SettingsError: a chunk of another shape, type or number of channels, or the stream has ended.
        """
        return push_many([(self, chunk)])[0]

    def flush(self) -> Embeddings:
        """End the stream, and return its last windows.

        Returns:
            Zero or more windows: those that the resampler's remaining samples complete, and padded ones. With ``pad``
            "short", one window if the whole stream is shorter than a window; with "tail", windows until every sample
            is covered. A stream without samples has no window.

        Raises:
            SettingsError: the stream has ended already.
        """
        self._check_open()
        self._ended = True
        return _run([(self, self._end())])[0]

    def state(self) -> State:
        """Return the state needed to resume the stream later, also on another machine.

        Returns:
            Numbers, strings and NumPy arrays by name, 50 kB at most up to 48 kHz; ``numpy.savez(file, **state)``
            writes them and ``numpy.load`` reads them, without pickle. Weights, layer and postprocessing are not
            included.

        Raises:
            SettingsError: the stream has ended.
        """
        self._check_open()
        waveform, frames = self._examples.state()
        return {
            "version": STATE_VERSION,
            "sample_rate": self.sample_rate,
            "channels": self.channels or 0,
            "hop_frames": hop_frames(self.settings.hop),
            "pad": self.settings.pad,
            "resampler": self.settings.resampler,
            "received": self.received,
            "resampled": self._examples.samples,
            "recent": self._resampler.recent(),
            "waveform": waveform,
            "frames": frames,
        }

    def _restore(self, state: State) -> None:
        reader = StateReader(state)
        reader.expect("version", STATE_VERSION)
        reader.expect("sample_rate", self.sample_rate)
        reader.expect("hop_frames", hop_frames(self.settings.hop))
        reader.expect("pad", self.settings.pad)
        reader.expect("resampler", self.settings.resampler)
        channels = reader.integer("channels")
        if self.channels is not None and channels:
            reader.expect("channels", self.channels)
        elif channels:
            check_format(self.name, self.sample_rate, channels)
            self.channels = channels
        received, resampled = reader.integer("received"), reader.integer("resampled")
        self._examples.resume(resampled, reader.array("waveform", np.float64), reader.array("frames", np.float32, 2))
        self._resampler.resume(received, resampled, reader.array("recent", np.float64))
        self.received = received

    def __enter__(self) -> EmbeddingStream:
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended = True

    def __repr__(self) -> str:
        so_far = f"{self.received / self.sample_rate:.3f} s, {self._examples.windows} windows"
        return f"EmbeddingStream({self.name!r}, {self.sample_rate} Hz, {so_far})"

    def _no_values(self, batch: Batch) -> Tensor:
        if self._nothing is None:  # most chunks complete no window
            self._nothing = batch.empty()
        return self._nothing

    def _check_open(self) -> None:
        if self._ended:
            raise SettingsError(f"{self.name}: the stream has ended; start another one with model.stream(...)")

    def _accept(self, chunk: Chunk) -> _Accepted:
        """Check a chunk and convert it to blocks of one channel, without changing the stream."""
        self._check_open()
        array = as_array(chunk)
        if array is None:
            raise SettingsError(f"{self.name}: a chunk is an array or a tensor, not {type(chunk).__name__}")
        array = channels_first(array, self.name, trusted=self.channels is not None)
        if array.size == 0:
            return self.channels, []
        if self.channels is not None and len(array) != self.channels:
            raise SettingsError(f"{self.name}: a chunk of {len(array)} channels in a stream of {self.channels}")
        check_format(self.name, self.sample_rate, len(array))
        blocks = []
        for start in range(0, array.shape[1], _BLOCK):
            block = scaled(array[:, start : start + _BLOCK])
            self._level.check(block, self.received + start)
            blocks.append(mono(block))
        return len(array), blocks

    def _advance(self, accepted: _Accepted) -> Iterator[Tensor]:
        """Process a chunk that was accepted; yield log-mel windows, (n, 96, 64) float32."""
        self.channels, blocks = accepted
        for block in blocks:
            self.received += len(block)
            yield self._examples.push(self._resampler.push(block))

    def _end(self) -> Iterator[Tensor]:
        rest = self._resampler.flush()
        if self.received and self._examples.samples + len(rest) == 0:
            rest = np.zeros(1)  # a few samples at a high rate give none at 16 kHz, but are not empty
        yield self._examples.push(rest)
        yield self._examples.flush()


class _Gathered:
    """Receiver of the windows that a stream completes in one call."""

    def __init__(self, stream: EmbeddingStream, batch: Batch) -> None:
        self.pending = 0
        self._stream = stream
        self._batch = batch
        self._first = stream._examples.windows
        self._values: list[Tensor] = []

    def take(self, values: Tensor) -> None:
        self.pending -= len(values)
        self._values.append(values)

    def result(self) -> Embeddings:
        stream = self._stream
        values = torch.cat(self._values) if self._values else stream._no_values(self._batch)
        start, end = window_times(self._first, len(values), stream.settings.hop)
        seconds = stream.received / stream.sample_rate
        return Embeddings(values, torch.from_numpy(start), torch.from_numpy(end), stream.name, seconds)


def push_many(chunks: Iterable[tuple[EmbeddingStream, Chunk]]) -> list[Embeddings]:
    """Push chunks into many streams of one model; the windows that they complete share batches.

    Args:
        chunks: pairs of a stream and its chunk, each stream at most once; see :meth:`EmbeddingStream.push`. Streams may
            have different settings; those with the same layer, postprocessing and batch size share batches.

    Returns:
        The result of ``stream.push(chunk)`` for each pair, in order, up to the rounding of another batch size.

    Raises:
        AudioError: samples in a chunk that are not finite. No stream has changed.
        SettingsError: a stream given twice, of another model, or ended, or a chunk that does not fit its stream.
    """
    pairs = list(chunks)
    if len({id(stream) for stream, _ in pairs}) != len(pairs):
        raise SettingsError("push_many takes each stream once; join its chunks first")
    if any(stream.model is not pairs[0][0].model for stream, _ in pairs):
        raise SettingsError("push_many takes streams of one model; call it once for each model")
    accepted = [stream._accept(chunk) for stream, chunk in pairs]
    return _run([(stream, stream._advance(taken)) for (stream, _), taken in zip(pairs, accepted, strict=True)])


def _run(work: Sequence[tuple[EmbeddingStream, Iterator[Tensor]]]) -> list[Embeddings]:
    batches: dict[tuple[object, ...], Batch] = {}
    gathered = []
    for stream, windows in work:
        settings = stream.settings
        key = (settings.layer, settings.postprocess, settings.batch_size)
        batch = batches.setdefault(key, Batch(stream.model, settings))
        receiver = _Gathered(stream, batch)
        gathered.append(receiver)
        for examples in windows:
            batch.add(receiver, examples)
    for batch in batches.values():
        batch.run_all()
    return [receiver.result() for receiver in gathered]
