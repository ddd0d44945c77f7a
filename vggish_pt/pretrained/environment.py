"""Environment variables that say whether and how the network may be used."""

from __future__ import annotations

import math
import os

from vggish_pt.errors import SettingsError

OFFLINE_VARIABLES = ("VGGISH_PT_OFFLINE", "HF_HUB_OFFLINE")
TIMEOUT_VARIABLE = "VGGISH_PT_CONNECT_TIMEOUT"

_CONNECT_SECONDS = 3.0


def offline_variable() -> str | None:
    """Return the name of the environment variable that forbids the network, or None."""
    for name in OFFLINE_VARIABLES:
        if os.environ.get(name, "").strip().lower() in ("1", "true", "yes", "on"):
            return name
    return None


def connect_timeout() -> float:
    """Return the seconds in which a host must take a connection.

    Raises:
        SettingsError: ``VGGISH_PT_CONNECT_TIMEOUT`` is no positive number.
    """
    text = os.environ.get(TIMEOUT_VARIABLE, "").strip()
    try:
        seconds = float(text or _CONNECT_SECONDS)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= 3600:
        raise SettingsError(f"{TIMEOUT_VARIABLE} must be a number of seconds above 0, not {text!r}")
    return seconds


def no_answer() -> str:
    """Return the reason to report for a host that takes no connection in time."""
    return f"no answer within {connect_timeout():g} s (on a slow network set {TIMEOUT_VARIABLE}=10)"
