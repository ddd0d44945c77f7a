"""Tables of predictions as CSV or JSON: scores of files, scores of windows, or events.

Cells are written unchanged, also a label that begins with "=". Import tables with labels that you do not trust into a
spreadsheet as text, not as formulas.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from vggish_pt.audio.clip import Clip
from vggish_pt.classify.evaluation.events import EventSettings
from vggish_pt.classify.evaluation.predict import prediction_events
from vggish_pt.errors import SettingsError
from vggish_pt.utils.atomic import whole_file
from vggish_pt.utils.text import path_text
from vggish_pt.version import __version__

if TYPE_CHECKING:
    from vggish_pt.classify.prediction import Prediction

View = Literal["files", "windows", "events"]
"""``files``: scores of each file. ``windows``: scores of each window. ``events``: intervals with one label."""

ENDINGS = (".csv", ".json")
DEFAULT_TOP = 3


@dataclass(frozen=True)
class TableSettings:
    """Contents of a table.

    Attributes:
        labels: names of the classes.
        multilabel: True allows events of different labels to overlap.
        view: content of a row; see :data:`View`.
        top: number of labels with the highest scores for each file or window; 0 for all.
        events: rules for events.
        segments: True adds the start and end of inputs that are segments of files.
        facts: entries for the head of a JSON file; JSON types.

    Raises:
        SettingsError: an invalid value.
    """

    labels: Sequence[str]
    multilabel: bool = False
    view: View = "files"
    top: int = DEFAULT_TOP
    events: EventSettings = field(default_factory=EventSettings)
    segments: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.view not in get_args(View):
            raise SettingsError(f"view must be one of {', '.join(get_args(View))}, not {self.view!r}")
        if isinstance(self.top, bool) or not isinstance(self.top, int) or self.top < 0:
            raise SettingsError(f"top must be a whole number of labels, or 0 for all, not {self.top!r}")


class Table(Protocol):
    """Table that is being written."""

    def add(self, item: Clip, prediction: Prediction) -> None:
        """Add the prediction of an input."""


def check_ending(path: Path) -> str:
    """Return the ending of a table's name.

    Raises:
        SettingsError: the ending is neither .csv nor .json.
    """
    if path.suffix.lower() not in ENDINGS:
        raise SettingsError(f"{path}: predictions are written to a file that ends in {' or '.join(ENDINGS)}")
    return path.suffix.lower()


@contextlib.contextmanager
def open_table(path: Path, settings: TableSettings, *, overwrite: bool = False) -> Iterator[Table]:
    """Open a table for writing. The file appears when the block ends; if the block raises, no file is written.

    Args:
        path: the file, which ends in .csv or .json.
        settings: contents of the table.
        overwrite: True replaces an existing file.

    Raises:
        SettingsError: the path has another ending.
        OutputError: the file exists already, or cannot be written.
    """
    ending = check_ending(path)
    with whole_file(path, overwrite=overwrite) as raw:
        # Surrogates, which UTF-8 cannot encode, are escaped.
        text = io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", newline="")
        try:
            table = _Csv(text, settings) if ending == ".csv" else _Json(text, settings)
            yield table
            table.end()
            text.flush()
        finally:
            text.detach()


def top_labels(scores: NDArray[np.float32], labels: Sequence[str], top: int) -> list[tuple[str, float]]:
    """Return the labels with the highest scores, highest first, ties in the order of labels; ``top=0`` for all."""
    order = np.argsort(-scores, kind="stable")[: top or None]
    return [(labels[place], short(scores[place])) for place in order]


def short(score: np.float32) -> float:
    """Return the float with the fewest digits that rounds to the same float32."""
    return float(str(np.float32(score)))


def seconds(value: float) -> float:
    """Round a time to a tenth of a millisecond."""
    return round(float(value), 4)


class _Csv:
    def __init__(self, file: IO[str], settings: TableSettings) -> None:
        self._settings = settings
        self._table = csv.writer(file)
        columns = {
            "files": ["rank", "label", "score"],
            "windows": ["window", "start", "end", "rank", "label", "score"],
            "events": ["onset", "offset", "label", "score", "peak"],
        }[settings.view]
        segment = ["segment_start", "segment_end"] if settings.segments else []
        self._table.writerow(["path", *segment, *columns])

    def add(self, item: Clip, prediction: Prediction) -> None:
        settings = self._settings
        first: list[object] = [path_text(item.path)]
        if settings.segments:
            first += ["" if item.start is None else item.start, "" if item.end is None else item.end]
        self._table.writerows([*first, *row] for row in self._rows(prediction))

    def _rows(self, prediction: Prediction) -> Iterator[list[object]]:
        settings = self._settings
        if settings.view == "files":
            best = top_labels(prediction.scores.numpy(), settings.labels, settings.top)
            yield from ([rank, label, score] for rank, (label, score) in enumerate(best, start=1))
        elif settings.view == "windows":
            for number, (start, end, scores) in enumerate(_windows(prediction)):
                best = top_labels(scores, settings.labels, settings.top)
                for rank, (label, score) in enumerate(best, start=1):
                    yield [number, start, end, rank, label, score]
        else:
            for event in _events(prediction, settings):
                yield [event["onset"], event["offset"], event["label"], event["score"], event["peak"]]

    def end(self) -> None:
        pass


class _Json:
    def __init__(self, file: IO[str], settings: TableSettings) -> None:
        self._file = file
        self._settings = settings
        self._first = True
        head = {
            "vggish_pt": __version__,
            **settings.facts,
            "labels": list(settings.labels),
            "multilabel": settings.multilabel,
            "view": settings.view,
        }
        file.write(_dumps(head)[:-1] + ', "files": [')

    def add(self, item: Clip, prediction: Prediction) -> None:
        settings = self._settings
        entry: dict[str, Any] = {"path": path_text(item.path)}
        if settings.segments:
            entry |= {"segment_start": item.start, "segment_end": item.end}
        entry["duration"] = seconds(prediction.duration)
        if settings.view == "files":
            entry["scores"] = dict(top_labels(prediction.scores.numpy(), settings.labels, settings.top))
        elif settings.view == "windows":
            entry["windows"] = [
                {"start": start, "end": end, "scores": dict(top_labels(scores, settings.labels, settings.top))}
                for start, end, scores in _windows(prediction)
            ]
        else:
            entry["events"] = list(_events(prediction, settings))
        self._file.write(("\n" if self._first else ",\n") + _dumps(entry))
        self._first = False

    def end(self) -> None:
        self._file.write("\n]}\n")


def _windows(prediction: Prediction) -> Iterator[tuple[float, float, NDArray[np.float32]]]:
    rows = zip(prediction.start.tolist(), prediction.end.tolist(), prediction.window_scores.numpy(), strict=True)
    return ((seconds(start), seconds(end), scores) for start, end, scores in rows)


def _events(prediction: Prediction, settings: TableSettings) -> Iterator[dict[str, Any]]:
    for event in prediction_events(prediction, multilabel=settings.multilabel, settings=settings.events):
        yield {
            "label": event.label,
            "onset": seconds(event.onset),
            "offset": seconds(event.offset),
            "score": round(event.score, 6),
            "peak": round(event.peak, 6),
        }


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
