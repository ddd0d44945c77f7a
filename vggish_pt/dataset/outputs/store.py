"""Where a dataset folder lies: on a disk, or at an address that fsspec knows.

A file gets its name when it is whole: on a disk by renaming, on object storage because an upload is seen when it ends.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Protocol

from vggish_pt.dataset.outputs.lock import LOCK_NAME, FileLock, Lock, ObjectLock, create, why
from vggish_pt.errors import AudioError, OutputError, VGGishError
from vggish_pt.utils.atomic import whole_file
from vggish_pt.utils.remote import file_system, is_address, local_path, redacted

Write = Callable[[IO[bytes]], None]

_LEFT_OVER = re.compile(r"\.(part-\d{5,}\.parquet|errors\.parquet|_run\.json)\.[^.]*\.tmp")
# Uploads that are seen only when they are complete.
_WHOLE_UPLOADS = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "memory"}


class FolderStore(Protocol):
    """A folder's files, by name."""

    name: str
    """How the user called it."""

    def create(self) -> None:
        """Makes the folder if it is not there."""

    def names(self) -> list[str]:
        """All names in the folder, sorted; none if it is not there."""

    def open(self, name: str) -> contextlib.AbstractContextManager[IO[bytes]]:
        """A file to read, which can seek."""

    def write(self, name: str, write: Write, *, new: bool = False) -> None:
        """Writes a file, whole or not at all, to last.

        Args:
            name: its name.
            write: is called with a file to write to.
            new: whether a file of this name is an error.
        """

    def remove(self, name: str) -> None:
        """Removes a file."""

    def lock(self) -> Lock:
        """What keeps a second run out of the folder."""

    def tidy(self) -> None:
        """Removes half-written files of a run that was killed; only while the folder is locked."""


def open_store(out: str) -> FolderStore:
    """The folder of that name.

    Args:
        out: a path, or an address.

    Raises:
        MissingDependencyError: the library for such addresses is not installed.
        OutputError: an address that cannot be used.
    """
    return AddressStore(out) if is_address(out) else LocalStore(Path(local_path(out)))


class LocalStore:
    """A folder on a disk. Links are followed."""

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        self._folder = folder

    def create(self) -> None:
        """Makes the folder if it is not there."""
        with _named(self.name):
            self._folder.mkdir(parents=True, exist_ok=True)

    def names(self) -> list[str]:
        """All names in the folder."""
        with _named(self.name, "read"):
            try:
                return sorted(path.name for path in self._folder.iterdir())
            except FileNotFoundError:
                return []

    def open(self, name: str) -> contextlib.AbstractContextManager[IO[bytes]]:
        """A file to read."""
        with _named(f"{self.name}/{name}", "read"):
            return (self._folder / name).open("rb")

    def write(self, name: str, write: Write, *, new: bool = False) -> None:
        """Writes a file, whole or not at all."""
        with whole_file(self._folder / name, overwrite=not new) as file:
            write(file)
        with _named(self.name):
            _sync_folder(self._folder)

    def remove(self, name: str) -> None:
        """Removes a file."""
        with _named(f"{self.name}/{name}"):
            (self._folder / name).unlink(missing_ok=True)

    def lock(self) -> Lock:
        """What keeps a second run out."""
        return FileLock(self._folder / LOCK_NAME, self.name)

    def tidy(self) -> None:
        """Removes half-written files."""
        for name in self.names():
            if _LEFT_OVER.fullmatch(name):
                self.remove(name)


class AddressStore:
    """A folder at an address."""

    def __init__(self, address: str) -> None:
        self.name = redacted(address).rstrip("/")
        try:
            self._fs, root = file_system(address)
        except AudioError as error:
            raise OutputError(str(error)) from None
        self._root = root.rstrip("/")
        protocols = self._fs.protocol
        self._whole_uploads = not _WHOLE_UPLOADS.isdisjoint([protocols] if isinstance(protocols, str) else protocols)

    def create(self) -> None:
        """Makes the folder if it is not there."""
        if not self._whole_uploads:
            with _named(self.name):
                self._fs.makedirs(self._root, exist_ok=True)

    def names(self) -> list[str]:
        """All names in the folder."""
        with _named(self.name, "read"):
            self._fs.invalidate_cache()
            try:
                found = self._fs.ls(self._root, detail=False)
            except FileNotFoundError:
                return []
        return sorted({path.rstrip("/").rpartition("/")[2] for path in found if path.rstrip("/") != self._root} - {""})

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """A file to read."""
        with _named(f"{self.name}/{name}", "read"):
            file = self._fs.open(f"{self._root}/{name}", "rb", cache_type="none")
        with file:
            yield file

    def write(self, name: str, write: Write, *, new: bool = False) -> None:
        """Writes a file, whole or not at all."""
        buffer = io.BytesIO()
        write(buffer)
        self._put(name, buffer.getvalue(), new=new)

    def _put(self, name: str, data: bytes, *, new: bool) -> None:
        path = f"{self._root}/{name}"
        with _named(f"{self.name}/{name}"):
            if not self._whole_uploads:
                if new and self._fs.exists(path):
                    raise FileExistsError("is there already")
                staged = f"{self._root}/.{name}.upload.tmp"
                self._fs.pipe_file(staged, data)
                self._fs.mv(staged, path)
            elif new:
                create(self._fs, path, data)
            else:
                self._fs.pipe_file(path, data)

    def remove(self, name: str) -> None:
        """Removes a file."""
        with _named(f"{self.name}/{name}"), contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(f"{self._root}/{name}")

    def lock(self) -> Lock:
        """What keeps a second run out."""
        return ObjectLock(self._fs, f"{self._root}/{LOCK_NAME}", self.name)

    def tidy(self) -> None:
        """Removes half-written files."""
        for name in self.names():
            if _LEFT_OVER.fullmatch(name):
                self.remove(name)


def _sync_folder(folder: Path) -> None:
    """Makes sure that a new name outlasts a loss of power, where folders can be opened for that."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _named(name: str, what: str = "written") -> Iterator[None]:
    """Turns what a file system raises into an error with a name. Libraries for addresses raise all kinds."""
    try:
        yield
    except VGGishError:
        raise
    except Exception as error:
        raise OutputError(f"{name}: cannot be {what} ({why(error)})") from error
