"""Dividing labelled sounds: cross-validation and a held-out part.

Clips of one group never are on both sides, nor are clips of one fold; each class is in every part that is learned from.
What is drawn depends on the seed and the data alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vggish_pt.classify.data.labelled import LabelledSet, check_learnable
from vggish_pt.errors import SettingsError
from vggish_pt.utils.checks import whole

Places = NDArray[np.intp]
Scheme = Literal["fold", "split", "group", "stratified"]

DEFAULT_FOLDS = 5
DEFAULT_SHARE = 0.2


@dataclass(frozen=True)
class Fold:
    """One round of cross-validation.

    Attributes:
        name: what is tested with, for tables: "fold 3".
        train: places of the clips to learn from, ascending.
        test: places of the clips to test with, ascending.
    """

    name: str
    train: Places
    test: Places


@dataclass(frozen=True)
class Split:
    """A set in three parts: places of their clips, ascending; a part may be empty.

    Attributes:
        train: to learn from.
        validation: to choose by, as when to stop.
        test: to be measured with, once.
    """

    train: Places
    validation: Places
    test: Places


def scheme(data: LabelledSet) -> Scheme:
    """How a set is cross-validated: by its folds; else by its splits, as one round; else by its groups; else at random,
    each class shared out evenly."""
    if data.examples and data.examples[0].fold is not None:
        return "fold"
    if data.examples and data.examples[0].split is not None:
        return "split"
    return "stratified" if data.groups() is None else "group"


def cross_validation(data: LabelledSet, *, folds: int | None = None, seed: int = 0) -> list[Fold]:
    """Rounds of cross-validation; see :func:`scheme` for how.

    Args:
        data: the clips.
        folds: how many rounds; None for 5, or for what the data say themselves.
        seed: of what is drawn, where it is.

    Raises:
        SettingsError: data that cannot be divided so: a class that would be missing where it is learned, fewer than
            two folds, fewer groups or clips than folds, or a number of folds where the data give them.
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
        _check_classes(data, split.train, f"while {split.name} is tested with", _advice(kind))
    return splits


def divide(
    data: LabelledSet, *, validation: float = DEFAULT_SHARE, test_fold: str | None = None, seed: int = 0
) -> Split:
    """A set in parts to learn from, to choose by and to test with.

    The test part is that of the column ``split``, or the fold that is named; else it is empty. The validation part is
    that of the column ``split``, or drawn from what is left: whole folds where there are folds, whole groups where
    there are groups, else clips; of each class as nearly as possible the share that is asked for. A class of very few
    clips may have none in it.

    Args:
        data: the clips.
        validation: share of the clips to learn from that is held out, from 0 (none) to below 1.
        test_fold: the fold to test with.
        seed: of what is drawn.

    Raises:
        SettingsError: data that cannot be divided so; the message says why.
    """
    check_learnable(data)
    if not 0 <= validation < 1:
        raise SettingsError(f"the validation share must be from 0 to below 1, not {validation!r}")
    folds, splits = _column(data, "fold"), _column(data, "split")
    everything = np.arange(len(data))
    test, chosen = everything[:0], everything[:0]
    if splits is not None:
        if test_fold is not None:
            raise SettingsError(f"{data.name}: it has a column 'split'; take that out, or name no fold to test with")
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
        raise SettingsError(f"{data.name}: no clips are left to learn from")
    _check_classes(data, left, "beside the clips to test with", "move some there")
    if validation and not len(chosen):
        held_out = hold_out(data.select(left.tolist()), validation, seed=seed)
        chosen = left[held_out]
        left = np.delete(left, held_out)
    return Split(left, chosen, test)


def hold_out(data: LabelledSet, share: float = DEFAULT_SHARE, *, seed: int = 0) -> Places:
    """Draws a part of a set, by folds or groups where there are some; of each class as nearly as possible its share.

    Args:
        data: the clips.
        share: how much, between 0 and 1.
        seed: of what is drawn.

    Returns:
        Places of the clips that are held out, ascending; at least one.

    Raises:
        SettingsError: there is one fold or group only, or a class would be missing from what is left.
    """
    if not 0 < share < 1:
        raise SettingsError(f"the share to hold out must be between 0 and 1, not {share!r}")
    folds = _column(data, "fold")
    groups = data.groups() if folds is None else folds.tolist()
    kind: Scheme = "fold" if folds is not None else "stratified" if groups is None else "group"
    units = list(range(len(data))) if groups is None else groups
    parts = _share_out(data.targets(), units, [1 - share, share], seed, keep_in_first=True)
    held_out = np.flatnonzero(parts == 1)
    if not len(held_out):
        what = {"fold": "its folds", "group": "its groups", "stratified": "so few clips"}[kind]
        raise SettingsError(
            f"{data.name}: no part can be held out by {what} so that every class is still there to learn from; "
            "add clips, or say yourself what goes where in a column 'split'"
        )
    return held_out


def _by_fold(data: LabelledSet) -> list[Fold]:
    folds = _column(data, "fold")
    assert folds is not None
    names = _ordered(folds)
    if len(names) < 2:
        raise SettingsError(f"{data.name}: all clips are in fold {names[0]}; cross-validation needs two folds at least")
    return [Fold(f"fold {name}", np.flatnonzero(folds != name), np.flatnonzero(folds == name)) for name in names]


