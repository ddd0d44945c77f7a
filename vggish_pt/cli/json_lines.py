"""Writer of windows as lines of JSON on standard output, flushed after each call."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import typer

from vggish_pt.errors import OutputError, VGGishError
from vggish_pt.utils.text import discard_output

if TYPE_CHECKING:
    from torch import Tensor

    from vggish_pt.classify.evaluation.predict import Classifier
    from vggish_pt.inference.embeddings import Embeddings

Write: TypeAlias = "Callable[[Embeddings, int], int]"
"""Writes a line for each window, numbered from the given number; returns the number of lines."""


def write_embeddings(windows: Embeddings, first: int) -> int:
    """Write the number, start and end in seconds, and embedding of each window; a :data:`Write`."""
    return _write(windows, first, "embedding", _digits(windows.values))


def score_writer(classifier: Classifier) -> Write:
    """Return a :data:`Write` for a classifier's features: number, start and end in seconds, score of each label."""
    from vggish_pt.classify.evaluation.predict import checked

    labels = classifier.labels

    def write(windows: Embeddings, first: int) -> int:
        if len(windows) == 0:
            return 0
        result = checked(classifier.prediction(replace(windows, values=classifier.reduce(windows.values))))
        if isinstance(result, VGGishError):
            raise result
        scores = [dict(zip(labels, row, strict=True)) for row in _digits(result.window_scores)]
        return _write(windows, first, "scores", scores)

    return write


def _digits(values: Tensor) -> list[Any]:
    array = values.numpy()
    if array.dtype.kind == "f":
        array = array.astype(str).astype(float)  # the shortest digits that give the same float32 again
    rows: list[Any] = array.tolist()
    return rows


def _write(windows: Embeddings, first: int, name: str, values: list[Any]) -> int:
    rows = zip(windows.start.tolist(), windows.end.tolist(), values, strict=True)
    try:
        for number, (start, end, value) in enumerate(rows, start=first):
            # Times are multiples of 5 ms, so three digits are exact.
            line = {"window": number, "start": start, "end": round(end, 3), name: value}
            sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of the output has exited
        discard_output()
        raise typer.Exit(0) from None
    except OSError as error:
        discard_output()
        raise OutputError(f"standard output: cannot be written ({error.strerror or error})") from error
    return len(windows)
