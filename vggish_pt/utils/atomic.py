"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from vggish_pt.errors import OutputError


def check_file(path: Path, *, overwrite: bool = False) -> None:
    """Check that a file can be written, before its content is computed.

    Raises:
        OutputError: the file exists and ``overwrite`` is False, or its folder cannot be written to.
    """
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; name a file in it")
    if path.exists() and not path.is_file():
        raise OutputError(f"{path}: is no regular file; choose another output")
    if os.path.lexists(path) and not overwrite:
        raise OutputError(f"{path}: exists already; choose another output, or allow to overwrite it (--overwrite)")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
        raise OutputError(f"{path}: cannot be written, since {path.parent} is no folder or cannot be written to")


@contextlib.contextmanager
def whole_file(path: Path, *, overwrite: bool = False) -> Iterator[IO[bytes]]:
    """Open a temporary file. It is renamed to ``path`` if the block ends without an error, and deleted if not.

    Args:
        path: the file to write; its folder must exist. Links are followed.
        overwrite: replace an existing file.

    Raises:
        OutputError: the file exists and ``overwrite`` is False, or it cannot be written.
    """
    check_file(path, overwrite=overwrite)
    target = path.resolve() if path.is_symlink() else path
    staged = ""
    try:
        with tempfile.NamedTemporaryFile(
            prefix=f".{target.name}.", suffix=".tmp", dir=target.parent, delete=False
        ) as f:
            staged = f.name
            yield f
            f.flush()
            os.fsync(f.fileno())
        Path(staged).chmod(0o644)
        Path(staged).replace(target)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        if staged:
            Path(staged).unlink(missing_ok=True)
