"""Reading ahead: threads that work on the next inputs while the caller is busy with the present one."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Generic, TypeVar

Task = TypeVar("Task")
Piece = TypeVar("Piece")

# Pieces that a thread may be ahead of the caller where nothing else is said.
_AHEAD = 4
_POLL_SECONDS = 0.1

# Tasks that hold their input in memory (arrays, the bytes of files) are not read further ahead than this.
_MAX_HELD_BYTES = 1 << 25


@dataclass
class ReadAhead(Generic[Task, Piece]):
    """How far to read ahead. It should be as much as the caller takes at a time, or the caller will wait.

    Attributes:
        tasks: taken beyond one for each worker and one more.
        pieces: how much may wait in all; None for four for each worker.
        weigh_task: bytes of memory that a waiting task keeps.
        weigh: how much of ``pieces`` a piece is.
    """

    tasks: int = 0
    pieces: int | None = None
    weigh_task: Callable[[Task], int] = field(default=lambda _: 0)
    weigh: Callable[[Piece], int] = field(default=lambda _: 1)


def prefetch(
    tasks: Iterable[Task],
    produce: Callable[[Task], Iterator[Piece]],
    workers: int,
    *,
    prepare: Callable[[], None] | None = None,
    ahead: ReadAhead[Task, Piece] | None = None,
) -> Generator[Piece]:
    """Yields the pieces of every task, in order.

    Args:
        tasks: read ahead only so far; always from the caller's thread.
        produce: gives the pieces of one task; runs in a worker's thread.
        workers: how many threads; with 0 everything runs in the caller's.
        prepare: is called once in each worker's thread, before its first task.
        ahead: how far to read ahead; None for one task more than there are workers.

    Raises:
        Exception: whatever ``tasks`` or ``produce`` raise, after the pieces that came before it.
    """
    if workers == 0:
        for task in tasks:
            yield from produce(task)
        return
    ahead = ahead or ReadAhead()
    crew = _Threads(produce, workers, prepare, ahead)
    iterator = iter(tasks)
    more = True
    try:
        while True:
            while more and crew.wants(ahead):
                try:
                    task = next(iterator)
                    crew.start(task, ahead.weigh_task(task))
                except StopIteration:
                    more = False
                except Exception as error:
                    more = False
                    crew.start_failed(error)
            if not crew.lines:
                return
            taken = crew.take()
            if isinstance(taken, _End):
                if taken.error is not None:
                    raise taken.error
            else:
                yield taken
    finally:
        crew.stop()


class _End:
    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


@dataclass
class _Output(Generic[Piece]):
    """What a task has given that was not taken yet."""

    held: int
    pieces: deque[Piece | _End] = field(default_factory=deque)


class _Threads(Generic[Task, Piece]):
    """Threads that put a task's pieces into the task's line.

    Only so much may wait in all lines together, but the first line may always have a piece: it is the one that is
    taken from, and lines behind it must not use up its place.

    The threads are daemons: a generator that its user forgot half-way must not keep the process from exiting, as the
    threads of an executor would.
    """

    def __init__(
        self,
        produce: Callable[[Task], Iterator[Piece]],
        workers: int,
        prepare: Callable[[], None] | None,
        ahead: ReadAhead[Task, Piece],
    ) -> None:
        self.lines: deque[_Output[Piece]] = deque()
        self._produce = produce
        self._prepare = prepare
        self._workers = workers
        self._limit = _AHEAD * workers if ahead.pieces is None else ahead.pieces
        self._weigh = ahead.weigh
        self._waiting = 0
        self._held = 0
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._jobs: SimpleQueue[tuple[Task, _Output[Piece]] | None] = SimpleQueue()
        self._stopped = False

    def wants(self, ahead: ReadAhead[Task, Piece]) -> bool:
        """Whether another task should be started."""
        if len(self.lines) <= self._workers:
            return True
        return len(self.lines) <= self._workers + ahead.tasks and self._held < _MAX_HELD_BYTES

    def start(self, task: Task, held: int) -> None:
        line: _Output[Piece] = _Output(held)
        self._held += held
        self.lines.append(line)
        self._jobs.put((task, line))
        if len(self._threads) < self._workers:
            name = f"vggish-pt-read-{len(self._threads)}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def start_failed(self, error: Exception) -> None:
        """Instead of a task there was an error; it has its turn like one."""
        self.lines.append(_Output(0, deque([_End(error)])))

    def take(self) -> Piece | _End:
        """The next piece of the first line, or its end."""
        with self._changed:
            line = self.lines[0]
            while not line.pieces:
                self._changed.wait(_POLL_SECONDS)  # with a timeout, so that Ctrl-C is heard on every platform
            piece = line.pieces.popleft()
            if isinstance(piece, _End):
                self.lines.popleft()
                self._held -= line.held
            else:
                self._waiting -= self._weigh(piece)
            self._changed.notify_all()
        return piece

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        if self._prepare is not None:
            self._prepare()
        while (job := self._jobs.get()) is not None and not self._stopped:
            task, line = job
            end = _End()
            try:
                for piece in self._produce(task):
                    if not self._put(line, piece):
                        break
            except BaseException as error:
                end = _End(error)
            with self._changed:
                line.pieces.append(end)
                self._changed.notify_all()

    def _put(self, line: _Output[Piece], piece: Piece) -> bool:
        with self._changed:
            while not self._stopped and self._waiting >= self._limit and (line is not self.lines[0] or line.pieces):
                self._changed.wait()
            if self._stopped:
                return False
            self._waiting += self._weigh(piece)
            line.pieces.append(piece)
            self._changed.notify_all()
            return True
