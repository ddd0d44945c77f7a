"""``vggish-pt predict``: what a classifier hears in files, in windows, or as events."""

from __future__ import annotations

import warnings
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
from vggish_pt.errors import AudioError, SettingsError, VGGishError

if TYPE_CHECKING:
    from vggish_pt.audio.clip import Clip
    from vggish_pt.classify.evaluation.events import EventSettings
    from vggish_pt.classify.evaluation.figure_folder import PictureFolder
    from vggish_pt.classify.evaluation.predict import Classifier
    from vggish_pt.classify.model import Prediction


def predict(
    run: Run,
    inputs: Inputs,
    out: Annotated[Path, typer.Option(help="What to write: a .csv or .json file.", metavar="PATH")],
    windows: Annotated[bool, typer.Option("--windows", help="Scores of each window, not of each file.")] = False,
    events: Annotated[
        bool, typer.Option("--events", help="Events with onset and offset, merged from windows, not scores of files.")
    ] = False,
    top: Annotated[
        int | None,
        typer.Option(
            help="How many labels to name for each file or window, highest score first; 0 for all. Left out: 3.",
            metavar="N",
            min=0,
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Score that an event reaches. Left out: 0.5 if a clip may have several labels; else none, so that "
            "at any moment the best label counts.",
            metavar="SCORE",
        ),
    ] = None,
    low: Annotated[
        float | None,
        typer.Option(help="Score above which an event goes on. Left out: as --threshold.", metavar="SCORE"),
    ] = None,
    min_duration: Annotated[
        float | None, typer.Option(help="Leave out shorter events.", metavar="SECONDS", show_default=False)
    ] = None,
    max_gap: Annotated[
        float | None,
        typer.Option(help="Join events of a label that are this close.", metavar="SECONDS", show_default=False),
    ] = None,
    median: Annotated[
        int | None,
        typer.Option(
            help="Smooth scores by the median over so many windows, an odd number.", metavar="N", show_default=False
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Also draw each file's spectrogram with scores and events below it, into this folder.",
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
    """Say what a classifier hears: a row for each file and label, for each window, or for each event.

    Inputs that fail are named with their reasons in PATH.errors.csv.

    Example: vggish-pt predict my_run recordings --out predictions.csv
    """
    from vggish_pt.classify.evaluation.events import EventSettings
    from vggish_pt.classify.evaluation.tables import DEFAULT_TOP, TableSettings, View, check_ending, open_table
    from vggish_pt.inference.devices import check_device_name
    from vggish_pt.utils.atomic import check_file

    if windows and events:
        raise SettingsError("--windows and --events are two views; choose one of them")
    if events and top is not None:
        raise SettingsError("--top is for scores of files and windows; events have one label each")
    how = {"threshold": threshold, "low": low, "min_duration": min_duration, "max_gap": max_gap, "median": median}
    how = {name: value for name, value in how.items() if value is not None}
    if how and not events and plot is None:
        option = next(iter(how)).replace("_", "-")
        raise SettingsError(f"--{option} says what an event is; add --events")
    event_settings = EventSettings(**how)  # type: ignore[arg-type]
    view: View = "windows" if windows else "events" if events else "files"
    check_ending(out)
    check_file(out, overwrite=overwrite)
    check_device_name(device)
    settings = _settings(hop=hop, pad=pad, batch_size=batch_size, allow_truncated=allow_truncated)
    if quiet:
        warnings.simplefilter("ignore")

    from vggish_pt.classify import hub
    from vggish_pt.cli.progress import Progress
    from vggish_pt.dataset import outcomes as dump
    from vggish_pt.dataset import outputs as output
    from vggish_pt.dataset.inputs import find_clips
    from vggish_pt.dataset.outputs.record import Counts

    folder = hub.resolve(run)
    items = find_clips(inputs)
    failures = [dump.failure(name, error) for name, error in items.failures]
    done = 0
    with Progress(enabled=not quiet) as progress:
        for failure in failures:
            progress.fail(failure)
        for note in items.notes:
            progress.note(note)
        if len(items):
            classifier, pictures = _load(folder, device), _pictures(plot, overwrite)
            table_settings = TableSettings(
                classifier.labels,
                classifier.multilabel,
                view,
                DEFAULT_TOP if top is None else top,
                event_settings,
                items.segments,
                {"classifier": run},
            )
            progress.begin(len(items), Counts())
            try:
                with open_table(out, table_settings, overwrite=overwrite) as table:
                    for item, result in _predictions(classifier, items, workers, settings):
                        if isinstance(result, VGGishError):
                            failures.append(dump.failure(item.path, result, item))
                            progress.watch(failures[-1])
                            continue
                        table.add(item, result)
                        if pictures is not None:
                            _draw(pictures, classifier, item, result, event_settings, allow_truncated)
                        progress.advance(result.duration)
                        done += 1
                    if not done:
                        raise _NothingDone
            except _NothingDone:
                pass
        progress.finish(f"{done} files → {out}" if done else "no output")
    output.write_errors(out, failures)
    if failures:
        typer.echo(f"vggish-pt: {len(failures)} failed; {out}.errors.csv names each with its reason", err=True)
        raise typer.Exit(3 if done else 1)


class _NothingDone(Exception):
    pass


def _settings(**given: Any) -> dict[str, Any]:
    """Those that were given, checked."""
    from vggish_pt.inference.settings import EmbedSettings

    chosen = {name: value for name, value in given.items() if value is not None}
    EmbedSettings(**chosen)
    return chosen


def _load(folder: Path, device: str) -> Classifier:
    from vggish_pt.classify.evaluation.predict import load_classifier
    from vggish_pt.inference.devices import choose_device

    return load_classifier(folder, device=choose_device(device))


def _predictions(classifier: Classifier, items: Any, workers: int, settings: dict[str, Any]) -> Any:
    from vggish_pt.classify.evaluation.predict import predict_clips

    with closing(predict_clips(classifier, items, workers=workers, **settings)) as results:
        yield from results


def _pictures(folder: Path | None, overwrite: bool) -> PictureFolder | None:
    if folder is None:
        return None
    from vggish_pt.classify.evaluation.figure_folder import PictureFolder
    from vggish_pt.utils.optional import require

    require("matplotlib", "plotting")
    return PictureFolder(folder, overwrite=overwrite)


def _draw(
    pictures: PictureFolder,
    classifier: Classifier,
    item: Clip,
    prediction: Prediction,
    event_settings: EventSettings,
    allow_truncated: bool,
) -> None:
    from vggish_pt.classify.evaluation.figures import timeline
    from vggish_pt.classify.evaluation.predict import prediction_events
    from vggish_pt.classify.evaluation.spectrogram import spectrogram
    from vggish_pt.utils.figures import save
    from vggish_pt.utils.text import path_text

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it warns of has been said once
        try:
            background = spectrogram(
                classifier.backbone.frontend,
                item.audio_source,
                start=item.start,
                end=item.end,
                allow_truncated=allow_truncated,
            )
        except AudioError:  # it could be read once: a pipe, or a file that has gone since
            background = None
        found = prediction_events(prediction, multilabel=classifier.multilabel, settings=event_settings)
        title = Path(path_text(item.path)).name
        save(timeline(prediction, found, spectrogram=background, title=title), pictures.path(path_text(item.path)))
