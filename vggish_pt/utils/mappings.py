"""Compare two mappings, such as the settings of two runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def changes(old: Mapping[str, Any], new: Mapping[str, Any], missing: Any = None) -> list[tuple[str, Any, Any]]:
    """Return the keys whose values differ, each with its old and its new value.

    Args:
        old: the one mapping.
        new: the other one. Its order is the order of the result; keys of ``old`` alone follow.
        missing: value of a key that a mapping lacks.
    """
    keys = [*new, *(key for key in old if key not in new)]
    pairs = ((key, old.get(key, missing), new.get(key, missing)) for key in keys)
    return [(key, before, now) for key, before, now in pairs if before != now]
