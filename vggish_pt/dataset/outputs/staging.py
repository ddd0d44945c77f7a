"""Temporary folder, lock and errors of a single file while it is written."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from vggish_pt.errors import OutputError

_PREFIX = ".vggish-pt-"  # of temporary folders and locks


@contextlib.contextmanager
def staging_folder(path: Path) -> Iterator[Path]:
    """Create a temporary folder next to the output. Folders that were created for it are removed if they stay empty."""
    folder = path.parent
    with contextlib.ExitStack() as stack:
        with output_errors(path):
            for missing in reversed([f for f in (folder, *folder.parents) if not f.exists()]):
                missing.mkdir(exist_ok=True)
                stack.callback(_remove_if_empty, missing)
            staging = stack.enter_context(tempfile.TemporaryDirectory(prefix=_PREFIX, suffix=".tmp", dir=folder))
        yield Path(staging)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock an output against a second run, if the file system supports locks.

    Raises:
        OutputError: another run is writing the output.
    """
    from filelock import FileLock, Timeout

    digest = hashlib.blake2b(os.fsencode(path.name), digest_size=8).hexdigest()
    file = path.with_name(f"{_PREFIX}{digest}.lock")
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise OutputError(f"{path}: another run is writing it; wait until it ends, or choose another output") from None
    except (OSError, NotImplementedError):
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)
        lock.release()


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def identity(path: Path) -> tuple[int, int, int] | None:
    """Return a value that changes when a file is replaced; None if there is no file."""
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def exists(path: Path) -> bool:
    """Return True if there is a file, a folder or a link, even a broken one."""
    return identity(path) is not None


def sync(file: Path) -> None:
    """Make a file's contents survive a loss of power."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


@contextlib.contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Raise OutputError with the name of the output instead of an OSError."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise OutputError(f"{path}: cannot be written ({reason})") from error
