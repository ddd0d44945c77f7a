"""One file from the first of several addresses that delivers it, checked against its digest.

Bytes go to a ``.part`` file, which a later attempt (also of another process, or from another address of the
same file) resumes; only when the digest is right does it get its name. Redirects, proxies and certificates are
the business of ``requests``, which follows redirects to http and https only.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from vggish_pt.errors import DownloadError, OutputError, WeightsError

Report = Callable[[str, int, int | None], None]
"""Called with a file's name, the bytes it has so far, and the bytes it will have (None: unknown)."""

MAX_BYTES = 1 << 30
"""Where a file's size is not known beforehand, a server that sends more than this is cut off."""

_ATTEMPTS = 4
_PROGRESS_BYTES = 1 << 20  # an attempt that brought this much further does not count as failed
_CHUNK_BYTES = 1 << 16
_WAIT_SECONDS = 0.25  # before trying again, more after every failure
_TIMEOUT = (5.0, 30.0)  # seconds to connect, and to wait for more bytes

_DIGEST = re.compile(r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{8,64}")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_CONNECTION = re.compile(r"<?[\w.]*HTTPS?Connection.*?[)>]: ")  # how urllib3 begins its messages
_RANGE = re.compile(r"bytes (\d+)-\d+/(?:\d+|\*)")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Download:
    """Where a file can be had, and how to recognise it.

    Attributes:
        url: http or https address, which ends in the file's name.
        digest: "md5:" and 32 hexadecimal digits, or "sha256:" and 64 (the first 8, if no more is published).
        size: bytes, or None if not known.
    """

    url: str
    digest: str
    size: int | None = None

    def __post_init__(self) -> None:
        parts = urlsplit(self.url) if isinstance(self.url, str) else None
        if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
            raise WeightsError(f"{self.url!r} is no http or https address to download from")
        if not _FILE_NAME.fullmatch(self.name):
            raise WeightsError(f"{self.url!r} does not end in a plain file name")
        if not isinstance(self.digest, str) or not _DIGEST.fullmatch(self.digest):
            raise WeightsError(f"{self.digest!r} is no digest: md5:<32 hex digits> or sha256:<8 to 64 hex digits>")
        if self.size is not None and (type(self.size) is not int or not 0 < self.size <= MAX_BYTES):
            raise WeightsError(f"{self.url}: size must be from 1 to {MAX_BYTES} bytes, not {self.size!r}")

    @property
    def name(self) -> str:
        """The file's name."""
        return urlsplit(self.url).path.rpartition("/")[2]

    @property
    def tag(self) -> str:
        """The first eight digits of the digest."""
        return self.digest.partition(":")[2][:8]


def digest_of(path: Path, algorithm: str = "sha256") -> str:
    """Digest of a file, as "sha256:..." or "md5:...".

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        # MD5 is here to recognise a published file, which FIPS builds of Python want to be told.
        found = hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False))
    return f"{algorithm}:{found.hexdigest()}"


def digest_matches(path: Path, digest: str) -> bool:
    """Whether a file has a digest, of which the first digits may be all that is known.

    Raises:
        OSError: the file cannot be read.
    """
    return digest_of(path, digest.partition(":")[0]).startswith(digest)


class _Retry(Exception):
    """An attempt that failed in a way that may pass."""


class _Refused(Exception):
    """An address that will not deliver the file, however often it is asked."""


def fetch(sources: Sequence[Download], folder: Path, *, report: Report | None = None) -> Path:
    """Downloads one file. Only one process at a time may use ``folder`` (:func:`vggish_pt.pretrained.cache.obtain`).

    Args:
        sources: places to get it from, tried in order; they may offer different files that serve one purpose.
        folder: where to put it; made if it does not exist.
        report: called as bytes arrive.

    Returns:
        Path of the file, its digest checked. A file that is there already is used if its digest is right.

    Raises:
        DownloadError: no address delivered it; the message says why for each.
        OutputError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for source in sources:
            path = folder / source.name
            if path.is_file() and digest_matches(path, source.digest):
                return path
        reasons = []
        for source in sources:
            try:
                return _fetch_one(source, folder, report or _silent)
            except _Refused as error:
                reasons.append(f"{source.url}: {error}")
                _log.info("%s", reasons[-1])
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot keep downloads there ({error.strerror or error}); "
            "set VGGISH_PT_CACHE to a folder that can be written and has room"
        ) from None
    raise DownloadError(f"cannot download {sources[0].name}: {'; '.join(reasons)}")


