"""From scores of windows to events: which label, from when to when.

A window stands for the time around its middle: up to half-way to the middles of its neighbours, the first from its own
start, the last to its own end, and none for time outside itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vggish_pt.errors import SettingsError

MAX_MEDIAN = 999


@dataclass(frozen=True)
class SoundEvent:
    """A stretch of time with one label.

    Attributes:
        label: the class.
        onset: seconds.
        offset: seconds.
        score: mean of the label's scores over the windows in it, filled gaps left out.
        peak: the highest of these scores.
    """

    label: str
    onset: float
    offset: float
    score: float
    peak: float


@dataclass(frozen=True)
class EventSettings:
    """What counts as an event. Scores are smoothed, then compared with the thresholds; then gaps are closed; then what
    is too short is left out.

    Attributes:
        threshold: the score that an event reaches at least once. None: 0.5 if a clip may have any number of labels;
            else none, so that every moment belongs to the class with the highest score.
        low: the score above which an event goes on (hysteresis); None for the threshold itself.
        min_duration: seconds; shorter events are left out.
        max_gap: seconds; the same label after a gap up to this long goes on with the event before, unless another
            event lies between and a clip has one label at a time.
        median: odd number of windows over which a median smooths the scores of each class; 1 for no smoothing.

    Raises:
        SettingsError: a value outside what it may be.
    """

    threshold: float | None = None
    low: float | None = None
    min_duration: float = 0.0
    max_gap: float = 0.0
    median: int = 1

    def __post_init__(self) -> None:
        for name in ("threshold", "low"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise SettingsError(f"{name} must be from 0 to 1, not {value!r}")
        if self.low is not None and self.threshold is None:
            raise SettingsError("low goes with a threshold; set both")
        if self.low is not None and self.threshold is not None and self.low > self.threshold:
            raise SettingsError(f"low must not be above the threshold ({self.low} and {self.threshold})")
        for name in ("min_duration", "max_gap"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise SettingsError(f"{name} must be 0 seconds or more, not {getattr(self, name)!r}")
        if isinstance(self.median, bool) or self.median not in range(1, MAX_MEDIAN + 1, 2):
            raise SettingsError(f"median must be an odd number of windows from 1 to {MAX_MEDIAN}, not {self.median!r}")

    def thresholds(self, multilabel: bool) -> tuple[float, float]:
        """What an event reaches at least once, and what it never falls below."""
        high = self.threshold if self.threshold is not None else 0.5 if multilabel else -np.inf
        return high, high if self.low is None else self.low


def find_events(
    scores: ArrayLike,
    start: ArrayLike,
    end: ArrayLike,
    labels: Sequence[str],
    *,
    multilabel: bool,
    settings: EventSettings | None = None,
    last: float | None = None,
) -> list[SoundEvent]:
    """Merges windows into events.

    Args:
        scores: (n, classes), of each window, in the order of time.
        start: (n,) seconds at which each window starts.
        end: (n,) seconds at which it ends.
        labels: names of the classes.
        multilabel: whether events of different labels may overlap; else, at any moment only the class with the highest
            score counts.
        settings: None for the defaults.
        last: seconds at which the sound ends, if windows run beyond it; no event does then.

    Returns:
        Events by onset, then in the order of the labels.

    Raises:
        SettingsError: arrays that do not fit each other.
    """
    settings = settings or EventSettings()
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != len(labels):
        raise SettingsError(f"scores must be (windows, {len(labels)}), a column for each label, not {values.shape}")
    onset, offset = spans(start, end, last)
    if len(onset) != len(values):
        raise SettingsError(f"{len(values)} windows of scores, but {len(onset)} of times")
    if not len(values):
        return []
    smooth = _median(values, settings.median)
    high, low = settings.thresholds(multilabel)
    active = smooth >= low
    if not multilabel:
        active &= np.arange(len(labels)) == smooth.argmax(axis=1)[:, None]
    runs = [
        [run for run in _runs(active[:, place]) if smooth[run[0] : run[1], place].max() >= high]
        for place in range(len(labels))
    ]
    found = [[_Span([run], float(onset[run[0]]), float(offset[run[1] - 1])) for run in each] for each in runs]
    # What is left out may have kept a gap from closing, where only one label counts at a time.
    found = _close(found, settings.max_gap, exclusive=not multilabel)
    found = [[s for s in each if s.offset - s.onset >= settings.min_duration - 1e-9] for each in found]
    found = _close(found, settings.max_gap, exclusive=not multilabel)
    events = [(span, place) for place, each in enumerate(found) for span in each]
    return [
        _event(span, labels[place], values[:, place])
        for span, place in sorted(events, key=lambda e: (e[0].onset, e[1]))
    ]


def spans(
    start: ArrayLike, end: ArrayLike, last: float | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The time that each window stands for; see above.

    Args:
        start: (n,) seconds, rising.
        end: (n,) seconds.
        last: no time goes beyond it; None for no limit.

    Returns:
        (n,) onsets and (n,) offsets in seconds.
    """
    first, final = np.asarray(start, dtype=np.float64), np.asarray(end, dtype=np.float64)
    if first.ndim != 1 or first.shape != final.shape:
        raise SettingsError(f"start and end must be (windows,) both, not {first.shape} and {final.shape}")
    onset, offset = first.copy(), final.copy()
    middle = (first + final) / 2
    border = (middle[1:] + middle[:-1]) / 2
    onset[1:] = np.maximum(onset[1:], border)
    offset[:-1] = np.minimum(offset[:-1], border)
    if last is not None:
        offset = np.maximum(np.minimum(offset, last), onset)
    return onset, offset


@dataclass
class _Span:
    runs: list[tuple[int, int]]
    onset: float
    offset: float


def _median(values: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    if size == 1:
        return values
    from scipy.ndimage import median_filter

    filtered: NDArray[np.float64] = median_filter(values, size=(size, 1), mode="nearest")
    return filtered


def _runs(active: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First and behind-the-last index of each run of True."""
    steps = np.flatnonzero(np.diff(np.concatenate([[False], active, [False]]).astype(np.int8)))
    return [(int(first), int(behind)) for first, behind in zip(steps[::2], steps[1::2], strict=True)]


def _close(found: list[list[_Span]], max_gap: float, *, exclusive: bool) -> list[list[_Span]]:
    if max_gap <= 0:
        return found
    onsets = np.sort([span.onset for each in found for span in each]) if exclusive else np.empty(0)
    closed: list[list[_Span]] = []
    for each in found:
        merged: list[_Span] = []
        for span in each:
            before = merged[-1] if merged else None
            # Events of one label at a time do not overlap, so one that lies between starts between.
            between = before is not None and np.searchsorted(onsets, span.onset) > np.searchsorted(
                onsets, before.offset
            )
            if before is None or between or span.onset - before.offset > max_gap + 1e-9:
                merged.append(span)
            else:
                merged[-1] = _Span([*before.runs, *span.runs], before.onset, span.offset)
        closed.append(merged)
    return closed


def _event(span: _Span, label: str, scores: NDArray[np.float64]) -> SoundEvent:
    inside = np.concatenate([scores[first:behind] for first, behind in span.runs])
    return SoundEvent(label, span.onset, span.offset, float(inside.mean()), float(inside.max()))
