"""Sound events from the scores of windows.

Each window represents the time around its centre, up to the midpoints between its centre and those of its neighbours,
but no time outside the window. The first window represents the time from its start, the last the time to its end.
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
    """Interval of time with one label.

    Attributes:
        label: the class.
        onset: start in seconds.
        offset: end in seconds.
        score: mean of the label's scores over the event's windows, without closed gaps.
        peak: the highest of these scores.
    """

    label: str
    onset: float
    offset: float
    score: float
    peak: float


@dataclass(frozen=True)
class EventSettings:
    """Rules for events: scores are smoothed and compared with thresholds, gaps are closed, short events are dropped.

    Attributes:
        threshold: score that an event must reach at least once. None: 0.5 for multi-label classifiers; single-label, no
            threshold, so that the class with the highest score wins at any time.
        low: score above which an event continues (hysteresis); None for the threshold itself.
        min_duration: seconds; shorter events are dropped.
        max_gap: seconds; two events of a label with a gap up to this long are joined. Single-label, they are joined
            only if no other event lies between them.
        median: length in windows of the median filter that smooths the scores of each class; odd, 1 for no smoothing.

    Raises:
        SettingsError: an invalid value.
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
            raise SettingsError("low needs a threshold; set both")
        if self.low is not None and self.threshold is not None and self.low > self.threshold:
            raise SettingsError(f"low must not be above the threshold ({self.low} and {self.threshold})")
        for name in ("min_duration", "max_gap"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise SettingsError(f"{name} must be 0 seconds or more, not {getattr(self, name)!r}")
        if isinstance(self.median, bool) or self.median not in range(1, MAX_MEDIAN + 1, 2):
            raise SettingsError(f"median must be an odd number of windows from 1 to {MAX_MEDIAN}, not {self.median!r}")

    def thresholds(self, multilabel: bool) -> tuple[float, float]:
        """Return the score that an event reaches at least once, and the score that none of its windows falls below."""
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
    """Merge windows into events.

    Args:
        scores: (n, classes) scores of each window, in the order of time.
        start: (n,) start of each window in seconds.
        end: (n,) end of each window in seconds.
        labels: names of the classes.
        multilabel: True allows events of different labels to overlap; False uses only the class with the highest score
            at any time.
        settings: rules for events; None for the defaults.
        last: end of the recording in seconds, which no event exceeds; None if windows do not exceed it.

    Returns:
        Events by onset, then in the order of the labels.

    Raises:
        SettingsError: the shapes of the arrays do not match.
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
    # Single-label, a dropped event may have separated two events of another label: close gaps again.
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
    """Return the interval that each window represents.

    Args:
        start: (n,) start of each window in seconds, rising.
        end: (n,) end of each window in seconds.
        last: upper limit of all times; None for no limit.

    Returns:
        (n,) onsets and (n,) offsets in seconds.

    Raises:
        SettingsError: the shapes of the arrays do not match.
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
    """Return the start and (exclusive) end index of each run of True."""
    steps = np.flatnonzero(np.diff(np.concatenate([[False], active, [False]]).astype(np.int8)))
    return [(int(first), int(stop)) for first, stop in zip(steps[::2], steps[1::2], strict=True)]


def _close(found: list[list[_Span]], max_gap: float, *, exclusive: bool) -> list[list[_Span]]:
    if max_gap <= 0:
        return found
    onsets = np.sort([span.onset for each in found for span in each]) if exclusive else np.empty(0)
    closed: list[list[_Span]] = []
    for each in found:
        merged: list[_Span] = []
        for span in each:
            before = merged[-1] if merged else None
            # Single-label events do not overlap, so an event between two others starts between them.
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
    inside = np.concatenate([scores[first:stop] for first, stop in span.runs])
    return SoundEvent(label, span.onset, span.offset, float(inside.mean()), float(inside.max()))
