"""Evaluation of a classifier on labelled clips: metrics, predictions and figures."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggish_pt.classify.data.examples import SEPARATOR, Example, LabelledSet, SplitName
from vggish_pt.classify.evaluation.metrics import DEFAULT_THRESHOLD, Metrics, classification_metrics
from vggish_pt.classify.evaluation.predict import Classifier, predict_clips
from vggish_pt.classify.evaluation.tables import short
from vggish_pt.dataset.schema import Failure
from vggish_pt.errors import AudioError, CheckpointError, OutputError, SettingsError, VGGishError
from vggish_pt.utils.atomic import whole_file
from vggish_pt.utils.json_file import write_object
from vggish_pt.utils.text import display_name, error_reason, path_text

METRICS_NAME = "metrics.json"
PREDICTIONS_NAME = "predictions.csv"
CONFUSION_NAME = "confusion.png"
RELIABILITY_NAME = "reliability.png"
ERRORS_NAME = "errors.csv"
_NAMES = (METRICS_NAME, PREDICTIONS_NAME, CONFUSION_NAME, RELIABILITY_NAME, ERRORS_NAME)

_MAX_NAMED = 5  # labels that a message quotes


@dataclass(frozen=True)
class Evaluation:
    """Result of :func:`evaluate`.

    Attributes:
        metrics: the metrics.
        examples: the clips that were scored.
        targets: (n, classes) bool, the true labels.
        scores: (n, classes) float32, the classifier's scores.
        failures: clips that could not be read.
        ignored: number of clips that were left out because of their labels.
    """

    metrics: Metrics
    examples: tuple[Example, ...]
    targets: NDArray[np.bool_]
    scores: NDArray[np.float32]
    failures: tuple[Failure, ...] = ()
    ignored: int = 0


def select_clips(data: LabelledSet, *, split: SplitName | None = None, fold: str | None = None) -> LabelledSet:
    """Select the clips of a split or fold.

    Args:
        data: the clips.
        split: "train", "validation" or "test"; None for all.
        fold: a fold; None for all.

    Raises:
        SettingsError: no clip is in the split or fold.
    """
    for column, wanted in (("split", split), ("fold", fold)):
        if wanted is None:
            continue
        known = sorted({str(getattr(e, column)) for e in data.examples if getattr(e, column) is not None})
        if not known:
            advice = "add the column to the manifest" + (" or give --fold-from" if column == "fold" else "")
            raise SettingsError(f"{data.name}: its clips have no {column}, so {wanted!r} cannot be chosen; {advice}")
        selected = [number for number, example in enumerate(data.examples) if getattr(example, column) == wanted]
        if not selected:
            raise SettingsError(f"{data.name}: no clip has the {column} {wanted!r} (there are {', '.join(known[:20])})")
        data = data.select(selected)
    return data


def with_recorded_split(data: LabelledSet, run: Path) -> LabelledSet:
    """Return clips with the split that they had in the training of a classifier.

    Args:
        data: the clips; clips that have a split keep it.
        run: the run folder; without ``split.csv`` in it, clips are returned unchanged.

    Raises:
        CheckpointError: ``split.csv`` is damaged.
    """
    names: dict[str, SplitName] = {"training": "train", "validation": "validation", "test": "test"}
    recorded: dict[tuple[str, str, str], SplitName] = {}
    path = run / "split.csv"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                part = names[row["part"]]
                for name in (row["path"], os.path.abspath(row["path"])):  # noqa: PTH100 (takes any string)
                    recorded[name, row["start"], row["end"]] = part
    except FileNotFoundError:
        return data
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise CheckpointError(
            f"{path}: damaged ({type(error).__name__}: {error}); remove it to evaluate without it"
        ) from None

    def split(example: Example) -> SplitName | None:
        item = example.item
        times = tuple("" if time is None else str(time) for time in (item.start, item.end))
        for name in (path_text(item.path), os.path.abspath(item.path)):  # noqa: PTH100
            if (part := recorded.get((name, times[0], times[1]))) is not None:
                return part
        return None

    return replace(data, examples=tuple(e if e.split else replace(e, split=split(e)) for e in data.examples))


def evaluate(
    classifier: Classifier,
    data: LabelledSet,
    *,
    ignore_unknown_labels: bool = False,
    skip_unreadable: bool = False,
    threshold: float = DEFAULT_THRESHOLD,
    workers: int = 1,
    watch: Callable[[float | Failure], None] = lambda _: None,
    **settings: Any,
) -> Evaluation:
    """Evaluate a classifier on labelled clips.

    Args:
        classifier: from :func:`~vggish_pt.classify.evaluation.predict.load_classifier`.
        data: the clips.
        ignore_unknown_labels: True leaves out labels that the classifier does not know, and clips without other labels.
        skip_unreadable: True leaves out clips that cannot be read.
        threshold: multi-label, the lowest score of a predicted label.
        workers: threads that decode ahead.
        watch: called after each clip with its seconds, or with its failure.
        settings: as in :meth:`~vggish_pt.classify.VGGishClassifier.predict`.

    Raises:
        SettingsError: the classifier does not know a label, a clip has several labels but the classifier is
            single-label, or no clip remains.
        AudioError: clips cannot be read.
    """
    from vggish_pt.dataset.outcomes import failure

    examples = _known(classifier, data, ignore_unknown_labels)
    scored: list[Example] = []
    scores: list[NDArray[np.float32]] = []
    failures: list[Failure] = []
    results = predict_clips(
        classifier,
        [replace(example.item, index=number) for number, example in enumerate(examples)],
        workers=workers,
        **settings,
    )
    with closing(results):
        for example, (clip, result) in zip(examples, results, strict=True):
            if isinstance(result, VGGishError):
                failures.append(failure(clip.path, result, clip))
                watch(failures[-1])
                continue
            scored.append(example)
            scores.append(result.scores.numpy())
            watch(result.duration)
    if failures and not skip_unreadable:
        advice = "repair them, or leave them out (--skip-unreadable)"
        raise AudioError(f"{data.name}: {len(failures)} of {len(examples)} clips cannot be read; {advice}")
    if not scored:
        raise AudioError(f"{data.name}: none of its {len(examples)} clips can be read")
    targets = replace(data, examples=tuple(scored), labels=classifier.labels).targets().astype(np.bool_)
    stacked = np.stack(scores)
    metrics = classification_metrics(
        targets, stacked, classifier.labels, multilabel=classifier.multilabel, threshold=threshold
    )
    ignored = len(data) - len(examples)
    return Evaluation(metrics, tuple(scored), targets, stacked, tuple(failures), ignored)


def _known(classifier: Classifier, data: LabelledSet, ignore: bool) -> list[Example]:
    labels = set(classifier.labels)
    unknown = sorted({label for example in data.examples for label in example.labels} - labels)
    if unknown and not ignore:
        more = f" and {len(unknown) - _MAX_NAMED} more" if len(unknown) > _MAX_NAMED else ""
        named = ", ".join(map(repr, unknown[:_MAX_NAMED])) + more
        known = ", ".join(classifier.labels[:_MAX_NAMED]) + (", ..." if len(labels) > _MAX_NAMED else "")
        raise SettingsError(
            f"{data.name}: the classifier does not know {named} (it knows {known}); correct the labels, or leave these "
            "out (--ignore-unknown-labels)"
        )
    examples = [replace(e, labels=tuple(label for label in e.labels if label in labels)) for e in data.examples]
    examples = [example for example in examples if example.labels]
    if not examples:
        raise SettingsError(f"{data.name}: no clip has a label that the classifier knows")
    if not classifier.multilabel and (several := [e for e in examples if len(e.labels) > 1]):
        raise SettingsError(
            f"{data.name}: {len(several)} clips have several labels, as has {display_name(several[0].item.path)}, "
            "but the classifier gives one for each; evaluate it on clips with one label"
        )
    return examples


def check_folder(folder: Path, *, overwrite: bool = False) -> None:
    """Create the folder for an evaluation, and check that it holds none.

    Raises:
        OutputError: the folder holds an evaluation already, or cannot be created.
    """
    existing = [name for name in _NAMES if os.path.lexists(folder / name)]
    if existing and not overwrite:
        raise OutputError(f"{folder / existing[0]}: exists already; choose another folder, or --overwrite")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be created ({error_reason(error)})") from error


def write_evaluation(folder: Path, evaluation: Evaluation, *, facts: dict[str, Any] | None = None) -> list[Path]:
    """Write ``metrics.json``, ``predictions.csv`` and, if matplotlib is installed, figures.

    Args:
        folder: an existing folder; files of an evaluation in it are replaced.
        evaluation: the evaluation.
        facts: further entries of ``metrics.json``; JSON types.

    Returns:
        Paths of the written files.

    Raises:
        OutputError: a file cannot be written.
    """
    document = {
        **(facts or {}),
        "unreadable": len(evaluation.failures),
        "ignored": evaluation.ignored,
        **evaluation.metrics.to_dict(),
    }
    write_object(folder / METRICS_NAME, document)
    _write_predictions(folder / PREDICTIONS_NAME, evaluation)
    written = [folder / METRICS_NAME, folder / PREDICTIONS_NAME, *_write_figures(folder, evaluation.metrics)]
    errors = folder / ERRORS_NAME
    errors.unlink(missing_ok=True)
    if evaluation.failures:
        rows = [(failure.path, failure.reason, failure.type) for failure in evaluation.failures]
        _write_csv(errors, [("path", "reason", "type"), *rows])
        written.append(errors)
    return written


def _write_figures(folder: Path, metrics: Metrics) -> list[Path]:
    from vggish_pt.classify.evaluation import figures
    from vggish_pt.errors import MissingDependencyError
    from vggish_pt.utils.figures import save

    for name in (CONFUSION_NAME, RELIABILITY_NAME):
        (folder / name).unlink(missing_ok=True)
    try:
        save(figures.confusion_matrix(metrics), folder / CONFUSION_NAME)
    except MissingDependencyError:
        return []
    if metrics.reliability is None:
        return [folder / CONFUSION_NAME]
    save(figures.reliability_diagram(metrics), folder / RELIABILITY_NAME)
    return [folder / CONFUSION_NAME, folder / RELIABILITY_NAME]


def _write_predictions(path: Path, evaluation: Evaluation) -> None:
    metrics = evaluation.metrics
    segments = any(example.item.start is not None or example.item.end is not None for example in evaluation.examples)
    times = ["start", "end"] if segments else []
    columns = [f"score: {label}" for label in metrics.labels]
    rows: list[Sequence[object]] = [["path", *times, "labels", "predicted", *columns]]
    for example, scores in zip(evaluation.examples, evaluation.scores, strict=True):
        if metrics.multilabel:
            predicted = [metrics.labels[column] for column in np.flatnonzero(scores >= metrics.threshold)]
        else:
            predicted = [metrics.labels[int(scores.argmax())]]
        when = [example.item.start, example.item.end] if segments else []
        labels = [SEPARATOR.join(names) for names in (example.labels, predicted)]
        rows.append([path_text(example.item.path), *when, *labels, *map(short, scores)])
    _write_csv(path, rows)


def _write_csv(path: Path, rows: Sequence[Sequence[object]]) -> None:
    with whole_file(path, overwrite=True) as raw:
        text = io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", newline="")
        try:
            csv.writer(text).writerows(rows)
            text.flush()
        finally:
            text.detach()
