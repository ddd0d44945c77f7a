"""Text for a terminal."""

from __future__ import annotations


def one_line(message: object) -> str:
    """A message with its control characters, which file names may contain, shown escaped."""
    return "".join(ch if ch.isprintable() else ch.encode("unicode_escape").decode() for ch in str(message))
