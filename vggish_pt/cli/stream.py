"""``vggish-pt stream``: sound as it arrives, from standard input or a microphone, to JSON lines."""

from __future__ import annotations

import contextlib
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from vggish_pt.cli.json_lines import Write, score_writer, write_embeddings
from vggish_pt.cli.options import (
    LAYERS_HELP,
    WEIGHTS_HELP,
    Device,
    Postprocess,
    TrainedHop,
    TrainedPad,
    TrainedResampler,
)
from vggish_pt.errors import AudioError, AudioWarning, SettingsError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vggish_pt.inference.settings import EmbedSettings
    from vggish_pt.model import VGGish

T = TypeVar("T")

_NAME = "standard input"
_READ_BYTES = 1 << 16


def stream(
    sample_rate: Annotated[
        int | None,
        typer.Option(
            help="Of raw samples on standard input, which is taken for a WAV otherwise; of the microphone (left out: "
            "its own).",
            metavar="HERTZ",
        ),
    ] = None,
    channels: Annotated[
        int | None, typer.Option(help="Of raw samples or the microphone; left out: 1.", metavar="N", min=1)
    ] = None,
    encoding: Annotated[
        str | None,
        typer.Option(
            help="Of raw samples, as ffmpeg calls it: u8, s8, s16le, s24le, s32le, f32le, f64le, and with be for "
            "le; left out: s16le.",
            metavar="NAME",
        ),
    ] = None,
    microphone: Annotated[
        bool, typer.Option("--microphone", help="Listen to the default microphone (extra mic).")
    ] = False,
    classifier: Annotated[
        str | None,
        typer.Option(
            help="Write the scores of a classifier's labels, not embeddings: a run folder that 'vggish-pt train' "
            "made, or a Hub repository user/name.",
            metavar="RUN",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help=f"{WEIGHTS_HELP} Default: audioset.",
            metavar="NAME",
        ),
    ] = None,
    hop: TrainedHop = None,
    pad: TrainedPad = None,
    layer: Annotated[
        str | None,
        typer.Option(
            help=f"Layer of the network to write: {LAYERS_HELP}. Default: embedding.",
            metavar="LAYER",
        ),
    ] = None,
    postprocess: Postprocess = None,
    resampler: TrainedResampler = None,
    device: Device = "auto",
) -> None:
    """Embed sound as it arrives, a line of JSON for each window: its number, start and end in seconds, and embedding.

    With --classifier, the scores of its labels instead.

    Ends with the sound, with Ctrl-C or a kill (what has been read is still embedded; exit code 130 or 143), or when
    the reader of its output has gone (exit code 0).

    Example: ffmpeg -i URL -f wav - | vggish-pt stream
    """
    from vggish_pt.audio.pcm import check_encoding
    from vggish_pt.inference.devices import check_device_name
    from vggish_pt.inference.settings import EmbedSettings

    given = {"layer": layer, "postprocess": postprocess, "hop": hop, "pad": pad, "resampler": resampler}
    given = {name: value for name, value in given.items() if value is not None}
    settings = EmbedSettings(**given)  # type: ignore[arg-type]
    if classifier is not None:
        for name, value in (("weights", weights), ("layer", layer), ("postprocess", postprocess)):
            if value is not None:
                raise SettingsError(f"--{name} does not go with --classifier, whose run folder holds its own network")
    check_device_name(device)
    check_encoding(encoding or "s16le")
    if sample_rate is None and not microphone and (channels is not None or encoding is not None):
        raise SettingsError("raw samples need --sample-rate; a WAV says its own, so leave out the other two for it")
    if microphone and encoding is not None:
        raise SettingsError("--encoding is for raw samples on standard input, not for the microphone")
    if not microphone and os.isatty(0):
        raise SettingsError(
            "standard input is a terminal; pipe sound into it (ffmpeg -i FILE -f wav - | vggish-pt stream), or use "
            "--microphone"
        )
    if classifier is not None:
        model, settings, write = _load_classifier(classifier, device, given)
    else:
        model, write = _load_model(weights or "audioset", device), write_embeddings

    from vggish_pt.inference.stream import EmbeddingStream

    with _Signals() as signals, contextlib.ExitStack() as stack:
        if microphone:
            name, (rate, count, chunks) = "microphone", _listen(signals, stack, sample_rate, channels or 1)
        elif sample_rate is not None:
            name, rate, count = _NAME, sample_rate, channels or 1
            chunks = _raw(signals, count, encoding or "s16le")
        else:
            name, (rate, count, chunks) = _NAME, _wav(signals)
        sound = EmbeddingStream(model, rate, settings, channels=count, name=name)
        written = 0
        for chunk in chunks:
            written += write(sound.push(chunk), written)
        if sound.received == 0 and not signals.number:
            raise AudioError(f"{name}: no samples in it; the audio is empty", name)
        write(sound.flush(), written)
    if signals.number:
        raise typer.Exit(128 + signals.number)


