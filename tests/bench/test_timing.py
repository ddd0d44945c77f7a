"""Timing in rounds."""

from __future__ import annotations

from itertools import count

import pytest
import torch

from vggish_pt.bench.timing import rounds, threads


def test_rounds_take_turns_after_a_warm_up() -> None:
    calls: list[str] = []
    candidates = {name: lambda name=name: calls.append(name) for name in "abc"}
    ticks = count()
    found = rounds(candidates, 0.0, least=3, clock=lambda: float(next(ticks)))
    assert "".join(calls) == "abc" + "abc" + "cba" + "abc"
    assert found == {name: [1.0, 1.0, 1.0] for name in "abc"}


def test_rounds_go_on_until_the_time_is_over() -> None:
    found = rounds({"a": lambda: None}, 0.05)
    assert len(found["a"]) > 1
    assert all(seconds > 0 for seconds in found["a"])


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    with pytest.raises(KeyError), threads(1):
        assert torch.get_num_threads() == 1
        raise KeyError
    assert torch.get_num_threads() == before
