"""Reading ahead: threads that work on the next inputs while the caller is busy with the present one."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from queue import Empty, Full, Queue, SimpleQueue
from typing import Generic, TypeVar

Task = TypeVar("Task")
Piece = TypeVar("Piece")

# Pieces that a thread may be ahead of the caller within one input: bounds memory, whatever an input's length.
_AHEAD = 4
_POLL_SECONDS = 0.1


def prefetch(
    tasks: Iterable[Task],
    produce: Callable[[Task], Iterator[Piece]],
    workers: int,
    *,
    prepare: Callable[[], None] | None = None,
) -> Generator[Piece]:
    """Yields the pieces of every task, in order.

    Args:
        tasks: read as far ahead as there are workers, and one more; always from the caller's thread.
        produce: gives the pieces of one task; runs in a worker's thread.
        workers: how many threads; with 0 everything runs in the caller's.
        prepare: is called once in each worker's thread, before its first task.

    Raises:
        Exception: whatever ``tasks`` or ``produce`` raise, after the pieces that came before it.
    """
    if workers == 0:
        for task in tasks:
            yield from produce(task)
        return
    crew = _Crew(produce, workers, prepare)
    iterator = iter(tasks)
    active: deque[Queue[Piece | _End]] = deque()
    more = True
    try:
        while True:
            while more and len(active) <= workers:
                try:
                    active.append(crew.start(next(iterator)))
                except StopIteration:
                    more = False
                except Exception as error:
                    more = False
                    active.append(_ended(error))
            if not active:
                return
            while not isinstance(piece := _get(active[0]), _End):
                yield piece
            if piece.error is not None:
                raise piece.error
            active.popleft()
    finally:
        crew.stop()


class _End:
    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def _ended(error: Exception) -> Queue[Piece | _End]:
    queue: Queue[Piece | _End] = Queue()
    queue.put(_End(error))
    return queue


class _Crew(Generic[Task, Piece]):
    """Threads that put a task's pieces into the task's queue.

    They are daemons: a generator that its user forgot half-way must not keep the process from exiting, as the threads
    of an executor would.
    """

    def __init__(
        self, produce: Callable[[Task], Iterator[Piece]], workers: int, prepare: Callable[[], None] | None
    ) -> None:
        self._produce = produce
        self._prepare = prepare
        self._workers = workers
        self._threads: list[threading.Thread] = []
        self._jobs: SimpleQueue[tuple[Task, Queue[Piece | _End]] | None] = SimpleQueue()
        self._stopped = threading.Event()

    def start(self, task: Task) -> Queue[Piece | _End]:
        queue: Queue[Piece | _End] = Queue(_AHEAD)
        self._jobs.put((task, queue))
        if len(self._threads) < self._workers:
            name = f"vggish-pt-read-{len(self._threads)}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        return queue

    def stop(self) -> None:
        self._stopped.set()
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        if self._prepare is not None:
            self._prepare()
        while (job := self._jobs.get()) is not None and not self._stopped.is_set():
            task, queue = job
            end = _End()
            try:
                for piece in self._produce(task):
                    if not self._put(queue, piece):
                        break
            except BaseException as error:
                end = _End(error)
            self._put(queue, end)

    def _put(self, queue: Queue[Piece | _End], piece: Piece | _End) -> bool:
        while not self._stopped.is_set():
            try:
                queue.put(piece, timeout=_POLL_SECONDS)
                return True
            except Full:
                continue
        return False


def _get(queue: Queue[Piece | _End]) -> Piece | _End:
    while True:
        try:
            return queue.get(timeout=_POLL_SECONDS)  # with a timeout, so that Ctrl-C is heard on every platform
        except Empty:
            continue
