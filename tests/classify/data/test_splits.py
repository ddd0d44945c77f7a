"""Cross-validation and held-out parts."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from vggish_pt.audio.clip import Clip
from vggish_pt.classify.data.examples import Example, LabelledSet
from vggish_pt.classify.data.splits import cross_validation, divide, hold_out, scheme
from vggish_pt.errors import SettingsError


def make(labels, *, folds=None, groups=None, splits=None, multilabel=False):
    """A set of clips with these labels, separated by ';'."""
    none = [None] * len(labels)
    rows = zip(labels, folds or none, groups or none, splits or none, strict=True)
    examples = tuple(
        Example(Clip(f"{place}.wav", place), tuple(sorted(text.split(";"))), fold, group, split)
        for place, (text, fold, group, split) in enumerate(rows)
    )
    names = sorted({label for example in examples for label in example.labels})
    return LabelledSet(examples, names, multilabel)


def check(data, splits):
    """Every clip is tested with once, never learned from at the same time, and no class is missing in learning."""
    tested = np.concatenate([split.test for split in splits])
    assert sorted(tested.tolist()) == list(range(len(data)))
    for split in splits:
        assert set(split.train.tolist()) | set(split.test.tolist()) == set(range(len(data)))
        assert not set(split.train.tolist()) & set(split.test.tolist())
        assert (data.targets()[split.train].sum(axis=0) > 0).all()


def apart(values, split):
    """Whether no value is on both sides."""
    return not {values[i] for i in split.train} & {values[i] for i in split.test}


def test_by_fold():
    folds = ["2", "10", "1"] * 4
    data = make(["x", "y"] * 6, folds=folds)
    splits = cross_validation(data)
    assert scheme(data) == "fold" and [split.name for split in splits] == ["fold 1", "fold 2", "fold 10"]
    check(data, splits)
    assert all(apart(folds, split) for split in splits)


def test_by_split():
    data = make(["x", "y"] * 3, splits=["train", "train", "validation", "validation", "test", "test"])
    (split,) = cross_validation(data)
    assert (split.name, split.train.tolist(), split.test.tolist()) == ("test", [0, 1, 2, 3], [4, 5])


@pytest.mark.parametrize("multilabel", [False, True])
def test_at_random_each_class_evenly(multilabel):
    data = make(["x"] * 10 + ["y"] * 25 + ["z"] * 5, multilabel=multilabel)
    splits = cross_validation(data, seed=3)
    assert scheme(data) == "stratified" and len(splits) == 5
    check(data, splits)
    for split in splits:
        assert Counter(data.examples[i].labels[0] for i in split.test) == {"x": 2, "y": 5, "z": 1}


def test_the_seed_decides():
    data = make(["x", "y"] * 20)
    drawn = [[split.test.tolist() for split in cross_validation(data, seed=seed)] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    parts = [hold_out(data, seed=seed).tolist() for seed in (1, 1, 2)]
    assert parts[0] == parts[1] != parts[2]


@pytest.mark.parametrize("multilabel", [False, True])
def test_groups_stay_together(multilabel, rng):
    groups = [f"g{number}" for number in rng.integers(0, 12, 90)]
    labels = list(rng.choice(["x", "y", "z"], 90))
    data = make(labels, groups=groups, multilabel=multilabel)
    splits = cross_validation(data, folds=4)
    assert scheme(data) == "group" and len(splits) == 4
    check(data, splits)
    assert all(apart(groups, split) for split in splits)


def test_several_labels_evenly(rng):
    labels = [";".join(rng.choice(["a", "b", "c", "d"], rng.integers(1, 3), replace=False)) for _ in range(200)]
    labels += ["rare"] * 4 + ["rare;a"]
    data = make(labels, multilabel=True)
    splits = cross_validation(data)
    check(data, splits)
    counts = np.array([data.targets()[split.test].sum(axis=0) for split in splits])
    assert (counts[:, data.labels.index("rare")] == 1).all()
    assert (np.ptp(counts, axis=0) <= 3).all() and np.ptp([len(split.test) for split in splits]) <= 4


def test_two_clips_of_a_class_are_enough():
    data = make(["x"] * 20 + ["y"] * 2)
    check(data, cross_validation(data))


@pytest.mark.parametrize(
    ("data", "options", "says"),
    [
        (make(["x", "y"] * 2, folds=["1"] * 4), {}, "all clips are in fold 1"),
        (make(["x", "y", "x", "x", "y"], folds=["1", "1", "2", "2", "1"]), {}, "'y' has no clip .* fold 1"),
        (make(["x", "y"] * 2, folds=["1", "1", "2", "2"]), {"folds": 3}, "leave the number of folds out"),
        (make(["x", "y"] * 3), {"folds": 4}, "no class has more than 3 clips"),
        (make(["x", "y"] * 3), {"folds": 1}, "from 2"),
        (make(["x", "y"] * 8, groups=["1", "2", "3", "4"] * 4), {}, "4 groups cannot be shared"),
        (make(["x", "y"] * 8, groups=["1", "2", "3", "2"] * 4), {"folds": 2}, "all clips of class 'y'"),
        (make(["x", "x"]), {}, "one class only"),
        (make(["x", "x", "y"]), {}, "'y' has fewer than two"),
        (make(["x", "y"] * 2, splits=["train"] * 4), {}, "needs clips for train, and for test"),
        (make(["x", "y"] * 2, splits=["train", "test"] * 2), {}, "'y' has no clip to train on"),
    ],
)
def test_what_cannot_be_cross_validated(data, options, says):
    with pytest.raises(SettingsError, match=says):
        cross_validation(data, **options)


# In parts


def test_a_share_is_held_out_of_each_class():
    data = make(["x"] * 50 + ["y"] * 10)
    parts = divide(data, validation=0.2)
    assert Counter(data.examples[i].labels[0] for i in parts.validation) == {"x": 10, "y": 2}
    assert sorted([*parts.train, *parts.validation]) == list(range(60)) and len(parts.test) == 0
    assert len(divide(data, validation=0).validation) == 0


def test_whole_folds_and_whole_groups_are_held_out(rng):
    marks = [str(number) for number in rng.integers(0, 5, 100)]
    labels = list(rng.choice(["x", "y"], 100))
    for kind in ("folds", "groups"):
        parts = divide(make(labels, **{kind: marks}), validation=0.2)
        assert len({marks[i] for i in parts.validation}) == 1
        assert not {marks[i] for i in parts.validation} & {marks[i] for i in parts.train}


def test_a_fold_to_test_with():
    data = make(["x", "y"] * 6, folds=["1", "1", "2", "2", "3", "3"] * 2)
    parts = divide(data, test_fold="2", validation=0.3)
    folds = [example.fold for example in data.examples]
    assert {folds[i] for i in parts.test} == {"2"}
    assert {folds[i] for i in parts.train} | {folds[i] for i in parts.validation} == {"1", "3"}
    assert len(parts.validation) == 4
    with pytest.raises(SettingsError, match=r"no fold '7' \(there are 1, 2, 3\)"):
        divide(data, test_fold="7")


def test_the_split_column_decides():
    splits = ["train", "train", "train", "train", "validation", "test"]
    parts = divide(make(["x", "y"] * 3, splits=splits))
    assert [part.tolist() for part in (parts.train, parts.validation, parts.test)] == [[0, 1, 2, 3], [4], [5]]
    drawn = divide(make(["x", "y"] * 3, splits=["train"] * 4 + ["test"] * 2), validation=0.5)
    assert len(drawn.validation) == 2 and drawn.test.tolist() == [4, 5]


def test_no_class_is_held_out_whole():
    data = make(["x"] * 10 + ["y"] * 10, groups=["1"] * 5 + ["2"] * 5 + ["3"] * 10)
    held_out = hold_out(data, 0.5)
    assert {data.examples[i].group for i in held_out} <= {"1", "2"}
    with pytest.raises(SettingsError, match="no part can be held out by its groups"):
        hold_out(make(["x"] * 4 + ["y"] * 4, groups=["1"] * 4 + ["2"] * 4), 0.5)
