"""Expand names to inputs: files, folders, patterns, lists, manifests, shards and addresses."""

from __future__ import annotations

import fnmatch
import glob
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import PurePath
from typing import BinaryIO

from vggish_pt.dataset.inputs.braces import expand_braces, has_braces
from vggish_pt.dataset.inputs.clips import Clips
from vggish_pt.dataset.inputs.columns import open_parquet
from vggish_pt.dataset.inputs.files import AUDIO_SUFFIXES, Search
from vggish_pt.dataset.inputs.locations import LocalFiles, ManifestFiles, RemoteFiles, open_file
from vggish_pt.dataset.inputs.manifest import Manifest, is_manifest
from vggish_pt.dataset.inputs.path_list import MAX_PATH, read_path_list
from vggish_pt.dataset.inputs.rows import BadRow
from vggish_pt.dataset.inputs.table import ClipRow, Group
from vggish_pt.dataset.inputs.tar import COMPRESSED_REASON, add_shard, is_compressed, is_shard
from vggish_pt.errors import AudioError
from vggish_pt.utils.remote import exists, file_system, is_address, is_folder, local_path, match, redacted, search
from vggish_pt.utils.text import display_name


def find_clips(named: Iterable[str], *, stdin: BinaryIO | None = None) -> Clips:
    """Expand names to inputs.

    A name is one of:

    - A file, folder or pattern, as for :func:`vggish_pt.dataset.inputs.find_inputs`.
    - An address that fsspec knows (``s3://bucket/a.wav``, ``https://…``) of a file or folder, or a pattern.
    - ``-``: a list of paths and addresses on standard input, one on each line, or separated by NULs.
    - A manifest (``.csv``, ``.tsv``, ``.jsonl``, ``.ndjson``, ``.parquet``): a table with a column ``path``, relative
      to the manifest's folder. The columns ``start`` and ``end``, in seconds, select a part of the file; other columns
      are carried.
    - A ``.tar``, as WebDataset writes it: its audio members, with paths ``shard.tar::member``. Texts of the same key
      (``.json``, ``.cls``, ``.txt``) are carried as columns.
    - A ``.parquet`` with a column of audio, as the Hub's ``datasets`` stores it: its rows, with paths
      ``file.parquet::name`` if each row has a name of its own, else ``file.parquet::0`` and so on. Other columns are
      carried, with the prefix ``source_`` if outputs have a column of that name.

    ``shard-{0000..0009}.tar`` and ``{a,b}.wav`` expand to several names. If a file or address with exactly the given
    name exists, the name is not a pattern. Inputs that are named again with the same part and columns are dropped.

    Args:
        named: the names.
        stdin: list to read for ``-``; None for standard input.

    Raises:
        MissingDependencyError: the library for an address is not installed.
        SettingsError: a manifest or list cannot be read, or its columns cannot be carried.
    """
    finder = _Finder(stdin)
    for name in named:
        finder.add(name)
    return finder.finish()


