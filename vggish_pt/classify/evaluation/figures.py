"""Figures of classifiers: confusion matrix, reliability diagram, learning curve, timeline.

Each function returns a matplotlib figure without opening a window, for notebooks or
:func:`vggish_pt.utils.figures.save`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vggish_pt.classify.evaluation.events import SoundEvent, spans
from vggish_pt.utils.optional import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from vggish_pt.classify.evaluation.metrics import Metrics
    from vggish_pt.classify.evaluation.spectrogram import Spectrogram
    from vggish_pt.classify.prediction import Prediction

MAX_TIMELINE_LABELS = 20
_MAX_NAMED = 60  # names of more classes would overlap
_MAX_NUMBERED = 20
_MAX_COLUMNS = 2000
_MAX_NAME = 24


def confusion_matrix(metrics: Metrics, *, title: str | None = None) -> Figure:
    """Draw the confusion matrix; for a multi-label classifier, the hits, misses and false alarms of each label.

    Args:
        metrics: from :func:`~vggish_pt.classify.evaluation.metrics.classification_metrics`.
        title: title of the figure; None for the accuracy.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    counts = np.array(metrics.confusion)
    classes, columns = counts.shape
    side = min(16.0, max(4.0, 2.2 + 0.42 * classes))
    figure = _figure((min(side, 3.0 + 0.7 * columns) if metrics.multilabel else side, side))
    axis: Axes = figure.subplots()
    # Shares of a row, so that rare classes are as visible as frequent ones.
    support = np.array([one.support for one in metrics.per_class])[:, None]
    shares = counts / np.maximum(support, 1)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto" if metrics.multilabel else "equal")
    names = [_shortened(label) for label in metrics.labels]
    _name(axis.yaxis, names)
    if metrics.multilabel:
        _name(axis.xaxis, ["found", "missed", "false alarms"])
        axis.set_ylabel("label")
    else:
        _name(axis.xaxis, names, turned=True)
        axis.set_xlabel("predicted")
        axis.set_ylabel("true")
    if classes <= _MAX_NUMBERED:
        for row, column in np.ndindex(*counts.shape):
            if counts[row, column]:
                colour = "white" if shares[row, column] > 0.6 else "black"
                axis.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour, fontsize=8)
    axis.set_title(title or f"accuracy {metrics.accuracy:.3f}, {metrics.examples} clips", parse_math=False)
    return figure


def reliability_diagram(metrics: Metrics) -> Figure:
    """Draw the share of correct predictions over their score; calibrated scores lie on the diagonal.

    Args:
        metrics: metrics whose ``reliability`` is not None.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        ValueError: the metrics have no ``reliability``, since the scores are not probabilities.
    """
    bins = metrics.reliability
    if bins is None:
        raise ValueError("these metrics hold no reliability, as the scores are not probabilities")
    figure = _figure((4.6, 5.2))
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    edges = np.array(bins.edges)
    place, width = edges[:-1], np.diff(edges)
    upper.bar(place, np.nan_to_num(bins.frequency), width, align="edge", edgecolor="white", label="measured")
    upper.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle="--", label="ideal")
    upper.plot(bins.score, bins.frequency, color="tab:red", marker="o", markersize=3, linestyle="none", label="mean")
    upper.set_ylabel("share that has the label" if metrics.multilabel else "share that is right")
    upper.set_ylim(0, 1)
    upper.legend(loc="upper left", fontsize=8)
    upper.set_title(f"expected calibration error {bins.error:.3f}")
    lower.bar(place, bins.count, width, align="edge", edgecolor="white", color="grey")
    if metrics.multilabel:
        lower.set_yscale("symlog")  # the first bin is by far the largest, as most labels of a clip are absent
    lower.set_ylabel("scores" if metrics.multilabel else "clips")
    lower.set_xlabel("score")
    lower.set_xlim(0, 1)
    return figure


