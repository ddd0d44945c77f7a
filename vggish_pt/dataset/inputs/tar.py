"""Reader of tar shards as WebDataset writes them: only headers are read until a member is opened.

Members of one sample follow each other and have one key: the name up to its first full stop. Each audio member is an
input, and the small texts of its sample (``.json``, ``.cls``, ``.txt``) are carried as columns.
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

from vggish_pt.dataset.inputs.files import AUDIO_SUFFIXES
from vggish_pt.dataset.inputs.locations import open_file
from vggish_pt.dataset.inputs.table import ClipRow, Group
from vggish_pt.errors import AudioError
from vggish_pt.utils.fileobj import ReadOnlyFile
from vggish_pt.utils.remote import redacted
from vggish_pt.utils.text import display_name, first_line

SIDECARS = ("json", "cls", "txt")
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz", ".tar.xz", ".txz", ".tar.zst", ".tar.lz4", ".tar.Z")
_MAGIC = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"(\xb5/\xfd", b"\x04\x22\x4d\x18")

COMPRESSED_REASON = "is compressed, so that single members cannot be read; unpack it to a plain .tar"

_MAX_SIDECAR = 1 << 18
_MAX_NAME = 1 << 16  # bytes of a long name, or of other records before a header
_BLOCK = 512
_BUFFER_BYTES = 1 << 16
_END_BLOCKS = 128  # blocks that are read after the end mark

Fail = Callable[[str, str], None]


@dataclass(frozen=True)
class TarMember:
    """Member of a tar; an :class:`~vggish_pt.audio.clip.Opener`.

    Attributes:
        shard: path or address of the tar.
        offset: position of the member's first byte.
        size: bytes of the member.
    """

    shard: str = field(repr=False)
    offset: int
    size: int

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Open the member, as :meth:`vggish_pt.audio.clip.Opener.open`."""
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
class TarShard:
    """Tar shard as a location of inputs.

    Attributes:
        name: path or address of the shard.
    """

    name: str

    def source(self, row: ClipRow) -> TarMember:
        """Return the member at the offset of the row."""
        return TarMember(self.name, row.offset, row.size)


class _Header(tarfile.TarInfo):
    """Header that refuses long records before it (names, PAX), which tarfile would read into memory."""

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
    """Return True if a path or address has the ending of a tar shard."""
    return name.partition("?")[0].lower().endswith(".tar")


def is_compressed(name: str) -> bool:
    """Return True if a path or address has the ending of a compressed tar, whose members cannot be read singly."""
    return name.partition("?")[0].endswith(COMPRESSED)


def add_shard(name: str, group: Group, fail: Fail) -> int:
    """Add the audio members of a shard.

    Args:
        name: path or address of the shard.
        group: group to add them to.
        fail: called with the name of a member or shard that cannot be used, and the reason.

    Returns:
        Number of members that were skipped: neither audio nor a text of an audio member. Hidden files are not counted.
    """
    label = redacted(name)
    try:
        with open_file(name) as file:
            scan = _Scan(label, file, group.at(TarShard(name)), fail)
            scan.run()
            return scan.skipped
    except AudioError as error:
        fail(label, str(error).removeprefix(f"{display_name(label)}: "))
    except OSError as error:
        fail(label, f"cannot be read ({first_line(error)})")
    return 0


class _Scan:
    """Scan of the headers of a shard, which adds the members of each sample once the sample is complete."""

    def __init__(self, label: str, file: BinaryIO, group: Group, fail: Fail) -> None:
        self.skipped = 0
        self._label = label
        self._file = file
        self._group = group
        self._fail = fail
        self._names: set[str] = set()  # of audio members
        self._key = ""  # of the present sample
        self._audio: list[tarfile.TarInfo] = []
        self._texts: dict[str, str] = {}
        self._problem: str | None = None  # of a text

    def run(self) -> None:
        size = self._file.seek(0, os.SEEK_END)
        self._file.seek(0)
        if self._file.read(_BLOCK).startswith(_MAGIC):
            self._fail(self._label, COMPRESSED_REASON)
            return
        self._file.seek(0)
        end, count = 0, 0
        try:
            tar: Any = tarfile.open(  # noqa: SIM115 (closed by the next statement)
                fileobj=self._file, mode="r:", tarinfo=_Header, encoding="utf-8", errors="surrogateescape"
            )
            with tar:
                while (member := tar.next()) is not None:
                    tar.members = []  # tarfile would keep all headers in memory
                    count += 1
                    if member.size < 0 or tar.offset <= end:
                        raise tarfile.ReadError("a header with an impossible length")
                    end = tar.offset
                    if member.isreg() and member.offset_data + member.size > size:
                        present = max(0, size - member.offset_data)
                        self._fail(self._path(member), f"the shard is cut short: {present} of {member.size} bytes")
                        self._end_sample()
                        return
                    self._add(member)
                end = tar.offset
        except (tarfile.TarError, RecursionError, ValueError) as error:
            self._end_sample()
            what = f"damaged after its member {count}, what follows is lost" if count else "no tar"
            self._fail(self._label, f"{what} ({first_line(error)})")
            return
        self._end_sample()
        if not self._names:
            self._fail(self._label, "holds no audio file")
        self._check_end(end, count)

    def _check_end(self, end: int, count: int) -> None:
        """Check that the shard ends in blocks of zeros, since tarfile takes damage for the end of the tar."""
        self._file.seek(end)
        rest = self._file.read(_END_BLOCKS * _BLOCK)
        if len(rest) < _BLOCK:
            self._fail(self._label, f"is cut short: it ends after its member {count} without an end mark")
        elif rest.strip(b"\0"):
            self._fail(self._label, f"damaged after its member {count}, or tars joined together; what follows is lost")

    def _path(self, member: tarfile.TarInfo) -> str:
        return f"{self._label}::{member.name}"

    def _add(self, member: tarfile.TarInfo) -> None:
        if member.isdir() or _is_hidden(member.name):
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
                self._fail(self._path(member), "is a link or another special member; only plain files are read")
            else:
                self.skipped += 1
        elif audio:
            self._audio.append(member)
        elif extension.lower() in SIDECARS:
            self._read_text(member, extension.lower())
        else:
            self.skipped += 1

    def _read_text(self, member: tarfile.TarInfo, extension: str) -> None:
        if member.size > _MAX_SIDECAR:
            self._problem = f"its .{extension} has {member.size} bytes; at most {_MAX_SIDECAR}"
        elif extension in self._texts:
            self._problem = f"it has two .{extension}"
        else:
            self._file.seek(member.offset_data)
            self._texts[extension] = self._file.read(member.size).decode("utf-8", "backslashreplace")

    def _end_sample(self) -> None:
        for member in self._audio:
            path = self._path(member)
            if member.name in self._names:
                self._fail(f"{path}@{member.offset_data}", "a second member of this name; the first is used")
            elif self._problem:
                self._fail(path, self._problem)
            else:
                self._group.add(ClipRow(path, None, member.offset_data, member.size), columns=self._texts)
            self._names.add(member.name)
        if not self._audio:
            self.skipped += len(self._texts)
        self._audio, self._texts, self._problem = [], {}, None


def _is_hidden(name: str) -> bool:
    """Return True if a file or a folder on its path is hidden, like the ``._a.wav`` that macOS adds to ``a.wav``."""
    return any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))
