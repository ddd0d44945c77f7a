"""FAD between two sets given by name: audio, embeddings that ``vggish-pt embed`` wrote, or saved statistics."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vggish_pt.errors import AudioError, SettingsError
from vggish_pt.fad.distance import (
    Extrapolated,
    Interval,
    bootstrap,
    check_bootstrap,
    extrapolate,
    frechet_distance,
    per_file,
    too_small,
)
from vggish_pt.fad.samples import Sample, is_dumped, read_sample
from vggish_pt.fad.statistics import Statistics, check_name, check_same
from vggish_pt.inference.devices import check_device_name
from vggish_pt.inference.settings import EmbedSettings
from vggish_pt.utils.atomic import check_file, whole_file

if TYPE_CHECKING:
    from vggish_pt.dataset import Clips, Failure, Watcher
    from vggish_pt.model import VGGish


class FileScore(NamedTuple):
    """FAD of one file of the evaluation set.

    Attributes:
        path: the file.
        windows: number of its windows.
        fad: its distance from the reference; None for a file of one window.
    """

    path: str
    windows: int
    fad: float | None


@dataclass(frozen=True)
class Comparison:
    """Result of :func:`compare_sets`.

    Attributes:
        reference: the reference, with its ``name`` and its ``statistics``.
        evaluation: the evaluation set; None if only the reference was given.
        failures: inputs that failed and are left out.
        fad: the distance; None without an evaluation set.
        infinite: FAD extrapolated to infinitely many evaluation windows, if asked for.
        interval: bootstrap interval of FAD, if asked for.
        scores: FAD of each evaluation file, if asked for.
        seed: seed of the extrapolation and of the bootstrap.
    """

    reference: Sample
    evaluation: Sample | None
    failures: Sequence[Failure]
    fad: float | None = None
    infinite: Extrapolated | None = None
    interval: Interval | None = None
    scores: Sequence[FileScore] | None = None
    seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the result as ``vggish-pt fad --json`` prints it."""
        sets = {"reference": self.reference} | ({"evaluation": self.evaluation} if self.evaluation else {})
        report: dict[str, Any] = {} if self.fad is None else {"fad": self.fad}
        if self.infinite is not None:
            report["infinite"] = {**vars(self.infinite), "points": self.infinite.points.tolist(), "seed": self.seed}
        if self.interval is not None:
            report["bootstrap"] = {**asdict(self.interval), "seed": self.seed}
        if self.scores is not None:
            without = sum(score.fad is None for score in self.scores)
            report["per_file"] = {"files": len(self.scores), "without_score": without}
        for role, each in sets.items():
            report[role] = {"name": each.name, "windows": each.statistics.windows, "files": each.statistics.files}
        known = [each.statistics.metadata for each in sets.values() if each.statistics.metadata]
        return report | {
            "dimensions": self.reference.statistics.dimensions,
            "made_with": known[0] if known else None,
            "warnings": [f"{each.name}: {text}" for each in sets.values() if (text := too_small(each.statistics))],
            "failures": [{"path": each.path, "reason": each.reason, "type": each.type} for each in self.failures],
        }

    def write_scores(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the FAD of each file to a CSV file with the columns path, windows and fad.

        Raises:
            OutputError: the file exists already, or cannot be written.
        """
        with whole_file(Path(path), overwrite=overwrite) as file:
            text = io.TextIOWrapper(file, encoding="utf-8", newline="")
            csv.writer(text).writerows([FileScore._fields, *(self.scores or ())])
            text.detach()


def compare_sets(
    reference: str,
    evaluation: str | None = None,
    settings: EmbedSettings | None = None,
    *,
    weights: str = "audioset",
    device: str = "auto",
    workers: int = 1,
    infinite: bool = False,
    bootstrap_samples: int | None = None,
    scores: bool = False,
    seed: int = 0,
    save_statistics: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    watcher: Watcher | None = None,
) -> Comparison:
    """Compute the FAD between two sets, as ``vggish-pt fad`` does.

    A set is given by name: an audio file, a folder, a pattern or any other input of ``vggish-pt embed``; embeddings
    (``.parquet``, ``.npz``, ``.npy``, a folder of Parquet parts); or saved statistics (``.npz``).

    >>> compare_sets("real", "generated").fad        # doctest: +SKIP

    Args:
        reference: the set to compare with.
        evaluation: the set to judge; None to read the reference only.
        settings: settings to embed audio with; None for the defaults.
        weights: weights to embed audio with.
        device: device to embed audio on.
        workers: number of threads that decode audio ahead.
        infinite: True also extrapolates to infinitely many evaluation windows; see :func:`extrapolate`.
        bootstrap_samples: number of samples of a bootstrap interval; None for no interval. See :func:`bootstrap`.
        scores: True also computes the FAD of each evaluation file; see :func:`per_file`.
        seed: random seed of the extrapolation and of the bootstrap.
        save_statistics: ``.npz`` file for the statistics of the reference, written before distances are computed.
        overwrite: True replaces that file.
        watcher: receives progress and failures.

    Raises:
        SettingsError: settings that are not valid or do not fit the sets, or sets of other weights or settings.
        AudioError: a set that cannot be read, or in which every input failed.
        OutputError: ``save_statistics`` exists already or cannot be written.

    Warns:
        AudioWarning: a set of fewer windows than a covariance needs to have full rank.
    """
    wanted = {"infinite": infinite, "bootstrap": bootstrap_samples is not None, "per-file": scores}
    needs = next((name for name, given in wanted.items() if given), None)
    if needs and evaluation is None:
        raise SettingsError(f"{needs} needs an evaluation set, and none is given")
    if bootstrap_samples is not None:
        check_bootstrap(bootstrap_samples)
    if save_statistics is not None:
        check_name(Path(save_statistics))
        check_file(Path(save_statistics), overwrite=overwrite)
    check_device_name(device)
    embedder = _Embedder(settings or EmbedSettings(), weights, device, workers)
    from vggish_pt.dataset.job import SilentWatcher

    first, second, failures = _read_sets(
        reference, evaluation, embedder, needs=needs, watcher=watcher or SilentWatcher()
    )
    if save_statistics is not None:
        first.statistics.save(save_statistics, overwrite=overwrite)
    if second is None:
        return Comparison(first, None, failures)
    return Comparison(
        first,
        second,
        failures,
        frechet_distance(first.statistics, second.statistics, _labels(first, second)),
        extrapolate(first.statistics, second.values, seed=seed) if infinite else None,
        bootstrap(first.statistics, second.values, bootstrap_samples, seed=seed) if bootstrap_samples else None,
        _scores(first, second) if scores else None,
        seed,
    )


def _labels(first: Sample, second: Sample) -> tuple[str, str]:
    return f"reference {first.name}", f"evaluation {second.name}"


def _scores(first: Sample, second: Sample) -> list[FileScore]:
    if not second.statistics.files:
        raise SettingsError(f"{second.name}: per-file needs the names of the files, which these embeddings lack")
    values = second.values
    fads = per_file(first.statistics, values)
    return [FileScore(*score) for score in zip(second.paths, map(len, values), fads, strict=True)]


def _read_sets(
    reference: str, evaluation: str | None, embedder: _Embedder, *, needs: str | None, watcher: Watcher
) -> tuple[Sample, Sample | None, list[Failure]]:
    """Read or embed both sets. Everything that can be checked is checked before the first clip is embedded."""
    from vggish_pt.dataset.inputs import find_clips

    names = [reference] if evaluation is None else [reference, evaluation]
    found = [None if is_dumped(name) else find_clips([name]) for name in names]
    for clips in found:
        if clips is not None and not len(clips):
            raise clips.failures[0][1]
    samples: list[Sample] = []
    for name, clips in zip(names, found, strict=True):
        keep = needs is not None and len(samples) == 1
        samples.append(read_sample(name, keep=keep) if clips is None else embedder.empty_sample(name, keep=keep))
    second = samples[1] if len(samples) == 2 else None
    if second is not None:
        check_same(samples[0].statistics, second.statistics, _labels(samples[0], second))
        if needs is not None and not second.keep:
            raise SettingsError(
                f"{second.name}: {needs} needs embeddings, not statistics; give the embeddings or the audio"
            )
    todo = [(sample, clips) for sample, clips in zip(samples, found, strict=True) if clips is not None]
    return samples[0], second, embedder.fill(todo, watcher)


class _Embedder:
    """Embeds clips; the model is loaded on first use."""

    def __init__(self, settings: EmbedSettings, weights: str, device: str, workers: int) -> None:
        self._settings, self._weights, self._device, self._workers = settings, weights, device, workers
        self._loaded: tuple[VGGish, dict[str, Any]] | None = None

    def _load(self) -> tuple[VGGish, dict[str, Any]]:
        """Return the model, and the metadata of its embeddings."""
        from vggish_pt.dataset.schema import output_schema
        from vggish_pt.inference.devices import choose_device
        from vggish_pt.model import VGGish
        from vggish_pt.pretrained import registry

        if self._loaded is None:
            folder = registry.resolve(self._weights)
            model = VGGish.from_pretrained(folder, device=choose_device(self._device))
            self._loaded = model, output_schema(model, self._settings, folder=folder).metadata
        return self._loaded

    def empty_sample(self, name: str, *, keep: bool) -> Sample:
        """Return a sample for embeddings of this model."""
        return Sample(name, Statistics(self._load()[1]), keep)

    def fill(self, todo: Sequence[tuple[Sample, Clips]], watcher: Watcher) -> list[Failure]:
        """Embed clips into samples, and return the failures.

        Raises:
            AudioError: a single clip, or every clip of a sample, failed.
        """
        from vggish_pt.dataset.outcomes import failure
        from vggish_pt.dataset.outputs.record import Counts

        failures: list[Failure] = []
        watcher.begin(sum(len(clips) for _, clips in todo), Counts())
        for sample, clips in todo:
            for note in clips.notes:
                watcher.note(note)
            for name, error in clips.failures:
                failures.append(failure(name, error))
                watcher.fail(failures[-1])
            failures += self._embed(sample, clips, watcher)
            if not sample.statistics.windows:
                raise AudioError(f"{sample.name}: none of its {len(clips)} files could be embedded", sample.name)
        return failures

    def _embed(self, sample: Sample, clips: Clips, watcher: Watcher) -> list[Failure]:
        from vggish_pt.dataset.engines.local import local_outcomes
        from vggish_pt.dataset.schema import Failure

        failures: list[Failure] = []
        for outcome in local_outcomes(self._load()[0], clips, self._settings, workers=self._workers):
            if not isinstance(outcome, Failure):
                sample.add([outcome.rows.path] * len(outcome.rows), outcome.rows.embedding)
            elif len(clips) == 1:
                raise AudioError(f"{outcome.path}: {outcome.reason}", outcome.path)
            else:
                failures.append(outcome)
            watcher.watch(outcome)
        return failures