def _fetch_one(source: Download, folder: Path, report: Report) -> Path:
    path = folder / source.name
    part = folder / f"{source.name}.{source.tag}.part"
    resumed = part.exists()
    _receive_all(source, part, report)
    if not digest_matches(part, source.digest):
        part.unlink()
        if resumed:  # what was there before may be to blame
            return _fetch_one(source, folder, report)
        raise _Refused(f"what it sends is not the promised file ({source.digest} expected)")
    part.replace(path)
    return path


def _receive_all(source: Download, part: Path, report: Report) -> None:
    """Attempts until the part file is complete, as long as attempts get further."""
    failures, furthest = 0, _size(part)
    while True:
        try:
            return _receive(source, part, report)
        except _Retry as error:
            failures = 0 if _size(part) >= furthest + _PROGRESS_BYTES else failures + 1
            furthest = max(furthest, _size(part))
            if failures >= _ATTEMPTS:
                raise _Refused(f"{error}, {_ATTEMPTS} times") from None
            _log.info("%s: %s; trying again", source.url, error)
            time.sleep(_WAIT_SECONDS * failures)


def _receive(source: Download, part: Path, report: Report) -> None:
    """One request, for the bytes that are still missing."""
    import requests

    limit = source.size or MAX_BYTES
    have = _size(part)
    if have > limit:
        part.unlink()
        have = 0
    if have == source.size:
        return
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        with requests.get(source.url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
            if response.status_code == 416 and have:
                return  # nothing is missing; the digest will tell
            _check_status(response)
            if response.status_code != 206:
                have = 0
            elif not (match := _RANGE.match(response.headers.get("Content-Range", ""))) or int(match[1]) != have:
                part.unlink(missing_ok=True)
                raise _Retry("it answered with other bytes than asked for")
            length = response.headers.get("Content-Length", "")
            total = have + int(length) if length.isascii() and length.isdecimal() else source.size
            if total is not None and (total > limit or source.size not in (None, total)):
                raise _Refused(f"it offers {total} bytes, where {source.size or f'at most {limit}'} were expected")
            _write(response, part, have, total, limit, lambda done: report(source.name, done, total))
    except (
        requests.exceptions.SSLError,
        requests.exceptions.InvalidSchema,
        requests.exceptions.InvalidURL,
    ) as error:
        raise _Refused(_plain(error)) from None
    except requests.TooManyRedirects:
        raise _Refused("it redirects in circles") from None
    except requests.Timeout:
        raise _Retry("it stopped answering") from None
    except requests.RequestException as error:
        raise _Retry(f"the connection failed ({_plain(error)})") from None


def _check_status(response: Any) -> None:
    code = response.status_code
    if code not in (200, 206):
        message = f"it answered {code} {response.reason or ''}".rstrip()
        raise _Retry(message) if code in (408, 425, 429) or code >= 500 else _Refused(message)


def _write(response: Any, part: Path, have: int, total: int | None, limit: int, report: Callable[[int], None]) -> None:
    try:
        with part.open("ab" if have else "wb") as file:
            report(have)
            for chunk in response.iter_content(_CHUNK_BYTES):
                have += len(chunk)
                if have > limit:
                    raise _Refused(f"it sends more than the {limit} bytes expected")
                file.write(chunk)
                report(have)
    except _Refused:
        part.unlink(missing_ok=True)
        raise
    if total is not None and have < total:
        raise _Retry(f"it sent only {have} of {total} bytes")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _plain(error: Exception) -> str:
    """The innermost cause of an exception of ``requests``, which wraps those of urllib3, which wrap others."""
    inner: Exception | None = error
    while inner is not None:
        error = inner
        causes = (getattr(error, "reason", None), *error.args)
        inner = next((cause for cause in causes if isinstance(cause, Exception)), None)
    return _CONNECTION.sub("", str(error)).rstrip(".") or type(error).__name__


def _silent(_name: str, _done: int, _total: int | None) -> None:
    pass


@contextlib.contextmanager
def progress_bar(shown: bool | None = None) -> Iterator[Report]:
    """Progress bars on stderr, one for each file.

    Args:
        shown: whether to show them; None: if stderr is a terminal.

    Yields:
        What to give :func:`fetch` as ``report``.
    """
    if not (sys.stderr.isatty() if shown is None else shown):
        yield _silent
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TaskID,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        "{task.description}",
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=Console(stderr=True)) as bar:

        def report(name: str, done: int, total: int | None) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=total)
            bar.update(tasks[name], completed=done, total=total)

        yield report