def _by_split(data: LabelledSet) -> Fold:
    splits = _column(data, "split")
    name = "test" if "test" in (splits := np.asarray(splits)) else "validation"
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
        parts = _share_out(targets, units, [1 / folds] * folds, seed)
    else:
        parts = _by_sklearn(targets.argmax(axis=1), groups, folds, seed)
    if empty := [part for part in range(folds) if not (parts == part).any()]:
        raise SettingsError(
            f"{data.name}: {len(empty)} of {folds} folds would be empty; use fewer folds (--folds {folds - len(empty)})"
        )
    return [
        Fold(f"fold {part + 1}", np.flatnonzero(parts != part), np.flatnonzero(parts == part)) for part in range(folds)
    ]


def _by_sklearn(classes: NDArray[np.int64], groups: Sequence[str] | None, folds: int, seed: int) -> Places:
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    parts = np.zeros(len(classes), dtype=np.intp)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")  # it then is in some folds only, which is fine
        rounds = kind(folds, shuffle=True, random_state=seed).split(classes, classes, groups)
        for part, (_, test) in enumerate(rounds):
            parts[test] = part
    return parts


def _share_out(
    targets: NDArray[np.int64],
    units: Sequence[Hashable],
    shares: Sequence[float],
    seed: int,
    *,
    keep_in_first: bool = False,
) -> Places:
    """Shares units of clips out so that each part has its share of each label.

    The rarest label that is left goes first; each unit that has it goes to the part that lacks most of it, then to the
    part that lacks most clips (Sechidis, Tsoumakas and Vlahavas, "On the Stratification of Multi-Label Data", ECML PKDD
    2011, section 3; here for units of several clips too, the largest first).

    Args:
        targets: (n, classes), 0 or 1.
        units: (n,) what clips of a unit have in common.
        shares: what each part is to have, together 1.
        seed: of the order of equals.
        keep_in_first: whether each label must stay in the first part; a unit that would take its last clip is kept.

    Returns:
        (n,) the part of each clip.
    """
    names = {unit: place for place, unit in enumerate(dict.fromkeys(units))}
    member = np.array([names[unit] for unit in units])
    labels = np.zeros((len(names), targets.shape[1]))
    np.add.at(labels, member, targets)
    sizes = np.bincount(member).astype(np.float64)
    rng = np.random.default_rng(seed)
    # Of equal needs, another part goes first each time; without this, remainders all would go to the first one.
    noise = rng.random(len(names)), rng.random((len(names), len(shares)))
    wanted = np.outer(shares, labels.sum(axis=0))
    room = np.asarray(shares) * len(units)
    part = np.full(len(names), -1)
    while (left := part < 0).any():
        rest = labels[left].sum(axis=0)
        if rest.any():
            label = int(np.argmin(np.where(rest > 0, rest, np.inf)))
            candidates = np.flatnonzero(left & (labels[:, label] > 0))
            candidates = candidates[np.lexsort((noise[0][candidates], -labels[candidates, label]))]
        else:
            label, candidates = -1, np.flatnonzero(left)
        for unit in candidates.tolist():
            need = wanted[:, label] if label >= 0 else room
            best = int(np.lexsort((noise[1][unit], room, need))[-1])
            if keep_in_first and best > 0 and _takes_last(labels, part, unit):
                best = 0
            part[unit] = best
            wanted[best] -= labels[unit]
            room[best] -= sizes[unit]
    parts: Places = part[member]
    return parts


def _takes_last(labels: NDArray[np.float64], part: Places, unit: int) -> bool:
    """Whether no unit of the first part, or yet to be shared out, would have some label of this one."""
    others = part <= 0
    others[unit] = False
    return bool(((labels[others].sum(axis=0) == 0) & (labels[unit] > 0)).any())


def _check_groups(data: LabelledSet, groups: Sequence[str], folds: int) -> None:
    if (count := len(set(groups))) < folds:
        raise SettingsError(f"{data.name}: {count} groups cannot be shared out to {folds} folds; use fewer folds")
    of_class: dict[str, set[str]] = {}
    for example, group in zip(data.examples, groups, strict=True):
        for label in example.labels:
            of_class.setdefault(label, set()).add(group)
    if alone := next((label for label in data.labels if len(of_class.get(label, ())) < 2), None):
        raise SettingsError(
            f"{data.name}: all clips of class {alone!r} are of one group ({min(of_class[alone])}), so there is none to "
            "learn from while that is tested with; add clips of another group, or leave the class out"
        )


def _check_classes(data: LabelledSet, train: Places, when: str, advice: str) -> None:
    seen = data.targets()[train].sum(axis=0)
    if missing := [label for label, count in zip(data.labels, seen, strict=True) if not count]:
        more = f" (and {len(missing) - 1} more)" if missing[1:] else ""
        raise SettingsError(
            f"{data.name}: class {missing[0]!r}{more} has no clip to learn from {when}; {advice}, or leave the class "
            "out"
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
