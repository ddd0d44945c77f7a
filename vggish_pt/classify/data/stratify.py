"""Distribution of labelled clips over parts, so that each part has its share of each label."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.intp]


def stratified_folds(classes: NDArray[np.int64], groups: Sequence[str] | None, folds: int, seed: int) -> Indices:
    """Return the fold (n,) of each clip, drawn by scikit-learn; clips of a group share a fold.

    Args:
        classes: (n,) class of each clip.
        groups: (n,) group of each clip, or None.
        folds: number of folds.
        seed: random seed.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    parts = np.zeros(len(classes), dtype=np.intp)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")  # such a class is in some folds only
        rounds = kind(folds, shuffle=True, random_state=seed).split(classes, classes, groups)
        for part, (_, test) in enumerate(rounds):
            parts[test] = part
    return parts


def distribute(
    targets: NDArray[np.int64],
    units: Sequence[Hashable],
    shares: Sequence[float],
    seed: int,
    *,
    keep_in_first: bool = False,
) -> Indices:
    """Distribute units of clips over parts, so that each part gets its share of each label.

    Labels are processed from the rarest remaining one. Each unit with that label goes to the part that needs the label
    most, and among equals to the part that needs most clips. Sechidis, Tsoumakas and Vlahavas, "On the Stratification
    of Multi-Label Data" (ECML PKDD 2011), section 3, extended to units of several clips, of which the largest go first.

    Args:
        targets: (n, classes), 0 or 1.
        units: (n,) unit of each clip, such as its group; a unit is never divided.
        shares: share of the clips for each part; their sum is 1.
        seed: random seed for the order of equals.
        keep_in_first: leave at least one clip of each label in the first part.

    Returns:
        (n,) the part of each clip.
    """
    numbers = {unit: number for number, unit in enumerate(dict.fromkeys(units))}
    member = np.array([numbers[unit] for unit in units])
    labels = np.zeros((len(numbers), targets.shape[1]))
    np.add.at(labels, member, targets)
    sizes = np.bincount(member).astype(np.float64)
    rng = np.random.default_rng(seed)
    # Ties between parts are broken at random for each unit. Otherwise all remainders would go to the first part.
    noise = rng.random(len(numbers)), rng.random((len(numbers), len(shares)))
    wanted = np.outer(shares, labels.sum(axis=0))
    room = np.asarray(shares) * len(units)
    part = np.full(len(numbers), -1)
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
    parts: Indices = part[member]
    return parts


def _takes_last(labels: NDArray[np.float64], part: Indices, unit: int) -> bool:
    """Return True if a label of this unit is in no other unit of the first part or not yet distributed."""
    others = part <= 0
    others[unit] = False
    return bool(((labels[others].sum(axis=0) == 0) & (labels[unit] > 0)).any())
