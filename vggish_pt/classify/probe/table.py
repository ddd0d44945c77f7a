"""What a probe found, as a table: for people, as CSV, and as files in a folder."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

from vggish_pt.classify.probe import ProbeResult, ProbeRow
from vggish_pt.classify.probe.folder import CONFIG_NAME, save_probe
from vggish_pt.errors import OutputError
from vggish_pt.utils.atomic import whole_file

FIGURES = {"accuracy": "accuracy", "macro_f1": "macro F1", "mean_average_precision": "mAP"}
RESULTS_NAME, TABLE_NAME, PICTURE_NAME = "results.json", "results.csv", "confusion.png"


def header(result: ProbeResult) -> list[str]:
    """Names of the columns for people."""
    return ["features", "numbers", "classifier", *(FIGURES[name] for name in _shown(result))]


def cells(result: ProbeResult, row: ProbeRow) -> list[str]:
    """A row for people: figures as mean ± spread over rounds."""
    figures = [_figure(row, name) for name in _shown(result)]
    return [row.features.name, str(row.dimensions), row.classifier, *figures]


def plain(result: ProbeResult) -> list[str]:
    """The table as lines of text, for a log or a file in Markdown."""
    lines = [header(result), *(cells(result, row) for row in result.rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    texts = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    texts.insert(1, "| " + " | ".join("-" * width for width in widths))
    return [f"{text} |" for text in texts]


def summary(result: ProbeResult) -> str:
    """How the figures came about, in a sentence."""
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
    """The table as CSV: a mean and a spread for each figure, and the headline of each round."""
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
    """Finds out early what would prevent :func:`write_folder`.

    Raises:
        OutputError: the folder holds something, and may not be replaced; or it is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: is a file; name a folder")
    if folder.is_dir() and any(folder.iterdir()):
        if not overwrite:
            raise OutputError(f"{folder}: holds something already; choose another folder, or replace it (--overwrite)")
        if not any((folder / name).exists() for name in (CONFIG_NAME, RESULTS_NAME)):
            raise OutputError(f"{folder}: holds something else than a probe; choose another folder")


def write_folder(result: ProbeResult, folder: Path, *, overwrite: bool = False) -> None:
    """Writes the table (``results.csv``, ``results.json``), the best row's confusion matrix and the saved probe.

    Args:
        result: with a row that can be saved.
        folder: made if need be.
        overwrite: whether a probe that is there may be replaced.

    Raises:
        OutputError: the folder cannot be written.
        MissingDependencyError: skops or matplotlib is not installed.
    """
    check_folder(folder, overwrite=overwrite)
    assert result.fitted is not None
    save_probe(result.fitted, folder)
    texts = {
        RESULTS_NAME: json.dumps(result.to_dict(), indent=2, ensure_ascii=False) + "\n",
        TABLE_NAME: csv_text(result),
    }
    for name, text in texts.items():
        with whole_file(folder / name, overwrite=True) as file:
            file.write(text.encode())
    write_picture(result.fitted.row, folder / PICTURE_NAME)


def write_picture(row: ProbeRow, path: Path) -> None:
    """Writes the confusion matrix of a row, over all rounds.

    Raises:
        OutputError: the file cannot be written.
        MissingDependencyError: matplotlib is not installed.
    """
    from vggish_pt.classify.evaluation import figures as pictures
    from vggish_pt.utils.figures import save

    title = f"{row.features.name}, {row.classifier}: {FIGURES[row.headline]} {row.mean():.3f}"
    save(pictures.confusion_matrix(row.pooled, title=title), path)


def _shown(result: ProbeResult) -> list[str]:
    return ["mean_average_precision", "macro_f1"] if result.data.multilabel else ["accuracy", "macro_f1"]


def _figure(row: ProbeRow, name: str) -> str:
    mean, spread = row.mean(name), row.spread(name)
    return f"{mean:.3f}" if math.isnan(spread) else f"{mean:.3f} ± {spread:.3f}"
