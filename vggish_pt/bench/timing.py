"""Timing of several candidates in rounds, one run of each in every round."""

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
    """Time candidates in rounds, after one run of each to warm up.

    Args:
        candidates: functions to run, by name.
        seconds: time after the warm-up within which rounds start.
        least: smallest number of rounds.
        clock: returns the time in seconds.

    Returns:
        Seconds of each run, by name. Runs of the same round have the same position.
    """
    for run in candidates.values():
        run()
    found: dict[Key, list[float]] = {key: [] for key in candidates}
    deadline = time.monotonic() + seconds
    count = 0
    while count < least or time.monotonic() < deadline:
        # Every other round runs backwards, so that no candidate always follows the same one.
        for key in list(candidates)[:: 1 if count % 2 == 0 else -1]:
            start = clock()
            candidates[key]()
            found[key].append(max(clock() - start, 1e-9))
        count += 1
    return found


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Set the number of torch's threads within the ``with`` block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
