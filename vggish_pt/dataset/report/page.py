"""HTML page of a report: one file with its style and script, which may load nothing but audio."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from vggish_pt.dataset.report import sections
from vggish_pt.dataset.report.charts import histogram, throughput
from vggish_pt.dataset.report.colours import colourings
from vggish_pt.dataset.report.gather import Facts
from vggish_pt.dataset.report.map import MapLayout
from vggish_pt.dataset.report.playable import Playable, shortened
from vggish_pt.version import __version__

_PLACES = 10_000  # points are integers up to this, finer than a screen shows
_SECTIONS = ("about", "badge", "cards", "failed", "pending", "sessions", "settings", "versions")


def page(facts: Facts, layouts: Sequence[MapLayout], *, out: Path, sounds: Path) -> str:
    """Return the page of a report.

    Args:
        facts: contents of the report.
        layouts: layouts of its map.
        out: path of the page.
        sounds: the folder that relative paths of the dataset start from.
    """
    style, script = _asset("page.css"), _asset("page.js")
    values = {name: getattr(sections, name)(facts) for name in _SECTIONS}
    text = (
        _environment()
        .get_template("page.html")
        .render(
            values,
            facts=facts,
            title=Path(facts.name.rstrip("/")).name or facts.name,
            durations=Markup(histogram(facts.lengths, unit="seconds", things="files")),
            throughput=Markup(_throughput(facts)),
            data=_data(facts, layouts, Playable(out, sounds)) if layouts and facts.sample.paths else {},
            version=__version__,
            style=Markup(style),
            script=Markup(script),
            style_hash=_hash(style),
            script_hash=_hash(script),
        )
    )
    return text.encode("utf-8", "backslashreplace").decode()  # names may contain bytes that are not UTF-8


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("vggish_pt.dataset.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    for function in (sections.count, sections.span, sections.thousands, sections.truncated, shortened):
        environment.filters[function.__name__] = function
    return environment


def _asset(name: str) -> str:
    return resources.files("vggish_pt.dataset.report").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _throughput(facts: Facts) -> str:
    elapsed = [sections.number(run.get("elapsed")) for run in sections.timing_entries(facts, "sessions")]
    progress = [
        (sections.number(sample.get("elapsed")), sections.number(sample.get("seconds")))
        for sample in sections.timing_entries(facts, "progress")
    ]
    return throughput(progress, np.cumsum(elapsed)[:-1].tolist())


def _data(facts: Facts, layouts: Sequence[MapLayout], playable: Playable) -> dict[str, Any]:
    """Return the data of the map's script."""
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
        "layouts": [{"name": layout.name, "points": _points(layout)} for layout in layouts],
        "colours": colourings(sample.paths, sample.columns, sample.seconds.tolist()),
    }


def _number(value: float) -> float | None:
    return round(value, 3) if math.isfinite(value) else None


def _points(layout: MapLayout) -> list[int | None]:
    return [None if math.isnan(value) else round(value * _PLACES) for pair in layout.points.tolist() for value in pair]
