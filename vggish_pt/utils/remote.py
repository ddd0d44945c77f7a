"""Files at addresses such as ``s3://bucket/a.wav``, read through fsspec in blocks, with retries.

Each process opens the addresses that it reads. Credentials come from where the file system's library looks for them,
and appear in no error.
"""

from __future__ import annotations

import io
import os
import posixpath
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, BinaryIO
from urllib.parse import urlsplit, urlunsplit

from vggish_pt.errors import AudioError, MissingDependencyError
from vggish_pt.utils.fileobj import ReadOnlyFile
from vggish_pt.utils.optional import require
from vggish_pt.utils.retries import USER, remote_reason, with_retries

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)(?:::[A-Za-z][A-Za-z0-9+.-]+)*://")
_LOCAL = ("file", "local")
# Parameters of a query that grant access, or that change with each grant.
_SECRET = re.compile(
    r"(?i)^(?:x-(?:amz|goog)-.*|awsaccesskeyid|googleaccessid|signature|expires|policy|key-pair-id|sig|se|sp|st|spr|sv|sr"
    r"|skoid|sktid|skt|ske|sks|skv|.*(?:token|secret|password|api_?key|credential).*|key)$"
)

_WHOLE_BYTES = 8 << 20  # files up to this size are read by one request
_BLOCK_BYTES = 2 << 20
_MAX_BLOCKS = 4
_MAX_SPOOLED = 1 << 31
_CONNECT_SECONDS, _READ_SECONDS = 20.0, 60.0


def is_address(name: str) -> bool:
    """Return True if a name has the form of an fsspec address, not of a path."""
    found = _ADDRESS.match(name) if "://" in name else None
    return found is not None and found[1].lower() not in _LOCAL


def local_path(name: str) -> str:
    """Return a path without a leading ``file://``."""
    found = _ADDRESS.match(name) if "://" in name else None
    return name if found is None or found[1].lower() not in _LOCAL else name[found.end() :]


def redacted(address: str) -> str:
    """Return an address without user names, passwords and signatures, for outputs and errors."""
    address = USER.sub("", address)
    if "?" not in address:
        return address
    parts = urlsplit(address)
    harmless = [pair for pair in parts.query.split("&") if not _SECRET.match(pair.partition("=")[0])]
    return urlunsplit(parts._replace(query="&".join(harmless)))


def resolve_beside(file: str, name: str) -> str:
    """Resolve a name that a file contains, relative to the file's folder.

    Args:
        file: path or address of the file, of a manifest for example.
        name: path or address in it; an address or an absolute path is returned unchanged.
    """
    if is_address(name) or not is_address(file):
        return name if is_address(name) else os.path.join(os.path.dirname(local_path(file)), local_path(name))  # noqa: PTH118, PTH120
    if name.startswith("/"):
        return name
    parts = urlsplit(file.partition("?")[0])
    path = posixpath.normpath(posixpath.join(posixpath.dirname(parts.path), name))
    return urlunsplit(parts._replace(path=path if parts.path.startswith("/") else path.lstrip("/")))


def file_system(address: str) -> tuple[Any, str]:
    """Return fsspec's file system for an address, and the path of the address in it.

    Raises:
        AudioError: fsspec does not know the scheme, or the address is malformed.
        MissingDependencyError: the library for the scheme is not installed.
    """
    import fsspec

    label = redacted(address)
    scheme = address[: address.index(":")]
    options: dict[str, Any] = {}
    try:
        fsspec.get_filesystem_class(scheme)
        if scheme in ("http", "https") and "client_kwargs" not in fsspec.config.conf.get(scheme, {}):
            aiohttp = require("aiohttp", f"{label}: reading this address")
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=_READ_SECONDS)
            options["client_kwargs"] = {"timeout": timeout}
        opened: tuple[Any, str] = fsspec.core.url_to_fs(address, **options)
        return opened
    except MissingDependencyError:
        raise
    except ImportError as error:
        missing = getattr(error.__cause__ or error, "name", None)
        if missing:
            require(missing, f"{label}: reading this address")
        raise MissingDependencyError(f"{label}: reading this address needs another library ({error})") from error
    except Exception as error:  # each file system raises errors of its own
        if isinstance(error, ValueError) and "rotocol not known" in str(error):
            raise AudioError(f"{label}: fsspec knows no addresses that begin with {scheme}://", label) from None
        raise AudioError(f"{label}: {remote_reason(error)}", label) from None


@dataclass(frozen=True)
class RemoteFile:
    """A file at an address; an :class:`~vggish_pt.audio.clip.Opener`.

    Attributes:
        address: its address, with credentials if the user gave them in it.
    """

    address: str = field(repr=False)

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Open the file, as :meth:`vggish_pt.audio.clip.Opener.open`."""
        with open_address(self.address) as file:
            yield file


def open_address(address: str) -> BinaryIO:
    """Open a file at an address for reading; the file can seek.

    Raises:
        AudioError: the file cannot be opened.
        MissingDependencyError: the library for the scheme is not installed.
    """
    fs, path = file_system(address)
    label = redacted(address)
    try:
        file, size = with_retries(lambda: _open(fs, path))
        if size is None:
            return _spooled(file, label)
    except AudioError:
        raise
    except Exception as error:
        raise AudioError(f"{label}: {remote_reason(error)}", label) from None
    return io.BufferedReader(_BlockFile(lambda: _open(fs, path)[0], file, size))


def _open(fs: Any, path: str) -> tuple[Any, int | None]:
    """Open a file without fsspec's cache; the size is None if the server does not report it."""
    file = fs.open(path, "rb", cache_type="none")
    if not file.seekable() or getattr(file, "size", 0) is None:
        return file, None
    return file, file.seek(0, os.SEEK_END)


