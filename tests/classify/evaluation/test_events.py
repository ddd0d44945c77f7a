from __future__ import annotations

import numpy as np
import pytest

from vggish_pt.classify.evaluation.events import EventSettings, find_events, spans
from vggish_pt.errors import SettingsError
from vggish_pt.nn.windows import window_times


def events(scores, *, hop=1.0, multilabel=True, labels=None, last=None, **settings):
    """Windows of a length of one hop, so that times are plain."""
    values = np.asarray(scores, dtype=float)
    if values.ndim == 1:
        values = values[:, None]
    start = np.arange(len(values)) * hop
    found = find_events(
        values,
        start,
        start + hop,
        labels or "abcdef"[: values.shape[1]],
        multilabel=multilabel,
        settings=EventSettings(**settings),
        last=last,
    )
    return [(event.label, event.onset, event.offset) for event in found]


def test_windows_become_events():
    assert events([0.1, 0.6, 0.7, 0.2, 0.9]) == [("a", 1, 3), ("a", 4, 5)]
    assert events([0.1, 0.2]) == []
    assert events([0.5]) == [("a", 0, 1)]  # on the threshold


def test_labels_overlap_where_a_clip_may_have_several():
    scores = [[0.9, 0.1], [0.9, 0.8], [0.1, 0.8]]
    assert events(scores) == [("a", 0, 2), ("b", 1, 3)]
    together = [[0.9, 0.8]]
    assert events(together) == [("a", 0, 1), ("b", 0, 1)]


def test_single_label_changes_with_the_best():
    scores = [[0.5, 0.3, 0.2], [0.4, 0.35, 0.25], [0.3, 0.4, 0.3], [0.5, 0.3, 0.2]]
    assert events(scores, multilabel=False) == [("a", 0, 2), ("b", 2, 3), ("a", 3, 4)]
    assert events(scores, multilabel=False, threshold=0.45) == [("a", 0, 1), ("a", 3, 4)]
    # Goes on below the threshold, but not into a window where another class is best.
    assert events(scores, multilabel=False, threshold=0.45, low=0.35) == [("a", 0, 2), ("a", 3, 4)]


def test_hysteresis():
    scores = [0.3, 0.4, 0.8, 0.45, 0.35, 0.2, 0.4, 0.4]
    assert events(scores, threshold=0.6) == [("a", 2, 3)]
    assert events(scores, threshold=0.6, low=0.35) == [("a", 1, 5)]  # the last two never reach 0.6


def test_gaps_close_and_short_events_go():
    scores = [0.9, 0.1, 0.9, 0.1, 0.1, 0.9, 0.1, 0.1, 0.1]
    assert events(scores, max_gap=1) == [("a", 0, 3), ("a", 5, 6)]
    assert events(scores, max_gap=2) == [("a", 0, 6)]
    assert events(scores, min_duration=2) == []
    assert events(scores, max_gap=1, min_duration=2) == [("a", 0, 3)]  # gaps first
    assert events(scores, max_gap=1, min_duration=3) == [("a", 0, 3)]


def test_a_gap_with_another_event_in_it_stays_where_there_is_one_label_at_a_time():
    best = [0, 0, 1, 0, 0, 2, 2, 0]
    scores = np.eye(3)[best] * 0.8 + 0.05
    whole = events(scores, multilabel=False, max_gap=5)
    assert whole == [("a", 0, 2), ("b", 2, 3), ("a", 3, 5), ("c", 5, 7), ("a", 7, 8)]
    # b goes, as it is too short, and then nothing is in the way. So does the last a.
    assert events(scores, multilabel=False, max_gap=5, min_duration=2) == [("a", 0, 5), ("c", 5, 7)]
    assert events(scores, multilabel=True, max_gap=1)[0] == ("a", 0, 5)


def test_median_takes_out_single_windows():
    scores = [0.1, 0.1, 0.9, 0.1, 0.9, 0.9, 0.2, 0.9, 0.9]
    assert events(scores, median=3) == [("a", 3, 9)]


def test_score_and_peak_are_of_the_windows_not_of_the_gaps():
    start = np.arange(4.0)
    (event,) = find_events(
        [[0.6], [0.0], [0.9], [0.0]],
        start,
        start + 1,
        ["a"],
        multilabel=True,
        settings=EventSettings(max_gap=1, median=1),
    )
    assert (event.score, event.peak) == (pytest.approx(0.75), pytest.approx(0.9))


def test_spans_of_overlapping_windows_meet_half_way():
    start, end = window_times(0, 3, 0.5)
    onset, offset = spans(start, end)
    np.testing.assert_allclose(onset, [0, 0.7375, 1.2375])
    np.testing.assert_allclose(offset, [0.7375, 1.2375, 1.975])


def test_spans_of_windows_apart_hold_no_time_outside_them():
    start, end = window_times(0, 2, 2.0)
    onset, offset = spans(start, end)
    np.testing.assert_allclose(onset, [0, 2])
    np.testing.assert_allclose(offset, [0.975, 2.975])


def test_no_event_beyond_the_end_of_the_sound():
    start, end = window_times(0, 1, 0.96)
    (event,) = find_events([[0.9]], start, end, ["a"], multilabel=True, last=0.1)
    assert (event.onset, event.offset) == (0, 0.1)


def test_nothing_in_nothing_out():
    assert find_events(np.zeros((0, 2)), [], [], ["a", "b"], multilabel=False) == []


def test_events_lie_in_order_and_apart(rng):
    for multilabel in (True, False):
        for _ in range(50):
            scores = rng.random((60, 4))
            found = events(scores, multilabel=multilabel, threshold=0.6, low=0.3, max_gap=2, min_duration=2, median=3)
            assert found == sorted(found, key=lambda event: (event[1], event[0]))
            for label in "abcd":
                own = [event for event in found if event[0] == label]
                assert all(offset - onset >= 2 for _, onset, offset in own)
                assert all(own[i + 1][1] - own[i][2] > 0 for i in range(len(own) - 1))
            if not multilabel:
                assert all(found[i][2] <= found[i + 1][1] for i in range(len(found) - 1))


@pytest.mark.parametrize(
    "settings",
    [
        {"threshold": 1.5},
        {"threshold": float("nan")},
        {"low": 0.3},
        {"threshold": 0.3, "low": 0.5},
        {"min_duration": -1},
        {"max_gap": float("inf")},
        {"max_gap": float("nan")},
        {"median": 2},
        {"median": -1},
        {"median": 2.5},
        {"median": 1001},
    ],
)
def test_settings_that_cannot_be(settings):
    with pytest.raises(SettingsError):
        EventSettings(**settings)


def test_arrays_that_do_not_fit():
    with pytest.raises(SettingsError, match="a column for each label"):
        find_events([[0.1]], [0], [1], ["a", "b"], multilabel=True)
    with pytest.raises(SettingsError, match="2 of times"):
        find_events([[0.1]], [0, 1], [1, 2], ["a"], multilabel=True)
