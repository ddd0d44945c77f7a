"""What became of inputs → an output: :func:`fill` puts it into a dataset folder, :func:`dump` into a single file."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vggish_pt.dataset.outcomes import Outcome
from vggish_pt.dataset.schema import Failure

if TYPE_CHECKING:
    from vggish_pt.dataset.outputs import DatasetFolder, Output


@dataclass
class Summary:
    """What became of all inputs.

    Attributes:
        files: how many were embedded.
        windows: how many windows they gave.
        failures: the others.
    """

    files: int
    windows: int
    failures: list[Failure]


def fill(outcomes: Iterator[Outcome], folder: DatasetFolder, watch: Callable[[Outcome], None]) -> None:
    """Puts what became of inputs into a dataset folder, and completes it.

    Args:
        outcomes: from an engine, in any order; closed if writing fails.
        folder: where to.
        watch: is called with each outcome.

    Raises:
        OutputError: the folder cannot be written, or an input got no result.
    """
    with _closing(outcomes):
        for each in outcomes:
            folder.add(each)
            watch(each)
    folder.finish()


def dump(
    outcomes: Iterator[Outcome], output: Output, failures: Sequence[Failure], watch: Callable[[Outcome], None]
) -> Summary:
    """Writes what became of inputs to a single file, in their order, and finishes it.

    Args:
        outcomes: from an engine; what comes early waits in memory for its turn. Closed if writing fails.
        output: where to.
        failures: names that led to no input, for the output's list.
        watch: is called with each outcome.

    Raises:
        OutputError: the output cannot be written.
    """
    summary = Summary(0, 0, list(failures))
    with _closing(outcomes):
        for each in _in_order(outcomes, watch):
            if isinstance(each, Failure):
                summary.failures.append(each)
            else:
                output.write(each.rows)
                summary.files += 1
                summary.windows += each.windows
    output.finish(summary.failures)
    return summary


def _closing(outcomes: Iterator[Outcome]) -> AbstractContextManager[object]:
    """Stops an engine that is left half-way."""
    return closing(outcomes) if isinstance(outcomes, Generator) else nullcontext()


def _in_order(outcomes: Iterator[Outcome], watch: Callable[[Outcome], None]) -> Iterator[Outcome]:
    """Outcomes in the order of their items, whose places are 0, 1, 2, …"""
    early: dict[int, Outcome] = {}
    turn = 0
    for each in outcomes:
        watch(each)
        index = turn if each.item is None else each.item.index
        if index < turn or index in early:
            continue  # an engine may compute an input twice
        early[index] = each
        while turn in early:
            yield early.pop(turn)
            turn += 1
    yield from (early[index] for index in sorted(early))
