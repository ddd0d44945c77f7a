"""Files of a dataset folder, on a disk or at an address that fsspec knows.

A file gets its name when it is complete: on a disk by renaming, on object storage because an upload becomes
visible when it ends.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Protocol

from vggish_pt.dataset.outputs.lock import LOCK_NAME, FileLock, Lock, ObjectLock, create, storage_reason
from vggish_pt.errors import AudioError, OutputError, VGGishError
from vggish_pt.utils.atomic import whole_file
from vggish_pt.utils.remote import file_system, is_address, local_path, redacted

Write = Callable[[IO[bytes]], object]

_LEFT_OVER = re.compile(r"\.(part-\d{5,}\.parquet|_?errors\.parquet|_run\.json)\.[^.]*\.tmp")
# Protocols whose uploads become visible only when they are complete.
_WHOLE_UPLOADS = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "memory"}


class FolderStore(Protocol):
    """Files of a folder, by name."""

    name: str
    """Name of the folder as given by the user."""

    def create(self) -> None:
        """Create the folder if it does not exist."""

    def names(self) -> list[str]:
        """Return the names of all files, sorted; none if the folder does not exist."""

    def open(self, name: str) -> contextlib.AbstractContextManager[IO[bytes]]:
        """Open a file for reading; it can seek."""

    def write(self, name: str, write: Write, *, new: bool = False) -> None:
        """Write a file, whole or not at all. It survives a loss of power.

        Args:
            name: its name.
            write: called with the file to write to.
            new: True if an existing file of this name is an error.
        """

    def remove(self, name: str) -> None:
        """Remove a file."""

    def lock(self) -> Lock:
        """Return the lock that refuses a second run in the folder."""

    def clean_up(self) -> None:
        """Remove incomplete files of a killed run; only while this run holds the lock."""


def open_store(out: str) -> FolderStore:
    """Return the folder at a path or address.

    Args:
        out: a path, or an address.

    Raises:
        MissingDependencyError: the library for such addresses is not installed.
        OutputError: the address cannot be used.
    """
    return AddressStore(out) if is_address(out) else LocalStore(Path(local_path(out)))


class LocalStore:
    """A folder on a disk. Links are followed."""

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        self._folder = folder

    def create(self) -> None:
        """Create the folder if it does not exist."""
        with _named(self.name):
            self._folder.mkdir(parents=True, exist_ok=True)

    def names(self) -> list[str]:
        """Return the names of all files."""
        with _named(self.name, "read"):
            try:
                return sorted(path.name for path in self._folder.iterdir())
            except FileNotFoundError:
                return []

    def open(self, name: str) -> contextlib.AbstractContextManager[IO[bytes]]:
        """Open a file for reading."""
        with _named(f"{self.name}/{name}", "read"):
            return (self._folder / name).open("rb")

    def write(self, name: str, write: Write, *, new: bool = False) -> None:
        """Write a file, whole or not at all."""
        with whole_file(self._folder / name, overwrite=not new) as file:
            write(file)
        with _named(self.name):
            _sync_folder(self._folder)

    def remove(self, name: str) -> None:
        """Remove a file."""
        with _named(f"{self.name}/{name}"):
            (self._folder / name).unlink(missing_ok=True)

    def lock(self) -> Lock:
        """Return the lock."""
        return FileLock(self._folder / LOCK_NAME, self.name)

    def clean_up(self) -> None:
        """Remove incomplete files."""
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
        """Create the folder if it does not exist."""
        if not self._whole_uploads:
            with _named(self.name):
                self._fs.makedirs(self._root, exist_ok=True)

    def names(self) -> list[str]:
        """Return the names of all files."""
        with _named(self.name, "read"):
            self._fs.invalidate_cache()
            try:
                found = self._fs.ls(self._root, detail=False)
            except FileNotFoundError:
                return []
        return sorted({path.rstrip("/").rpartition("/")[2] for path in found if path.rstrip("/") != self._root} - {""})

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """Open a file for reading."""
        with _named(f"{self.name}/{name}", "read"):
            file = self._fs.open(f"{self._root}/{name}", "rb", cache_type="none")
        with file:
            yield file

    def write(self, name: str, write: Write, *, new: bool = False) -> None:
        """Write a file, whole or not at all."""
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
        """Remove a file."""
        with _named(f"{self.name}/{name}"), contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(f"{self._root}/{name}")

    def lock(self) -> Lock:
        """Return the lock."""
        return ObjectLock(self._fs, f"{self._root}/{LOCK_NAME}", self.name)

    def clean_up(self) -> None:
        """Remove incomplete files."""
        for name in self.names():
            if _LEFT_OVER.fullmatch(name):
                self.remove(name)


def _sync_folder(folder: Path) -> None:
    """Make a new name survive a loss of power, on systems that can open folders."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _named(name: str, what: str = "written") -> Iterator[None]:
    """Raise OutputError with the name of the file instead of any error of a file system or its library."""
    try:
        yield
    except VGGishError:
        raise
    except Exception as error:
        raise OutputError(f"{name}: cannot be {what} ({storage_reason(error)})") from error
