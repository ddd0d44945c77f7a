"""Tar shards as WebDataset writes them: read header by header; the sound stays where it is until it is wanted.

Members of one key, that is of one name up to its first full stop, stand one after the other. Each that is audio is an
input; the small texts beside it (``.json``, ``.cls``, ``.txt``) are carried along.
"""

from __future__ import annotations

import io
import os
import posixpath
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from vggish_pt.audio import display_name
from vggish_pt.dataset.inputs.columns import one_line
from vggish_pt.dataset.inputs.files import AUDIO_SUFFIXES
from vggish_pt.dataset.inputs.manifest import open_file
from vggish_pt.dataset.inputs.table import ClipRow, Group
from vggish_pt.errors import AudioError
from vggish_pt.utils.fileobj import ReadOnlyFile
from vggish_pt.utils.remote import redacted

SIDECARS = ("json", "cls", "txt")
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz", ".tar.xz", ".txz", ".tar.zst", ".tar.lz4", ".tar.Z")
_MAGIC = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"(\xb5/\xfd", b"\x04\x22\x4d\x18")

NO_MIDDLE = "is compressed, so that nothing can be read from its middle; unpack it to a plain .tar"

_MAX_SIDECAR = 1 << 18
_MAX_NAME = 1 << 16  # bytes of a long name or of other things said before a header
_BLOCK = 512
_BUFFER_BYTES = 1 << 16
_LOOKED_BEHIND_END = 128  # blocks

Fail = Callable[[str, str], None]


@dataclass(frozen=True)
class Member:
    """A member of a tar; an :class:`~vggish_pt.audio.clip.Opener`.

    Attributes:
        shard: path or address of the tar.
        offset: where its bytes begin.
        size: how many they are.
    """

    shard: str = field(repr=False)
    offset: int
    size: int

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The file; see :class:`~vggish_pt.audio.clip.Opener`."""
        with (
            open_file(self.shard) as file,
            io.BufferedReader(_FileSlice(file, self.offset, self.size), 1 << 16) as part,
        ):
            yield part


class _FileSlice(ReadOnlyFile):
    """Range of bytes of a file as a file object of its own."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        super().__init__(size)
        self._file, self._offset = file, offset

    def read_at(self, position: int, size: int) -> bytes:
        wanted = min(size, self._size - position)
        if wanted <= 0:
            return b""
        self._file.seek(self._offset + position)
        return self._file.read(wanted)


@dataclass(frozen=True)
class Shard:
    """A tar shard as a place of inputs.

    Attributes:
        name: its path or address.
    """

    name: str

    def source(self, kept: ClipRow) -> Member:
        """The member at that offset."""
        return Member(self.name, kept.offset, kept.size)


class _Header(tarfile.TarInfo):
    """A header whose lengths are not trusted: what stands before a header (a long name) is short, or refused."""

    def _check(self) -> None:
        if not 0 <= self.size <= _MAX_NAME:
            raise tarfile.HeaderError(f"a name of {self.size} bytes")

    def _proc_gnulong(self, tar: tarfile.TarFile) -> Any:
        self._check()
        return super()._proc_gnulong(tar)  # type: ignore[misc]

    def _proc_pax(self, tar: tarfile.TarFile) -> Any:
        self._check()
        return super()._proc_pax(tar)  # type: ignore[misc]


def is_shard(name: str) -> bool:
    """Whether a path or address is called like a tar shard."""
    return name.partition("?")[0].lower().endswith(".tar")


def is_compressed(name: str) -> bool:
    """Whether it is called like a compressed tar, of which nothing can be read from the middle."""
    return name.partition("?")[0].endswith(COMPRESSED)


def add_shard(name: str, group: Group, fail: Fail) -> int:
    """Adds the sounds of a shard.

    Args:
        name: its path or address.
        group: where to.
        fail: is called with the name of what cannot be used, and the reason.

    Returns:
        How many members were passed over: neither audio nor a text beside audio.
    """
    label = redacted(name)
    try:
        with open_file(name) as file:
            scan = _Scan(label, file, group.at(Shard(name)), fail)
            scan.run()
            return scan.skipped
    except AudioError as error:
        fail(label, str(error).removeprefix(f"{display_name(label)}: "))
    except OSError as error:
        fail(label, f"cannot be read ({one_line(error)})")
    return 0


