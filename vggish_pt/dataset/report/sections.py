"""Values of a report's text and tables. The template escapes them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from vggish_pt.dataset.report.gather import Facts

_MAX_INPUTS = 20  # names of inputs that are listed
_MAX_TEXT = 2000


class Badge(NamedTuple):
    """State of a run: its colour ("good", "warn" or "bad") and its text."""

    kind: str
    text: str


class SessionRow(NamedTuple):
    """One run of the command: its number from 1, start, seconds, embedded and failed inputs, and options."""

    number: int
    started: str
    elapsed: float
    files: int
    errors: int
    options: str


def thousands(number: int) -> str:
    """Return a number with separators."""
    return f"{number:,}"


def count(number: int, one: str, many: str) -> str:
    """Return a number with its noun."""
    return f"{number:,} {one if number == 1 else many}"


def span(seconds: float) -> str:
    """Return a duration in seconds, minutes or hours."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:,.1f} h" if seconds < 3.6e6 else f"{seconds / 3600:,.0f} h"


def truncated(text: str, letters: int = 300) -> str:
    """Shorten a text to at most ``letters`` characters."""
    return text if len(text) <= letters else f"{text[: letters - 1]}…"


def failed(facts: Facts) -> int:
    """Return the number of inputs that failed."""
    return sum(times for _, times in facts.error_types)


def about(facts: Facts) -> str:
    """Return weights and main settings, as one line."""
    weights = _mapping(facts.metadata.get("weights"))
    settings = _mapping(facts.metadata.get("settings"))
    parts = [f"weights {weights['name']}"] if weights.get("name") else []
    if settings.get("layer") not in (None, "embedding"):
        parts.append(f"layer {settings['layer']}")
    if settings.get("hop") is not None:
        parts.append(f"hop {settings['hop']} s")
    if settings.get("pool") == "mean":
        parts.append("a row for each file")
    if settings.get("postprocess"):
        parts.append(f"postprocessed: {settings['postprocess']}")
    return " · ".join(parts) or "What made these embeddings is not known."


def badge(facts: Facts) -> Badge:
    """Return the state of the run."""
    if facts.run and facts.run.get("state") != "complete":
        return Badge("warn", "not finished")
    if not facts.files:
        return Badge("bad", "nothing embedded")
    if errors := failed(facts):
        return Badge("warn", f"complete, {errors:,} failed")
    return Badge("good", "complete")


def pending(facts: Facts) -> int | None:
    """Return the number of inputs that an unfinished run still has to embed; None for a finished run."""
    if not facts.run or facts.run.get("state") == "complete":
        return None
    counts = facts.run.get("counts") or {}
    done = int(counts.get("files") or 0) + int(counts.get("errors") or 0)
    return max(0, int(counts.get("inputs") or 0) - done)


def cards(facts: Facts) -> dict[str, str]:
    """Return the main numbers, by name."""
    values = {
        "file" if facts.files == 1 else "files": f"{facts.files:,}",
        "window" if facts.windows == 1 else "windows": f"{facts.windows:,}",
        "of audio": span(facts.seconds),
        "failed": f"{failed(facts):,}",
    }
    if elapsed := number(_mapping(facts.run.get("timing")).get("elapsed")):
        values["of work"] = span(elapsed)
        values["times real time"] = f"{facts.seconds / elapsed:,.0f}"
    return values


def settings(facts: Facts) -> dict[str, str]:
    """Return weights, settings and inputs, by name."""
    weights = _mapping(facts.metadata.get("weights"))
    values: dict[str, Any] = {
        "weights": weights.get("name"),
        "licence": weights.get("license"),
        "SHA-256": weights.get("sha256"),
        "final ReLU": weights.get("final_relu"),
    }
    values |= {name.replace("_", " "): value for name, value in _mapping(facts.metadata.get("settings")).items()}
    if facts.metadata.get("shape"):
        values["shape of a row"] = " × ".join(map(str, facts.metadata["shape"]))
    inputs = facts.run.get("inputs")
    if isinstance(inputs, list) and inputs:
        more = f" and {len(inputs) - _MAX_INPUTS:,} more" if len(inputs) > _MAX_INPUTS else ""
        values["inputs"] = ", ".join(map(str, inputs[:_MAX_INPUTS])) + more
    return {name: _value(value) for name, value in values.items()}


def versions(facts: Facts) -> dict[str, str]:
    """Return the versions of the package and of libraries, and the times of the run, by name."""
    found = _mapping(facts.run.get("versions")) or {"vggish_pt": facts.metadata.get("version")}
    values = {name: _value(value) for name, value in found.items() if value is not None}
    timing = _mapping(facts.run.get("timing"))
    return values | {name: moment(timing[name]) for name in ("started", "ended") if timing.get(name)}


def sessions(facts: Facts) -> list[SessionRow]:
    """Return the runs of the command."""
    return [
        SessionRow(
            position,
            moment(run.get("started")),
            number(run.get("elapsed")),
            int(number(run.get("files"))),
            int(number(run.get("errors"))),
            ", ".join(f"{name} {value}" for name, value in _mapping(run.get("options")).items()),
        )
        for position, run in enumerate(timing_entries(facts, "sessions"), start=1)
    ]


def moment(seconds: Any) -> str:
    """Return a time since 1970 as a date and time in UTC."""
    try:
        return datetime.fromtimestamp(float(seconds), UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (TypeError, ValueError, OverflowError, OSError):
        return "not known"


def timing_entries(facts: Facts, name: str) -> list[dict[str, Any]]:
    """Return a list of the run's timing: "sessions" or "progress"."""
    found = _mapping(facts.run.get("timing")).get(name)
    return [_mapping(entry) for entry in found] if isinstance(found, list) else []


def number(value: Any) -> float:
    """Return a positive finite number unchanged, and 0 for any other value."""
    valid = isinstance(value, int | float) and math.isfinite(value) and value > 0
    return float(value) if valid else 0.0


def _mapping(value: Any) -> dict[str, Any]:
    return {str(name): entry for name, entry in value.items()} if isinstance(value, Mapping) else {}


def _value(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return truncated(str(value), _MAX_TEXT)
