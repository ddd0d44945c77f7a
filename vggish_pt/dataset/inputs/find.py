"""From what was named, on a command line say, to the inputs that it means."""

from __future__ import annotations

import glob
import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import BinaryIO

from vggish_pt.audio import display_name
from vggish_pt.audio.clip import Opener
from vggish_pt.dataset.inputs.clips import Clips, OnDisk
from vggish_pt.dataset.inputs.columns import open_parquet
from vggish_pt.dataset.inputs.files import AUDIO_SUFFIXES, Search
from vggish_pt.dataset.inputs.manifest import BadRow, Manifest, is_manifest, open_file
from vggish_pt.dataset.inputs.table import ClipRow, Group
from vggish_pt.dataset.inputs.tar import NO_MIDDLE, add_shard, is_compressed, is_shard
from vggish_pt.errors import AudioError, SettingsError
from vggish_pt.utils.remote import (
    RemoteFile,
    file_system,
    is_address,
    is_folder,
    local_path,
    match,
    redacted,
    resolve_beside,
    search,
)

_MAX_PATH = 1 << 16
_MAX_BRACES = 1_000_000
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{},]*(?:,[^{},]*)+)\}")


@dataclass(frozen=True)
class _Away:
    """Files at addresses."""

    def source(self, kept: ClipRow) -> Opener:
        return RemoteFile(kept.where or kept.path)


@dataclass(frozen=True)
class _Beside:
    """Files that a manifest names."""

    manifest: str

    def source(self, kept: ClipRow) -> str | Opener:
        found = resolve_beside(self.manifest, kept.where or kept.path)
        return RemoteFile(found) if is_address(found) else found


def find_clips(named: Iterable[str], *, stdin: BinaryIO | None = None) -> Clips:
    """Finds the inputs behind all that can be named.

    - A file, folder or pattern: as :func:`find_inputs` takes it.
    - An address that fsspec knows (``s3://bucket/a.wav``, ``https://…``): a file, a folder, or a pattern.
    - ``-``: paths and addresses on standard input, one a line, or with NULs between them.
    - A manifest (``.csv``, ``.tsv``, ``.jsonl``, ``.ndjson``, ``.parquet``): a table with a column ``path``, relative
      to the manifest's folder; ``start`` and ``end``, in seconds, name a part of the file; other columns are carried.
    - A ``.tar``, as WebDataset writes it: its audio members, called ``shard.tar::member``. The texts of the same key
      (``.json``, ``.cls``, ``.txt``) are carried.
    - A ``.parquet`` with sound in it, as the Hub's ``datasets`` stores it: its rows, called ``file.parquet::name``
      where each has a name of its own, else ``file.parquet::0`` and so on. Other columns are carried, with ``source_``
      before names that outputs have themselves.

    ``shard-{0000..0009}.tar`` and ``{a,b}.wav`` stand for several names. What is named twice is kept once, if its
    part and what it carries are the same too.

    Args:
        named: what the user named.
        stdin: where to read what ``-`` stands for; None for standard input.

    Raises:
        MissingDependencyError: addresses of a kind whose library is not installed.
        SettingsError: a manifest that is none, or columns that cannot be carried.
    """
    finder = _Finder(stdin)
    for name in named:
        finder.add(name)
    return finder.finish()