def _load_model(weights: str, device: str) -> VGGish:
    from vggish_pt.pretrained import registry

    folder = registry.resolve(weights)

    from vggish_pt.inference.devices import choose_device
    from vggish_pt.model import VGGish

    return VGGish.from_pretrained(folder, device=choose_device(device))


def _load_classifier(run: str, device: str, given: dict[str, Any]) -> tuple[VGGish, EmbedSettings, Write]:
    """The network below, how it must embed, and what writes the scores."""
    from vggish_pt.classify import hub

    folder = hub.resolve(run)

    from vggish_pt.classify.evaluation.predict import load_classifier
    from vggish_pt.inference.devices import choose_device

    classifier = load_classifier(folder, device=choose_device(device))
    return classifier.backbone, classifier.embed_settings(**given), score_writer(classifier)


def _read() -> bytes:
    """What standard input has, as soon as it has anything; nothing at its end."""
    try:
        return os.read(0, _READ_BYTES)
    except OSError as error:
        raise AudioError(f"{_NAME}: cannot be read ({error.strerror or error})", _NAME) from error


def _raw(
    signals: _Signals, channels: int, encoding: str, length: int | None = None, data: bytes | None = b""
) -> Iterator[NDArray[Any]]:
    from vggish_pt.audio.pcm import Pcm

    pcm = Pcm(channels, encoding, length)
    while data is not None:
        yield pcm.push(data)
        data = signals.wait(_read) or None
    if not signals.number and (complaint := pcm.complaint()):
        warnings.warn(f"{_NAME}: {complaint}", AudioWarning, stacklevel=1)


def _wav(signals: _Signals) -> tuple[int, int, Iterator[NDArray[Any]]]:
    from vggish_pt.audio.pcm import read_wav_header
    from vggish_pt.audio.samples import check_format

    data = b""
    while (header := read_wav_header(data, _NAME)) is None:
        more = signals.wait(_read)
        if signals.number:
            raise typer.Exit(128 + signals.number)
        if not more:
            what = "ends within its header" if data else "no samples in it; the audio is empty"
            raise AudioError(f"{_NAME}: {what}", _NAME)
        data += more
    check_format(_NAME, header.sample_rate, header.channels)
    chunks = _raw(signals, header.channels, header.encoding, header.length, data[header.offset :])
    return header.sample_rate, header.channels, chunks


def _listen(
    signals: _Signals, stack: contextlib.ExitStack, sample_rate: int | None, channels: int
) -> tuple[int, int, Iterator[NDArray[Any]]]:
    from vggish_pt.audio.microphone import Microphone

    microphone = stack.enter_context(Microphone(sample_rate, channels))

    def chunks() -> Iterator[NDArray[Any]]:
        while (chunk := signals.wait(microphone.read)) is not None:
            yield chunk
        yield from microphone.rest()

    return microphone.sample_rate, channels, chunks()


class _Stop(Exception):
    pass


class _Signals:
    """Makes SIGINT and SIGTERM end the wait for sound, and nothing else; a second one ends everything.

    Attributes:
        number: the signal that came; 0 for none.
    """

    def __init__(self) -> None:
        self.number = 0
        self._waiting = False

    def wait(self, read: Callable[[], T]) -> T | None:
        """What ``read`` gives, or None once a signal has come."""
        try:
            self._waiting = True
            result = None if self.number else read()
            self._waiting = False
            return result
        except _Stop:
            return None

    def _came(self, number: int, _frame: FrameType | None) -> None:
        if self.number:
            raise SystemExit(128 + number)
        self.number = number
        if self._waiting:
            self._waiting = False
            raise _Stop

    def __enter__(self) -> _Signals:
        self._before = [(number, signal.signal(number, self._came)) for number in (signal.SIGINT, signal.SIGTERM)]
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before:
            signal.signal(number, handler)
