"""Locations of files: on a disk, at addresses, and relative to a manifest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

from vggish_pt.audio.clip import Opener
from vggish_pt.dataset.inputs.table import ClipRow
from vggish_pt.errors import AudioError
from vggish_pt.utils.remote import RemoteFile, is_address, local_path, open_address, resolve_beside
from vggish_pt.utils.text import display_name


@dataclass(frozen=True)
class LocalFiles:
    """Files on a disk, opened by their paths."""

    def source(self, row: ClipRow) -> None:
        """Return None: the path is the source."""


@dataclass(frozen=True)
class RemoteFiles:
    """Files at addresses."""

    def source(self, row: ClipRow) -> Opener:
        """Return the file at the address."""
        return RemoteFile(row.address or row.path)


@dataclass(frozen=True)
class ManifestFiles:
    """Files that a manifest names.

    Attributes:
        manifest: path or address of the manifest.
    """

    manifest: str

    def source(self, row: ClipRow) -> str | Opener:
        """Return the path or the file at the address, resolved from the manifest's folder."""
        resolved = resolve_beside(self.manifest, row.address or row.path)
        return RemoteFile(resolved) if is_address(resolved) else resolved


def open_file(name: str) -> BinaryIO:
    """Open a file at a path or address for reading.

    Raises:
        AudioError: the file cannot be opened.
        MissingDependencyError: the library for the address is not installed.
    """
    if is_address(name):
        return open_address(name)
    label = display_name(name)
    try:
        return open(local_path(name), "rb")  # noqa: PTH123 (a path of any bytes; the caller closes the file)
    except FileNotFoundError:
        raise AudioError(f"{label}: no such file", label) from None
    except (OSError, ValueError) as error:
        raise AudioError(f"{label}: cannot be opened ({getattr(error, 'strerror', None) or error})", label) from None
