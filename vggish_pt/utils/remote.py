"""Files at addresses such as ``s3://bucket/a.wav``, read through fsspec in blocks, and tried again.

Who reads opens the address, in whatever process that is; credentials come from where the file system's library looks
for them, and stand in no error.
"""

from __future__ import annotations

import io
import os
import posixpath
import re
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO, TypeVar
from urllib.parse import urlsplit, urlunsplit

from vggish_pt.errors import AudioError, MissingDependencyError
from vggish_pt.utils.fileobj import RawFile
from vggish_pt.utils.optional import require

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)(?:::[A-Za-z][A-Za-z0-9+.-]+)*://")
_LOCAL = ("file", "local")
# A query's parameters that grant access, or change each time access is granted.
_SECRET = re.compile(
    r"(?i)^(?:x-(?:amz|goog)-.*|awsaccesskeyid|googleaccessid|signature|expires|policy|key-pair-id|sig|se|sp|st|spr|sv|sr"
    r"|skoid|sktid|skt|ske|sks|skv|.*(?:token|secret|password|api_?key|credential).*|key)$"
)
_USER = re.compile(r"(?<=://)[^/@\s]*@")
_QUERY = re.compile(r"\?[^\s'\"<>)]*")

_WHOLE_BYTES = 8 << 20  # a file up to this is read at once
_BLOCK_BYTES = 2 << 20
_MAX_BLOCKS = 4
_MAX_SPOOLED = 1 << 31
_WAITS = (0.2, 1.0)  # seconds before each further try
_CONNECT_SECONDS, _READ_SECONDS = 20.0, 60.0

_T = TypeVar("_T")


def is_address(name: str) -> bool:
    """Whether a name is an address that fsspec may know, not a path."""
    found = _ADDRESS.match(name)
    return found is not None and found[1].lower() not in _LOCAL


def local_path(name: str) -> str:
    """A path as it is, ``file://`` taken off."""
    found = _ADDRESS.match(name)
    return name if found is None or found[1].lower() not in _LOCAL else name[found.end() :]


def shown(address: str) -> str:
    """An address as outputs and errors show it: without user names, passwords and signatures."""
    address = _USER.sub("", address)
    if "?" not in address:
        return address
    parts = urlsplit(address)
    kept = [pair for pair in parts.query.split("&") if not _SECRET.match(pair.partition("=")[0])]
    return urlunsplit(parts._replace(query="&".join(kept)))


def beside(file: str, name: str) -> str:
    """Where a name leads that stands in a file: an address or an absolute path as it is, else from the file's folder.

    Args:
        file: path or address of the file, of a manifest say.
        name: path or address that stands in it.
    """
    if is_address(name) or not is_address(file):
        return name if is_address(name) else os.path.join(os.path.dirname(local_path(file)), local_path(name))  # noqa: PTH118, PTH120
    if name.startswith("/"):
        return name
    parts = urlsplit(file.partition("?")[0])
    path = posixpath.normpath(posixpath.join(posixpath.dirname(parts.path), name))
    return urlunsplit(parts._replace(path=path if parts.path.startswith("/") else path.lstrip("/")))


def file_system(address: str) -> tuple[Any, str]:
    """fsspec's file system for an address, and how it calls what lies there.

    Raises:
        AudioError: there is no such kind of address, or it is malformed.
        MissingDependencyError: the library for it is not installed.
    """
    import fsspec

    label = shown(address)
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
    except Exception as error:  # each file system has its own
        if isinstance(error, ValueError) and "rotocol not known" in str(error):
            raise AudioError(f"{label}: fsspec knows no addresses that begin with {scheme}://", label) from None
        raise AudioError(f"{label}: {reason(error)}", label) from None


