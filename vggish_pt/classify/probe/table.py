"""Tables of a probe's results: as text, as CSV, and as files in a folder."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

from vggish_pt.classify.probe.folder import CONFIG_NAME, save_probe
from vggish_pt.classify.probe.results import Fitted, ProbeResult, ProbeRow
from vggish_pt.errors import OutputError, SettingsError
from vggish_pt.utils.json_file import write_object, write_text

FIGURES = {"accuracy": "accuracy", "macro_f1": "macro F1", "mean_average_precision": "mAP"}
RESULTS_NAME, TABLE_NAME, CONFUSION_NAME = "results.json", "results.csv", "confusion.png"


def header(result: ProbeResult) -> list[str]:
    """Return the titles of the columns."""
    return ["features", "numbers", "classifier", *(FIGURES[name] for name in _figures(result))]


def cells(result: ProbeResult, row: ProbeRow) -> list[str]:
    """Return the cells of a row, with figures as mean ± standard deviation over rounds."""
    figures = [_figure(row, name) for name in _figures(result)]
    return [row.features.name, str(row.dimensions), row.classifier, *figures]


def plain(result: ProbeResult) -> list[str]:
    """Return the table as lines of Markdown."""
    lines = [header(result), *(cells(result, row) for row in result.rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    texts = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    texts.insert(1, "| " + " | ".join("-" * width for width in widths))
    return [f"{text} |" for text in texts]


def summary(result: ProbeResult) -> str:
    """Return a sentence about the data and the folds."""
    how = {
        "fold": f"by the {len(result.rounds)} folds given",
        "split": f"on the part {result.rounds[0]}",
        "group": f"over {len(result.rounds)} folds of whole groups, seed {result.seed}",
        "stratified": f"over {len(result.rounds)} folds drawn with seed {result.seed}",
    }[result.scheme]
    spread = " ± standard deviation over folds" if len(result.rounds) > 1 else ""
    left_out = f", {len(result.failures)} unreadable left out" if result.failures else ""
    return f"{len(result.data.labels)} classes, {len(result.data)} clips{left_out}; mean{spread}, {how}"


def csv_text(result: ProbeResult) -> str:
    """Return the table as CSV: mean and standard deviation of each figure, and the headline of each round."""
    file = io.StringIO(newline="")
    table = csv.writer(file)
    headline = result.rows[0].headline
    columns = [f"{name}_{kind}" for name in FIGURES for kind in ("mean", "spread")]
    table.writerow(["features", "numbers", "classifier", *columns, *(f"{headline} {name}" for name in result.rounds)])
    for row in result.rows:
        figures = [value for name in FIGURES for value in (row.mean(name), row.spread(name))]
        values = ["" if math.isnan(value) else repr(value) for value in (*figures, *row.values())]
        table.writerow([row.features.name, row.dimensions, row.classifier, *values])
    return file.getvalue()


def check_folder(folder: Path, *, overwrite: bool = False) -> None:
    """Check that :func:`write_probe` can write a folder.

    Raises:
        OutputError: the folder is not empty and may not be replaced, or it is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: is a file; name a folder")
    if folder.is_dir() and any(folder.iterdir()):
        if not overwrite:
            raise OutputError(f"{folder}: holds something already; choose another folder, or replace it (--overwrite)")
        if not any((folder / name).exists() for name in (CONFIG_NAME, RESULTS_NAME)):
            raise OutputError(f"{folder}: holds other files than those of a probe; choose another folder")


def write_probe(result: ProbeResult, folder: Path, *, overwrite: bool = False) -> Fitted:
    """Write the table (``results.csv``, ``results.json``), the best row's confusion matrix and the saved probe.

    Args:
        result: a result whose ``fitted`` is not None.
        folder: the folder, created if missing.
        overwrite: True allows to replace a probe in the folder.

    Returns:
        The probe that was saved.

    Raises:
        SettingsError: no row can be saved.
        OutputError: the folder cannot be written.
        MissingDependencyError: skops or matplotlib is not installed.
    """
    check_folder(folder, overwrite=overwrite)
    if result.fitted is None:
        raise SettingsError("no row of this result can be saved: all features are of random weights, or keep was False")
    save_probe(result.fitted, folder)
    write_object(folder / RESULTS_NAME, result.to_dict())
    write_text(folder / TABLE_NAME, csv_text(result))
    write_confusion(result.fitted.row, folder / CONFUSION_NAME)
    return result.fitted


def write_confusion(row: ProbeRow, path: Path) -> None:
    """Draw the confusion matrix of a row, over all rounds, into a file.

    Raises:
        OutputError: the file cannot be written.
        MissingDependencyError: matplotlib is not installed.
    """
    from vggish_pt.classify.evaluation.figures import confusion_matrix
    from vggish_pt.utils.figures import save

    title = f"{row.features.name}, {row.classifier}: {FIGURES[row.headline]} {row.mean():.3f}"
    save(confusion_matrix(row.pooled, title=title), path)


def _figures(result: ProbeResult) -> list[str]:
    return ["mean_average_precision", "macro_f1"] if result.data.multilabel else ["accuracy", "macro_f1"]


def _figure(row: ProbeRow, name: str) -> str:
    mean, spread = row.mean(name), row.spread(name)
    return f"{mean:.3f}" if math.isnan(spread) else f"{mean:.3f} ± {spread:.3f}"
