"""A report as HTML: one page, its style and script inside it, allowed to load nothing but sounds."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from vggish_pt.dataset.report.charts import histogram, throughput
from vggish_pt.dataset.report.colours import colourings
from vggish_pt.dataset.report.gather import Facts
from vggish_pt.dataset.report.map import MapLayout
from vggish_pt.dataset.report.playable import Playable, shortened
from vggish_pt.dataset.report.sections import (
    about,
    badge,
    cards,
    count,
    definitions,
    errors,
    listed,
    made_with,
    number,
    sessions,
    versions,
)
from vggish_pt.version import __version__

_PLACES = 10_000  # points are whole numbers up to this, which no screen can tell from more


def page(facts: Facts, layouts: Sequence[MapLayout], *, out: Path, sounds: Path) -> str:
    """A report's page.

    Args:
        facts: what it tells.
        layouts: of its map.
        out: where it will lie.
        sounds: the folder that relative paths start from.
    """
    style, script = _asset("page.css"), _asset("page.js")
    shown = bool(layouts) and bool(facts.sample.paths)
    data = _data(facts, layouts, Playable(out, sounds)) if shown else {}
    told = "None of the files could be embedded." if not facts.files else "The embeddings are not finite."
    return _filled(
        _asset("page.html"),
        {
            "title": html.escape(Path(facts.name.rstrip("/")).name or facts.name),
            "about": about(facts),
            "badge": badge(facts),
            "cards": cards(facts),
            "notice": _notice(facts),
            "map": _map(facts) if shown else f'<p class="lead">{told} There is nothing to show here.</p>',
            "charts": _charts(facts),
            "errors": errors(facts),
            "made": definitions("What made it", made_with(facts)) + definitions("Versions", versions(facts)),
            "sessions": sessions(facts),
            "version": html.escape(__version__),
            "style": style,
            "script": script,
            "style_hash": _hash(style),
            "script_hash": _hash(script),
            "data": json_inside(data),
        },
    )


def json_inside(data: Any) -> str:
    """JSON that may stand in an HTML page: nothing in it can end its element."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    text = text.encode("utf-8", "backslashreplace").decode()
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _filled(template: str, values: Mapping[str, str]) -> str:
    """A template with values in their places; what stands in values is not looked at again."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], template)


def _asset(name: str) -> str:
    return resources.files("vggish_pt.dataset.report").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _notice(facts: Facts) -> str:
    if not facts.run or facts.run.get("state") == "complete":
        return ""
    counts = facts.run.get("counts") or {}
    left = int(counts.get("inputs") or 0) - int(counts.get("files") or 0) - int(counts.get("errors") or 0)
    return (
        f'<p class="notice">This run is not finished: {count(max(0, left), "file is", "files are")} still to do. '
        "The same <code>vggish-pt embed</code> command goes on where it stopped.</p>"
    )


def _map(facts: Facts) -> str:
    shown = len(facts.sample.paths)
    drawn = f", drawn by lot from {facts.files:,}" if shown < facts.files else ""
    mean = "" if (facts.metadata.get("settings") or {}).get("pool") == "mean" else ", the mean of its windows"
    told = f"Each point is a file{mean}: {count(shown, 'file', 'files')}{drawn}."
    return _filled(_asset("map.html"), {"told": told, "count": f"{shown:,}"})


def _charts(facts: Facts) -> str:
    found = []
    if chart := histogram(facts.lengths, unit="seconds", things="files"):
        found.append(f"<section><h2>Durations</h2>{chart}</section>")
    begins = np.cumsum([number(each.get("elapsed")) for each in listed(facts.run, "sessions")])[:-1].tolist()
    progress = [(number(each.get("elapsed")), number(each.get("seconds"))) for each in listed(facts.run, "progress")]
    if chart := throughput(progress, begins):
        told = " Dashed lines: the run was resumed." if begins else ""
        told = f'<p class="keys">Seconds of sound embedded in a second.{told}</p>'
        found.append(f"<section><h2>Throughput</h2>{chart}{told}</section>")
    return "".join(found)


def _data(facts: Facts, layouts: Sequence[MapLayout], playable: Playable) -> dict[str, Any]:
    """What the map's script gets."""
    sample = facts.sample
    parts = None
    if not np.isnan(sample.segments).all():
        parts = [
            None if math.isnan(a) and math.isnan(b) else [_number(a), _number(b)] for a, b in sample.segments.tolist()
        ]
    return {
        "names": [shortened(path) for path in sample.paths],
        "sounds": [playable.url(path) for path in sample.paths],
        "seconds": [_number(value) for value in sample.seconds.tolist()],
        "windows": sample.windows.tolist(),
        "parts": parts,
        "pooled": (facts.metadata.get("settings") or {}).get("pool") == "mean",
        "layouts": [{"name": each.name, "points": _points(each)} for each in layouts],
        "colours": colourings(sample.paths, sample.columns, sample.seconds.tolist()),
    }


def _number(value: float) -> float | None:
    return round(value, 3) if math.isfinite(value) else None


def _points(layout: MapLayout) -> list[int | None]:
    return [None if math.isnan(value) else round(value * _PLACES) for pair in layout.points.tolist() for value in pair]
