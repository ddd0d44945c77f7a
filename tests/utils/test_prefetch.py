"""Reading ahead: order, bounds, errors, and threads that go away."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from vggish_pt.utils.prefetch import ReadAhead, prefetch

_others: set[int | None] = set()


@pytest.fixture(autouse=True)
def _threads_of_others() -> None:
    """Other tests may have left an iterator half-way, which someone still holds."""
    _others.clear()
    _others.update(thread.ident for thread in threading.enumerate())


def _threads() -> list[threading.Thread]:
    mine = [thread for thread in threading.enumerate() if thread.ident not in _others]
    return [thread for thread in mine if thread.name.startswith("vggish-pt-read")]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_pieces_come_in_the_order_of_the_tasks(workers: int) -> None:
    def produce(task: int) -> Iterator[tuple[int, int]]:
        for i in range(task % 7):
            if task % 2:
                time.sleep(0.001)
            yield task, i

    pieces = list(prefetch(range(40), produce, workers))
    assert pieces == [(task, i) for task in range(40) for i in range(task % 7)]
    assert not _threads()


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_errors_come_after_the_pieces_before_them(workers: int) -> None:
    def tasks() -> Iterator[int]:
        yield from range(3)
        raise KeyError("tasks")

    def produce(task: int) -> Iterator[int]:
        yield task
        if task == 5:
            raise ValueError("produce")

    for source, error, expected in ((tasks(), KeyError, [0, 1, 2]), (range(9), ValueError, [0, 1, 2, 3, 4, 5])):
        got: list[int] = []
        with pytest.raises(error):
            for piece in prefetch(source, produce, workers):
                got.append(piece)  # noqa: PERF402 (extend would lose them)
        assert got == expected
        assert not _threads()


@pytest.mark.parametrize("workers", [1, 3])
def test_it_reads_ahead_but_not_without_bound(workers: int) -> None:
    made: list[int] = []
    taken: list[int] = []
    ahead = threading.Event()

    def tasks() -> Iterator[int]:
        for task in range(1000):
            taken.append(task)
            yield task

    def produce(task: int) -> Iterator[int]:
        for i in range(1000):
            made.append(i)
            if len(made) > 3:
                ahead.set()
            yield i

    pieces = prefetch(tasks(), produce, workers)
    next(pieces)
    assert ahead.wait(30)
    time.sleep(0.3)  # a chance to run away
    assert len(taken) == workers + 1
    assert len(made) <= workers * 6 + 1
    pieces.close()  # type: ignore[attr-defined]
    assert not _threads()


@pytest.mark.parametrize("workers", [1, 3])
def test_as_much_is_read_ahead_as_the_caller_takes(workers: int) -> None:
    made: list[tuple[int, int]] = []
    taken: list[int] = []

    def tasks() -> Iterator[int]:
        for task in range(1000):
            taken.append(task)
            yield task

    def produce(task: int) -> Iterator[tuple[int, int]]:
        for i in range(3):
            made.append((task, i))
            yield task, i

    ahead: ReadAhead[int, tuple[int, int]] = ReadAhead(tasks=50, items=300, weigh=lambda piece: 10)
    pieces = prefetch(tasks(), produce, workers, ahead=ahead)
    next(pieces)
    deadline = time.monotonic() + 30
    while len(made) < 30:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.2)  # a chance to run away
    assert len(taken) == workers + 1 + 50
    assert 30 <= len(made) <= 30 + 2 * workers + 2
    assert list(pieces) == [(task, i) for task in range(1000) for i in range(3)][1:]


def test_large_tasks_are_not_read_far_ahead() -> None:
    taken: list[int] = []

    def tasks() -> Iterator[int]:
        for task in range(100):
            taken.append(task)
            yield task

    pieces = prefetch(tasks(), lambda task: iter([task]), 2, ahead=ReadAhead(50, 50, weigh_task=lambda _: 1 << 23))
    next(pieces)
    assert len(taken) == 4  # 32 MiB
    pieces.close()


def test_the_first_output_always_has_room() -> None:
    gate = threading.Event()

    def produce(task: int) -> Iterator[int]:
        if task == 0:
            gate.wait(30)
        for i in range(20):
            if task == 1 and i == 10:
                gate.set()  # the others have used up everything
            yield task

    ahead: ReadAhead[int, int] = ReadAhead(tasks=5, items=8, weigh=lambda piece: 1)
    threading.Timer(0.5, gate.set).start()
    assert list(prefetch(range(6), produce, 3, ahead=ahead)) == [task for task in range(6) for _ in range(20)]


def test_no_more_threads_than_tasks() -> None:
    pieces = prefetch(range(2), lambda task: iter([task] * 100), workers=50)
    next(pieces)
    assert 1 <= len(_threads()) <= 2
    pieces.close()  # type: ignore[attr-defined]


def test_a_forgotten_iterator_does_not_keep_the_process() -> None:
    code = (
        "from vggish_pt.utils.prefetch import prefetch\n"
        "pieces = prefetch(range(5), lambda task: iter(range(100)), 2)\n"
        "print(next(pieces))\n"
        "raise SystemExit(7)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stdout, run.stderr) == (7, "0\n", "")
