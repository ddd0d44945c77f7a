"""``vggish-pt predict``: predictions for files, windows or events."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import typer

from vggish_pt.cli.options import (
    AllowTruncated,
    BatchSize,
    Device,
    Inputs,
    Overwrite,
    Quiet,
    Run,
    Threads,
    TrainedHop,
    TrainedPad,
)
from vggish_pt.errors import SettingsError


def predict(
    run: Run,
    inputs: Inputs,
    out: Annotated[Path, typer.Option(help="Output: a .csv or .json file.", metavar="PATH")],
    windows: Annotated[
        bool, typer.Option("--windows", help="Write the scores of each window instead of each file.")
    ] = False,
    events: Annotated[
        bool,
        typer.Option("--events", help="Write events with onset and offset, merged from windows, instead of scores."),
    ] = False,
    top: Annotated[
        int | None,
        typer.Option(
            help="Number of labels for each file or window, highest score first; 0 for all. Default: 3.",
            metavar="N",
            min=0,
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Score that an event must reach. Default: 0.5 if a clip may have several labels; otherwise the label "
            "with the highest score wins at any time.",
            metavar="SCORE",
        ),
    ] = None,
    low: Annotated[
        float | None,
        typer.Option(help="Score above which an event continues. Default: --threshold.", metavar="SCORE"),
    ] = None,
    min_duration: Annotated[
        float | None,
        typer.Option(help="Minimum duration; shorter events are left out.", metavar="SECONDS", show_default=False),
    ] = None,
    max_gap: Annotated[
        float | None,
        typer.Option(help="Join events of a label with gaps up to this long.", metavar="SECONDS", show_default=False),
    ] = None,
    median: Annotated[
        int | None,
        typer.Option(help="Smooth scores by a median over N windows; N is odd.", metavar="N", show_default=False),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Draw each file's spectrogram, scores and events into this folder.",
            metavar="FOLDER",
        ),
    ] = None,
    hop: TrainedHop = None,
    pad: TrainedPad = None,
    device: Device = "auto",
    batch_size: BatchSize = None,
    workers: Threads = 1,
    allow_truncated: AllowTruncated = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Predict classes: a row for each file and label, for each window and label, or for each event.

    PATH.errors.csv lists inputs that fail, with their reasons.

    Example: vggish-pt predict my_run recordings --out predictions.csv
    """
    if windows and events:
        raise SettingsError("--windows and --events are two views; choose one of them")
    if events and top is not None:
        raise SettingsError("--top is for scores of files and windows; events have one label each")
    rules = {"threshold": threshold, "low": low, "min_duration": min_duration, "max_gap": max_gap, "median": median}
    rules = {name: value for name, value in rules.items() if value is not None}
    if rules and not events and plot is None:
        raise SettingsError(f"--{next(iter(rules)).replace('_', '-')} is a rule for events; add --events")
    if quiet:
        warnings.simplefilter("ignore")

    from vggish_pt.classify.evaluation.events import EventSettings
    from vggish_pt.classify.evaluation.predict_file import predict_to_file
    from vggish_pt.classify.evaluation.tables import DEFAULT_TOP
    from vggish_pt.cli.progress import Progress

    settings = {"hop": hop, "pad": pad, "batch_size": batch_size, "allow_truncated": allow_truncated}
    with Progress(enabled=not quiet) as progress:
        result = predict_to_file(
            run,
            inputs,
            out,
            view="windows" if windows else "events" if events else "files",
            top=DEFAULT_TOP if top is None else top,
            events=EventSettings(**rules),  # type: ignore[arg-type]
            figures=plot,
            device=device,
            workers=workers,
            overwrite=overwrite,
            watcher=progress,
            **{name: value for name, value in settings.items() if value is not None},
        )
        progress.finish(f"{result.files} files → {out}" if result.files else "no output")
    if result.failures:
        typer.echo(f"vggish-pt: {len(result.failures)} failed; {out}.errors.csv names each with its reason", err=True)
        raise typer.Exit(3 if result.files else 1)