class _Finder:
    def __init__(self, stdin: BinaryIO | None) -> None:
        self._items = Clips()
        self._stdin = stdin
        self._files = self._items.store.group()
        self._shards = self._items.store.group()
        self._search = Search(self._take, lambda name, error: self._items.failures.append((name, error)))
        self._known_schemes: set[str] = set()

    def finish(self) -> Clips:
        self._items.skipped += self._search.skipped
        return self._items.finish()

    def add(self, name: str) -> None:
        if name == "-":
            self._add_list()
            return
        for one in self._expanded(name):
            if is_address(one) and not os.path.lexists(one):
                self._add_address(one)
            else:
                self._search.add(local_path(one))

    def _expanded(self, name: str) -> Iterator[str]:
        if os.path.lexists(name) or not _BRACES.search(name):
            return iter((name,))
        return expand_braces(name)

    def _add_list(self) -> None:
        stdin = self._stdin or sys.stdin.buffer
        count = 0
        for line in _listed(stdin):
            count += 1
            name = os.fsdecode(line)
            if len(line) > _MAX_PATH or "\0" in name:
                self._items.fail(f"standard input, path {count}", "is no path")
            elif is_address(name):
                self._add_address(name, guess=False)
            elif os.path.isdir(name):  # noqa: PTH112
                self._search.add(name)
            else:
                self._take(name)
        if not count:
            self._items.fail("-", "no path on standard input")

    def _take(self, path: str) -> None:
        """A file that was found or named: of any kind."""
        if not self._add_container(path):
            self._files.at(OnDisk()).add(ClipRow(path))

    def _add_address(self, address: str, *, guess: bool = True) -> None:
        """Takes an address; ``guess`` says whether it may be a pattern, or a folder without a slash at its end."""
        label = redacted(address)
        try:
            self._check_scheme(address)
            plain = address.partition("?")[0] if address.startswith("http") else address
            if guess and glob.has_magic(plain):
                self._add_found(label, match(address), suffix=PurePath(plain).suffix, what="matches no audio file")
            elif self._add_container(address):
                return
            elif address.endswith("/") or (guess and is_folder(address)):
                self._add_found(label, search(address), suffix="", what="holds no audio file")
            else:
                self._add_remote_file(address)
        except AudioError as error:
            self._items.failures.append((label, error))

    def _add_found(self, label: str, addresses: list[str], *, suffix: str, what: str) -> None:
        everything = bool(suffix) and not glob.has_magic(suffix)
        found = 0
        for address in addresses:
            if not everything and PurePath(address).suffix.lower() not in AUDIO_SUFFIXES:
                self._items.skipped += 1
                continue
            found += 1
            if not self._add_container(address):
                self._add_remote_file(address)
        if not found:
            self._items.fail(label, what)

    def _add_remote_file(self, address: str) -> None:
        label = redacted(address)
        self._files.at(_Away()).add(ClipRow(label, None if label == address else address))

    def _add_container(self, name: str) -> bool:
        """Adds what a file stands for that is no audio itself; whether it is such a one."""
        label = redacted(name)
        try:
            if is_shard(name):
                self._shards.name = display_name(label)
                self._items.skipped += add_shard(name, self._shards, self._items.fail)
            elif is_compressed(name):
                self._items.fail(label, NO_MIDDLE)
            elif is_manifest(name):
                self._add_table(name)
            else:
                return False
        except AudioError as error:
            self._items.failures.append((label, error))
        return True

    def _add_table(self, name: str) -> None:
        if name.partition("?")[0].lower().endswith(".parquet"):
            from vggish_pt.dataset.inputs.parquet import add_sounds, sound_column

            with open_file(name) as file:
                column = sound_column(open_parquet(file, display_name(redacted(name)))[1], display_name(redacted(name)))
            if column is not None:
                add_sounds(name, column, self._items)
                return
        with Manifest(name) as manifest:
            group = self._items.store.group(manifest.schema, manifest.name).at(_Beside(name))
            self._add_rows(manifest, group)

    def _add_rows(self, manifest: Manifest, group: Group) -> None:
        for row in manifest.rows():
            if isinstance(row, BadRow):
                self._items.fail(f"{manifest.name}:{row.line}", row.reason)
                continue
            label = row.path
            if is_address(row.path):
                label = redacted(row.path)
                try:
                    self._check_scheme(row.path)
                except AudioError as error:
                    self._items.fail(f"{manifest.name}:{row.line}", str(error))
                    continue
            where = None if label == row.path else row.path
            group.add(ClipRow(label, where), row.start, row.end, row.columns)
        self._items.segments |= manifest.segments

    def _check_scheme(self, address: str) -> None:
        scheme = address[: address.index(":")]
        if scheme not in self._known_schemes:
            file_system(address)
            self._known_schemes.add(scheme)


def expand_braces(name: str) -> Iterator[str]:
    """The names that a pattern with braces stands for: ``{000..012}`` counts, ``{a,b}`` lists.

    Raises:
        SettingsError: they are too many.
    """
    parts: list[list[str] | range] = []
    widths: list[int] = []
    fixed: list[str] = []
    at, count = 0, 1
    for found in _BRACES.finditer(name):
        fixed.append(name[at : found.start()])
        at = found.end()
        if found[3] is not None:
            parts.append(found[3].split(","))
            widths.append(0)
        else:
            first, last = int(found[1][:18]), int(found[2][:18])
            parts.append(range(first, last + 1) if first <= last else range(first, last - 1, -1))
            padded = any(len(digits) > 1 and digits.startswith("0") for digits in (found[1], found[2]))
            widths.append(max(len(found[1]), len(found[2])) if padded else 0)
        count *= len(parts[-1])
        if count > _MAX_BRACES:
            raise SettingsError(f"{display_name(name)}: its braces stand for more than {_MAX_BRACES} names")

    def fill(index: int) -> Iterator[str]:
        if index == len(parts):
            yield name[at:]
            return
        for value in parts[index]:
            for rest in fill(index + 1):
                yield f"{fixed[index]}{str(value).zfill(widths[index])}{rest}"

    return fill(0)


def _listed(file: BinaryIO) -> Iterator[bytes]:
    """Paths in a file: one a line or, if there is a NUL within the length of a path, with NULs between them."""
    rest = file.read(_MAX_PATH)
    nul = b"\0" in rest
    mark = b"\0" if nul else b"\n"
    while True:
        *lines, rest = rest.split(mark)
        for line in lines:
            line = line if nul else line.removesuffix(b"\r")
            if line:
                yield line
        more = file.read(1 << 16)
        if not more:
            break
        rest += more
    rest = rest if nul else rest.removesuffix(b"\r")
    if rest:
        yield rest
