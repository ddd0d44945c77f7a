"""Colourings of the map's points: by folder, by the columns of a manifest, or by duration."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

_MAX_CLASSES = 40  # ten colours in four shapes; rarer classes share the last
_MAX_TEXT = 80
_FEW = 12
_LABELS = ("label", "labels", "class", "classes", "category", "target", "species")
OTHER = "others"
NONE = "none"


def colourings(paths: Sequence[str], columns: dict[str, list[Any]], seconds: Sequence[float]) -> list[dict[str, Any]]:
    """Return the ways to colour the files, columns of labels first.

    Args:
        paths: the files.
        columns: additional columns, by name.
        seconds: durations of the files.

    Returns:
        JSON objects. For classes: ``name``, ``classes`` (the most frequent first), ``counts``, ``codes`` (the index of
        each file's class) and ``others`` (True if the last class combines several). For numbers: ``name``,
        ``values``, ``low`` and ``high``.
    """
    by_column = [way for name, values in columns.items() if (way := _coloured(name, values)) is not None]
    labels = [way for way in by_column if way["name"].lower() in _LABELS]
    found = labels + [_classes(name, folders) for name, folders in _folders(paths)]
    found += [way for way in by_column if way not in labels]
    if (way := _numbers("seconds of audio", list(seconds))) is not None:
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
    if len(distinct) > max(_FEW, len(values) // 2):  # identifiers rather than classes
        return None
    return _classes(name, [_text(value) for value in values])


def _classes(name: str, labels: list[str]) -> dict[str, Any]:
    counts = Counter(labels).most_common()
    frequent = counts if len(counts) <= _MAX_CLASSES else counts[: _MAX_CLASSES - 1]
    index = {label: number for number, (label, _) in enumerate(frequent)}
    classes, sizes = [label for label, _ in frequent], [count for _, count in frequent]
    others = len(frequent) < len(counts)
    if others:
        classes.append(f"{len(counts) - len(frequent)} {OTHER}")
        sizes.append(len(labels) - sum(sizes))
    codes = [index.get(label, len(frequent)) for label in labels]
    return {"name": name, "classes": classes, "counts": sizes, "codes": codes, "others": others}


def _numbers(name: str, values: list[Any]) -> dict[str, Any] | None:
    known = [float(value) for value in values if value is not None and math.isfinite(value)]
    if not known or min(known) == max(known):
        return None
    rounded = [None if value is None or not math.isfinite(value) else float(f"{value:.5g}") for value in values]
    return {"name": name, "values": rounded, "low": min(known), "high": max(known)}


def _text(value: Any) -> str:
    if value is None or value == "":
        return NONE
    if isinstance(value, list):
        value = "; ".join(map(str, value))
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= _MAX_TEXT else f"{text[: _MAX_TEXT - 1]}…"


def _folders(paths: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Return the folder of each file below their common folder, and its first level if that is a different grouping."""
    folders = [path.replace(os.sep, "/").rpartition("::")[0] or path.rpartition("/")[0] for path in paths]
    levels = [folder.split("/") for folder in folders]
    shared = 0
    while len({"/".join(level[: shared + 1]) for level in levels}) == 1 and all(
        len(level) > shared for level in levels
    ):
        shared += 1
    below = ["/".join(level[shared:]) or "." for level in levels]
    if len(set(below)) < 2:
        return []
    first = [folder.partition("/")[0] for folder in below]
    ways = [("folder", [_text(folder) for folder in below])]
    if 1 < len(set(first)) < len(set(below)):
        ways.append(("first folder", [_text(folder) for folder in first]))
    return ways
