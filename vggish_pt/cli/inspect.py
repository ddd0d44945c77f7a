"""``vggish-pt inspect``: what files hold, and what embedding them would do."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from vggish_pt.errors import VGGishError

if TYPE_CHECKING:
    from vggish_pt.windows import Pad


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

    def sentence(self) -> str:
        steps = ["decode"]
        steps += [f"average {self.channels} channels"] if self.channels > 1 else []
        steps += [f"resample {self.sample_rate} → 16000 Hz"] if self.sample_rate != 16_000 else []
        steps += [f"pad {self.padded:.3f} s"] if self.padded else []
        steps += [f"leave out the last {self.left_out:.3f} s"] if self.left_out else []
        return f"{self.windows} windows: {', '.join(steps)}" if self.windows else "no window: shorter than 0.975 s"


def inspect(
    files: Annotated[list[str], typer.Argument(help="Audio files, folders or glob patterns.", metavar="FILE...")],
    hop: Annotated[float, typer.Option(help="Seconds from window to window, a multiple of 0.01.")] = 0.96,
    pad: Annotated[str, typer.Option(help="'short', 'drop' or 'tail'.")] = "short",
    allow_truncated: Annotated[bool, typer.Option("--allow-truncated", help="As in embed.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
) -> None:
    """Show duration, rate, channels and windows of files, and what embedding would do.

    Files are decoded to their end, so that what is said is true even where headers are not.
    """
    from vggish_pt.inputs import find_inputs
    from vggish_pt.windows import check_pad, hop_frames

    hop_frames(hop)
    mode = check_pad(pad)
    found = find_inputs(files)
    failures: list[VGGishError] = list(found.failures)
    done = 0
    for path in found.files:
        try:
            report = _examine(path, hop, mode, allow_truncated)
        except VGGishError as failure:
            failures.append(failure)
            continue
        done += 1
        typer.echo(json.dumps(asdict(report), ensure_ascii=False) if as_json else _describe(report))
    for error in failures:
        typer.echo(f"vggish-pt: {' '.join(str(error).split())}", err=True)
    if failures:
        raise typer.Exit(3 if done else 1)


def _describe(r: _Report) -> str:
    sound = f"{r.duration:.3f} s, {r.sample_rate} Hz, {r.channels} channel{'s' if r.channels > 1 else ''}"
    return f"{r.path}: {sound}, {r.container} {r.encoding}; {r.sentence()}"


def _examine(path: str, hop: float, pad: Pad, allow_truncated: bool) -> _Report:
    from vggish_pt import constants as c
    from vggish_pt.audio import open_audio
    from vggish_pt.windows import count_windows, padding

    with open_audio(path, allow_truncated=allow_truncated) as audio:
        frames = sum(len(block) for block in audio.blocks())
        samples = max(1, round(frames * c.SAMPLE_RATE / audio.sample_rate))
        windows = count_windows(samples, hop, pad)
        padded = padding(samples, hop, pad)
        covered = (windows - 1) * round(hop * c.SAMPLE_RATE) + c.EXAMPLE_SAMPLES if windows else 0
        return _Report(
            path=audio.name,
            duration=frames / audio.sample_rate,
            sample_rate=audio.sample_rate,
            channels=audio.channels,
            container=audio.container,
            encoding=audio.encoding,
            windows=windows,
            padded=padded / c.SAMPLE_RATE,
            left_out=max(0, samples - covered) / c.SAMPLE_RATE,
        )
