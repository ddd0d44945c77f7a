"""``vggish-pt inspect``: duration, format and windows of audio files."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vggish_pt.cli.options import AllowTruncated, Hop, Inputs, Pad
from vggish_pt.errors import AudioError, VGGishError
from vggish_pt.utils.text import one_line

if TYPE_CHECKING:
    from vggish_pt.audio.clip import Clip
    from vggish_pt.audio.raw import RawFormat
    from vggish_pt.nn.windows import Pad as PadMode

# MP3 decoders differ by two of these in how they treat the delay of the encoder.
_FRAME_SECONDS = 2.5 * 1152 / 44_100


@dataclass(frozen=True)
class _Options:
    allow_truncated: bool = False
    check: bool = False
    track: int = 0
    raw: RawFormat | None = None


@dataclass(frozen=True)
class _Report:
    path: str
    duration: float
    sample_rate: int
    channels: int
    container: str
    encoding: str
    windows: int
    padded: float
    left_out: float
    second_duration: float | None = None

    def __str__(self) -> str:
        channels = "1 channel" if self.channels == 1 else f"{self.channels} channels"
        sound = f"{self.duration:.3f} s, {self.sample_rate} Hz, {channels}, {self.container} {self.encoding}"
        if not self.windows:
            return f"{self.path}: {sound}; no window, as it is shorter than one"
        steps = [f"average {channels}"] if self.channels > 1 else []
        steps += ["resample to 16000 Hz"] if self.sample_rate != 16_000 else []
        steps += [f"pad with {self.padded:.3f} s of silence"] if self.padded else []
        steps += [f"leave out {self.left_out:.3f} s at the end"] if self.left_out else []
        windows = "1 window" if self.windows == 1 else f"{self.windows} windows"
        text = f"{self.path}: {sound}; {'; '.join([windows, ', '.join(steps)] if steps else [windows])}"
        return text if self.second_duration is None else f"{text}; second decoder: {self.second_duration:.3f} s"


def inspect(
    files: Inputs,
    hop: Hop = 0.96,
    pad: Pad = "short",
    allow_truncated: AllowTruncated = False,
    check: Annotated[
        bool,
        typer.Option(
            help="Decode files a second time with FFmpeg's decoders; fail those whose length differs by a frame."
        ),
    ] = False,
    raw: Annotated[
        str | None,
        typer.Option(
            help="Format of files without a header, such as s16le:44100:2, gsm or vox.",
            metavar="ENCODING[:RATE[:CHANNELS]]",
        ),
    ] = None,
    track: Annotated[int, typer.Option(help="Audio track of videos, from 0.", min=0, metavar="NUMBER")] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per file and line, with times in seconds.")
    ] = False,
) -> None:
    """Show duration, format and number of windows of audio files, and how they would be embedded.

    Files are decoded to the end, because headers may be wrong.
    """
    from vggish_pt.audio.raw import RawFormat
    from vggish_pt.dataset.inputs import find_clips
    from vggish_pt.nn.windows import check_pad, hop_frames

    hop_frames(hop)
    mode = check_pad(pad)
    options = _Options(allow_truncated, check, track, None if raw is None else RawFormat.parse(raw))
    found = find_clips(files)
    for _, error in found.failures:
        _print_failure(error)
    done = 0
    for item in found:
        try:
            report = _examine(item, hop, mode, options)
        except VGGishError as error:
            _print_failure(error)
            continue
        done += 1
        part = {"segment_start": item.start, "segment_end": item.end} if found.segments else {}
        fields = {key: value for key, value in asdict(report).items() if value is not None}
        typer.echo(json.dumps(fields | part) if as_json else one_line(report))
    if done < len(found) or found.failures:
        raise typer.Exit(3 if done else 1)


def _print_failure(error: VGGishError) -> None:
    typer.echo(f"vggish-pt: {one_line(error)}", err=True)


def _examine(item: Clip, hop: float, pad: PadMode, options: _Options) -> _Report:
    from vggish_pt import constants as c
    from vggish_pt.audio import open_audio
    from vggish_pt.audio.clip import path_text
    from vggish_pt.nn.windows import count_windows, hop_frames, padding

    second = _second_duration(item) if options.check else None
    with open_audio(
        item.audio_source,
        name=item.name,
        allow_truncated=options.allow_truncated,
        start=item.start,
        end=item.end,
        track=options.track,
        raw=options.raw,
    ) as audio:
        frames = sum(len(block) for block in audio.blocks())
        duration = frames / audio.sample_rate
        if second is not None and abs(second - duration) > _FRAME_SECONDS:
            raise AudioError(f"{item.name}: {duration:.3f} s, but a second decoder gives {second:.3f} s", item.name)
        samples = max(1, round(frames * c.SAMPLE_RATE / audio.sample_rate))
        windows = count_windows(samples, hop, pad)
        covered = (windows - 1) * hop_frames(hop) * c.FRAME_HOP + c.EXAMPLE_SAMPLES if windows else 0
        return _Report(
            path=path_text(item.path),
            duration=duration,
            sample_rate=audio.sample_rate,
            channels=audio.channels,
            container=audio.container,
            encoding=audio.encoding,
            windows=windows,
            padded=padding(samples, hop, pad) / c.SAMPLE_RATE,
            left_out=max(0, samples - covered) / c.SAMPLE_RATE,
            second_duration=second,
        )


def _second_duration(item: Clip) -> float | None:
    """Return the duration of a whole local file by a second decoder; None if there is none for it."""
    from vggish_pt.audio.second import second_duration

    if item.source is not None or item.start is not None or item.end is not None:
        return None
    try:
        return second_duration(Path(item.path), item.name)
    except OSError:
        return None  # the first decoder says what is wrong
