"""Worker processes and the tasks that wait for them."""

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
from vggish_pt.inference.processes.wire import as_piece, receive_message, send_object

_POLL_SECONDS = 0.1
_JOIN_SECONDS = 10.0
_TRIES = 2  # how often a source may end its worker's process before it is given up
_STARTS = 3  # how often in a row a worker may fail to start

_MAX_HELD_BYTES = 1 << 25  # of tasks that hold the bytes of a file


@dataclass
class _Task:
    """A task on its way.

    Attributes:
        number: of the task.
        label: how errors call it.
        data: the task, pickled.
        tries: how many workers it has ended.
        given: how many of its windows have come.
        known: how many windows will come that have come before, from a worker that ended.
    """

    number: int
    label: str
    data: bytes
    tries: int = 0
    given: int = 0
    known: int = 0


@dataclass
class _Arrival:
    """A piece from a worker, so many bytes of whose allowance it takes."""

    piece: WindowChunk
    warnings: list[str]
    acknowledge: Callable[[], None]


_Event: TypeAlias = "_Arrival | BaseException"


class Pool:
    """Workers and the tasks that wait for them.

    Attributes:
        open: tasks that have not ended yet, as far as :meth:`take` knows.
    """

    def __init__(self, workers: int, setup: tuple[Any, ...]) -> None:
        self.open = 0
        self.setup = setup
        self.stopped = False
        self.events: SimpleQueue[_Event] = SimpleQueue()
        self.lock = threading.Lock()
        self._workers = workers
        self._held = 0
        self._backlog: deque[_Task] = deque()
        self._slots: list[_Worker] = []

    def wants(self, count: int) -> bool:
        """Whether another task should be submitted, if ``count`` may be open at a time."""
        return self.open < count and (self._held < _MAX_HELD_BYTES or self.open < 2 * self._workers)

    def submit(self, job: _Task) -> None:
        """Takes a task."""
        self.open += 1
        self.give_back(job, front=False)
        if len(self._slots) < min(self._workers, self.open):
            self._slots.append(_Worker(self, len(self._slots)))
        for slot in self._slots:
            slot.feed()

    def take(self) -> WindowChunk:
        """The next piece."""
        while True:
            try:
                event = self.events.get(timeout=_POLL_SECONDS)  # so that Ctrl-C is heard on every platform
                break
            except Empty:
                continue
        if isinstance(event, BaseException):
            raise event
        event.acknowledge()
        for text in event.warnings:
            warnings.warn(text, AudioWarning, stacklevel=2)
        if event.piece.last:
            self.open -= 1
        return event.piece

    def next_job(self) -> _Task | None:
        """The next task to be done; with the lock held."""
        if not self._backlog:
            return None
        job = self._backlog.popleft()
        self._held -= len(job.data)
        return job

    def give_back(self, job: _Task, *, front: bool = True) -> None:
        """Puts a task among those that wait."""
        with self.lock:
            self._held += len(job.data)
            if front:
                self._backlog.appendleft(job)
            else:
                self._backlog.append(job)

    def stop(self) -> None:
        """Ends all workers at once."""
        with self.lock:
            self.stopped = True
        for slot in self._slots:
            slot.kill()
        for slot in self._slots:
            slot.join()


class _Worker:
    """A place for one worker at a time: a thread that starts it, hears what it sends, and replaces it if it dies."""

    def __init__(self, pool: Pool, index: int) -> None:
        self._pool = pool
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = False
        self._job: _Task | None = None
        self._writing = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"vggish-pt-worker-{index}", daemon=True)
        self._thread.start()

    def feed(self) -> None:
        """Gives the worker a task, if it is free and there is one."""
        with self._pool.lock:
            process = self._process
            if process is None or not self._ready or self._job is not None:
                return
            job = self._job = self._pool.next_job()
        if job is not None:
            self._send(process, (job.label, job.data))

    def kill(self) -> None:
        """Ends the worker."""
        with self._pool.lock:
            if self._process is not None:
                self._process.kill()

    def join(self) -> None:
        """Waits until the worker is gone; not for ever, should the system be unable to end it."""
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
                            self._hear(process, *receive_message(cast("Any", process.stdout)))
                finally:
                    process.kill()  # where it sent what is no message, or something went wrong here
                    code = process.wait()
                    close_pipes(process)
                with self._pool.lock:
                    self._process = None
                starts = 0 if self._ready else starts + 1
                if starts == _STARTS and not self._pool.stopped:
                    raise _no_start(f"{how_it_ended(code)}; see above what it printed")
                self._lose(code)
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
        with self._writing, contextlib.suppress(OSError, ValueError):  # it is gone; its thread sees that
            send_object(cast("Any", process.stdin), message)

    def _hear(self, process: subprocess.Popen[bytes], header: dict[str, Any], windows: Tensor) -> None:
        if "ready" in header:
            self._ready = True
            self.feed()
            return
        job = self._job
        if job is None:
            raise EOFError
        size = int(header.get("rows", 0)) * c.MEL_BANDS * 4
        passed = min(job.known, len(windows))
        job.known -= passed
        job.given += len(windows) - passed
        piece = as_piece(job.number, header, windows[passed:])
        told = [str(text) for text in header.get("warnings", [])]
        self._pool.events.put(_Arrival(piece, told, lambda: self._send(process, size)))
        if piece.last:
            self._job = None
            self.feed()

    def _lose(self, code: int) -> None:
        """The worker is gone: what it was at is tried once more, elsewhere, or is given up."""
        job, self._job = self._job, None
        if job is None or self._pool.stopped:
            return
        job.tries += 1
        if job.tries < _TRIES:
            job.known = job.given
            self._pool.give_back(job)
            return
        reason = "its decoder cannot bear what is in it, or memory ran out"
        message = f"{job.label}: the worker process that read it died, twice ({how_it_ended(code)}); {reason}"
        error = AudioError(message, job.label)
        self._pool.events.put(_Arrival(WindowChunk(job.number, error=error), [], lambda: None))


def _no_start(reason: str) -> WorkerError:
    return WorkerError(f"a worker process cannot be started ({reason}); use threads")
