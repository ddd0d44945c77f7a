"""One source → log-mel windows, piece by piece: what reading ahead does, in threads and in worker processes alike."""

from __future__ import annotations

import os
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vggish_pt import constants as c
from vggish_pt.audio import AudioLike, display_name, open_audio
from vggish_pt.audio.clip import Opener
from vggish_pt.audio.waveform import waveform_chunks
from vggish_pt.errors import AudioError, VGGishError
from vggish_pt.nn.streaming import StreamingLogMel

if TYPE_CHECKING:
    from vggish_pt.inference.settings import EmbedSettings
    from vggish_pt.nn.frontend import LogMel


def no_windows() -> Tensor:
    """(0, 96, 64) float32."""
    return torch.zeros(0, c.EXAMPLE_FRAMES, c.MEL_BANDS)


@dataclass(frozen=True)
class Task:
    """A source to be read.

    Attributes:
        number: its place among the tasks, from 0.
        source: what to open.
        name: how results and errors call it; None for its own name.
        sample_rate: hertz, for arrays.
        start: seconds into the file at which the part to read begins; None for the file's beginning.
        end: seconds at which it ends; None for the file's end.
    """

    number: int
    source: AudioLike | Opener
    name: str | None = None
    sample_rate: float | None = None
    start: float | None = None
    end: float | None = None

    @property
    def label(self) -> str:
        """How errors call it where it could not even be opened."""
        if self.name is not None:
            return self.name
        return display_name(self.source) if isinstance(self.source, str | os.PathLike) else type(self.source).__name__

    @property
    def opener(self) -> bool:
        """Whether other people's code opens it."""
        return isinstance(self.source, Opener) and not isinstance(self.source, os.PathLike)

    @property
    def weight(self) -> int:
        """Bytes of memory that it keeps while it waits."""
        source = self.source
        return len(source) if isinstance(source, bytes | bytearray) else int(getattr(source, "nbytes", 0))


@dataclass(frozen=True)
class WindowChunk:
    """The next windows of a task.

    Attributes:
        number: of the task.
        name: of the source.
        windows: (n, 96, 64) float32, n from 0.
        duration: with the last piece, how many seconds of audio there were; else None.
        error: why the source cannot be read; the last piece too.
    """

    number: int
    name: str = ""
    windows: Tensor = field(default_factory=no_windows)
    duration: float | None = None
    error: VGGishError | None = None

    @property
    def last(self) -> bool:
        """Whether the task ends with it."""
        return self.duration is not None or self.error is not None


def read(
    task: Task, frontend: LogMel, settings: EmbedSettings, device: torch.device | str = "cpu"
) -> Generator[WindowChunk]:
    """Decodes, resamples and cuts one source into windows.

    Args:
        task: the source.
        frontend: computes the log-mel frames.
        settings: what decides the numbers.
        device: where the front end computes.

    Yields:
        Its pieces, at least one. Exactly the last one says the duration or the error.
    """
    try:
        with open_audio(
            task.source,
            task.sample_rate,
            name=task.name,
            allow_truncated=settings.allow_truncated,
            start=task.start,
            end=task.end,
        ) as audio:
            stream = StreamingLogMel(frontend, settings.hop, settings.pad, device)
            held: Tensor | None = None  # so that a short source is one piece
            for samples in waveform_chunks(audio, settings.resampler):
                windows = stream.push(samples)
                if len(windows) and held is not None:
                    yield WindowChunk(task.number, audio.name, held)
                if len(windows):
                    held = windows
            rest = stream.flush()
            if held is not None and len(rest):
                yield WindowChunk(task.number, audio.name, held)
            last = held if held is not None and not len(rest) else rest
            yield WindowChunk(task.number, audio.name, last, audio.decoded / audio.sample_rate)
    except VGGishError as error:
        yield WindowChunk(task.number, task.label, error=error)
    except Exception as error:
        # What other people's openers raise is an input that cannot be had; elsewhere, the rest would be our mistakes.
        if not isinstance(error, OSError | MemoryError | RuntimeError) and not task.opener:
            raise
        yield WindowChunk(task.number, task.label, error=_unreadable(task, error))


def _unreadable(task: Task, error: Exception) -> AudioError:
    reason = " ".join(str(error).split())
    return AudioError(f"{task.label}: cannot be read ({type(error).__name__}: {reason})", task.label)