class _Finder:
    def __init__(self, stdin: BinaryIO | None) -> None:
        self._clips = Clips()
        self._stdin = stdin
        self._files = self._clips.table.group()
        self._shards = self._clips.table.group()
        self._search = Search(self._add_file, lambda name, error: self._clips.failures.append((name, error)))
        self._known_schemes: set[str] = set()

    def finish(self) -> Clips:
        self._clips.skipped += self._search.skipped
        return self._clips.finish()

    def add(self, name: str) -> None:
        if name == "-":
            self._add_list()
            return
        for expanded in self._expand(name):
            if is_address(expanded) and not os.path.lexists(expanded):
                self._add_address(expanded)
            else:
                self._search.add(local_path(expanded))

    def _expand(self, name: str) -> Iterator[str]:
        if not has_braces(name) or os.path.lexists(name) or (is_address(name) and self._exists(name)):
            return iter((name,))
        return expand_braces(name)

    def _exists(self, address: str) -> bool:
        try:
            return exists(address)
        except AudioError:  # adding the address reports the error
            return False

    def _add_list(self) -> None:
        count = 0
        for line in read_path_list(self._stdin or sys.stdin.buffer, "standard input"):
            count += 1
            name = os.fsdecode(line)
            if len(line) > MAX_PATH or "\0" in name:
                self._clips.fail(f"standard input, path {count}", "is no path")
            elif is_address(name):
                self._add_address(name, literal=True)
            elif os.path.isdir(name):  # noqa: PTH112
                self._search.add(name)
            else:
                self._add_file(name)
        if not count:
            self._clips.fail("-", "no path on standard input")

    def _add_file(self, path: str) -> None:
        """Add a local file of any kind: audio, manifest, shard or Parquet."""
        if not self._add_container(path):
            self._files.at(LocalFiles()).add(ClipRow(path))

    def _add_address(self, address: str, *, literal: bool = False) -> None:
        """Add an address; a literal one is no pattern, and is a folder only if it ends in a slash."""
        label = redacted(address)
        try:
            self._check_scheme(address)
            plain = address.partition("?")[0] if address.startswith("http") else address
            if not literal and glob.has_magic(plain) and not exists(address):
                self._add_found(address, match(address), ending=PurePath(plain).suffix, reason="matches no audio file")
            elif self._add_container(address):
                return
            elif address.endswith("/") or (not literal and is_folder(address)):
                self._add_found(address, search(address), ending="", reason="holds no audio file")
            else:
                self._add_remote_file(address)
        except AudioError as error:
            self._clips.failures.append((label, error))

    def _add_found(self, named: str, addresses: list[str], *, ending: str, reason: str) -> None:
        """Add the files of a folder or pattern, as :class:`Search` does on a disk: hidden ones are left out."""
        any_ending = bool(ending) and not glob.has_magic(ending)
        found = 0
        for address in addresses:
            if _is_hidden(address, named):
                continue
            if not any_ending and PurePath(address).suffix.lower() not in AUDIO_SUFFIXES:
                self._clips.skipped += 1
                continue
            found += 1
            if not self._add_container(address):
                self._add_remote_file(address)
        if not found:
            self._clips.fail(redacted(named), reason)

    def _add_remote_file(self, address: str) -> None:
        label = redacted(address)
        self._files.at(RemoteFiles()).add(ClipRow(label, None if label == address else address))

    def _add_container(self, name: str) -> bool:
        """Add the inputs of a manifest, shard or Parquet file; return False for other files."""
        label = redacted(name)
        try:
            if is_shard(name):
                self._shards.name = display_name(label)
                self._clips.skipped += add_shard(name, self._shards, self._clips.fail)
            elif is_compressed(name):
                self._clips.fail(label, COMPRESSED_REASON)
            elif is_manifest(name):
                self._add_table(name)
            else:
                return False
        except AudioError as error:
            self._clips.failures.append((label, error))
        return True

    def _add_table(self, name: str) -> None:
        if name.partition("?")[0].lower().endswith(".parquet"):
            from vggish_pt.dataset.inputs.parquet import add_audio_rows, audio_column

            label = display_name(redacted(name))
            with open_file(name) as file:
                column = audio_column(open_parquet(file, label)[1], label)
            if column is not None:
                add_audio_rows(name, column, self._clips)
                return
        with Manifest(name) as manifest:
            group = self._clips.table.group(manifest.schema, manifest.name).at(ManifestFiles(name))
            self._add_rows(manifest, group)

    def _add_rows(self, manifest: Manifest, group: Group) -> None:
        for row in manifest.rows():
            if isinstance(row, BadRow):
                self._clips.fail(f"{manifest.name}:{row.line}", row.reason)
                continue
            label = row.path
            if is_address(row.path):
                label = redacted(row.path)
                try:
                    self._check_scheme(row.path)
                except AudioError as error:
                    self._clips.fail(f"{manifest.name}:{row.line}", str(error))
                    continue
            address = None if label == row.path else row.path
            group.add(ClipRow(label, address), row.start, row.end, row.columns)
        self._clips.segments |= manifest.segments

    def _check_scheme(self, address: str) -> None:
        scheme = address[: address.index(":")]
        if scheme not in self._known_schemes:
            file_system(address)
            self._known_schemes.add(scheme)


def _is_hidden(address: str, named: str) -> bool:
    """Return True if a part of a found address begins with a full stop, and the user did not name such a part."""
    allowed = [part for part in named.split("/") if part.startswith(".")]
    hidden = (part for part in address.split("/") if part.startswith("."))
    return any(not any(fnmatch.fnmatchcase(part, pattern) for pattern in allowed) for part in hidden)
