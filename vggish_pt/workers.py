"""A pool of worker processes that decode, resample and run the front end; the network stays in the caller's process.

The pool is its own, for the sake of two things. A decoder that crashes on a hostile file takes its process with it, and
neither torch's ``DataLoader`` nor ``concurrent.futures.ProcessPoolExecutor`` survives that: here it costs that one
file, and the worker is replaced. And a worker is a plain new Python process, not one of ``multiprocessing``'s: these
would run the caller's script again where it has no ``if __name__ == "__main__"``, and start workers of their own.

A worker is told one source at a time, and sends its windows in pieces, so that the pieces of several sources come in
turn, however long a source is. It may be ahead by so many bytes only. For each worker a thread of the caller's process
waits for what it sends; so workers go on while the caller computes.

A decoder that hangs is not noticed: how long a file may take, nobody knows. The other workers go on without it.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias, cast

from torch import Tensor

from vggish_pt import constants as c
from vggish_pt.errors import AudioError, AudioWarning, SettingsError, WorkerError
from vggish_pt.frontend import LogMel
from vggish_pt.reading import Piece, Task
from vggish_pt.settings import EmbedSettings
from vggish_pt.wire import MAX_WINDOWS, as_piece, receive_message, send_object

_POLL_SECONDS = 0.1
_TRIES = 2  # how often a source may end its worker's process before it is given up
_STARTS = 3  # how often in a row a worker may fail to start

_WINDOW_BYTES = c.EXAMPLE_FRAMES * c.MEL_BANDS * 4
_MAX_AHEAD_BYTES = 1 << 28
_MAX_HELD_BYTES = 1 << 25  # of tasks that hold the bytes of a file
_PIPE_BYTES = 1 << 20

_BOOT = (
    "import sys, json; sys.path[:] = json.loads(sys.stdin.buffer.readline()); from vggish_pt.worker import main; main()"
)


def read_in_processes(
    tasks: Iterable[Task],
    frontend: LogMel,
    settings: EmbedSettings,
    workers: int,
    *,
    ahead: int = 256,
    hold: Callable[[], bool] = lambda: False,
) -> Generator[Piece]:
    """Yields the pieces of all tasks: of one task in order, of several as they come.

    Args:
        tasks: read ahead only so far; always from the caller's thread. Their sources must be such that they can be
            pickled.
        frontend: says in which precision the workers compute, on the CPU.
        settings: what decides the numbers.
        workers: how many processes, at most; no more are started than there are tasks.
        ahead: how many windows, and how many tasks, the caller takes at a time. Twice as much may wait.
        hold: while it says True, no further task is begun.

    Raises:
        WorkerError: workers cannot be started.
        Exception: whatever ``tasks`` raises, after the pieces of the tasks before.
    """
    if type(frontend) is not LogMel:
        raise SettingsError("worker processes compute the package's own front end only; use threads")
    ahead_bytes = min(2 * ahead * _WINDOW_BYTES, _MAX_AHEAD_BYTES)
    allowance = max(ahead_bytes // workers, MAX_WINDOWS * _WINDOW_BYTES)
    dtype = None if frontend.dtype is None else str(frontend.dtype).removeprefix("torch.")
    pool = _Pool(workers, (dtype, settings, allowance))
    iterator = iter(tasks)
    failure: Exception | None = None
    more = True
    try:
        while True:
            while more and (pool.open == 0 or (pool.wants(2 * workers + ahead) and not hold())):
                try:
                    task = next(iterator)
                except StopIteration:
                    more = False
                except Exception as error:
                    more, failure = False, error
                else:
                    try:
                        data = pickle.dumps(task, pickle.HIGHEST_PROTOCOL)
                    except Exception as error:  # whatever other people's classes raise
                        yield Piece(task.number, task.label, error=_unsendable(task.label, error))
                    else:
                        pool.submit(_Job(task.number, task.label, data))
            if pool.open == 0:
                break
            yield pool.take()
    finally:
        pool.stop()
    if failure is not None:
        raise failure


def _unsendable(label: str, error: Exception) -> AudioError:
    reason = " ".join(str(error).split())
    return AudioError(f"{label}: cannot be sent to a worker process ({reason}); use threads", label)


@dataclass
class _Job:
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

    piece: Piece
    warnings: list[str]
    acknowledge: Callable[[], None]


_Event: TypeAlias = "_Arrival | BaseException"


class _Pool:
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
        self._backlog: deque[_Job] = deque()
        self._slots: list[_Slot] = []

    def wants(self, count: int) -> bool:
        """Whether another task should be submitted, if ``count`` may be open at a time."""
        return self.open < count and (self._held < _MAX_HELD_BYTES or self.open < 2 * self._workers)

    def submit(self, job: _Job) -> None:
        """Takes a task."""
        self.open += 1
        self.give_back(job, front=False)
        if len(self._slots) < min(self._workers, self.open):
            self._slots.append(_Slot(self, len(self._slots)))
        for slot in self._slots:
            slot.feed()

    def take(self) -> Piece:
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

    def next_job(self) -> _Job | None:
        """The next task to be done; with the lock held."""
        if not self._backlog:
            return None
        job = self._backlog.popleft()
        self._held -= len(job.data)
        return job

    def give_back(self, job: _Job, *, front: bool = True) -> None:
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


class _Slot:
    """A place for one worker at a time: a thread that starts it, hears what it sends, and replaces it if it dies."""

    def __init__(self, pool: _Pool, index: int) -> None:
        self._pool = pool
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = False
        self._job: _Job | None = None
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
        """Waits until the worker is gone."""
        self._thread.join()

    def _run(self) -> None:
        starts = 0
        try:
            while not self._pool.stopped:
                process = _start()
                with self._pool.lock:
                    self._process, self._ready = process, False
                    if self._pool.stopped:
                        process.kill()
                try:
                    self._send_setup(process)
                    with contextlib.suppress(EOFError):
                        while True:
                            self._hear(process, *receive_message(cast("Any", process.stdout)))
                finally:
                    process.kill()  # where it sent what is no message, or something went wrong here
                    code = process.wait()
                    _close(process)
                with self._pool.lock:
                    self._process = None
                starts = 0 if self._ready else starts + 1
                if starts == _STARTS and not self._pool.stopped:
                    raise WorkerError(
                        f"a worker process cannot be started ({_end(code)}; what it printed says more); use threads"
                    )
                self._lose(code)
        except OSError as error:
            self._pool.events.put(WorkerError(f"a worker process cannot be started ({error}); use threads"))
        except BaseException as error:
            self._pool.events.put(error)

    def _send_setup(self, process: subprocess.Popen[bytes]) -> None:
        path = [entry or os.getcwd() for entry in sys.path]  # noqa: PTH109
        with self._writing, contextlib.suppress(OSError):
            stdin = cast("Any", process.stdin)
            stdin.write(json.dumps(path).encode() + b"\n")
            send_object(stdin, self._pool.setup)

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
        message = f"{job.label}: the worker process that read it died, twice ({_end(code)}); {reason}"
        error = AudioError(message, job.label)
        self._pool.events.put(_Arrival(Piece(job.number, job.label, error=error), [], lambda: None))


def _start() -> subprocess.Popen[bytes]:
    if getattr(sys, "frozen", False) or not sys.executable:
        raise WorkerError("worker processes need a Python interpreter (sys.executable), and there is none; use threads")
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    environment = {**os.environ, **one_thread, "CUDA_VISIBLE_DEVICES": ""}  # the devices are not the workers' business
    flags = ["-P", *(["-X", "utf8"] if sys.flags.utf8_mode else [])]
    # Ctrl-C is for this process, which ends the workers.
    options: dict[str, Any] = {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # of this thread only, and inherited
    process = subprocess.Popen(
        [sys.executable, *flags, "-c", _BOOT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        **options,
    )
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl

        fcntl.fcntl(cast("Any", process.stdout), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return process


def _close(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            cast("Any", pipe).close()


def _end(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
