"""Worker process: loads clips, and sends their log-mel windows to the process that started it.

The worker ends when its input pipe is closed, by the process that started it or by the end of that process.
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
    """Run the worker in a new process; :mod:`vggish_pt.inference.processes.pool` is the other side."""
    try:
        _work()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(1)  # a normal exit may wait for the thread that reads the input pipe


def _work() -> None:
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # keeps the output of libraries apart from the messages
    dtype, settings, allowance = receive_object(sys.stdin.buffer)
    inbox = _Inbox(sys.stdin.buffer, allowance)
    caught = _collect_warnings()
    torch.set_num_threads(1)
    frontend = LogMel(None if dtype is None else getattr(torch, dtype))
    send_message(output, {"ready": True})
    while True:
        label, data = inbox.tasks.get()
        for chunk in _load(label, data, frontend, settings):
            for header, frames in messages(chunk):
                header["warnings"] = caught[:]
                caught.clear()
                inbox.wait_for_room(frames.nbytes)
                send_message(output, header, frames)


def _load(label: str, data: bytes, frontend: LogMel, settings: EmbedSettings) -> Generator[WindowChunk]:
    try:
        clip: Clip = pickle.loads(data)  # noqa: S301 (from the process that started this one)
    except Exception as error:
        reason = f"{type(error).__name__}: {joined_lines(error)}"
        advice = "define what opens it in a module that can be imported, or use threads"
        message = f"{label}: cannot be unpickled in a worker process ({reason}); {advice}"
        yield WindowChunk(0, error=AudioError(message, label))
        return
    try:
        yield from load_windows(clip, frontend, settings)
    except Exception as error:  # a fault of the package: it fails one file, and is printed
        traceback.print_exc()
        message = f"{label}: reading it failed unexpectedly ({type(error).__name__}: {error})"
        yield WindowChunk(0, error=WorkerError(message))


class _Inbox:
    """Messages from the input pipe: tasks, and numbers of bytes that the other process has received.

    A thread reads the pipe, so that its end is noticed also while the main thread decodes.
    """

    def __init__(self, stream: BinaryIO, allowance: int) -> None:
        self.tasks: SimpleQueue[tuple[str, bytes]] = SimpleQueue()
        self._stream = stream
        self._allowance = allowance
        self._sent = 0
        self._received = threading.Condition()
        threading.Thread(target=self._listen, name="vggish-pt-inbox", daemon=True).start()

    def wait_for_room(self, count: int) -> None:
        """Wait until the allowance covers another ``count`` bytes."""
        with self._received:
            while self._sent and self._sent + count > self._allowance:
                self._received.wait()
            self._sent += count

    def _listen(self) -> None:
        try:
            while True:
                message = receive_object(self._stream)
                if isinstance(message, int):
                    with self._received:
                        self._sent -= message
                        self._received.notify()
                else:
                    self.tasks.put(message)
        finally:
            os._exit(0)


def _collect_warnings() -> list[str]:
    """Collect warnings about audio in a list, for the process that started this one to show or ignore."""
    caught: list[str] = []
    show = warnings.showwarning

    def collect(message: Warning | str, category: type[Warning], *args: Any, **kwargs: Any) -> None:
        if issubclass(category, AudioWarning):
            caught.append(str(message))
        else:
            show(message, category, *args, **kwargs)

    warnings.showwarning = collect
    warnings.simplefilter("always", AudioWarning)
    return caught
