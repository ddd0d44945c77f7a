"""Text for a terminal."""

from __future__ import annotations

import contextlib
import os
import sys


def one_line(message: object) -> str:
    """A message with its control characters, which file names may contain, shown escaped."""
    return "".join(ch if ch.isprintable() else ch.encode("unicode_escape").decode() for ch in str(message))


def discard_output() -> None:
    """Sends standard output nowhere, once it cannot be written any more, so that the process ends quietly."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