class _Scan:
    def __init__(self, label: str, file: BinaryIO, group: Group, fail: Fail) -> None:
        self.skipped = 0
        self._label = label
        self._file = file
        self._group = group
        self._fail = fail
        self._names: set[str] = set()
        self._key = ""
        self._sounds: list[tarfile.TarInfo] = []
        self._texts: dict[str, str] = {}
        self._complaint: str | None = None  # of a text that goes with the sounds

    def run(self) -> None:
        size = self._file.seek(0, os.SEEK_END)
        self._file.seek(0)
        head = self._file.read(_BLOCK)
        if head.startswith(_MAGIC):
            self._fail(self._label, NO_MIDDLE)
            return
        self._file.seek(0)
        end, count = 0, 0
        try:
            tar: Any = tarfile.open(  # noqa: SIM115 (just below)
                fileobj=self._file, mode="r:", tarinfo=_Header, encoding="utf-8", errors="surrogateescape"
            )
            with tar:
                while (member := tar.next()) is not None:
                    tar.members = []  # it would keep all
                    count += 1
                    if member.size < 0 or tar.offset <= end:
                        raise tarfile.ReadError("a header with an impossible length")
                    end = tar.offset
                    if member.isreg() and member.offset_data + member.size > size:
                        there = max(0, size - member.offset_data)
                        self._fail(self._called(member), f"the shard is cut short: {there} of {member.size} bytes")
                        self._end_sample()
                        return
                    self._take(member)
                end = tar.offset
        except (tarfile.TarError, RecursionError, ValueError) as error:
            self._end_sample()
            what = "no tar" if not count else f"damaged behind its member {count}, what follows is lost"
            self._fail(self._label, f"{what} ({one_line(error)})")
            return
        self._end_sample()
        if not self._names:
            self._fail(self._label, "holds no audio file")
        self._check_end(end, count)

    def _check_end(self, end: int, count: int) -> None:
        """A tar ends in blocks of zeros; tarfile takes damage and a missing end for it, too."""
        self._file.seek(end)
        rest = self._file.read(_LOOKED_BEHIND_END * _BLOCK)
        if len(rest) < _BLOCK:
            self._fail(self._label, f"is cut short: it ends behind its member {count} without an end mark")
        elif rest.strip(b"\0"):
            self._fail(self._label, f"damaged behind its member {count}, or tars joined together; what follows is lost")

    def _called(self, member: tarfile.TarInfo) -> str:
        return f"{self._label}::{member.name}"

    def _take(self, member: tarfile.TarInfo) -> None:
        if member.isdir():
            return
        folder, base = posixpath.split(member.name)
        stem, _, extension = base.partition(".")
        key = f"{folder}/{stem}"
        if key != self._key:
            self._end_sample()
            self._key = key
        audio = posixpath.splitext(base)[1].lower() in AUDIO_SUFFIXES
        if not member.isreg() or member.issparse():
            if audio:
                self._fail(self._called(member), "is a link or another special member; only plain files are read")
            else:
                self.skipped += 1
        elif audio:
            self._sounds.append(member)
        elif extension.lower() in SIDECARS:
            self._read_text(member, extension.lower())
        else:
            self.skipped += 1

    def _read_text(self, member: tarfile.TarInfo, extension: str) -> None:
        if member.size > _MAX_SIDECAR:
            self._complaint = f"its .{extension} has {member.size} bytes; at most {_MAX_SIDECAR}"
        elif extension in self._texts:
            self._complaint = f"it has two .{extension}"
        else:
            self._file.seek(member.offset_data)
            self._texts[extension] = self._file.read(member.size).decode("utf-8", "backslashreplace")

    def _end_sample(self) -> None:
        for member in self._sounds:
            called = self._called(member)
            if member.name in self._names:
                self._fail(f"{called}@{member.offset_data}", "a second member of this name; the first is taken")
            elif self._complaint:
                self._fail(called, self._complaint)
            else:
                self._group.add(ClipRow(called, None, member.offset_data, member.size), columns=self._texts)
            self._names.add(member.name)
        if not self._sounds:
            self.skipped += len(self._texts)
        self._sounds, self._texts, self._complaint = [], {}, None
