"""The parts of a report's page that are text and tables. All that comes from a dump is escaped here."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from vggish_pt.dataset.report.gather import Facts
from vggish_pt.dataset.report.playable import shortened

_MAX_REASON = 300
_MAX_SESSIONS = 50
_MAX_NAMED = 20


def escaped(value: object) -> str:
    """Text for HTML, in an element or an attribute. Bytes that are no UTF-8 are shown escaped."""
    return html.escape(str(value).encode("utf-8", "backslashreplace").decode(), quote=True)


def count(things: int, one: str, many: str) -> str:
    """A number with its noun."""
    return f"{things:,} {one if things == 1 else many}"


def span(seconds: float) -> str:
    """A length of time in words."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:,.1f} h" if seconds < 3.6e6 else f"{seconds / 3600:,.0f} h"


def about(facts: Facts) -> str:
    """What it is, in a line."""
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
    return " · ".join(escaped(part) for part in parts) or "What made these embeddings is not known."


def badge(facts: Facts) -> str:
    """How it ended, as a coloured word."""
    failed = sum(times for _, times in facts.error_types)
    if facts.run and facts.run.get("state") != "complete":
        kind, text = "warn", "not finished"
    elif not facts.files:
        kind, text = "bad", "nothing embedded"
    elif failed:
        kind, text = "warn", f"complete, {failed:,} failed"
    else:
        kind, text = "good", "complete"
    return f'<span class="badge {kind}">{text}</span>'


def cards(facts: Facts) -> str:
    """The most wanted numbers."""
    failed = sum(times for _, times in facts.error_types)
    timing = _mapping(facts.run.get("timing"))
    elapsed = number(timing.get("elapsed"))
    told = {
        "file" if facts.files == 1 else "files": f"{facts.files:,}",
        "window" if facts.windows == 1 else "windows": f"{facts.windows:,}",
        "of sound": span(facts.seconds),
        "failed": f"{failed:,}",
    }
    if elapsed:
        told["of work"] = span(elapsed)
        told["times real time"] = f"{facts.seconds / elapsed:,.0f}"
    return "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in told.items())


def errors(facts: Facts) -> str:
    """What failed: how often each kind, and a list."""
    total = sum(times for _, times in facts.error_types)
    if not total:
        return ""
    most = facts.error_types[0][1]
    types = "".join(
        f'<tr><td>{escaped(kind)}</td><td class="number">{times:,}</td><td class="track"><svg viewBox="0 0 100 10" '
        f'preserveAspectRatio="none" aria-hidden="true"><rect class="bar" width="{max(1, 100 * times / most):.1f}" '
        'height="10" rx="2"/></svg></td></tr>'
        for kind, times in facts.error_types[:30]
    )
    rows = "".join(
        f"<tr><td>{escaped(shortened(path))}</td><td>{escaped(_cut(reason))}</td><td>{escaped(kind)}</td></tr>"
        for path, reason, kind in facts.errors
    )
    shown = len(facts.errors)
    bounded = f'<p class="lead">The first {shown:,} of {total:,}; the dump itself lists them all.</p>'
    head = '<th>type</th><th class="number">files</th><th><span class="hidden">share</span></th>'
    return (
        '<section id="errors"><h2>Failures</h2>'
        f'<table class="types"><thead><tr>{head}</tr></thead><tbody>{types}</tbody></table>'
        f"{bounded if shown < total else ''}"
        '<p class="filter"><label for="filter">Search</label><input id="filter" type="search" '
        'placeholder="path, reason or type" autocomplete="off"><span id="filtered" role="status"></span></p>'
        '<div class="scroll" tabindex="0" role="region" aria-label="List of failures"><table class="list"><thead><tr>'
        f"<th>path</th><th>reason</th><th>type</th></tr></thead><tbody>{rows}</tbody></table></div></section>"
    )


def made_with(facts: Facts) -> dict[str, str]:
    """Weights and settings."""
    weights = _mapping(facts.metadata.get("weights"))
    settings = _mapping(facts.metadata.get("settings"))
    told: dict[str, Any] = {"weights": weights.get("name"), "licence": weights.get("license")}
    told["SHA-256"] = weights.get("sha256")
    told["final ReLU"] = weights.get("final_relu")
    told |= {str(name).replace("_", " "): value for name, value in settings.items()}
    if facts.metadata.get("shape"):
        told["shape of a row"] = " × ".join(map(str, facts.metadata["shape"]))
    named = facts.run.get("inputs")
    if isinstance(named, list) and named:
        more = f" and {len(named) - _MAX_NAMED:,} more" if len(named) > _MAX_NAMED else ""
        told["inputs"] = ", ".join(map(str, named[:_MAX_NAMED])) + more
    return {name: _value(value) for name, value in told.items()}


def versions(facts: Facts) -> dict[str, str]:
    """Of the package and of libraries, and when."""
    found = _mapping(facts.run.get("versions")) or {"vggish_pt": facts.metadata.get("version")}
    told: dict[str, str] = {str(name): _value(value) for name, value in found.items() if value is not None}
    timing = _mapping(facts.run.get("timing"))
    for name in ("started", "ended"):
        if timing.get(name):
            told[name] = moment(timing[name])
    return told


def sessions(facts: Facts) -> str:
    """The runs of the command, if there was more than one."""
    runs = listed(facts.run, "sessions")
    if len(runs) < 2:
        return ""
    rows = []
    for place, run in enumerate(runs[-_MAX_SESSIONS:], max(0, len(runs) - _MAX_SESSIONS) + 1):
        options = ", ".join(f"{name} {value}" for name, value in _mapping(run.get("options")).items())
        rows.append(
            f'<tr><td class="number">{place}</td><td>{moment(run.get("started"))}</td>'
            f'<td class="number">{span(number(run.get("elapsed")))}</td>'
            f'<td class="number">{number(run.get("files")):,.0f}</td>'
            f'<td class="number">{number(run.get("errors")):,.0f}</td><td>{escaped(options)}</td></tr>'
        )
    told = f"The run went on {count(len(runs) - 1, 'time', 'times')} where it had stopped."
    return (
        f'<section><h2>Sessions</h2><p class="lead">{told}</p><div class="scroll" tabindex="0" role="region" '
        'aria-label="Sessions"><table><thead><tr><th class="number">no.</th><th>began</th><th class="number">took</th>'
        '<th class="number">files</th><th class="number">failed</th><th>with</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def definitions(title: str, told: Mapping[str, str]) -> str:
    """Names and values; the values are HTML already."""
    if not told:
        return ""
    rows = "".join(f"<dt>{escaped(name)}</dt><dd>{value}</dd>" for name, value in told.items())
    return f'<section><h2>{title}</h2><dl class="facts">{rows}</dl></section>'


def moment(seconds: Any) -> str:
    """A point in time, UTC."""
    try:
        return datetime.fromtimestamp(float(seconds), UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (TypeError, ValueError, OverflowError, OSError):
        return "not known"


def listed(run: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """One of the lists in a run's timing."""
    found = _mapping(run.get("timing")).get(name)
    return [_mapping(each) for each in found] if isinstance(found, list) else []


def number(value: Any) -> float:
    """A finite number that is not negative; 0 for all else."""
    good = isinstance(value, int | float) and math.isfinite(value) and value > 0
    return float(value) if good else 0.0


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}


def _value(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return escaped(_cut(str(value), 2000))


def _cut(text: str, letters: int = _MAX_REASON) -> str:
    return text if len(text) <= letters else f"{text[: letters - 1]}…"
