"""Standard streams that may be closed or full: messages are lost then, but the work is not."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import Any, TextIO

import typer

from vggish_pt.utils.text import discard_output


class StandardOutputError(OSError):
    """Standard output cannot be written, for another reason than a reader that has closed its pipe."""


class _Output(io.FileIO):
    """Standard output; a failed write raises :class:`StandardOutputError`, or BrokenPipeError."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except BrokenPipeError:
            raise
        except OSError as error:
            raise StandardOutputError(error.errno, error.strerror) from None


class _Messages(io.FileIO):
    """Standard error; a message that cannot be written is discarded."""

    def write(self, data: Any) -> int:
        with contextlib.suppress(OSError):
            return super().write(data) or 0
        return len(data)


def prepare_streams() -> None:
    """Open the null device for each closed standard stream, and replace Python's objects for output and messages.

    Characters that the encoding of a stream lacks are printed as escapes.
    """
    for descriptor in range(3):  # in this order, as a new file gets the lowest free number
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
    if sys.stdout is sys.__stdout__:  # a caller in the same process may have redirected it
        sys.stdout = _text(_Output(1, "w", closefd=False), sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(_Messages(2, "w", closefd=False), sys.stderr, line_buffering=True)


def _text(raw: io.FileIO, replaced: TextIO | None, *, line_buffering: bool = False) -> TextIO:
    encoding = "utf-8" if replaced is None else replaced.encoding
    buffer = io.BufferedWriter(raw)
    return io.TextIOWrapper(buffer, encoding, "backslashreplace", line_buffering=line_buffering or raw.isatty())


def echo_message(message: object) -> None:
    """Print a message about finished work on standard output. If it cannot be printed, it is discarded."""
    try:
        typer.echo(message)
    except (StandardOutputError, BrokenPipeError):
        discard_output()
