"""Download of one file from the first source that delivers it, through pooch.

pooch writes to a temporary file, checks the digest and renames the file; requests, below it, follows redirects to http
and https only and heeds proxies. Added here is what pooch lacks: several sources in order, another attempt after a
broken connection only, and a bound on the size.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from vggish_pt.errors import DownloadError, OutputError
from vggish_pt.pretrained.entries import MAX_BYTES, Download
from vggish_pt.pretrained.environment import connect_timeout, no_answer
from vggish_pt.utils.remote import redacted

_ATTEMPTS = 4
_WAIT_SECONDS = 0.5  # before the second attempt; longer before each further one
_READ_SECONDS = 30.0
_CHUNK_BYTES = 1 << 16

_CONNECTION = re.compile(r"<?[\w.]*HTTPS?Connection.*?[)>]: ")  # prefix of urllib3's messages

_log = logging.getLogger(__name__)


def digest_of(path: Path, algorithm: str = "sha256") -> str:
    """Return the digest of a file, as "sha256:..." or "md5:...".

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        # FIPS builds of Python allow MD5 only with usedforsecurity=False.
        found = hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False))
    return f"{algorithm}:{found.hexdigest()}"


def fetch(sources: Sequence[Download], folder: Path, *, progress: bool | None = None) -> Path:
    """Download one file from the first of several sources that delivers it.

    Only one process at a time may use ``folder`` (:func:`vggish_pt.pretrained.cache.obtain` holds a lock).

    Args:
        sources: where to get the file, tried in order. A file that was downloaded before is used again.
        folder: where to put it; made if it does not exist.
        progress: whether to show a progress bar on stderr; None: if it is a terminal.

    Returns:
        Path of the file, its digest checked.

    Raises:
        DownloadError: no source delivered it; the message has the reason for each.
        OutputError: the folder cannot be written.
        SettingsError: ``VGGISH_PT_CONNECT_TIMEOUT`` is no positive number.
    """
    reasons = []
    for source in sorted(sources, key=lambda source: not (folder / source.name).is_file()):
        try:
            return _retrieve(source, folder, progress)
        except DownloadError as error:
            reasons.append(f"{redacted(source.url)}: {error}")
            _log.info("%s", reasons[-1])
        except OSError as error:
            raise OutputError(
                f"{folder}: cannot write the download there ({error.strerror or error}); "
                "set VGGISH_PT_CACHE to a folder that can be written and has room"
            ) from None
    raise DownloadError(f"cannot download {sources[0].name}: {'; '.join(reasons)}")


def _retrieve(source: Download, folder: Path, progress: bool | None) -> Path:
    """Download from one source, again if the connection breaks or the server is busy."""
    if source.digest is None:
        raise DownloadError("its full digest is not known here; give its SHA-256 with --mirror-sha256")
    import pooch
    import requests

    options = {"timeout": (connect_timeout(), _READ_SECONDS), "headers": {"Accept-Encoding": "identity"}}

    def receive(url: str, path: str, _: object) -> None:
        with _progress_bar(source, progress) as report, Path(path).open("wb") as file:
            output = _Output(file, source.size, report)
            pooch.HTTPDownloader(output, _CHUNK_BYTES, **options)(url, output, None)

    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with _muted(pooch.get_logger()):
                return Path(pooch.retrieve(source.url, source.digest, source.name, folder, downloader=receive))
        except requests.RequestException as error:
            reason, may_pass = _diagnosis(error)
            if not may_pass:
                raise DownloadError(reason) from None
            _log.info("%s: %s; attempt %d of %d", redacted(source.url), reason, attempt, _ATTEMPTS)
        except ValueError as error:  # the digest differs
            raise DownloadError(f"it sends another file ({str(error).partition('. ')[0]})") from None
        if attempt < _ATTEMPTS:
            time.sleep(_WAIT_SECONDS * attempt)
    raise DownloadError(f"{reason}, {_ATTEMPTS} times")


def _diagnosis(error: Exception) -> tuple[str, bool]:
    """Return the reason of a failed request, and True if another attempt may succeed."""
    import requests
    from urllib3.exceptions import NewConnectionError

    if isinstance(error, requests.HTTPError) and error.response is not None:
        code, words = error.response.status_code, error.response.reason or ""
        return f"it answered {code} {words}".rstrip(), code in (408, 425, 429) or code >= 500
    if isinstance(error, requests.ConnectTimeout):
        return no_answer(), False
    cause: BaseException = error  # the innermost: requests wraps exceptions of urllib3, which wrap others
    while inner := [e for e in (getattr(cause, "reason", None), *cause.args) if isinstance(e, Exception)]:
        cause = inner[0]
    text = _CONNECTION.sub("", str(cause)).rstrip(".") or type(cause).__name__
    broken = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
    if not isinstance(error, broken) or isinstance(error, requests.exceptions.SSLError):
        return text, False
    return f"the connection failed ({text})", not isinstance(cause, NewConnectionError)


class _Output:
    """File that a download is written to; also the progress bar that pooch calls, as pooch counts chunks, not bytes."""

    def __init__(self, file: IO[bytes], size: int | None, report: Callable[[int, int | None], None]) -> None:
        self._file, self._size, self._report = file, size, report
        self._done, self._total = 0, size

    @property
    def total(self) -> int:
        """Size in bytes that the server announces; 0 if it announces none."""
        return self._total or 0

    @total.setter
    def total(self, announced: int) -> None:
        if announced > MAX_BYTES or (announced and self._size and announced != self._size):
            expected = self._size or f"at most {MAX_BYTES}"
            raise DownloadError(f"it offers {announced} bytes, where {expected} were expected")
        self._total = announced or self._size
        self._report(0, self._total)

    def write(self, data: bytes) -> None:
        """Write a chunk, unless the file gets too large."""
        self._done += len(data)
        if self._done > (limit := self._size or MAX_BYTES):
            raise DownloadError(f"it sends more than the {limit} bytes expected")
        self._file.write(data)
        self._report(self._done, self._total)

    def flush(self, *_: object) -> None:
        """Do nothing, as for the three names of a progress bar below."""

    update = reset = close = flush


@contextlib.contextmanager
def _progress_bar(source: Download, visible: bool | None) -> Iterator[Callable[[int, int | None], None]]:
    """Show a progress bar on stderr; yields a function of the bytes done and the total, None if unknown."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    visible = sys.stderr.isatty() if visible is None else visible
    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not visible) as bar:
        task = bar.add_task(source.name)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextlib.contextmanager
def _muted(logger: logging.Logger) -> Iterator[None]:
    """Drop what this thread logs to pooch's logger, which prints on stderr; other threads' lines pass."""
    thread = threading.get_ident()

    def elsewhere(record: logging.LogRecord) -> bool:
        return record.thread != thread

    logger.addFilter(elsewhere)
    try:
        yield
    finally:
        logger.removeFilter(elsewhere)
