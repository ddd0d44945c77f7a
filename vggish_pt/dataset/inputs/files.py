"""Folders, patterns and names on a disk → the audio files that they mean."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
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
        failures: each input that leads to no file, and the error that says why.
        skipped: how many files were met in a search whose ending is not one of audio.
        duplicates: how often a file was met again; each is kept once.
    """

    files: list[str] = field(default_factory=list)
    failures: list[tuple[str, AudioError]] = field(default_factory=list)
    skipped: int = 0
    duplicates: int = 0


def find_inputs(named: Iterable[str]) -> Inputs:
    """Finds the audio files behind files, folders and glob patterns.

    Folders are searched to any depth, links to folders too, hidden files and folders left out. A pattern means what it
    matches, folders among it searched, as if a shell had expanded it; with ``**`` it says itself how deep to go. Where
    a pattern does not end in a file name ending of its own, only endings of audio count.

    Args:
        named: what the user named.
    """
    found, spelling, seen = Inputs(), Spelling(), set[tuple[str, str]]()

    def take(path: str) -> None:
        identity = spelling.identity(path)
        if identity in seen:
            found.duplicates += 1
        else:
            seen.add(identity)
            found.files.append(path)

    search = Search(take, lambda name, error: found.failures.append((name, error)))
    for name in named:
        search.add(name)
    found.skipped = search.skipped
    return found


class Search:
    """Goes through what was named, in order.

    Args:
        take: is called with each path found.
        fail: is called with each name that leads nowhere, and the error that says why.

    Attributes:
        skipped: how many files were met in a search whose ending is not one of audio.
    """

    def __init__(self, take: Callable[[str], None], fail: Callable[[str, AudioError], None]) -> None:
        self.skipped = 0
        self._found = 0  # paths and failures
        self._take_path = take
        self._fail_name = fail

    def add(self, name: str) -> None:
        """Takes a file, or searches a folder or pattern."""
        before = self._found
        if os.path.isdir(name):  # noqa: PTH112 (Path takes '' for the current folder, and raises on over-long names)
            self._take_folder(name)
            what = "holds no audio file"
        elif glob.has_magic(name) and not os.path.lexists(name):
            self._take_pattern(name)
            what = "matches no audio file"
        elif name:
            self._take(name)
            return
        else:
            what = "is no name of a file"
        if self._found == before:
            self._fail(name, what)

    def _take(self, path: str) -> None:
        self._found += 1
        self._take_path(path)

    def _take_audio(self, path: str) -> None:
        if Path(path).suffix.lower() in AUDIO_SUFFIXES:
            self._take(path)
        else:
            self.skipped += 1

    def _take_pattern(self, pattern: str) -> None:
        ending = Path(pattern).suffix
        take = self._take if ending and not glob.has_magic(ending) else self._take_audio
        parts = Path(pattern).parts
        if "**" not in parts:
            for match in sorted(glob.glob(pattern)):  # noqa: PTH207 (absolute patterns too)
                if os.path.isdir(match):  # noqa: PTH112
                    self._take_folder(match)
                else:
                    take(match)
            return
        # Not left to glob, which follows every link again and again: with a few in circles, for ever.
        deep = parts.index("**")
        top = os.path.join(*parts[:deep]) if deep else ""  # noqa: PTH118
        for folder in sorted(glob.glob(top)) if top else [""]:  # noqa: PTH207
            for path in self._search(folder):
                if _matches(Path(path).parts[len(Path(folder).parts) :], parts[deep:]):
                    take(path)

    def _take_folder(self, folder: str) -> None:
        for path in self._search(folder):
            self._take_audio(path)

    def _search(self, folder: str) -> Iterator[str]:
        """All files in a folder, at any depth, that are not hidden; spelled as the folder is."""
        entered: set[str] = set()  # real paths, as links may lead in circles
        for parent, folders, files in os.walk(folder or ".", onerror=self._unreadable, followlinks=True):
            real = os.path.realpath(parent)
            if real in entered:
                folders.clear()
                continue
            entered.add(real)
            folders[:] = sorted(_visible(folders))
            for name in sorted(_visible(files)):
                path = os.path.join(parent, name)  # noqa: PTH118
                yield path if folder else os.path.relpath(path)

    def _unreadable(self, error: OSError) -> None:
        self._fail(error.filename, f"the folder cannot be read ({error.strerror})")

    def _fail(self, name: str, reason: str) -> None:
        self._found += 1
        label = display_name(name)
        self._fail_name(name, AudioError(f"{label}: {reason}", label))


class Spelling:
    """Tells which paths are one file, however they are spelled: those of one folder and one name.

    Links to files are kept apart: they may stand for labels.
    """

    def __init__(self) -> None:
        self._real: dict[str, str] = {}

    def identity(self, path: str) -> tuple[str, str]:
        """What two paths of one file have in common."""
        parent, name = os.path.split(path)
        if parent not in self._real:
            self._real[parent] = os.path.realpath(parent)
        return self._real[parent], name


def _visible(names: Iterable[str]) -> Iterator[str]:
    return (name for name in names if not name.startswith("."))


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a path matches a pattern, part by part; ``**`` stands for any number of parts."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(parts[i:], pattern[1:] or ["*"]) for i in range(len(parts)))
    return bool(parts) and fnmatch.fnmatch(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])
