"""A worker process: reads sources, and sends their log-mel windows to the process that started it.

It ends with its input pipe: when the process that started it closes the pipe, or is gone.
"""

from __future__ import annotations

import os
import pickle
import sys
import threading
import traceback
import warnings
from collections.abc import Generator
from queue import SimpleQueue
from typing import Any, BinaryIO

import torch

from vggish_pt.audio import Clip
from vggish_pt.errors import AudioError, AudioWarning, WorkerError
from vggish_pt.inference.loading import WindowChunk, load_windows
from vggish_pt.inference.processes.wire import messages, receive_object, send_message
from vggish_pt.inference.settings import EmbedSettings
from vggish_pt.nn.frontend import LogMel
from vggish_pt.utils.text import joined_lines


def main() -> None:
    """Runs in a fresh process; see :mod:`vggish_pt.inference.processes.pool` for the other side."""
    try:
        _work()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(1)  # not through the interpreter's end, which may wait for the thread that reads the input pipe


def _work() -> None:
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not get among the messages
    dtype, settings, allowance = receive_object(sys.stdin.buffer)
    inbox = _Inbox(sys.stdin.buffer, allowance)
    told = _collect_warnings()
    torch.set_num_threads(1)
    frontend = LogMel(None if dtype is None else getattr(torch, dtype))
    send_message(output, {"ready": True})
    while True:
        label, data = inbox.tasks.get()
        for piece in _read(label, data, frontend, settings):
            for header, frames in messages(piece):
                header["warnings"] = told[:]
                told.clear()
                inbox.wait_for_room(frames.nbytes)
                send_message(output, header, frames)


def _read(label: str, data: bytes, frontend: LogMel, settings: EmbedSettings) -> Generator[WindowChunk]:
    try:
        clip: Clip = pickle.loads(data)  # noqa: S301 (from the process that started this one)
    except Exception as error:
        advice = "define what opens it in a module that can be imported, or use threads"
        message = (
            f"{label}: cannot be had in a worker process ({type(error).__name__}: {joined_lines(error)}); {advice}"
        )
        yield WindowChunk(0, error=AudioError(message, label))
        return
    try:
        yield from load_windows(clip, frontend, settings)
    except Exception as error:  # our mistake; it should cost one file, and be seen
        traceback.print_exc()
        message = f"{label}: reading it failed unexpectedly ({type(error).__name__}: {error})"
        yield WindowChunk(0, error=WorkerError(message))


class _Inbox:
    """What comes through the input pipe: tasks, and word of how many bytes were taken.

    A thread reads it, so that the end of the pipe is noticed whatever the main thread is at.
    """

    def __init__(self, stream: BinaryIO, allowance: int) -> None:
        self.tasks: SimpleQueue[tuple[str, bytes]] = SimpleQueue()
        self._stream = stream
        self._allowance = allowance
        self._sent = 0
        self._taken = threading.Condition()
        threading.Thread(target=self._listen, name="vggish-pt-inbox", daemon=True).start()

    def wait_for_room(self, count: int) -> None:
        """Waits until so many bytes may be sent."""
        with self._taken:
            while self._sent and self._sent + count > self._allowance:
                self._taken.wait()
            self._sent += count

    def _listen(self) -> None:
        try:
            while True:
                message = receive_object(self._stream)
                if isinstance(message, int):
                    with self._taken:
                        self._sent -= message
                        self._taken.notify()
                else:
                    self.tasks.put(message)
        finally:
            os._exit(0)


def _collect_warnings() -> list[str]:
    """Warnings about audio are shown, or not, by the process that started this one."""
    told: list[str] = []
    show = warnings.showwarning

    def keep(message: Warning | str, category: type[Warning], *args: Any, **kwargs: Any) -> None:
        if issubclass(category, AudioWarning):
            told.append(str(message))
        else:
            show(message, category, *args, **kwargs)

    warnings.showwarning = keep
    warnings.simplefilter("always", AudioWarning)
    return told
