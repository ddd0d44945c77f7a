"""Retries of operations on remote files, and one-line reasons for their errors."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TypeVar

USER = re.compile(r"(?<=://)[^/@\s]*@")
"""User name and password in an address."""

_QUERY = re.compile(r"\?[^\s'\"<>)]*")
_WAITS = (0.2, 1.0)  # seconds before each further attempt
_TRANSIENT_LIBRARIES = ("aiohttp", "requests", "urllib3", "http")
_TRANSIENT_ERRORS = (
    "EndpointConnectionError",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "ConnectionClosedError",
    "HTTPClientError",
    "FSTimeoutError",
)

_T = TypeVar("_T")


def with_retries(call: Callable[[], _T], before_retry: Callable[[], object] = lambda: None) -> _T:
    """Call a function, and twice more after errors that may be transient: lost connections, busy servers.

    Args:
        call: the function.
        before_retry: called before each retry, to open a connection again for example.

    Raises:
        Exception: the last error of ``call``.
    """
    for wait in _WAITS:
        try:
            return call()
        except Exception as error:
            if not _is_transient(error):
                raise
            time.sleep(wait)
            before_retry()
    return call()


def remote_reason(error: BaseException) -> str:
    """Return the reason of an error in one line, without secrets of the address."""
    error = _cause(error)
    status = _status(error)
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        return "no such file"
    if isinstance(error, PermissionError) or status in (401, 403):
        return "access is denied; check the credentials"
    if status is not None:
        return f"the server answers with status {status}"
    text = (str(error).strip().splitlines() or [""])[0][:200]
    text = _QUERY.sub("", USER.sub("", text))
    return f"cannot be reached or read ({f'{type(error).__name__}: {text}' if text else type(error).__name__})"


def _cause(error: BaseException) -> BaseException:
    """Return the underlying error: some file systems raise FileNotFoundError from any other error."""
    while isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _status(error: BaseException) -> int | None:
    """Return the HTTP status that an error carries; None without one."""
    status = getattr(error, "status", None) or getattr(error, "code", None)
    response = getattr(error, "response", None)
    if status is None and isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status if isinstance(status, int) else None


def _is_transient(error: BaseException) -> bool:
    error = _cause(error)
    status = _status(error)
    if status is not None:
        return status >= 500 or status in (408, 425, 429)
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError | NotADirectoryError):
        return False
    library = type(error).__module__.partition(".")[0]
    return library in _TRANSIENT_LIBRARIES or type(error).__name__ in _TRANSIENT_ERRORS