def learning_curve(history: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw loss, validation metrics and learning rates over epochs.

    Args:
        history: a row for each epoch: ``epoch``, ``train_loss``, ``val_loss``, other ``val_`` metrics, ``lr_`` rates.
            Missing values and None are left out.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    names = list(dict.fromkeys(name for row in history for name in row))
    metrics = [name for name in names if name.startswith("val_") and name != "val_loss"]
    bounded = [name for name in metrics if not name.endswith("d_prime")]
    groups: list[tuple[str, list[str], tuple[float, float] | None]] = [
        ("loss", [name for name in ("train_loss", "val_loss") if name in names], None),
        ("validation", bounded, (0, 1)),
        ("learning rate", [name for name in names if name.startswith("lr")], None),
    ]
    groups = [group for group in groups if group[1]] or [("loss", [], None)]
    figure = _figure((7, 2.3 * len(groups) + 0.6))
    axes = np.atleast_1d(figure.subplots(len(groups), 1, sharex=True))
    for axis, (title, curves, limits) in zip(axes, groups, strict=True):
        for name in curves:
            points = [(row["epoch"], float(row[name])) for row in history if row.get(name) is not None]
            epochs, values = [epoch for epoch, _ in points], [value for _, value in points]
            marker = "o" if len(points) < 30 else None
            axis.plot(epochs, values, marker=marker, markersize=3, label=_plain(name))
        axis.set_ylabel(title)
        if limits:
            axis.set_ylim(*limits)
        if curves:
            axis.legend(fontsize=8)
    axes[-1].set_xlabel("epoch")
    return figure


def timeline(
    prediction: Prediction,
    events: Sequence[SoundEvent] = (),
    *,
    spectrogram: Spectrogram | None = None,
    title: str | None = None,
) -> Figure:
    """Draw the spectrogram, and below it the scores of each label over time with frames around events.

    Args:
        prediction: from :meth:`~vggish_pt.classify.VGGishClassifier.predict`.
        events: from :func:`~vggish_pt.classify.evaluation.events.find_events`.
        spectrogram: from :func:`~vggish_pt.classify.evaluation.spectrogram.spectrogram`; None for none.
        title: title of the figure; None for the source's name.

    Returns:
        A figure. At most 20 labels are drawn: those with events, then those with the highest scores.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    scores = prediction.window_scores.numpy()
    start, end = prediction.start.numpy(), prediction.end.numpy()
    onset, offset = spans(start, end, float(start[0]) + prediction.duration if prediction.duration else None)
    drawn = _labels_to_show(scores, prediction.labels, events)
    height = 0.9 + 0.24 * max(4, len(drawn)) + (2.0 if spectrogram is not None else 0.0)
    figure = _figure((10, height))
    figure.suptitle(_plain(title or prediction.source), fontsize=11, parse_math=False)
    if spectrogram is not None:
        upper, axis = figure.subplots(2, 1, sharex=True, height_ratios=(2.0, 0.24 * max(4, len(drawn))))
        upper.imshow(
            spectrogram.values.T,
            origin="lower",
            aspect="auto",
            extent=(spectrogram.start, spectrogram.end, 0, spectrogram.values.shape[1]),
            cmap="magma",
            interpolation="nearest",
        )
        upper.set_ylabel("mel band")
    else:
        axis = figure.subplots()
    times, values = _thinned(onset, offset, scores[:, drawn])
    mesh = axis.pcolormesh(times, np.arange(len(drawn) + 1) - 0.5, values.T, cmap="Blues", vmin=0, vmax=1)
    for row, place in enumerate(drawn):
        own = [(event.onset, event.offset - event.onset) for event in events if event.label == prediction.labels[place]]
        axis.broken_barh(own, (row - 0.45, 0.9), facecolor="none", edgecolor="tab:red", linewidth=1.2)
    _name(axis.yaxis, [_shortened(prediction.labels[place]) for place in drawn])
    axis.set_ylim(len(drawn) - 0.5, -0.5)
    axis.set_xlim(float(onset[0]), float(offset[-1]))
    axis.set_xlabel("seconds")
    figure.colorbar(mesh, ax=axis, label="score", pad=0.01)
    return figure


def _figure(size: tuple[float, float]) -> Figure:
    figures = require("matplotlib.figure", "figures")
    figure: Figure = figures.Figure(figsize=size, layout="constrained")
    return figure


def _name(axis: Any, names: Sequence[str], *, turned: bool = False) -> None:
    if len(names) > _MAX_NAMED:
        return
    size = 8 if len(names) <= 30 else 6
    # parse_math=False: a dollar sign in a name does not begin a formula.
    axis.set_ticks(range(len(names)), names, fontsize=size, rotation=90 if turned else 0, parse_math=False)


def _plain(text: str) -> str:
    return "".join(ch if ch.isprintable() else " " for ch in text)


def _shortened(name: str) -> str:
    name = _plain(name)
    return name if len(name) <= _MAX_NAME else name[: _MAX_NAME - 1] + "…"


def _labels_to_show(scores: NDArray[np.float32], labels: Sequence[str], events: Sequence[SoundEvent]) -> list[int]:
    if len(labels) <= MAX_TIMELINE_LABELS:
        return list(range(len(labels)))
    seconds = dict.fromkeys(labels, 0.0)
    for event in events:
        seconds[event.label] += event.offset - event.onset
    best = scores.max(axis=0)
    order = sorted(range(len(labels)), key=lambda place: (-seconds[labels[place]], -float(best[place])))
    return sorted(order[:MAX_TIMELINE_LABELS])


def _thinned(
    onset: NDArray[np.float64], offset: NDArray[np.float64], scores: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Return borders in time and the scores between them; in long files, the maximum over neighbouring windows."""
    firsts = np.arange(0, len(scores), max(1, -(-len(scores) // _MAX_COLUMNS)))
    return np.append(onset[firsts], offset[-1]), np.maximum.reduceat(scores, firsts, axis=0)
