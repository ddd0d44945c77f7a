"""Checks of settings: each raises an error that names the setting, its allowed values and the given value."""

from __future__ import annotations

import math
from collections.abc import Collection

from vggish_pt.errors import SettingsError


def choice(name: str, value: object, choices: Collection[str]) -> None:
    """Check that a setting is one of its allowed values.

    Raises:
        SettingsError: it is not.
    """
    if not isinstance(value, str) or value not in choices:
        raise SettingsError(f"{name} must be one of {', '.join(choices)}, not {value!r}")


def whole(name: str, value: object, lowest: int, highest: int | None = None) -> None:
    """Check that a setting is an integer (not a bool) from ``lowest`` to ``highest``, both included.

    Raises:
        SettingsError: it is not.
    """
    if (
        isinstance(value, bool)
        or not isinstance(value, int)
        or value < lowest
        or (highest is not None and value > highest)
    ):
        top = "" if highest is None else f" to {highest}"
        raise SettingsError(f"{name} must be a whole number from {lowest}{top}, not {value!r}")


def number(
    name: str, value: object, lowest: float, highest: float = math.inf, *, above: bool = False, below: bool = False
) -> None:
    """Check that a setting is a finite number (not a bool) from ``lowest`` to ``highest``.

    Args:
        name: name of the setting, for the error.
        value: the given value.
        lowest: lower bound.
        highest: upper bound; infinity for none.
        above: exclude the lower bound.
        below: exclude the upper bound.

    Raises:
        SettingsError: it is not.
    """
    below = below or math.isinf(highest)  # NaN fails each comparison
    valid = (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and (lowest < value if above else lowest <= value)
        and (value < highest if below else value <= highest)
    )
    if not valid:
        start = f"above {lowest:g} up" if above else f"from {lowest:g}"
        end = f" to{' below' if below else ''} {highest:g}"
        allowed = start.removesuffix(" up") if math.isinf(highest) else start + end
        raise SettingsError(f"{name} must be a number {allowed}, not {value!r}")
