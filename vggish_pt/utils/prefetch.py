"""Read-ahead: threads that process the next tasks while the caller uses the results of the present one.

Two libraries were considered. With an executor of ``concurrent.futures`` a task's results, here all windows of a file,
stay in memory until the task is complete, so that memory grows with the length of files. ``torchdata.nodes`` only gets
fixes of breakages (meta-pytorch/data#1549). Here results are taken one by one, and those that wait are bounded
(``test_it_reads_ahead_but_not_without_bound``).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Generic, TypeVar

Task = TypeVar("Task")
Item = TypeVar("Item")

_ITEMS_PER_WORKER = 4  # that may wait, unless the caller sets a limit
_POLL_SECONDS = 0.1
_MAX_HELD_BYTES = 1 << 25  # of waiting tasks that hold their input in memory (arrays, bytes of files)


@dataclass
class ReadAhead(Generic[Task, Item]):
    """Limits of reading ahead. A limit below the number of items that the caller takes at a time makes the caller wait.

    Attributes:
        tasks: number of tasks started beyond one for each worker and one more.
        items: total weight of the items that may wait; None for four items for each worker.
        weigh_task: returns the bytes of memory that a waiting task holds.
        weigh: returns the weight of an item, in the unit of ``items``.
    """

    tasks: int = 0
    items: int | None = None
    weigh_task: Callable[[Task], int] = field(default=lambda _: 0)
    weigh: Callable[[Item], int] = field(default=lambda _: 1)


def prefetch(
    tasks: Iterable[Task],
    produce: Callable[[Task], Iterator[Item]],
    workers: int,
    *,
    prepare: Callable[[], None] | None = None,
    ahead: ReadAhead[Task, Item] | None = None,
) -> Generator[Item]:
    """Yield the items of every task, in order.

    Args:
        tasks: the tasks; iterated in the caller's thread, only as far ahead as the limits allow.
        produce: yields the items of one task; runs in a worker's thread.
        workers: number of threads; with 0 everything runs in the caller's thread.
        prepare: called once in each worker's thread, before its first task.
        ahead: limits of reading ahead; None for the defaults.

    Raises:
        Exception: an error of ``tasks`` or ``produce``, after the items that came before it.
    """
    if workers == 0:
        for task in tasks:
            yield from produce(task)
        return
    ahead = ahead or ReadAhead()
    threads = _Threads(produce, workers, prepare, ahead)
    iterator = iter(tasks)
    exhausted = False
    try:
        while True:
            while not exhausted and threads.can_start(ahead):
                try:
                    task = next(iterator)
                    threads.start(task, ahead.weigh_task(task))
                except StopIteration:
                    exhausted = True
                except Exception as error:
                    exhausted = True
                    threads.add_error(error)
            if not threads.outputs:
                return
            item = threads.take()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
            else:
                yield item
    finally:
        threads.stop()


class _End:
    """End of a task's items, with the error that ended the task."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


@dataclass
class _Output(Generic[Item]):
    """Items of a task that wait for the caller, and the bytes that the task itself holds."""

    held: int
    items: deque[Item | _End] = field(default_factory=deque)


class _Threads(Generic[Task, Item]):
    """Threads that put the items of each task into the task's output.

    The items that wait in all outputs together are bounded. The first output, from which the caller takes, may always
    have one item, so that later outputs cannot block it.

    The threads are daemons: unlike the threads of an executor, they do not keep the process alive if the caller drops
    the generator before its end.
    """

    def __init__(
        self,
        produce: Callable[[Task], Iterator[Item]],
        workers: int,
        prepare: Callable[[], None] | None,
        ahead: ReadAhead[Task, Item],
    ) -> None:
        self.outputs: deque[_Output[Item]] = deque()
        self._produce = produce
        self._prepare = prepare
        self._workers = workers
        self._limit = _ITEMS_PER_WORKER * workers if ahead.items is None else ahead.items
        self._weigh = ahead.weigh
        self._waiting = 0  # weight of the items in all outputs
        self._held = 0
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._tasks: SimpleQueue[tuple[Task, _Output[Item]] | None] = SimpleQueue()
        self._stopped = False

    def can_start(self, ahead: ReadAhead[Task, Item]) -> bool:
        """Return True if the limits allow another task."""
        if len(self.outputs) <= self._workers:
            return True
        return len(self.outputs) <= self._workers + ahead.tasks and self._held < _MAX_HELD_BYTES

    def start(self, task: Task, held: int) -> None:
        """Queue a task, and start a thread if there are fewer than ``workers``."""
        output: _Output[Item] = _Output(held)
        self._held += held
        self.outputs.append(output)
        self._tasks.put((task, output))
        if len(self._threads) < self._workers:
            name = f"vggish-pt-read-{len(self._threads)}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def add_error(self, error: Exception) -> None:
        """Add an output that ends with an error, for an error of the iterable of tasks."""
        self.outputs.append(_Output(0, deque([_End(error)])))

    def take(self) -> Item | _End:
        """Wait for the next item of the first output, or its end, and return it."""
        with self._changed:
            output = self.outputs[0]
            while not output.items:
                self._changed.wait(_POLL_SECONDS)  # the timeout lets Ctrl-C interrupt the wait on every platform
            item = output.items.popleft()
            if isinstance(item, _End):
                self.outputs.popleft()
                self._held -= output.held
            else:
                self._waiting -= self._weigh(item)
            self._changed.notify_all()
        return item

    def stop(self) -> None:
        """End the threads and wait for them."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        if self._prepare is not None:
            self._prepare()
        while (queued := self._tasks.get()) is not None and not self._stopped:
            task, output = queued
            end = _End()
            try:
                for item in self._produce(task):
                    if not self._put(output, item):
                        break
            except BaseException as error:
                end = _End(error)
            with self._changed:
                output.items.append(end)
                self._changed.notify_all()

    def _put(self, output: _Output[Item], item: Item) -> bool:
        """Wait until the limits allow an item, and add it; return False if the caller has stopped."""
        with self._changed:
            while (
                not self._stopped and self._waiting >= self._limit and (output is not self.outputs[0] or output.items)
            ):
                self._changed.wait()
            if self._stopped:
                return False
            self._waiting += self._weigh(item)
            output.items.append(item)
            self._changed.notify_all()
            return True
