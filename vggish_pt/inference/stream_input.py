"""Streams from inputs that deliver audio as it arrives: a file object, such as a pipe, or the microphone."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

from vggish_pt.audio.clip import source_name
from vggish_pt.audio.pcm import Pcm, WavHeader, read_wav_header
from vggish_pt.errors import AudioError, AudioWarning
from vggish_pt.inference.embeddings import Embeddings
from vggish_pt.inference.settings import EmbedSettings
from vggish_pt.inference.stream import EmbeddingStream
from vggish_pt.utils.text import error_reason

if TYPE_CHECKING:
    from vggish_pt.nn.extractor import Extractor

Wait: TypeAlias = "Callable[[Callable[[], Any]], Any]"
"""Calls a function that blocks until audio arrives, and returns its result; or None to end the stream."""

_READ_BYTES = 1 << 16


def _wait(read: Callable[[], Any]) -> Any:
    return read()


def stream_file(
    model: Extractor,
    file: BinaryIO,
    settings: EmbedSettings | None = None,
    *,
    sample_rate: int | None = None,
    channels: int = 1,
    encoding: str = "s16le",
    name: str | None = None,
    wait: Wait = _wait,
) -> Generator[Embeddings]:
    """Embed audio from a file object as it arrives. The file object need not be seekable, and is not closed.

    Args:
        model: the model.
        file: a WAV, whose header need not give its length; or raw samples, if ``sample_rate`` is given.
        settings: settings of the embedding; None for the defaults.
        sample_rate: hertz, of raw samples; None for a WAV.
        channels: number of interleaved channels of raw samples.
        encoding: format of raw samples by FFmpeg's name: "u8", "s8", or "s16", "s24", "s32", "f32" or "f64" with "le"
            or "be".
        name: name in errors and results; None for the file object's own name.
        wait: interrupts the stream: it is called with each blocking read and returns its result, or None to end the
            stream. An incomplete end is then not reported.

    Yields:
        Windows as soon as they are complete, one or more at a time, with their times since the beginning; at the end,
        windows that ``settings.pad`` completes.

    Raises:
        AudioError: the file cannot be read, is not a WAV, is empty, or has samples that are not finite.
        SettingsError: an unknown encoding.
    """
    reader = _Reader(file, name, wait)
    header, data = None, b""
    if sample_rate is None:
        header, data = reader.header()
        if header is None:
            return
        sample_rate, channels, encoding = header.sample_rate, header.channels, header.encoding
    pcm = Pcm(channels, encoding, None if header is None else header.length)
    stream = EmbeddingStream(model, sample_rate, settings or EmbedSettings(), channels=channels, name=reader.name)
    yield from _nonempty(stream.push(pcm.push(data)))
    while data := reader.read():
        yield from _nonempty(stream.push(pcm.push(data)))
    if not reader.interrupted:
        if problem := pcm.end_problem():
            warnings.warn(f"{reader.name}: {problem}", AudioWarning, stacklevel=1)
        if stream.received == 0:
            raise AudioError(f"{reader.name}: no samples in it; the audio is empty", reader.name)
    yield from _nonempty(stream.flush())


def stream_microphone(
    model: Extractor,
    settings: EmbedSettings | None = None,
    *,
    sample_rate: int | None = None,
    channels: int = 1,
    wait: Wait = _wait,
) -> Generator[Embeddings]:
    """Embed audio from the default microphone until the generator is closed.

    Args:
        model: the model.
        settings: settings of the embedding; None for the defaults.
        sample_rate: hertz; None for the device's own rate.
        channels: number of channels to record.
        wait: interrupts the stream, see :func:`stream_file`. Audio recorded until then is still embedded.

    Yields:
        Windows as soon as they are complete; see :func:`stream_file`.

    Raises:
        AudioError: the microphone cannot be opened, or embedding is slower than the recording.
        MissingDependencyError: the extra ``mic`` is not installed.
    """
    from vggish_pt.audio.microphone import Microphone

    with Microphone(sample_rate, channels) as microphone:
        rate, settings = microphone.sample_rate, settings or EmbedSettings()
        stream = EmbeddingStream(model, rate, settings, channels=channels, name="microphone")
        while (chunk := wait(microphone.read)) is not None:
            yield from _nonempty(stream.push(chunk))
        for chunk in microphone.rest():
            yield from _nonempty(stream.push(chunk))
        yield from _nonempty(stream.flush())


def _nonempty(result: Embeddings) -> Generator[Embeddings]:
    if len(result):
        yield result


class _Reader:
    """Reads a file object block by block.

    Attributes:
        name: name of the file object in errors.
        interrupted: True if ``wait`` ended the stream.
    """

    def __init__(self, file: BinaryIO, name: str | None, wait: Wait) -> None:
        self.name = name or source_name(file)
        self.interrupted = False
        self._read_some = getattr(file, "read1", file.read)  # read1 returns as soon as there is anything
        self._wait = wait

    def read(self) -> bytes:
        """Return the next bytes, or none at the end of the file or of the stream."""
        try:
            data: bytes | None = self._wait(lambda: self._read_some(_READ_BYTES))
        except OSError as error:
            raise AudioError(f"{self.name}: cannot be read ({error_reason(error)})", self.name) from error
        self.interrupted = self.interrupted or data is None
        return data or b""

    def header(self) -> tuple[WavHeader | None, bytes]:
        """Return the header of a WAV, or None if the stream was interrupted, and the bytes after the header."""
        data = b""
        while (header := read_wav_header(data, self.name)) is None:
            more = self.read()
            if self.interrupted:
                return None, b""
            if not more:
                reason = "ends within its header" if data else "no samples in it; the audio is empty"
                raise AudioError(f"{self.name}: {reason}", self.name)
            data += more
        return header, data[header.offset :]