@dataclass(frozen=True)
class RemoteFile:
    """A file at an address; an :class:`~vggish_pt.audio.clip.Opener`.

    Attributes:
        address: where it lies, credentials included if the user gave them there.
    """

    address: str = field(repr=False)

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The file; see :class:`~vggish_pt.audio.clip.Opener`."""
        with open_address(self.address) as file:
            yield file


def open_address(address: str) -> BinaryIO:
    """Opens a file at an address for reading; it can seek.

    Raises:
        AudioError: it cannot be had.
        MissingDependencyError: the library for such addresses is not installed.
    """
    fs, path = file_system(address)
    label = shown(address)
    try:
        file, size = tried(lambda: _open(fs, path))
        if size is None:
            return _spooled(file, label)
    except AudioError:
        raise
    except Exception as error:
        raise AudioError(f"{label}: {reason(error)}", label) from None
    return io.BufferedReader(_Blocks(lambda: _open(fs, path)[0], file, size))


def _open(fs: Any, path: str) -> tuple[Any, int | None]:
    file = fs.open(path, "rb", cache_type="none")
    if not file.seekable() or getattr(file, "size", 0) is None:  # of an HTTP server that does not say how long it is
        return file, None
    return file, file.seek(0, os.SEEK_END)


def _spooled(file: Any, label: str) -> BinaryIO:
    """All of what can only be read once, on the disk if it is large."""
    spooled = tempfile.SpooledTemporaryFile(max_size=1 << 24)  # noqa: SIM115 (the caller closes it)
    with file:
        while chunk := file.read(1 << 20):
            if spooled.tell() + len(chunk) > _MAX_SPOOLED:
                spooled.close()
                raise AudioError(
                    f"{label}: more than {_MAX_SPOOLED >> 30} GiB from a server that gives no parts", label
                )
            spooled.write(chunk)
    spooled.seek(0)
    return spooled  # type: ignore[return-value]


class _Blocks(RawFile):
    """Reads a remote file in large blocks and keeps the last few of them, since decoders jump."""

    def __init__(self, reopen: Callable[[], Any], file: Any, size: int) -> None:
        super().__init__(size)
        self._reopen = reopen
        self._file = file
        self._block = max(1, size) if size <= _WHOLE_BYTES else _BLOCK_BYTES
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    def readinto(self, buffer: Any) -> int:
        if self._position >= self._size:
            return 0
        number, within = divmod(self._position, self._block)
        data = self._get(number)[within : within + len(buffer)]
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
            self._blocks.clear()
        super().close()

    def _get(self, number: int) -> bytes:
        if number not in self._blocks:
            try:
                self._blocks[number] = tried(lambda: self._fetch(number), self._again)
            except Exception as error:
                raise OSError(reason(error)) from None
            if len(self._blocks) > _MAX_BLOCKS:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(number)
        return self._blocks[number]

    def _fetch(self, number: int) -> bytes:
        start = number * self._block
        wanted = min(self._block, self._size - start)
        self._file.seek(start)
        try:
            data: bytes = self._file.read(wanted)
        except ValueError:  # the server sends all of it instead of a part
            self._file = _spooled(self._reopen_whole(), "the file")
            self._file.seek(start)
            data = self._file.read(wanted)
        if len(data) != wanted:
            raise ConnectionError(f"the connection was lost after {len(data)} of {wanted} bytes")
        return data

    def _reopen_whole(self) -> Any:
        return self._file.fs.open(self._file.path, "rb", block_size=0)

    def _again(self) -> None:
        self._file.close()
        self._file = self._reopen()


def tried(call: Callable[[], _T], before_next: Callable[[], object] = lambda: None) -> _T:
    """Calls until it succeeds, a few times at most, if what goes wrong may pass: lost connections, busy servers."""
    for wait in _WAITS:
        try:
            return call()
        except Exception as error:
            if not _may_pass(error):
                raise
            time.sleep(wait)
            before_next()
    return call()


def _cause(error: BaseException) -> BaseException:
    """What really happened: some file systems say of everything that the file is not there."""
    while isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _status(error: BaseException) -> int | None:
    status = getattr(error, "status", None) or getattr(error, "code", None)
    response = getattr(error, "response", None)
    if status is None and isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status if isinstance(status, int) else None


def _may_pass(error: BaseException) -> bool:
    error = _cause(error)
    status = _status(error)
    if status is not None:
        return status >= 500 or status in (408, 425, 429)
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError | NotADirectoryError):
        return False
    library = type(error).__module__.partition(".")[0]
    return library in ("aiohttp", "requests", "urllib3", "http") or type(error).__name__ in (
        "EndpointConnectionError",
        "ConnectTimeoutError",
        "ReadTimeoutError",
        "ConnectionClosedError",
        "HTTPClientError",
        "FSTimeoutError",
    )


def reason(error: BaseException) -> str:
    """Why something at an address cannot be had, in a line and without secrets."""
    error = _cause(error)
    status = _status(error)
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        return "no such file"
    if isinstance(error, PermissionError) or status in (401, 403):
        return "access is denied; check the credentials"
    if status is not None:
        return f"the server answers with status {status}"
    text = (str(error).strip().splitlines() or [""])[0][:200]
    text = _QUERY.sub("", _USER.sub("", text))
    return f"cannot be reached or read ({f'{type(error).__name__}: {text}' if text else type(error).__name__})"


def search(address: str) -> list[str]:
    """All files at addresses below a folder, at any depth, sorted.

    Raises:
        AudioError: it cannot be listed.
    """
    return _listed(address, lambda fs, path: fs.find(path))


def match(pattern: str) -> list[str]:
    """The files that a pattern of addresses matches, sorted.

    Raises:
        AudioError: they cannot be listed.
    """
    return _listed(pattern, lambda fs, path: [p for p, info in _glob(fs, path) if info.get("type") != "directory"])


def _glob(fs: Any, path: str) -> list[tuple[str, dict[str, Any]]]:
    return list(fs.glob(path, detail=True).items())


def _listed(address: str, call: Callable[[Any, str], list[str]]) -> list[str]:
    fs, path = file_system(address)
    scheme = address[: address.index(":")]
    label = shown(address)
    try:
        found = tried(lambda: call(fs, path))
    except Exception as error:
        raise AudioError(f"{label}: cannot be listed: {reason(error)}", label) from None
    return sorted(name if "://" in name else f"{scheme}://{name.lstrip('/')}" for name in found)


def is_folder(address: str) -> bool:
    """Whether an address is that of a folder: ends in a slash, or the file system says so.

    Raises:
        AudioError: it is of no known kind.
    """
    if address.endswith("/"):
        return True
    if address.startswith(("http://", "https://")):  # to ask would be to download
        return False
    fs, path = file_system(address)
    try:
        return bool(tried(lambda: fs.info(path)["type"] == "directory"))
    except Exception:  # said again, and of the file, when it is opened
        return False
