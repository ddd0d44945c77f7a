"""Rows of manifests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vggish_pt.audio.segment import time_problem
from vggish_pt.utils.text import display_name


@dataclass(frozen=True, slots=True)
class Row:
    """Row of a manifest.

    Attributes:
        line: line of a text, counted from 1, or row of a Parquet file, counted from 0.
        path: path or address, as written in the manifest.
        start: start of the part in seconds; None for the file's beginning.
        end: end of the part in seconds; None for the file's end.
        columns: values of the other columns, by name.
    """

    line: int
    path: str
    start: float | None
    end: float | None
    columns: dict[str, Any]


@dataclass(frozen=True, slots=True)
class BadRow:
    """Row that cannot be used.

    Attributes:
        line: position of the row, as in :class:`Row`.
        reason: what is wrong with it.
    """

    line: int
    reason: str


def make_row(line: int, values: dict[str, Any]) -> Row | BadRow:
    """Return a row from its values.

    Args:
        line: position of the row, as in :class:`Row`.
        values: values by column name; path, start and end are removed from the dictionary.
    """
    path = values.pop("path", None)
    if not isinstance(path, str) or not path or "\0" in path:
        return BadRow(line, "no path" if path in (None, "") else f"{path!r:.40} is no path")
    try:
        start, end = seconds(values.pop("start", None)), seconds(values.pop("end", None))
    except ValueError as error:
        return BadRow(line, f"{display_name(path)}: {error}")
    problem = time_problem(start, end)
    return BadRow(line, f"{display_name(path)}: {problem}") if problem else Row(line, path, start, end, values)


def seconds(value: object) -> float | None:
    """Return the time that a cell holds, as a number or text; None for an empty cell.

    Raises:
        ValueError: the cell holds something else.
    """
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        raise ValueError(f"{value} is no number of seconds")
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{value!r:.40} is no number of seconds") from None
