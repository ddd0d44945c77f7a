"""Loading a clip: decode, resample and cut into log-mel windows, chunk by chunk, in a thread or a worker process."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vggish_pt import constants as c
from vggish_pt.audio import Audio, Clip, open_audio
from vggish_pt.audio.waveform import waveform_chunks
from vggish_pt.errors import AudioError, VGGishError
from vggish_pt.nn.streaming import StreamingLogMel
from vggish_pt.utils.text import joined_lines

if TYPE_CHECKING:
    from vggish_pt.inference.settings import EmbedSettings
    from vggish_pt.nn.frontend import LogMel


def no_windows() -> Tensor:
    """Return zero log-mel windows: (0, 96, 64) float32 on the CPU."""
    return torch.zeros(0, c.EXAMPLE_FRAMES, c.MEL_BANDS)


@dataclass(frozen=True)
class WindowChunk:
    """Consecutive log-mel windows of a clip.

    Attributes:
        number: index of the clip.
        windows: (n, 96, 64) float32, n from 0.
        duration: with the last chunk of a clip, its seconds of audio; else None.
        error: reason why the clip cannot be read; such a chunk is the last one of its clip.
    """

    number: int
    windows: Tensor = field(default_factory=no_windows)
    duration: float | None = None
    error: VGGishError | None = None

    @property
    def last(self) -> bool:
        """True if the clip ends with this chunk."""
        return self.duration is not None or self.error is not None


def load_windows(
    clip: Clip, frontend: LogMel, settings: EmbedSettings, device: torch.device | str = "cpu"
) -> Generator[WindowChunk]:
    """Decode and resample a clip, and cut it into log-mel windows.

    Args:
        clip: the clip. Its ``index`` becomes the ``number`` of the chunks.
        frontend: computes the log-mel frames.
        settings: hop, padding and resampler, and whether truncated files are accepted.
        device: where the front end computes.

    Yields:
        The chunks of the clip, at least one. The last one, and no other, has a duration or an error.

    Raises:
        Exception: an error that neither the audio nor an :class:`~vggish_pt.audio.Opener` explains.
    """
    try:
        with open_audio(
            clip.audio_source,
            clip.sample_rate,
            name=clip.name,
            allow_truncated=settings.allow_truncated,
            start=clip.start,
            end=clip.end,
        ) as audio:
            stream = StreamingLogMel(frontend, settings.hop, settings.pad, device)
            ready = no_windows()  # held until more windows follow, so that a short clip is a single chunk
            for windows in _windows(audio, stream, settings):
                if len(ready) and len(windows):
                    yield WindowChunk(clip.index, ready)
                ready = windows if len(windows) else ready
            yield WindowChunk(clip.index, ready, audio.decoded / audio.sample_rate)
    except VGGishError as error:
        yield WindowChunk(clip.index, error=error)
    except Exception as error:
        # Openers run code of the user, which may raise anything: the clip fails. From the package's own decoders, any
        # other exception is a fault of the package.
        if not isinstance(error, OSError | MemoryError | RuntimeError) and not clip.has_opener:
            raise
        message = f"{clip.name}: cannot be read ({type(error).__name__}: {joined_lines(error)})"
        yield WindowChunk(clip.index, error=AudioError(message, clip.name))


def _windows(audio: Audio, stream: StreamingLogMel, settings: EmbedSettings) -> Generator[Tensor]:
    for samples in waveform_chunks(audio, settings.resampler):
        yield stream.push(samples)
    yield stream.flush()
