"""Structure of an audio file: the audio streams in it, and the places where audio is missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from vggish_pt.audio.view import Part

SNDFILE = "sndfile"
"""Reader of a stream: libsndfile. Other readers are FFmpeg's names of formats, for PyAV."""


@dataclass(frozen=True)
class Loss:
    """Sound that a file should have and that cannot be decoded.

    Attributes:
        after: seconds of audio that the decoder gives before it.
        start: seconds from the start of the stream at which it begins.
        end: seconds at which it ends; None if that is unknown.
        reason: cause, for the error message.
        at_end: True if the loss reaches the end: the file is truncated.
        readable: True if the audio can be decoded, but the header of the file does not count it.
    """

    after: float
    start: float
    end: float | None
    reason: str
    at_end: bool = False
    readable: bool = False

    def later(self, decoded: float, lost: float) -> Loss:
        """Return the loss, moved by the seconds of decoded and of missing audio before its stream."""
        end = None if self.end is None else self.end + decoded + lost
        return replace(self, after=self.after + decoded, start=self.start + decoded + lost, end=end)


@dataclass
class Stream:
    """Sound that one decoder reads from its start to its end.

    Attributes:
        parts: parts of the file that the decoder reads.
        reader: :data:`SNDFILE`, or FFmpeg's name of the format.
        label: name of the format, for error messages.
        fallback: FFmpeg's name of the format, if PyAV should try where libsndfile fails.
        seconds: duration that the structure of the file counts; None if it does not.
        slack: seconds by which the decoder may give less.
        losses: audio that is missing, in order.
        padded: True if libsndfile would stop early and must see the file as longer than it is.
        gaps: True if a step in the stream's time stamps means that audio is missing.
        unknown: bytes after it that are neither audio nor metadata.
        resume: takes the number of samples after which decoding failed, and returns the stream that begins at or after
            them and the number of samples of this one before it; None if there is none.
    """

    parts: list[Part]
    reader: str
    label: str
    fallback: str | None = None
    seconds: float | None = None
    slack: float = 0.0
    losses: list[Loss] = field(default_factory=list)
    padded: bool = False
    gaps: bool = False
    unknown: int = 0
    resume: Callable[[int], tuple[Stream, int] | None] | None = None


@dataclass
class Structure:
    """Result of parsing a file.

    Attributes:
        streams: audio streams, in order; played one after the other.
        unknown: bytes of the file that are neither audio nor metadata of a known kind, and replace no audio.
    """

    streams: list[Stream]
    unknown: int = 0
