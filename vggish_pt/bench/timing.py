"""Measuring times fairly: in rounds that go through all candidates in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

Key = TypeVar("Key", bound=Hashable)


def rounds(
    candidates: dict[Key, Callable[[], object]],
    seconds: float,
    *,
    least: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Key, list[float]]:
    """Times candidates in turn, after running each once to warm up.

    Args:
        candidates: what to run, by name.
        seconds: no round begins later than this after the warm-up.
        least: but so many are made in any case.
        clock: tells the time in seconds.

    Returns:
        The seconds of each run, by name; the runs of one round have the same position.
    """
    for run in candidates.values():
        run()
    found: dict[Key, list[float]] = {key: [] for key in candidates}
    deadline = time.monotonic() + seconds
    count = 0
    while count < least or time.monotonic() < deadline:
        # Every other round runs backwards, so that none always follows the same one.
        for key in list(candidates)[:: 1 if count % 2 == 0 else -1]:
            start = clock()
            candidates[key]()
            found[key].append(max(clock() - start, 1e-9))
        count += 1
    return found


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Lets torch use so many threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
