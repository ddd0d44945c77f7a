"""``vggish-pt evaluate``: metrics of a classifier on labelled sounds."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vggish_pt.cli.options import (
    BatchSize,
    Device,
    FoldFrom,
    LabelledData,
    Overwrite,
    Quiet,
    Run,
    SkipUnreadable,
    Threads,
)
from vggish_pt.errors import SettingsError
from vggish_pt.utils.text import one_line

if TYPE_CHECKING:
    from vggish_pt.classify.evaluation.metrics import Metrics

_SPLITS = ("train", "validation", "test")


def evaluate(
    run: Run,
    data: LabelledData,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write metrics.json, predictions.csv, confusion.png and reliability.png into this folder.",
            metavar="FOLDER",
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Evaluate this split only: of the manifest's column split, or else of the training.",
            metavar="train|validation|test",
        ),
    ] = None,
    fold: Annotated[str | None, typer.Option(help="Evaluate this fold only.", metavar="FOLD")] = None,
    fold_from: FoldFrom = None,
    ignore_unknown_labels: Annotated[
        bool,
        typer.Option("--ignore-unknown-labels", help="Leave out labels that the classifier does not know."),
    ] = False,
    skip_unreadable: SkipUnreadable = False,
    threshold: Annotated[
        float,
        typer.Option(help="Multi-label: lowest score of a predicted label.", metavar="SCORE"),
    ] = 0.5,
    device: Device = "auto",
    batch_size: BatchSize = None,
    workers: Threads = 1,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Evaluate a classifier on labelled sounds: metrics of each class, and over all classes.

    Example: vggish-pt evaluate my_run test_sounds --out evaluation
    """
    from vggish_pt.inference.devices import check_device_name

    if split is not None and split not in _SPLITS:
        raise SettingsError(f"split must be one of {', '.join(_SPLITS)}, not {split!r}")
    if not 0 <= threshold <= 1:
        raise SettingsError(f"threshold must be from 0 to 1, not {threshold!r}")
    check_device_name(device)
    if quiet:
        warnings.simplefilter("ignore")

    from vggish_pt.classify import hub
    from vggish_pt.classify.data.labelled import read_labelled
    from vggish_pt.classify.evaluation import evaluate as evaluation
    from vggish_pt.cli.progress import Progress
    from vggish_pt.dataset.outputs.record import Counts
    from vggish_pt.dataset.schema import Failure

    folder = hub.resolve(run)
    clips = evaluation.with_recorded_split(read_labelled(data, fold_from=fold_from), folder)
    clips = evaluation.select_clips(clips, split=split, fold=fold)  # type: ignore[arg-type]
    if out is not None:
        evaluation.check_folder(out, overwrite=overwrite)

    from vggish_pt.classify.evaluation.predict import load_classifier
    from vggish_pt.inference.devices import choose_device

    classifier = load_classifier(folder, device=choose_device(device))
    with Progress(enabled=not quiet) as progress:
        seen = sum(example.split == "train" for example in clips.examples)
        if seen and split != "train":
            progress.note(
                f"note: the classifier was trained on {seen} of these {len(clips)} clips, so the metrics are too high; "
                "evaluate it on clips that it has not seen: --split test, or --split validation"
            )
        progress.begin(len(clips), Counts())

        def watch(outcome: float | Failure) -> None:
            if isinstance(outcome, Failure):
                progress.watch(outcome)
            else:
                progress.advance(outcome)

        result = evaluation.evaluate(
            classifier,
            clips,
            ignore_unknown_labels=ignore_unknown_labels,
            skip_unreadable=skip_unreadable,
            threshold=threshold,
            workers=workers,
            watch=watch,
            **({} if batch_size is None else {"batch_size": batch_size}),
        )
        if result.ignored:
            progress.note(f"{result.ignored} clips left out, as the classifier knows none of their labels")
        progress.finish(f"{result.metrics.examples} clips")
    _print(result.metrics)
    if out is not None:
        facts = {"classifier": run, "data": clips.name, "split": split, "fold": fold}
        for path in evaluation.write_evaluation(out, result, facts=facts):
            typer.echo(path)
    if result.failures:
        typer.echo(f"vggish-pt: {len(result.failures)} clips could not be read and were left out", err=True)
        raise typer.Exit(3)


def _print(metrics: Metrics) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("class", overflow="fold")
    for name in ("clips", "precision", "recall", "F1", "AP", "AUC"):
        table.add_column(name, justify="right")
    for one in metrics.per_class:
        figures = (one.precision, one.recall, one.f1, one.average_precision, one.auc)
        table.add_row(Text(one_line(one.label)), str(one.support), *map(_figure, figures))
    table.add_section()
    three = (metrics.macro_precision, metrics.macro_recall, metrics.macro_f1)
    means = (*three, metrics.mean_average_precision, metrics.auc)
    table.add_row("mean", str(metrics.examples), *map(_figure, means))
    console = Console(width=None if Console().is_terminal else 120)
    console.print(table)
    names = {"accuracy": "accuracy", "macro_f1": "macro-F1", "mean_average_precision": "mAP", "d_prime": "d-prime"}
    summary = metrics.summary()
    parts = [f"{name} {_figure(summary[key])}" for key, name in names.items()]
    if "calibration_error" in summary:
        parts.append(f"calibration error {_figure(summary['calibration_error'])}")
    typer.echo(", ".join(parts))
    if metrics.without_examples:
        missing = ", ".join(map(one_line, metrics.without_examples[:10]))
        more = f" and {len(metrics.without_examples) - 10} more" if len(metrics.without_examples) > 10 else ""
        typer.echo(f"no clips of {missing}{more}: left out of all means")


def _figure(value: float) -> str:
    return "-" if value != value else f"{value:.3f}"
