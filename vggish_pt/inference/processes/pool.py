"""Pool of worker processes, and the tasks that wait for a worker."""

from __future__ import annotations

import contextlib
import subprocess
import threading
import warnings
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias, cast

from torch import Tensor

from vggish_pt import constants as c
from vggish_pt.errors import AudioError, AudioWarning, WorkerError
from vggish_pt.inference.loading import WindowChunk
from vggish_pt.inference.processes.process import close_pipes, how_it_ended, start_process
from vggish_pt.inference.processes.wire import as_chunk, receive_message, send_object

_POLL_SECONDS = 0.1
_JOIN_SECONDS = 10.0
_ATTEMPTS = 2  # a clip fails when it has ended this many worker processes
_STARTS = 3  # attempts in a row to start a worker

_MAX_HELD_BYTES = 1 << 25  # limit on waiting tasks that hold the bytes of a file


@dataclass
class _Task:
    """A clip to load.

    Attributes:
        number: index of the clip.
        label: name of the clip in errors.
        data: the pickled clip.
        attempts: number of worker processes that it has ended.
        received: number of its windows received so far.
        repeated: number of windows to drop, as a worker that ended had sent them already.
    """

    number: int
    label: str
    data: bytes
    attempts: int = 0
    received: int = 0
    repeated: int = 0


@dataclass
class _Arrival:
    """A chunk from a worker. Acknowledging it lets the worker send as many bytes again."""

    chunk: WindowChunk
    warnings: list[str]
    acknowledge: Callable[[], None]


_Event: TypeAlias = "_Arrival | BaseException"


class Pool:
    """Workers, and the tasks that wait for a worker.

    Args:
        workers: largest number of worker processes.
        setup: first message to each worker.

    Attributes:
        open: number of tasks whose last chunk :meth:`take` has not returned yet.
    """

    def __init__(self, workers: int, setup: tuple[Any, ...]) -> None:
        self.open = 0
        self.setup = setup
        self.stopped = False
        self.events: SimpleQueue[_Event] = SimpleQueue()
        self.lock = threading.Lock()
        self._limit = workers
        self._held = 0
        self._backlog: deque[_Task] = deque()
        self._workers: list[_Worker] = []

    def wants(self, count: int) -> bool:
        """Return True if another task should be submitted, with ``count`` open at a time."""
        return self.open < count and (self._held < _MAX_HELD_BYTES or self.open < 2 * self._limit)

    def submit(self, task: _Task) -> None:
        """Add a task."""
        self.open += 1
        self.enqueue(task, front=False)
        if len(self._workers) < min(self._limit, self.open):
            self._workers.append(_Worker(self, len(self._workers)))
        for worker in self._workers:
            worker.feed()

    def take(self) -> WindowChunk:
        """Wait for the next chunk of any task and return it."""
        while True:
            try:
                event = self.events.get(timeout=_POLL_SECONDS)  # with a timeout, Ctrl-C works on every platform
                break
            except Empty:
                continue
        if isinstance(event, BaseException):
            raise event
        event.acknowledge()
        for text in event.warnings:
            warnings.warn(text, AudioWarning, stacklevel=2)
        if event.chunk.last:
            self.open -= 1
        return event.chunk

    def next_task(self) -> _Task | None:
        """Remove and return the next task, or None. The caller holds the lock."""
        if not self._backlog:
            return None
        task = self._backlog.popleft()
        self._held -= len(task.data)
        return task

    def enqueue(self, task: _Task, *, front: bool = True) -> None:
        """Add a task to those that wait."""
        with self.lock:
            self._held += len(task.data)
            if front:
                self._backlog.appendleft(task)
            else:
                self._backlog.append(task)

    def stop(self) -> None:
        """End all workers at once."""
        with self.lock:
            self.stopped = True
        for worker in self._workers:
            worker.kill()
        for worker in self._workers:
            worker.join()


class _Worker:
    """A worker process and the thread that starts it, receives its messages, and replaces it if it dies."""

    def __init__(self, pool: Pool, index: int) -> None:
        self._pool = pool
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = False
        self._task: _Task | None = None
        self._writing = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"vggish-pt-worker-{index}", daemon=True)
        self._thread.start()

    def feed(self) -> None:
        """Send the worker a task if it is idle and a task waits."""
        with self._pool.lock:
            process = self._process
            if process is None or not self._ready or self._task is not None:
                return
            task = self._task = self._pool.next_task()
        if task is not None:
            self._send(process, (task.label, task.data))

    def kill(self) -> None:
        """End the worker."""
        with self._pool.lock:
            if self._process is not None:
                self._process.kill()

    def join(self) -> None:
        """Wait until the worker has ended, at most 10 s."""
        self._thread.join(_JOIN_SECONDS)

    def _run(self) -> None:
        starts = 0
        try:
            while not self._pool.stopped:
                process = start_process()
                self._install(process)
                try:
                    self._send(process, self._pool.setup)
                    with contextlib.suppress(EOFError):
                        while True:
                            self._receive(process, *receive_message(cast("Any", process.stdout)))
                finally:
                    process.kill()  # also after an invalid message or an error in this thread
                    code = process.wait()
                    close_pipes(process)
                with self._pool.lock:
                    self._process = None
                starts = 0 if self._ready else starts + 1
                if starts == _STARTS and not self._pool.stopped:
                    raise _no_start(f"{how_it_ended(code)}; see its output above")
                self._retry(code)
        except OSError as error:
            self._pool.events.put(_no_start(str(error)))
        except BaseException as error:
            self._pool.events.put(error)

    def _install(self, process: subprocess.Popen[bytes]) -> None:
        with self._pool.lock:
            self._process, self._ready = process, False
            if self._pool.stopped:
                process.kill()

    def _send(self, process: subprocess.Popen[bytes], message: object) -> None:
        with self._writing, contextlib.suppress(OSError, ValueError):  # the worker has ended; its thread notices
            send_object(cast("Any", process.stdin), message)

    def _receive(self, process: subprocess.Popen[bytes], header: dict[str, Any], windows: Tensor) -> None:
        if "ready" in header:
            self._ready = True
            self.feed()
            return
        task = self._task
        if task is None:
            raise EOFError
        size = int(header.get("rows", 0)) * c.MEL_BANDS * 4
        dropped = min(task.repeated, len(windows))
        task.repeated -= dropped
        task.received += len(windows) - dropped
        chunk = as_chunk(task.number, header, windows[dropped:])
        texts = [str(text) for text in header.get("warnings", [])]
        self._pool.events.put(_Arrival(chunk, texts, lambda: self._send(process, size)))
        if chunk.last:
            self._task = None
            self.feed()

    def _retry(self, code: int) -> None:
        """Retry the task of a worker that has ended, or report it as failed after the last attempt."""
        task, self._task = self._task, None
        if task is None or self._pool.stopped:
            return
        task.attempts += 1
        if task.attempts < _ATTEMPTS:
            task.repeated = task.received
            self._pool.enqueue(task)
            return
        reason = "the file crashes its decoder, or memory ran out"
        message = f"{task.label}: the worker process that read it died, twice ({how_it_ended(code)}); {reason}"
        error = AudioError(message, task.label)
        self._pool.events.put(_Arrival(WindowChunk(task.number, error=error), [], lambda: None))


def _no_start(reason: str) -> WorkerError:
    return WorkerError(f"a worker process cannot be started ({reason}); use threads")
