"""Predictions as CSV or JSON: of files, of windows, or as events.

Cells are data and are written as they are: a label that begins with "=" stays so. Open tables of labels that you do
not trust as text, not as formulas.
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
    from vggish_pt.classify.model import Prediction

View = Literal["files", "windows", "events"]
"""``files``: scores of each file. ``windows``: scores of each window. ``events``: stretches of time with one label."""

ENDINGS = (".csv", ".json")
DEFAULT_TOP = 3


@dataclass(frozen=True)
class TableSettings:
    """What a table says.

    Attributes:
        labels: names of the classes.
        multilabel: whether events of different labels may overlap.
        view: what a row is; see :data:`View`.
        top: how many labels of the highest scores are named for each file or window; 0 for all.
        events: what counts as an event.
        segments: whether inputs may be parts of files; rows then say which.
        facts: what a JSON file says about how it was made; JSON types.

    Raises:
        SettingsError: a value outside what it may be.
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
    """A table that is being written."""

    def add(self, item: Clip, prediction: Prediction) -> None:
        """Adds what is known of an input."""


def check_ending(path: Path) -> str:
    """The ending of a table's name.

    Raises:
        SettingsError: it is neither .csv nor .json.
    """
    if path.suffix.lower() not in ENDINGS:
        raise SettingsError(f"{path}: predictions are written to a file that ends in {' or '.join(ENDINGS)}")
    return path.suffix.lower()


@contextlib.contextmanager
def open_table(path: Path, settings: TableSettings, *, overwrite: bool = False) -> Iterator[Table]:
    """A table to write, which gets its name when the block ends without an error, and else vanishes.

    Args:
        path: ends in .csv or .json.
        settings: what it says.
        overwrite: whether to replace a file that is there.

    Raises:
        SettingsError: another ending.
        OutputError: it exists already, or cannot be written.
    """
    ending = check_ending(path)
    with whole_file(path, overwrite=overwrite) as raw:
        # Text that has no UTF-8 appears escaped, in JSON as JSON does it.
        text = io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", newline="")
        try:
            table = _Csv(text, settings) if ending == ".csv" else _Json(text, settings)
            yield table
            table.end()
            text.flush()
        finally:
            text.detach()


def top_labels(scores: NDArray[np.float32], labels: Sequence[str], top: int) -> list[tuple[str, float]]:
    """The labels of the highest scores, highest first, equal ones in the order of the labels; ``top=0`` for all."""
    order = np.argsort(-scores, kind="stable")[: top or None]
    return [(labels[place], short(scores[place])) for place in order]


def short(score: np.float32) -> float:
    """The shortest digits that give the same float32 again."""
    return float(str(np.float32(score)))


def seconds(value: float) -> float:
    """A time, to a tenth of a millisecond."""
    return round(float(value), 4)


class _Csv:
    def __init__(self, file: IO[str], settings: TableSettings) -> None:
        self._settings = settings
        self._table = csv.writer(file)
        what = {
            "files": ["rank", "label", "score"],
            "windows": ["window", "start", "end", "rank", "label", "score"],
            "events": ["onset", "offset", "label", "score", "peak"],
        }[settings.view]
        part = ["segment_start", "segment_end"] if settings.segments else []
        self._table.writerow(["path", *part, *what])

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
