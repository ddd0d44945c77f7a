"""``vggish-pt stream``: embed audio from standard input or a microphone as it arrives, as lines of JSON."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, TypeVar, cast

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
from vggish_pt.errors import SettingsError

if TYPE_CHECKING:
    from vggish_pt.inference.settings import EmbedSettings
    from vggish_pt.model import VGGish

T = TypeVar("T")


def stream(
    sample_rate: Annotated[
        int | None,
        typer.Option(
            help="Rate of raw samples on standard input, or of the microphone. Default: standard input is a WAV; the "
            "microphone's own rate.",
            metavar="HERTZ",
        ),
    ] = None,
    channels: Annotated[
        int | None, typer.Option(help="Channels of raw samples or of the microphone. Default: 1.", metavar="N", min=1)
    ] = None,
    encoding: Annotated[
        str | None,
        typer.Option(
            help="Format of raw samples by ffmpeg's name: u8, s8, s16le, s24le, s32le, f32le, f64le, or with be for "
            "le. Default: s16le.",
            metavar="NAME",
        ),
    ] = None,
    microphone: Annotated[
        bool, typer.Option("--microphone", help="Record from the default microphone (extra mic).")
    ] = False,
    classifier: Annotated[
        str | None,
        typer.Option(
            help="Write the scores of a classifier's labels instead of embeddings: a run folder of 'vggish-pt train', "
            "or a Hub repository user/name.",
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
    """Embed audio as it arrives, one line of JSON for each window: its number, start and end in seconds, and embedding.

    With --classifier, a line has the scores of the classifier's labels instead of the embedding.

    The command ends at the end of the audio, on Ctrl-C or SIGTERM (audio that has been read is still embedded; exit
    code 130 or 143), or when the reader of its output exits (exit code 0).

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
        raise SettingsError(
            "raw samples need --sample-rate; a WAV has its format in its header, so leave out --channels and --encoding"
        )
    if microphone and encoding is not None:
        raise SettingsError("--encoding is for raw samples on standard input, not for the microphone")
    if not microphone and os.isatty(0):
        raise SettingsError(
            "standard input is a terminal; pipe audio into it (ffmpeg -i FILE -f wav - | vggish-pt stream), or use "
            "--microphone"
        )
    if classifier is not None:
        model, settings, write = _load_classifier(classifier, device, given)
    else:
        model, write = _load_model(weights or "audioset", device), write_embeddings

    from vggish_pt.inference.stream_input import stream_file, stream_microphone

    with _Signals() as signals:
        if microphone:
            results = stream_microphone(
                model, settings, sample_rate=sample_rate, channels=channels or 1, wait=signals.wait
            )
        else:
            results = stream_file(
                model,
                cast("BinaryIO", _StandardInput()),
                settings,
                sample_rate=sample_rate,
                channels=channels or 1,
                encoding=encoding or "s16le",
                name="standard input",
                wait=signals.wait,
            )
        written = 0
        with contextlib.closing(results):
            for result in results:
                written += write(result, written)
    if signals.number:
        raise typer.Exit(128 + signals.number)


def _load_model(weights: str, device: str) -> VGGish:
    from vggish_pt.pretrained import registry

    folder = registry.resolve(weights)

    from vggish_pt.inference.devices import choose_device
    from vggish_pt.model import VGGish

    return VGGish.from_pretrained(folder, device=choose_device(device))


def _load_classifier(run: str, device: str, given: dict[str, Any]) -> tuple[VGGish, EmbedSettings, Write]:
    """Return the classifier's network, its settings, and the function that writes scores."""
    from vggish_pt.classify import hub

    folder = hub.resolve(run)

    from vggish_pt.classify.evaluation.predict import load_classifier
    from vggish_pt.inference.devices import choose_device

    classifier = load_classifier(folder, device=choose_device(device))
    return classifier.backbone, classifier.embed_settings(**given), score_writer(classifier)


class _StandardInput:
    """Standard input without Python's buffer: a read returns as soon as there is anything."""

    def read(self, size: int) -> bytes:
        return os.read(0, size)


class _Stop(Exception):
    pass


class _Signals:
    """Handler of SIGINT and SIGTERM: the first signal ends only the wait for audio, a second one ends the process.

    Attributes:
        number: number of the first signal; 0 if there was none.
    """

    def __init__(self) -> None:
        self.number = 0
        self._waiting = False

    def wait(self, read: Callable[[], T]) -> T | None:
        """Return the result of ``read``, or None once a signal has arrived."""
        try:
            self._waiting = True
            result = None if self.number else read()
            self._waiting = False
            return result
        except _Stop:
            return None

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.number:
            raise SystemExit(128 + number)
        self.number = number
        if self._waiting:
            self._waiting = False
            raise _Stop

    def __enter__(self) -> _Signals:
        self._before = [(number, signal.signal(number, self._handle)) for number in (signal.SIGINT, signal.SIGTERM)]
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before:
            signal.signal(number, handler)
