from __future__ import annotations

import json
import math

import numpy as np
import pytest

from vggish_pt.classify.evaluation.metrics import classification_metrics, d_prime
from vggish_pt.errors import SettingsError

LABELS = ("a", "b", "c")
# Worked out by hand: clips 0, 1 of a, 2, 3 of b, 4 of c; clip 1 is taken for b, clip 4 for a.
TARGETS = [0, 0, 1, 1, 2]
SCORES = [[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.1, 0.9, 0.0], [0.2, 0.5, 0.3], [0.4, 0.35, 0.25]]


def test_single_label_by_hand():
    found = classification_metrics(TARGETS, SCORES, LABELS)
    assert found.examples == 5
    assert found.accuracy == pytest.approx(3 / 5)
    assert found.confusion == ((1, 1, 0), (0, 2, 0), (1, 0, 0))
    a, b, c = found.per_class
    assert (a.support, a.predicted, a.correct) == (2, 2, 1)
    assert (a.precision, a.recall, a.f1) == (0.5, 0.5, 0.5)
    assert (b.precision, b.recall, b.f1) == (pytest.approx(2 / 3), 1.0, pytest.approx(0.8))
    assert (c.precision, c.recall, c.f1) == (0.0, 0.0, 0.0)
    assert found.macro_f1 == pytest.approx((0.5 + 0.8) / 3)
    # a by score: 0.8 (a), 0.4, 0.3 (a), ... → precision 1 and 2/3 at its hits; 5 of 6 pairs in order.
    assert a.average_precision == pytest.approx((1 + 2 / 3) / 2)
    assert a.auc == pytest.approx(5 / 6)
    assert b.average_precision == pytest.approx((1 + 2 / 3) / 2)
    assert c.average_precision == pytest.approx(1 / 2)
    assert c.auc == pytest.approx(3 / 4)
    assert found.auc == pytest.approx((5 / 6 + 5 / 6 + 3 / 4) / 3)
    assert found.mean_average_precision == pytest.approx((5 / 6 + 5 / 6 + 1 / 2) / 3)
    assert found.without_examples == ()


def test_indicators_mean_the_same_as_numbers():
    indicators = np.eye(3, dtype=int)[TARGETS]
    found, same = (classification_metrics(each, SCORES, LABELS) for each in (indicators, TARGETS))
    assert found.to_json() == same.to_json()


def test_multilabel_by_hand():
    targets = [[1, 1], [1, 0], [0, 0], [0, 1]]
    scores = [[0.9, 0.2], [0.6, 0.7], [0.4, 0.1], [0.2, 0.5]]
    found = classification_metrics(targets, scores, ("x", "y"), multilabel=True)
    assert found.accuracy == 0.5  # clips 2 and 3; a score on the threshold counts
    assert found.confusion == ((2, 0, 0), (1, 1, 1))
    assert found.per_class[0].average_precision == 1.0
    assert found.per_class[1].auc == pytest.approx(2 / 4)
    assert found.auc == pytest.approx(0.75)
    assert found.d_prime == pytest.approx(math.sqrt(2) * 0.6744897501960817)
    strict = classification_metrics(targets, scores, ("x", "y"), multilabel=True, threshold=0.65)
    assert strict.confusion == ((1, 1, 0), (0, 2, 1))
    assert strict.auc == found.auc


def test_equal_to_scikit_learn(rng):
    from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

    targets = rng.random((200, 5)) < 0.3
    scores = np.round(rng.random((200, 5)) * 0.7 + targets * 0.2, 2)  # with ties
    found = classification_metrics(targets, scores, list("abcde"), multilabel=True)
    assert found.mean_average_precision == pytest.approx(average_precision_score(targets, scores, average="macro"))
    assert found.auc == pytest.approx(roc_auc_score(targets, scores, average="macro"))
    assert found.macro_f1 == pytest.approx(f1_score(targets, scores >= 0.5, average="macro"))


def test_d_prime_is_the_distance_of_two_normal_distributions():
    for distance in (-1.0, 0.7, 1.5, 3.0):
        auc = (1 + math.erf(distance / 2)) / 2  # chance that a draw of one exceeds a draw of the other
        assert d_prime(auc) == pytest.approx(distance)
    assert d_prime(0.5) == 0
    assert d_prime(1.0) == math.inf
    assert math.isnan(d_prime(math.nan))


