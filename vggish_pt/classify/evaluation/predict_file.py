"""Predictions for a data set, written to a file."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from vggish_pt.classify.evaluation.events import EventSettings
from vggish_pt.classify.evaluation.figure_folder import FigureFolder
from vggish_pt.classify.evaluation.predict import Classifier, load_classifier, predict_clips, prediction_events
from vggish_pt.classify.evaluation.tables import DEFAULT_TOP, Table, TableSettings, View, check_ending, open_table
from vggish_pt.errors import AudioError, VGGishError
from vggish_pt.inference.devices import check_device_name
from vggish_pt.inference.settings import EmbedSettings
from vggish_pt.utils.atomic import check_file
from vggish_pt.utils.optional import require
from vggish_pt.utils.text import path_text

if TYPE_CHECKING:
    from vggish_pt.audio.clip import Clip
    from vggish_pt.classify.prediction import Prediction
    from vggish_pt.dataset.outputs.record import Counts
    from vggish_pt.dataset.schema import Failure


class PredictWatcher(Protocol):
    """Receiver of the progress of :func:`predict_to_file`."""

    def begin(self, total: int, before: Counts) -> None:
        """Receive the number of inputs. ``before`` counts nothing, as predictions do not resume."""

    def note(self, line: str) -> None:
        """Receive a remark for the user."""

    def fail(self, failure: Failure) -> None:
        """Receive a name that leads to no input."""

    def watch(self, outcome: Prediction | Failure) -> None:
        """Receive the outcome of an input."""


@dataclass(frozen=True)
class FilePredictions:
    """Summary of :func:`predict_to_file`.

    Attributes:
        files: number of inputs in the file; 0 if no file was written.
        failures: inputs that failed, with their reasons.
    """

    files: int
    failures: tuple[Failure, ...]


def predict_to_file(
    run: str | os.PathLike[str],
    inputs: Sequence[str],
    out: str | os.PathLike[str],
    *,
    view: View = "files",
    top: int = DEFAULT_TOP,
    events: EventSettings | None = None,
    figures: str | os.PathLike[str] | None = None,
    device: str = "auto",
    workers: int = 1,
    overwrite: bool = False,
    watcher: PredictWatcher | None = None,
    **settings: Any,
) -> FilePredictions:
    """Predict the classes of audio files and write them to a CSV or JSON file.

    Inputs that fail are listed with their reasons in ``OUT.errors.csv``. If all inputs fail, ``out`` is not written.

    Args:
        run: a classifier, as :func:`~vggish_pt.classify.evaluation.predict.load_classifier` takes it.
        inputs: files, folders, patterns, manifests and other inputs of :func:`vggish_pt.dataset.find_clips`.
        out: the file, which ends in .csv or .json. It is written whole or not at all.
        view: content of a row: "files" (scores of a file), "windows" (scores of a window) or "events".
        top: number of labels with the highest scores for each file or window; 0 for all.
        events: rules that turn windows into events; None for the defaults.
        figures: folder for a figure of each input, with its spectrogram, scores and events; None for no figures.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        workers: threads that decode ahead; 0 for none.
        overwrite: True replaces ``out`` and the figures.
        watcher: receives the progress.
        settings: ``hop``, ``pad``, ``resampler``, ``batch_size`` and ``allow_truncated``, as in
            :meth:`~vggish_pt.classify.VGGishClassifier.predict`.

    Raises:
        SettingsError: an invalid setting or device, or another ending of ``out``.
        OutputError: ``out`` exists already, or cannot be written.
        WeightsError: the classifier does not exist, or is damaged.
        MissingDependencyError: matplotlib is not installed, and ``figures`` is given.
    """
    from vggish_pt.classify import hub
    from vggish_pt.dataset import outcomes, outputs
    from vggish_pt.dataset.inputs import find_clips
    from vggish_pt.dataset.job import SilentWatcher
    from vggish_pt.dataset.outputs.record import Counts
    from vggish_pt.inference.devices import choose_device

    out, watcher, events = Path(out), watcher or SilentWatcher(), events or EventSettings()
    _check_request(out, overwrite, device, settings)
    table_settings = TableSettings((), view=view, top=top, events=events, facts={"classifier": os.fspath(run)})
    run_folder = hub.resolve(run)
    clips = find_clips(list(inputs))
    failures = [outcomes.failure(name, error) for name, error in clips.failures]
    for failure in failures:
        watcher.fail(failure)
    for note in clips.notes:
        watcher.note(note)
    files = 0
    if len(clips):
        classifier = load_classifier(run_folder, device=choose_device(device))
        figure_folder = None if figures is None else _figure_folder(Path(figures), overwrite)
        draw = _Timelines(figure_folder, classifier, events, settings.get("allow_truncated", False))
        table_settings = replace(
            table_settings, labels=classifier.labels, multilabel=classifier.multilabel, segments=clips.segments
        )
        watcher.begin(len(clips), Counts())
        results = predict_clips(classifier, clips, workers=workers, **settings)
        with (
            contextlib.suppress(_NothingPredictedError),
            contextlib.closing(results),
            open_table(out, table_settings, overwrite=overwrite) as table,
        ):
            files = _fill(table, results, draw, failures, watcher)
    outputs.write_errors(out, failures)
    return FilePredictions(files, tuple(failures))


class _NothingPredictedError(Exception):
    """Every input failed; the table is discarded."""


def _fill(
    table: Table,
    results: Iterable[tuple[Clip, Prediction | VGGishError]],
    draw: _Timelines,
    failures: list[Failure],
    watcher: PredictWatcher,
) -> int:
    """Write results into a table and count the predictions; failures are appended to ``failures``."""
    from vggish_pt.dataset import outcomes

    files = 0
    for clip, result in results:
        if isinstance(result, VGGishError):
            failures.append(outcomes.failure(clip.path, result, clip))
            watcher.watch(failures[-1])
            continue
        table.add(clip, result)
        draw(clip, result)
        watcher.watch(result)
        files += 1
    if not files:
        raise _NothingPredictedError
    return files


def _check_request(out: Path, overwrite: bool, device: str, settings: dict[str, Any]) -> None:
    check_ending(out)
    check_file(out, overwrite=overwrite)
    check_device_name(device)
    EmbedSettings(**settings)


def _figure_folder(folder: Path, overwrite: bool) -> FigureFolder:
    require("matplotlib", "plotting")
    return FigureFolder(folder, overwrite=overwrite)


@dataclass(frozen=True)
class _Timelines:
    """Drawing of a figure of each input into a folder; without a folder, nothing is drawn."""

    folder: FigureFolder | None
    classifier: Classifier
    events: EventSettings
    allow_truncated: bool

    def __call__(self, clip: Clip, prediction: Prediction) -> None:
        if self.folder is None:
            return
        from vggish_pt.classify.evaluation.figures import timeline
        from vggish_pt.classify.evaluation.spectrogram import spectrogram
        from vggish_pt.utils.figures import save

        name = path_text(clip.path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # reading the file for the prediction gave the same warnings
            try:
                background = spectrogram(
                    self.classifier.backbone.frontend,
                    clip.path if clip.source is None else clip.source,
                    start=clip.start,
                    end=clip.end,
                    allow_truncated=self.allow_truncated,
                )
            except AudioError:  # a source that can be read only once, such as a pipe, or a file that was removed
                background = None
            events = prediction_events(prediction, multilabel=self.classifier.multilabel, settings=self.events)
            figure = timeline(prediction, events, spectrogram=background, title=Path(name).name)
            save(figure, self.folder.path(name))
