"""A second decoder for a file: PyAV for what libsndfile reads, to compare lengths."""

from __future__ import annotations

from pathlib import Path

from vggish_pt.audio import pyav
from vggish_pt.audio.decoder import UnreadableError
from vggish_pt.audio.kinds import find_structure
from vggish_pt.audio.structure import SNDFILE, Loss
from vggish_pt.audio.view import Scanner
from vggish_pt.errors import AudioError

_FORMATS = {"FLAC": "flac", "Ogg": "ogg", "MP3": "mp3"}


def second_duration(path: Path, name: str) -> float | None:
    """Decode a file with PyAV instead of libsndfile.

    Args:
        path: a local file.
        name: name of the file in errors.

    Returns:
        Duration in seconds; None if libsndfile does not read the file, or PyAV cannot.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        structure = find_structure(Scanner(file))
        total = 0.0
        for stream in [] if structure is None else structure.streams:
            fmt = _FORMATS.get(stream.label, stream.fallback)
            if stream.reader != SNDFILE or fmt is None:
                return None
            try:
                decoder = pyav.open_stream(file, stream, name, fmt)
            except (UnreadableError, AudioError):
                return None
            frames = sum(len(block) for block in decoder.blocks if not isinstance(block, Loss))
            total += frames / decoder.sample_rate
            decoder.close()
        return total or None