def _spooled(file: Any, label: str) -> BinaryIO:
    """Copy a file that can be read only once, to memory or, above 16 MiB, to a temporary file."""
    spooled = tempfile.SpooledTemporaryFile(max_size=1 << 24)  # noqa: SIM115 (the caller closes it)
    with file:
        while chunk := file.read(1 << 20):
            if spooled.tell() + len(chunk) > _MAX_SPOOLED:
                spooled.close()
                raise AudioError(
                    f"{label}: more than {_MAX_SPOOLED >> 30} GiB from a server that does not send ranges of a file",
                    label,
                )
            spooled.write(chunk)
    spooled.seek(0)
    return spooled  # type: ignore[return-value]


class _BlockFile(ReadOnlyFile):
    """Remote file read in large blocks, of which the last few are cached, since decoders seek back and forth.

    fsspec's own block cache (``cache_type="blockcache"``) was tried. It has one block size, chosen before the size of
    the file is known, so that a file of 8 MB takes four requests instead of one; it does not retry, returns short reads
    of lost connections as they are, and only fsspec's buffered files have it. ``benchmarks/remote.py`` counts
    requests and measures times of both.

    Args:
        reopen: opens the file again.
        file: the open file.
        size: its size in bytes.
    """

    def __init__(self, reopen: Callable[[], Any], file: Any, size: int) -> None:
        super().__init__(size)
        self._reopen = reopen
        self._file = file
        self._block_bytes = max(1, size) if size <= _WHOLE_BYTES else _BLOCK_BYTES
        self._block = lru_cache(_MAX_BLOCKS)(self._read_block)

    def read_at(self, position: int, size: int) -> bytes:
        """Return bytes from one block.

        Raises:
            OSError: the block cannot be read, also after retries.
        """
        if position >= self.size:
            return b""
        number, offset = divmod(position, self._block_bytes)
        return self._block(number)[offset : offset + size]

    def close(self) -> None:
        """Close the file and release its blocks."""
        if not self.closed:
            self._file.close()
            self._block.cache_clear()
        super().close()

    def _read_block(self, number: int) -> bytes:
        try:
            return with_retries(lambda: self._fetch(number * self._block_bytes), self._open_again)
        except Exception as error:
            raise OSError(remote_reason(error)) from None

    def _fetch(self, start: int) -> bytes:
        size = min(self._block_bytes, self.size - start)
        self._file.seek(start)
        try:
            data: bytes = self._file.read(size)
        except ValueError:  # the server ignores Range and sends the whole file
            self._file = _spooled(self._file.fs.open(self._file.path, "rb", block_size=0), "the file")
            self._file.seek(start)
            data = self._file.read(size)
        if len(data) != size:
            raise ConnectionError(f"the connection was lost after {len(data)} of {size} bytes")
        return data

    def _open_again(self) -> None:
        self._file.close()
        self._file = self._reopen()


def search(address: str) -> list[str]:
    """Return the addresses of all files below a folder, at any depth, sorted.

    Raises:
        AudioError: the folder cannot be listed.
    """
    return _listed(address, lambda fs, path: fs.find(path))


def match(pattern: str) -> list[str]:
    """Return the addresses of the files that match a pattern, sorted.

    Raises:
        AudioError: the files cannot be listed.
    """
    return _listed(pattern, lambda fs, path: [p for p, info in _glob(fs, path) if info.get("type") != "directory"])


def _glob(fs: Any, path: str) -> list[tuple[str, dict[str, Any]]]:
    return list(fs.glob(path, detail=True).items())


def _listed(address: str, call: Callable[[Any, str], list[str]]) -> list[str]:
    fs, path = file_system(address)
    scheme = address[: address.index(":")]
    label = redacted(address)
    try:
        names = with_retries(lambda: call(fs, path))
    except Exception as error:
        raise AudioError(f"{label}: cannot be listed: {remote_reason(error)}", label) from None
    return sorted(name if "://" in name else f"{scheme}://{name.lstrip('/')}" for name in names)


def exists(address: str) -> bool:
    """Return True if there is a file or folder at an address; False also if the file system cannot tell.

    Raises:
        AudioError: fsspec does not know the scheme.
    """
    fs, path = file_system(address)
    try:
        return bool(with_retries(lambda: fs.exists(path)))
    except Exception:  # listing or opening reports the error
        return False


def is_folder(address: str) -> bool:
    """Return True if an address ends in a slash, or if the file system reports it as a folder.

    Raises:
        AudioError: fsspec does not know the scheme.
    """
    if address.endswith("/"):
        return True
    if address.startswith(("http://", "https://")):  # asking would download the file
        return False
    fs, path = file_system(address)
    try:
        return bool(with_retries(lambda: fs.info(path)["type"] == "directory"))
    except Exception:  # opening the file reports the error
        return False
