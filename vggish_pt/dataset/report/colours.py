"""By what the map's points can be coloured: the files' folders, and what a manifest says of them."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

_MAX_CLASSES = 40  # ten colours in four shapes; what is rarer shares one
_MAX_TEXT = 80
_FEW = 12
_LABELS = ("label", "labels", "class", "classes", "category", "target", "species")
OTHER = "others"
NONE = "none"


def colourings(paths: Sequence[str], columns: dict[str, list[Any]], seconds: Sequence[float]) -> list[dict[str, Any]]:
    """The ways to colour files, the most telling one first.

    Args:
        paths: the files.
        columns: what else is known of them, by name.
        seconds: how long they are.

    Returns:
        JSON objects: of classes ``name``, ``classes`` (the most frequent first), ``counts``, ``codes``, a class's
        place for each file, and ``others``, whether the last stands for several; of numbers ``name``, ``values``,
        ``low`` and ``high``.
    """
    told = [way for name, values in columns.items() if (way := _coloured(name, values)) is not None]
    labels = [way for way in told if way["name"].lower() in _LABELS]
    found = labels + [_classes(name, folders) for name, folders in _folders(paths)]
    found += [way for way in told if way not in labels]
    if (way := _numbers("seconds of sound", list(seconds))) is not None:
        found.append(way)
    return found or [_classes("nothing", ["files"] * len(paths))]


def _coloured(name: str, values: list[Any]) -> dict[str, Any] | None:
    known = [value for value in values if value is not None]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in known)
    distinct = {_text(value) for value in known}
    if len(distinct) < 2:
        return None
    if numbers and len(distinct) > _FEW:
        return _numbers(name, values)
    if len(distinct) > max(_FEW, len(values) // 2):  # names rather than classes
        return None
    return _classes(name, [_text(value) for value in values])


def _classes(name: str, labels: list[str]) -> dict[str, Any]:
    counts = Counter(labels).most_common()
    kept = counts if len(counts) <= _MAX_CLASSES else counts[: _MAX_CLASSES - 1]
    place = {label: number for number, (label, _) in enumerate(kept)}
    classes, sizes = [label for label, _ in kept], [count for _, count in kept]
    if len(kept) < len(counts):
        classes.append(f"{len(counts) - len(kept)} {OTHER}")
        sizes.append(len(labels) - sum(sizes))
    codes = [place.get(label, len(kept)) for label in labels]
    others = len(kept) < len(counts)
    return {"name": name, "classes": classes, "counts": sizes, "codes": codes, "others": others}


def _numbers(name: str, values: list[Any]) -> dict[str, Any] | None:
    known = [float(value) for value in values if value is not None and math.isfinite(value)]
    if not known or min(known) == max(known):
        return None
    shown = [None if value is None or not math.isfinite(value) else float(f"{value:.5g}") for value in values]
    return {"name": name, "values": shown, "low": min(known), "high": max(known)}


def _text(value: Any) -> str:
    if value is None or value == "":
        return NONE
    if isinstance(value, list):
        value = "; ".join(map(str, value))
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= _MAX_TEXT else f"{text[: _MAX_TEXT - 1]}…"


def _folders(paths: Sequence[str]) -> list[tuple[str, list[str]]]:
    """The folder of each file below the one that they share, and the first step to it if that differs."""
    folders = [path.replace(os.sep, "/").rpartition("::")[0] or path.rpartition("/")[0] for path in paths]
    steps = [folder.split("/") for folder in folders]
    shared = 0
    while len({"/".join(each[: shared + 1]) for each in steps}) == 1 and all(len(each) > shared for each in steps):
        shared += 1
    below = ["/".join(each[shared:]) or "." for each in steps]
    if len(set(below)) < 2:
        return []
    first = [folder.partition("/")[0] for folder in below]
    ways = [("folder", [_text(folder) for folder in below])]
    if 1 < len(set(first)) < len(set(below)):
        ways.append(("first folder", [_text(folder) for folder in first]))
    return ways
