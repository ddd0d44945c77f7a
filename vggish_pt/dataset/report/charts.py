"""Charts as SVG, which need no script; their colours are in the page's style sheet.

plotly, which could draw them, adds 1 to 4 MB to each page and needs a looser Content-Security-Policy than the one that
tests/dataset/test_report.py checks.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

_WIDTH, _HEIGHT = 460, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 12, 14, 44
_BINS = 24
_MAX_STEPS = 60


@dataclass(frozen=True)
class Axis:
    """Mapping of values to positions.

    Args:
        low, high: values at the ends.
        begin, end: positions of the ends.
        logarithmic: True for a logarithmic scale.
    """

    low: float
    high: float
    begin: float
    end: float
    logarithmic: bool = False

    def position(self, value: float) -> float:
        """Return the position of a value."""
        low, high = (math.log(self.low), math.log(self.high)) if self.logarithmic else (self.low, self.high)
        at = math.log(value) if self.logarithmic else value
        return self.begin + (at - low) / ((high - low) or 1) * (self.end - self.begin)

    def ticks(self, count: int = 5) -> list[float]:
        """Return round values along the axis."""
        if self.logarithmic:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            steps = (1, 2, 5) if math.log10(self.high / self.low) < 2.5 else (1,)
            return [v for p in powers for s in steps if self.low <= (v := s * 10.0**p) <= self.high * (1 + 1e-9)]
        raw = (self.high - self.low) / count or 1.0
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(s * power for s in (1, 2, 5, 10) if s * power >= raw * (1 - 1e-9))
        first = math.ceil(self.low / step - 1e-9)
        return [n * step for n in range(first, math.floor(self.high / step + 1e-9) + 1)]


def histogram(values: NDArray[np.float32], *, unit: str, things: str) -> str:
    """Draw a histogram.

    Args:
        values: values; those that are not positive and finite are ignored.
        unit: unit of the values, for the axis.
        things: name of what is counted.

    Returns:
        An SVG element; empty text if there are no values.
    """
    values = values[np.isfinite(values) & (values > 0)].astype(np.float64)
    if not len(values):
        return ""
    low, high = float(values.min()), float(values.max())
    logarithmic = high / low > 30
    if low == high:
        low, high = low * 0.9, high * 1.1
    edges = np.geomspace(low, high, _BINS + 1) if logarithmic else np.linspace(low, high, _BINS + 1)
    edges[0], edges[-1] = min(edges[0], values.min()), max(edges[-1], values.max())
    counts = np.histogram(values, edges)[0]
    x = Axis(low, high, _LEFT, _WIDTH - _RIGHT, logarithmic)
    y = Axis(0, float(counts.max()) * 1.05, _HEIGHT - _BOTTOM, _TOP)
    bars = []
    for left, right, count in zip(edges[:-1], edges[1:], counts.tolist(), strict=True):
        if count:
            a, b, top = x.position(max(left, low)), x.position(min(right, high)), y.position(count)
            bars.append(
                f'<rect class="bar" x="{a:.1f}" y="{top:.1f}" width="{max(1, b - a - 1):.1f}" '
                f'height="{y.begin - top:.1f}"><title>{left:.3g} to {right:.3g} {unit}: {count:,} {things}</title>'
                "</rect>"
            )
    middle = float(np.median(values))
    label = (
        f"Histogram: {len(values):,} {things}, from {values.min():.3g} to {values.max():.3g} {unit}, half of them "
        f"up to {middle:.3g} {unit}"
    )
    return _svg(label, _axes(x, y, unit, things) + "".join(bars))


def throughput(progress: Sequence[tuple[float, float]], sessions: Sequence[float]) -> str:
    """Draw the throughput of a run over time.

    Args:
        progress: samples of elapsed seconds and embedded seconds of audio.
        sessions: elapsed seconds at the start of each session but the first.

    Returns:
        An SVG element; empty text if there are no samples.
    """
    points = [(0.0, 0.0)]
    samples = sorted(progress)
    least = samples[-1][0] / _MAX_STEPS if samples else 0.0
    for time, done in samples:
        if time - points[-1][0] >= least:
            points.append((time, done))
    if samples and points[-1] != samples[-1]:  # a rate over a very short time is noise
        points[max(1, len(points) - 1) :] = [samples[-1]]
    steps = [(t0, t1, max(0.0, s1 - s0) / (t1 - t0)) for (t0, s0), (t1, s1) in pairwise(points) if t1 > t0]
    if not steps:
        return ""
    minutes = steps[-1][1] > 300
    scale, unit = (60, "minutes of work") if minutes else (1, "seconds of work")
    x = Axis(0, steps[-1][1] / scale, _LEFT, _WIDTH - _RIGHT)
    y = Axis(0, max(rate for _, _, rate in steps) * 1.1 or 1, _HEIGHT - _BOTTOM, _TOP)
    line = " ".join(
        f"{x.position(t0 / scale):.1f},{y.position(rate):.1f} {x.position(t1 / scale):.1f},{y.position(rate):.1f}"
        for t0, t1, rate in steps
    )
    area = f"{x.begin},{y.begin} {line} {x.end},{y.begin}"
    marks = "".join(
        f'<line class="resumed" x1="{(at := x.position(time / scale)):.1f}" x2="{at:.1f}" y1="{y.end}" y2="{y.begin}">'
        f"<title>the run was resumed here</title></line>"
        for time in sessions
        if 0 < time < steps[-1][1]
    )
    average = points[-1][1] / points[-1][0] if points[-1][0] else 0.0
    resumed = f"; resumed {len(sessions)} times, at the dashed lines" if marks else ""
    label = f"Throughput: on average {average:,.0f} times real time{resumed}"
    shapes = f'<polygon class="area" points="{area}"/><polyline class="line" points="{line}"/>{marks}'
    return _svg(label, _axes(x, y, unit, "times real time") + shapes)


def _axes(x: Axis, y: Axis, unit: str, things: str) -> str:
    parts = []
    for value in (tick for tick in y.ticks(4) if things != "files" or tick == round(tick)):
        at = y.position(value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 7}" y="{at + 4:.1f}" text-anchor="end">{_short(value)}</text>')
    for value in x.ticks(6):
        at = x.position(value)
        parts.append(f'<text x="{at:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{_short(value)}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text class="unit" x="{middle}" y="{_HEIGHT - 6}" text-anchor="middle">{html.escape(unit)}</text>')
    parts.append(
        f'<text class="unit" transform="translate(13 {(_TOP + _HEIGHT - _BOTTOM) / 2}) rotate(-90)" '
        f'text-anchor="middle">{html.escape(things)}</text>'
    )
    base = _HEIGHT - _BOTTOM
    return "".join(parts) + f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{base}" y2="{base}"/>'


def _svg(label: str, inside: str) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{html.escape(label)}">{inside}</svg>'


def _short(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"
