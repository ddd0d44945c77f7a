"""Write the outcomes of an engine to a dataset folder or to a single file."""

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
    """Counts and failures of a run.

    Attributes:
        files: number of inputs that were embedded.
        windows: number of their windows.
        failures: the inputs that failed.
    """

    files: int
    windows: int
    failures: list[Failure]


def write_folder(outcomes: Iterator[Outcome], folder: DatasetFolder, watch: Callable[[Outcome], None]) -> None:
    """Write outcomes to a dataset folder, and complete it.

    Args:
        outcomes: from an engine, in any order; closed if writing fails.
        folder: the folder.
        watch: called with each outcome.

    Raises:
        OutputError: the folder cannot be written, or an input has no outcome.
    """
    with _closing(outcomes):
        for outcome in outcomes:
            folder.add(outcome)
            watch(outcome)
    folder.finish()


def write_file(
    outcomes: Iterator[Outcome], output: Output, failures: Sequence[Failure], watch: Callable[[Outcome], None]
) -> Summary:
    """Write outcomes to a single file, in the order of the inputs, and finish it.

    Args:
        outcomes: from an engine, in any order; an outcome that is early is held in memory. Closed if writing fails.
        output: the file.
        failures: names that match no input, for the list of failures.
        watch: called with each outcome.

    Raises:
        OutputError: the output cannot be written.
    """
    summary = Summary(0, 0, list(failures))
    with _closing(outcomes):
        for outcome in _in_order(outcomes, watch):
            if isinstance(outcome, Failure):
                summary.failures.append(outcome)
            else:
                output.write(outcome.rows)
                summary.files += 1
                summary.windows += outcome.windows
    output.finish(summary.failures)
    return summary


def _closing(outcomes: Iterator[Outcome]) -> AbstractContextManager[object]:
    """Return a context that stops the engine when it ends."""
    return closing(outcomes) if isinstance(outcomes, Generator) else nullcontext()


def _in_order(outcomes: Iterator[Outcome], watch: Callable[[Outcome], None]) -> Iterator[Outcome]:
    """Yield outcomes in the order of their inputs, whose indexes are 0, 1, 2, …"""
    early: dict[int, Outcome] = {}
    next_index = 0
    for outcome in outcomes:
        watch(outcome)
        index = next_index if outcome.item is None else outcome.item.index
        if index < next_index or index in early:
            continue  # an engine may compute an input twice
        early[index] = outcome
        while next_index in early:
            yield early.pop(next_index)
            next_index += 1
    yield from (early[index] for index in sorted(early))
