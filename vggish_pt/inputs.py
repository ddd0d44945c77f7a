"""From what was named on the command line to the audio files that it means."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vggish_pt.audio import display_name
from vggish_pt.errors import AudioError

AUDIO_SUFFIXES = frozenset(
    f".{ending}"
    for ending in (
        *("aif", "aifc", "aiff", "au", "caf", "flac", "mp2", "mp3", "oga", "ogg", "opus", "rf64", "snd", "w64", "wav"),
        *("wave", "aac", "ac3", "amr", "ape", "asf", "avi", "flv", "m4a", "m4b", "mka", "mkv", "mov", "mp4", "mpeg"),
        *("mpg", "tta", "webm", "wma", "wmv", "wv"),
    )
)
"""File name endings that count as audio when a folder is searched. A file that is named itself is always tried."""


@dataclass
class Inputs:
    """What was found.

    Attributes:
        files: paths, in the order of the inputs; within a folder or pattern sorted by name.
        failures: an error for each input that leads to no file.
        passed_over: how many files lay in searched folders without a known ending.
        repeated: how many paths were named more than once; each is kept once.
    """

    files: list[str] = field(default_factory=list)
    failures: list[AudioError] = field(default_factory=list)
    passed_over: int = 0
    repeated: int = 0


def find_inputs(named: Iterable[str]) -> Inputs:
    """Finds the audio files behind files, folders (searched to any depth) and glob patterns (``**`` too).

    Args:
        named: what the user named.
    """
    found = Inputs()
    seen: set[str] = set()
    for name in named:
        before = len(seen) + found.repeated
        for path in _expand(name, found):
            if path in seen:
                found.repeated += 1
            else:
                seen.add(path)
                found.files.append(path)
        if len(seen) + found.repeated == before:
            label = display_name(name)
            what = "holds no audio file" if Path(name).is_dir() else "matches no file"
            found.failures.append(AudioError(f"{label}: {what}", label))
    return found


def _expand(name: str, found: Inputs) -> Iterator[str]:
    path = Path(name)
    if path.is_dir():
        yield from _search(name, found)
    elif not os.path.lexists(path) and glob.has_magic(name):
        for match in sorted(glob.glob(name, recursive=True)):  # noqa: PTH207 (absolute patterns too)
            if not Path(match).is_dir():
                yield match
    else:
        yield name


def _search(folder: str, found: Inputs) -> Iterator[str]:
    def failed(error: OSError) -> None:
        label = display_name(error.filename)
        found.failures.append(AudioError(f"{label}: the folder cannot be read ({error.strerror})", label))

    for parent, folders, files in os.walk(folder, onerror=failed):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.startswith("."):
                continue
            if Path(name).suffix.lower() in AUDIO_SUFFIXES:
                yield os.path.join(parent, name)  # noqa: PTH118 (keeps the spelling that the user gave)
            else:
                found.passed_over += 1
