"""Splits of labelled clips: folds for cross-validation, and training, validation and test parts.

Clips of one group, or of one fold, are never in two parts, and each class is in every part that is trained on. Random
splits depend only on the seed and the data.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vggish_pt.classify.data.examples import LabelledSet, check_learnable
from vggish_pt.classify.data.stratify import Indices, distribute, stratified_folds
from vggish_pt.errors import SettingsError
from vggish_pt.utils.checks import number, whole

Scheme = Literal["fold", "split", "group", "stratified"]

DEFAULT_FOLDS = 5
DEFAULT_SHARE = 0.2


@dataclass(frozen=True)
class Fold:
    """One round of cross-validation.

    Attributes:
        name: name of the test part, for tables: "fold 3".
        train: indices of the clips to train on, ascending.
        test: indices of the clips to test on, ascending.
    """

    name: str
    train: Indices
    test: Indices


@dataclass(frozen=True)
class Split:
    """Indices of the clips in three parts of a set, ascending; a part may be empty.

    Attributes:
        train: clips to train on.
        validation: clips to make choices by, such as when to stop.
        test: clips for the final test.
    """

    train: Indices
    validation: Indices
    test: Indices


def scheme(data: LabelledSet) -> Scheme:
    """Return the scheme by which a set is cross-validated.

    It is the first that the data allow: "fold" (given folds), "split" (given splits, one round), "group" (random, with
    undivided groups), or "stratified" (random, with equal shares of each class).
    """
    if data.examples and data.examples[0].fold is not None:
        return "fold"
    if data.examples and data.examples[0].split is not None:
        return "split"
    return "stratified" if data.groups() is None else "group"


def cross_validation(data: LabelledSet, *, folds: int | None = None, seed: int = 0) -> list[Fold]:
    """Return the rounds of cross-validation, by the scheme that :func:`scheme` names.

    Args:
        data: the clips.
        folds: number of rounds; None for 5, or for the number that the data give.
        seed: random seed.

    Raises:
        SettingsError: the data cannot be divided: a class would be missing from a training part, there are fewer than
            two folds, fewer groups or clips than folds, or ``folds`` is given although the data give folds.
    """
    check_learnable(data)
    kind = scheme(data)
    if kind in ("fold", "split") and folds is not None:
        raise SettingsError(f"{data.name}: the data give a {kind} for each clip; leave the number of folds out")
    rounds = DEFAULT_FOLDS if folds is None else folds
    whole("folds", rounds, 2)
    if kind == "fold":
        splits = _by_fold(data)
    elif kind == "split":
        splits = [_by_split(data)]
    else:
        splits = _drawn(data, rounds, seed)
    for split in splits:
        _check_classes(data, split.train, f"while {split.name} is the test part", _advice(kind))
    return splits


def divide(
    data: LabelledSet, *, validation: float = DEFAULT_SHARE, test_fold: str | None = None, seed: int = 0
) -> Split:
    """Divide a set into parts for training, validation and test.

    The test part comes from the column ``split`` or is the fold ``test_fold``; otherwise it is empty. The validation
    part comes from the column ``split``, or is drawn from the rest: whole folds or groups if there are any, otherwise
    clips, with about the same share of each class. It may lack a class of very few clips.

    Args:
        data: the clips.
        validation: share of the clips that is held out for validation, from 0 (none) to below 1.
        test_fold: the fold to test on.
        seed: random seed.

    Raises:
        SettingsError: the data cannot be divided; the message says why.
    """
    check_learnable(data)
    number("validation share", validation, 0, 1, below=True)
    folds, splits = _column(data, "fold"), _column(data, "split")
    everything = np.arange(len(data))
    test, chosen = everything[:0], everything[:0]
    if splits is not None:
        if test_fold is not None:
            raise SettingsError(f"{data.name}: it has a column 'split'; remove it, or leave the test fold out")
        test, chosen = (np.flatnonzero(splits == name) for name in ("test", "validation"))
        left = np.flatnonzero(splits == "train")
    elif test_fold is not None:
        known = _ordered(folds) if folds is not None else []
        if folds is None or str(test_fold) not in known:
            raise SettingsError(f"{data.name}: there is no fold {test_fold!r} ({_known(known)})")
        test = np.flatnonzero(folds == str(test_fold))
        left = np.flatnonzero(folds != str(test_fold))
    else:
        left = everything
    if not len(left):
        raise SettingsError(f"{data.name}: no clips are left to train on")
    _check_classes(data, left, "outside the test part", "move some there")
    if validation and not len(chosen):
        held_out = hold_out(data.select(left.tolist()), validation, seed=seed)
        chosen = left[held_out]
        left = np.delete(left, held_out)
    return Split(left, chosen, test)


def hold_out(data: LabelledSet, share: float = DEFAULT_SHARE, *, seed: int = 0) -> Indices:
    """Draw a part of a set: whole folds or groups if there are any, with about the same share of each class.

    Args:
        data: the clips.
        share: share of the clips, between 0 and 1.
        seed: random seed.

    Returns:
        Indices of the clips that are held out, ascending; at least one.

    Raises:
        SettingsError: there is only one fold or group, or a class would be missing from the rest.
    """
    number("share to hold out", share, 0, 1, above=True, below=True)
    folds = _column(data, "fold")
    groups = data.groups() if folds is None else folds.tolist()
    kind: Scheme = "fold" if folds is not None else "stratified" if groups is None else "group"
    units = list(range(len(data))) if groups is None else groups
    parts = distribute(data.targets(), units, [1 - share, share], seed, keep_in_first=True)
    held_out = np.flatnonzero(parts == 1)
    if not len(held_out):
        what = {"fold": "its folds", "group": "its groups", "stratified": "so few clips"}[kind]
        raise SettingsError(
            f"{data.name}: no part can be held out by {what} so that the rest still has every class; "
            "add clips, or say yourself what goes where in a column 'split'"
        )
    return held_out


def choose_split(
    data: LabelledSet,
    *,
    validation_fold: str | None = None,
    test_fold: str | None = None,
    share: float = DEFAULT_SHARE,
    seed: int = 0,
) -> Split:
    """Divide a set as :func:`divide` does, with the option of a fold for validation.

    Args:
        data: the clips.
        validation_fold: the fold to validate on; None for the column ``split``, or else a random share.
        test_fold: the fold to test on, which training never uses.
        share: share of the clips for a random validation part; 0 for none.
        seed: random seed.

    Raises:
        SettingsError: the data cannot be divided; the message says why.
    """
    if validation_fold is None:
        return divide(data, validation=share, test_fold=test_fold, seed=seed)
    if validation_fold == test_fold:
        raise SettingsError(f"fold {test_fold!r} cannot be both the validation fold and the test fold")
    split = divide(data, validation=0.0, test_fold=test_fold, seed=seed)
    if len(split.validation):
        raise SettingsError(f"{data.name}: its column 'split' names the validation clips; leave --validation-fold out")
    held_out = np.array([data.examples[index].fold == validation_fold for index in split.train])
    if not held_out.any():
        folds = _column(data, "fold")
        known = "there are no folds; see --fold-from" if folds is None else _known(_ordered(folds))
        raise SettingsError(f"{data.name}: no clip for validation has the fold {validation_fold!r} ({known})")
    return Split(split.train[~held_out], split.train[held_out], split.test)


def describe(data: LabelledSet, split: Split) -> str:
    """Return the sizes of the parts in words."""
    sizes = {"for training": split.train, "for validation": split.validation, "for testing": split.test}
    parts = ", ".join(f"{len(clips)} {name}" for name, clips in sizes.items() if len(clips))
    return f"{len(data.labels)} classes, {len(data)} clips: {parts}"


def _by_fold(data: LabelledSet) -> list[Fold]:
    folds = _column(data, "fold")
    assert folds is not None
    names = _ordered(folds)
    if len(names) < 2:
        raise SettingsError(f"{data.name}: all clips are in fold {names[0]}; cross-validation needs two folds at least")
    return [Fold(f"fold {name}", np.flatnonzero(folds != name), np.flatnonzero(folds == name)) for name in names]


def _by_split(data: LabelledSet) -> Fold:
    splits = np.asarray(_column(data, "split"))
    name = "test" if "test" in splits else "validation"
    test, train = np.flatnonzero(splits == name), np.flatnonzero(splits != name)
    if not len(test) or not len(train):
        raise SettingsError(f"{data.name}: the column 'split' needs clips for train, and for test or validation")
    return Fold(name, train, test)


def _drawn(data: LabelledSet, folds: int, seed: int) -> list[Fold]:
    groups, targets = data.groups(), data.targets()
    if groups is not None:
        _check_groups(data, groups, folds)
    if folds > (most := max(data.counts().values())):
        raise SettingsError(f"{data.name}: {folds} folds, and no class has more than {most} clips; use fewer folds")
    if data.multilabel:
        units: Sequence[Hashable] = list(range(len(data))) if groups is None else groups
        parts = distribute(targets, units, [1 / folds] * folds, seed)
    else:
        parts = stratified_folds(targets.argmax(axis=1), groups, folds, seed)
    if empty := [part for part in range(folds) if not (parts == part).any()]:
        raise SettingsError(
            f"{data.name}: {len(empty)} of {folds} folds would be empty; use fewer folds (--folds {folds - len(empty)})"
        )
    return [
        Fold(f"fold {part + 1}", np.flatnonzero(parts != part), np.flatnonzero(parts == part)) for part in range(folds)
    ]


def _check_groups(data: LabelledSet, groups: Sequence[str], folds: int) -> None:
    if (count := len(set(groups))) < folds:
        raise SettingsError(f"{data.name}: {count} groups cannot be shared out to {folds} folds; use fewer folds")
    of_class: dict[str, set[str]] = {}
    for example, group in zip(data.examples, groups, strict=True):
        for label in example.labels:
            of_class.setdefault(label, set()).add(group)
    if alone := next((label for label in data.labels if len(of_class.get(label, ())) < 2), None):
        raise SettingsError(
            f"{data.name}: all clips of class {alone!r} are of one group ({min(of_class[alone])}), so none is "
            "left to train on while that group is the test part; add clips of another group, or leave the class out"
        )


def _check_classes(data: LabelledSet, train: Indices, when: str, advice: str) -> None:
    seen = data.targets()[train].sum(axis=0)
    if missing := [label for label, count in zip(data.labels, seen, strict=True) if not count]:
        more = f" (and {len(missing) - 1} more)" if missing[1:] else ""
        raise SettingsError(
            f"{data.name}: class {missing[0]!r}{more} has no clip to train on {when}; {advice}, or leave the class out"
        )


def _advice(kind: Scheme) -> str:
    return {
        "fold": "spread its clips over two folds at least",
        "split": "move some of its clips to train",
        "group": "add clips of another group, or use fewer folds",
        "stratified": "add clips",
    }[kind]


def _column(data: LabelledSet, name: str) -> NDArray[np.str_] | None:
    values = [getattr(example, name) for example in data.examples]
    return np.array(values) if values and values[0] is not None else None


def _ordered(folds: NDArray[np.str_]) -> list[str]:
    names = [str(name) for name in np.unique(folds)]
    key: Callable[[str], tuple[int, str]] = lambda name: (int(name) if name.isdecimal() else -1, name)  # noqa: E731
    return sorted(names, key=key)


def _known(names: Sequence[str]) -> str:
    return f"there are {', '.join(names[:20])}" if names else "there is no column 'fold'"