def test_classes_without_clips_stay_out_of_means():
    found = classification_metrics([0, 0, 1], [[0.9, 0.1, 0], [0.2, 0.1, 0.7], [0.1, 0.9, 0]], LABELS)
    assert found.without_examples == ("c",)
    c = found.per_class[2]
    assert (c.support, c.predicted, c.precision) == (0, 1, 0.0)
    assert all(math.isnan(value) for value in (c.recall, c.f1, c.average_precision, c.auc))
    assert found.macro_recall == pytest.approx((0.5 + 1) / 2)
    assert found.macro_f1 == pytest.approx((2 / 3 + 1) / 2)
    assert found.mean_average_precision == 1.0


def test_one_class_that_every_clip_has():
    found = classification_metrics([0, 0], [[0.9, 0.1], [0.8, 0.2]], ("a", "b"))
    assert found.accuracy == 1.0
    assert math.isnan(found.auc) and math.isnan(found.d_prime)
    assert found.per_class[0].average_precision == 1.0


def test_reliability(rng):
    # Scores that say the truth: of clips with score p, a share of p is right.
    right = rng.random(20_000)
    score = rng.random(20_000) * 0.5 + 0.5
    targets = np.where(right < score, 0, 1)
    honest = classification_metrics(targets, np.stack([score, 1 - score], axis=1), ("a", "b"))
    assert honest.reliability.error < 0.02
    assert sum(honest.reliability.count) == 20_000
    assert honest.reliability.count[0] == 0 and math.isnan(honest.reliability.score[0])
    boastful = classification_metrics(targets, np.stack([score**0.01, 1 - score**0.01], axis=1), ("a", "b"))
    assert boastful.reliability.error == pytest.approx(float((score**0.01).mean() - 0.75), abs=0.02)


def test_reliability_by_hand():
    found = classification_metrics([0, 1], [[0.95, 0.05], [0.65, 0.35]], ("a", "b")).reliability
    assert found.error == pytest.approx((0.05 + 0.65) / 2)
    both = classification_metrics([[1, 0]], [[0.8, 0.4]], ("a", "b"), multilabel=True).reliability
    assert both.error == pytest.approx((0.2 + 0.4) / 2)
    edge = classification_metrics([0, 1], [[1.0, 0.0], [0.0, 1.0]], ("a", "b")).reliability
    assert (edge.count[-1], edge.error) == (2, 0.0)


def test_scores_that_are_no_probabilities():
    found = classification_metrics([0, 1], [[3.0, -1.0], [-2.0, 0.5]], ("a", "b"))
    assert found.reliability is None
    assert (found.accuracy, found.auc) == (1.0, 1.0)
    assert "calibration_error" not in found.summary()


def test_json_has_no_numbers_that_json_has_not():
    found = classification_metrics([0, 0], [[0.9, 0.1], [0.8, 0.2]], ("a", "<ü>"))
    read = json.loads(found.to_json(), parse_constant=lambda name: pytest.fail(name))
    assert read["auc"] is None and read["accuracy"] == 1.0
    assert read["per_class"][1]["label"] == "<ü>"
    assert read["without_examples"] == ["<ü>"]
    assert set(found.summary()) - {"calibration_error"} <= set(read)


@pytest.mark.parametrize(
    "targets, scores, options, message",
    [
        ([], np.zeros((0, 3)), {}, "no clips"),
        ([0], [[0.1, 0.2]], {}, "a column for each label"),
        ([0, 1], [[0.1, 0.2, 0.7]], {}, "targets must be 1 numbers"),
        ([3], [[0.1, 0.2, 0.7]], {}, "from 0 to 2"),
        ([-1], [[0.1, 0.2, 0.7]], {}, "from 0 to 2"),
        ([0.5], [[0.1, 0.2, 0.7]], {}, "targets must be 0 or 1"),
        ([[1, 1, 0]], [[0.1, 0.2, 0.7]], {}, "exactly one label"),
        ([[1, 2, 0]], [[0.1, 0.2, 0.7]], {"multilabel": True}, "targets must be 0 or 1"),
        ([0], [[0.1, math.nan, 0.7]], {}, "NaN"),
    ],
)
def test_what_is_refused(targets, scores, options, message):
    with pytest.raises(SettingsError, match=message):
        classification_metrics(targets, scores, LABELS, **options)
