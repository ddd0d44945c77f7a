"""``vggish-pt probe``: cross-validate features of labelled sounds, and save a classifier on the best ones."""

from __future__ import annotations

import json
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vggish_pt.cli.options import (
    WEIGHTS_HELP,
    AsJson,
    Device,
    FoldFrom,
    Hop,
    LabelledData,
    Overwrite,
    Pad,
    Quiet,
    Resampler,
    Seed,
    SkipUnreadable,
)
from vggish_pt.cli.progress import Display
from vggish_pt.errors import SettingsError
from vggish_pt.utils.text import one_line

if TYPE_CHECKING:
    from vggish_pt.classify.probe import ProbeProgress, ProbeResult


def probe(
    data: LabelledData,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            help=f"{WEIGHTS_HELP} 'random' is a network with random weights. Repeatable. Default: audioset.",
            metavar="NAME",
        ),
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            help="Layer of the network: conv1 to conv4, fc1, fc2, embedding, fused, or a fusion like "
            "fused:conv2+conv4. Repeatable. Default: embedding.",
            metavar="NAME",
        ),
    ] = None,
    pooling: Annotated[
        str,
        typer.Option(help="Reduction of a clip's windows to one vector: mean, max or mean+std.", metavar="NAME"),
    ] = "mean",
    classifier: Annotated[
        list[str] | None,
        typer.Option(
            help="logistic, svm, forest, knn, or all. Repeatable. Default: logistic.",
            metavar="NAME",
        ),
    ] = None,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare",
            help="Add baselines: librosa's log-mel, MFCC and constant-Q spectra (mean and deviation over time), and "
            "VGGish with random weights.",
        ),
    ] = False,
    folds: Annotated[
        int | None,
        typer.Option(help="Number of folds, if the data give none. Default: 5.", metavar="N"),
    ] = None,
    fold_from: FoldFrom = None,
    seed: Seed = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Fit the best row to all clips and save it in this folder, with the table and a confusion matrix.",
            metavar="FOLDER",
        ),
    ] = None,
    confusion: Annotated[
        Path | None,
        typer.Option(help="Draw the best row's confusion matrix (.png, .svg, .pdf).", metavar="FILE"),
    ] = None,
    skip_unreadable: SkipUnreadable = False,
    hop: Hop = 0.96,
    pad: Pad = "short",
    resampler: Resampler = "soxr",
    device: Device = "auto",
    workers: Annotated[
        int,
        typer.Option(help="Threads for decoding and for forests; changes speed only.", min=0, max=256),
    ] = 1,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the table as CSV.")] = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Cross-validate simple classifiers on features of labelled sounds, to find the best features.

    Example: vggish-pt probe sounds --weights synthetic --layer embedding --layer fused --compare --out my_probe
    """
    from vggish_pt.classify.probe.estimators import NAMES, check_classifier
    from vggish_pt.classify.probe.features import feature_grid
    from vggish_pt.inference.devices import check_device_name

    # Arguments are checked before torch is imported and before the first file is read.
    if as_json and as_csv:
        raise SettingsError("--json and --csv are two formats of the table; use one of them")
    check_device_name(device)
    names = list(NAMES) if classifier and "all" in classifier else classifier or ["logistic"]
    for name in names:
        check_classifier(name)
    settings = {"pooling": pooling, "hop": hop, "pad": pad, "resampler": resampler, "seed": seed}
    features = feature_grid(weights or ["audioset"], layer or ["embedding"], compare=compare, **settings)
    if out is not None and all(one.from_seed for one in features):
        raise SettingsError("a probe of random weights cannot be saved; leave --out out, or name other weights too")
    _check_outputs(out, confusion, overwrite=overwrite)
    if quiet:
        warnings.simplefilter("ignore")
    from vggish_pt.classify.data.labelled import read_labelled

    labelled = read_labelled(data, fold_from=fold_from)
    from vggish_pt.classify.probe import probe as run_probe
    from vggish_pt.classify.probe import table as probe_table
    from vggish_pt.inference.devices import choose_device

    with Display(enabled=not quiet) as display:
        if labelled.passed_over:
            display.note(f"{labelled.name}: {labelled.passed_over} files without an audio ending are left out")
        result = run_probe(
            labelled,
            features,
            names,
            folds=folds,
            seed=seed,
            device=str(choose_device(device)),
            workers=workers,
            skip_unreadable=skip_unreadable,
            keep=out is not None,
            watch=partial(_show, display),
        )
    if as_json:
        typer.echo(json.dumps(result.to_dict()))
    elif as_csv:
        typer.echo(probe_table.csv_text(result), nl=False)
    else:
        _print(result)
    if out is not None:
        row = probe_table.write_probe(result, out, overwrite=overwrite).row
        display.note(f"saved: {row.features.name}, {row.classifier}, fitted to all {len(result.data)} sounds: {out}")
    if confusion is not None:
        probe_table.write_confusion(result.best, confusion)
    if result.failures:
        typer.echo(f"vggish-pt: {len(result.failures)} files could not be read and were left out", err=True)
        raise typer.Exit(3)


def _check_outputs(out: Path | None, confusion: Path | None, *, overwrite: bool) -> None:
    from vggish_pt.utils.figures import check_figure
    from vggish_pt.utils.optional import require

    if out is not None:
        from vggish_pt.classify.probe.table import check_folder

        check_folder(out, overwrite=overwrite)
        require("skops", "saving a probe")
    if confusion is not None:
        check_figure(confusion, overwrite=overwrite)
    if out is not None or confusion is not None:
        require("matplotlib", "drawing a confusion matrix")


def _print(result: ProbeResult) -> None:
    from vggish_pt.classify.probe import table as probe_table

    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(caption=one_line(probe_table.summary(result)), caption_justify="left")
        for column, name in enumerate(probe_table.header(result)):
            table.add_column(name, justify="left" if column in (0, 2) else "right")
        for row in result.rows:
            texts = [Text(one_line(cell)) for cell in probe_table.cells(result, row)]
            table.add_row(*texts, style="bold" if row is result.best else "")
        Console().print(table)
    else:
        typer.echo("\n".join(map(one_line, [*probe_table.plain(result), probe_table.summary(result)])))


def _show(display: Display, event: ProbeProgress) -> None:
    if event.kind == "unreadable":
        display.error(event.text)
    elif event.kind == "features":
        display.update(event.name, event.done, event.total)
    elif event.row is not None:
        row = event.row
        display.note(f"{row.features.name}, {row.classifier}: {row.headline.replace('_', ' ')} {row.mean():.3f}")
