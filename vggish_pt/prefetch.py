"""Reading ahead: threads that work on the next inputs while the caller is busy with the present one."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, Full, Queue
from typing import TypeVar

Task = TypeVar("Task")
Piece = TypeVar("Piece")

# Pieces that a thread may be ahead of the caller within one input: bounds memory, whatever an input's length.
_AHEAD = 4
_POLL_SECONDS = 0.1


class _End:
    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def prefetch(
    tasks: Iterable[Task], produce: Callable[[Task], Iterator[Piece]], workers: int
) -> Iterator[Piece]:
    """Yields the pieces of every task, in order.

    Args:
        tasks: read as far ahead as there are workers, and one more.
        produce: gives the pieces of one task; runs in a worker's thread.
        workers: how many threads; with 0 everything runs in the caller's.

    Raises:
        Exception: whatever ``tasks`` or ``produce`` raise.
    """
    iterator = iter(tasks)
    if workers == 0:
        for task in iterator:
            yield from produce(task)
        return
    stop = threading.Event()
    active: deque[Queue[Piece | _End]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="vggish-pt-read")

    def work(task: Task, queue: Queue[Piece | _End]) -> None:
        end = _End()
        try:
            for piece in produce(task):
                if not _put(queue, piece, stop):
                    return
        except BaseException as error:
            end = _End(error)
        _put(queue, end, stop)

    try:
        while True:
            for task in itertools.islice(iterator, workers + 1 - len(active)):
                queue: Queue[Piece | _End] = Queue(_AHEAD)
                active.append(queue)
                pool.submit(work, task, queue)
            if not active:
                return
            while not isinstance(piece := _get(active[0]), _End):
                yield piece
            if piece.error is not None:
                raise piece.error
            active.popleft()
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _put(queue: Queue[Piece | _End], piece: Piece | _End, stop: threading.Event) -> bool:
    while not stop.is_set():
        try:
            queue.put(piece, timeout=_POLL_SECONDS)
            return True
        except Full:
            continue
    return False


def _get(queue: Queue[Piece | _End]) -> Piece | _End:
    while True:
        try:
            return queue.get(
                timeout=_POLL_SECONDS
            )  # with a timeout, so that Ctrl-C is heard on every platform
        except Empty:
            continue
