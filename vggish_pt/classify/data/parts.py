"""Which clips a training learns from, which it validates with, and which it never sees."""

from __future__ import annotations

import numpy as np

from vggish_pt.classify.data.labelled import LabelledSet
from vggish_pt.classify.data.splits import DEFAULT_SHARE, Split, divide
from vggish_pt.errors import SettingsError


def choose_parts(
    data: LabelledSet,
    *,
    validation_fold: str | None = None,
    test_fold: str | None = None,
    share: float = DEFAULT_SHARE,
    seed: int = 0,
) -> Split:
    """Divides a set as training needs it.

    Args:
        data: the clips.
        validation_fold: the fold to validate with; None takes the column ``split``, or else draws a share.
        test_fold: the fold that training never sees.
        share: share of the clips to validate with where it is drawn; 0 for none.
        seed: of the draw.

    Raises:
        SettingsError: data that cannot be divided so; the message says why.
    """
    if validation_fold is None:
        return divide(data, validation=share, test_fold=test_fold, seed=seed)
    if validation_fold == test_fold:
        raise SettingsError(f"fold {test_fold!r} cannot be both the one to validate with and the one to test with")
    parts = divide(data, validation=0.0, test_fold=test_fold, seed=seed)
    if len(parts.validation):
        raise SettingsError(f"{data.name}: its column 'split' says what to validate with; name no fold for it")
    held_out = np.array([data.examples[place].fold == validation_fold for place in parts.train])
    if not held_out.any():
        folds = sorted({str(example.fold) for example in data.examples if example.fold is not None})
        known = f"there are {', '.join(folds[:20])}" if folds else "there are no folds; see --fold-from"
        raise SettingsError(f"{data.name}: no clip to validate with has the fold {validation_fold!r} ({known})")
    return Split(parts.train[~held_out], parts.train[held_out], parts.test)


def describe(data: LabelledSet, parts: Split) -> str:
    """The sizes of the parts, in words."""
    sizes = [("to learn from", parts.train), ("to validate with", parts.validation), ("to test with", parts.test)]
    named = ", ".join(f"{len(places)} {name}" for name, places in sizes if len(places))
    return f"{len(data.labels)} classes, {len(data)} clips: {named}"
