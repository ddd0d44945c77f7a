"""Search for audio files on a disk, by names, folders and glob patterns."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vggish_pt.errors import AudioError
from vggish_pt.utils.text import display_name

AUDIO_SUFFIXES = frozenset(
    f".{ending}"
    for ending in (
        *("aif", "aifc", "aiff", "au", "caf", "flac", "mp2", "mp3", "oga", "ogg", "opus", "rf64", "snd", "w64", "wav"),
        *("wave", "aac", "ac3", "amr", "ape", "asf", "avi", "flv", "m4a", "m4b", "mka", "mkv", "mov", "mp4", "mpeg"),
        *("mpg", "tta", "webm", "wma", "wmv", "wv", "3gp", "weba", "ts", "ogv", "spx", "mpga", "m4r"),
    )
)
"""Endings of file names that a search takes for audio. A file that the user names is used whatever its ending."""


@dataclass
class Inputs:
    """Audio files that a search found.

    Attributes:
        files: paths, in the order of the names; within a folder or pattern sorted by name.
        failures: each name that leads to no file, with the error that gives the reason.
        skipped: number of files that the search left out, because their endings are not those of audio.
        duplicates: number of files that were found again and dropped.
    """

    files: list[str] = field(default_factory=list)
    failures: list[tuple[str, AudioError]] = field(default_factory=list)
    skipped: int = 0
    duplicates: int = 0


def find_inputs(named: Iterable[str]) -> Inputs:
    """Expand names, folders and glob patterns to audio files.

    Folders are searched to any depth, and links to folders are followed; hidden files and folders are left out. A
    pattern expands to its matches, as in a shell, and matching folders are searched, unless the pattern
    contains ``**``. If a pattern does not end in a literal ending (``*.xyz``), only files with endings of audio are
    used.

    Args:
        named: paths of files and folders, and patterns.
    """
    found, spelling, seen = Inputs(), Spelling(), set[tuple[str, str]]()

    def add(path: str) -> None:
        identity = spelling.identity(path)
        if identity in seen:
            found.duplicates += 1
        else:
            seen.add(identity)
            found.files.append(path)

    search = Search(add, lambda name, error: found.failures.append((name, error)))
    for name in named:
        search.add(name)
    found.skipped = search.skipped
    return found


class Search:
    """Search through names in their order.

    Args:
        on_file: called with each path found.
        on_failure: called with each name that leads to no file, and the error that gives the reason.

    Attributes:
        skipped: number of files that the search left out, because their endings are not those of audio.
    """

    def __init__(self, on_file: Callable[[str], None], on_failure: Callable[[str, AudioError], None]) -> None:
        self.skipped = 0
        self._found = 0  # paths and failures
        self._on_file = on_file
        self._on_failure = on_failure

    def add(self, name: str) -> None:
        """Add a file, or search a folder or pattern."""
        before = self._found
        if os.path.isdir(name):  # noqa: PTH112 (Path takes '' for the current folder, and raises on over-long names)
            self._add_folder(name)
            reason = "holds no audio file"
        elif glob.has_magic(name) and not os.path.lexists(name):
            self._add_pattern(name)
            reason = "matches no audio file"
        elif name:
            self._add_file(name)
            return
        else:
            reason = "the name of a file is empty"
        if self._found == before:
            self._fail(name, reason)

    def _add_file(self, path: str) -> None:
        self._found += 1
        self._on_file(path)

    def _add_audio(self, path: str) -> None:
        if Path(path).suffix.lower() in AUDIO_SUFFIXES:
            self._add_file(path)
        else:
            self.skipped += 1

    def _add_pattern(self, pattern: str) -> None:
        ending = Path(pattern).suffix
        add = self._add_file if ending and not glob.has_magic(ending) else self._add_audio
        parts = Path(pattern).parts
        if "**" not in parts:
            for match in sorted(glob.glob(pattern)):  # noqa: PTH207 (absolute patterns too)
                if os.path.isdir(match):  # noqa: PTH112
                    self._add_folder(match)
                else:
                    add(match)
            return
        # glob would follow links in circles again and again.
        deep = parts.index("**")
        top = os.path.join(*parts[:deep]) if deep else ""  # noqa: PTH118
        for folder in sorted(glob.glob(top)) if top else [""]:  # noqa: PTH207
            for path in self._search(folder):
                if _matches(Path(path).parts[len(Path(folder).parts) :], parts[deep:]):
                    add(path)

    def _add_folder(self, folder: str) -> None:
        for path in self._search(folder):
            self._add_audio(path)

    def _search(self, folder: str) -> Iterator[str]:
        """Yield the files of a folder, at any depth, that are not hidden; paths begin with ``folder`` as given."""
        entered: set[str] = set()  # real paths, since links may lead in circles
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
        self._on_failure(name, AudioError(f"{label}: {reason}", label))


class Spelling:
    """Identity of files whose paths are spelled differently (``a.wav``, ``./a.wav``).

    Links to folders are resolved. Links to files are not: their names may be labels.
    """

    def __init__(self) -> None:
        self._real: dict[str, str] = {}

    def identity(self, path: str) -> tuple[str, str]:
        """Return the resolved folder and the name of a file: equal for all paths of one file."""
        parent, name = os.path.split(path)
        if parent not in self._real:
            self._real[parent] = os.path.realpath(parent)
        return self._real[parent], name


def _visible(names: Iterable[str]) -> Iterator[str]:
    return (name for name in names if not name.startswith("."))


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Return True if a path matches a pattern, part by part; ``**`` matches any number of parts."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(parts[i:], pattern[1:] or ["*"]) for i in range(len(parts)))
    return bool(parts) and fnmatch.fnmatch(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])
