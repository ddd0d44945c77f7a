"""Text for messages and outputs: names, paths and errors as one line."""

from __future__ import annotations

import contextlib
import os
import re
import sys

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def one_line(message: object) -> str:
    """Return a message with all unprintable characters escaped, since file names may contain any."""
    return "".join(ch if ch.isprintable() else ch.encode("unicode_escape").decode() for ch in str(message))


def first_line(error: BaseException) -> str:
    """Return the first 200 characters of the first line of an error's message, or the error's type if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def joined_lines(error: BaseException) -> str:
    """Return an error's message with spaces in place of line breaks, or the error's type if it has no message."""
    return " ".join(str(error).split()) or type(error).__name__


def error_reason(error: BaseException) -> str:
    """Return the operating system's message of an error ("No space left on device"), or else the error's first line."""
    return getattr(error, "strerror", None) or first_line(error)


def display_name(path: object) -> str:
    """Return a path or other name for a message, with control characters and bytes that are not UTF-8 escaped."""
    text = os.fsdecode(path) if isinstance(path, bytes | os.PathLike) else str(path)
    return _UNPRINTABLE.sub(_escape, text) or "''"


def path_text(path: str) -> str:
    """Return a path as outputs store it: unchanged, except that bytes that are not UTF-8 are escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def discard_output() -> None:
    """Redirect standard output to the null device once it cannot be written, so that the process ends quietly."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as Python's surrogateescape represents it
        return f"\\x{code - 0xDC00:02x}"
    return found[0].encode("unicode_escape").decode()
