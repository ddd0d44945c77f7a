"""Embed a whole dataset: find the inputs, load the model, run an engine, write its outcomes to an output.

``vggish-pt embed`` calls :func:`run`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, get_args

from vggish_pt.dataset import outputs
from vggish_pt.dataset.engines.local import local_outcomes
from vggish_pt.dataset.outcomes import Outcome
from vggish_pt.dataset.outcomes import failure as make_failure
from vggish_pt.dataset.outputs.folder import DEFAULT_CHECKPOINT
from vggish_pt.dataset.outputs.plan import Pending
from vggish_pt.dataset.outputs.record import Counts, named_inputs
from vggish_pt.dataset.schema import Failure, RowPooling, Schema, check_row_pooling, output_schema
from vggish_pt.dataset.writing import write_file, write_folder
from vggish_pt.errors import SettingsError
from vggish_pt.inference.devices import check_device_name
from vggish_pt.inference.settings import EmbedSettings, check_precision

if TYPE_CHECKING:
    from vggish_pt.dataset.inputs import Clips
    from vggish_pt.model import VGGish

Engine = Literal["local", "ray"]

_MAX_REPEATED_FAILURES = 100  # failures of earlier runs that are reported again


@dataclass(frozen=True)
class EmbedJob:
    """Inputs, output and settings of a run.

    Attributes:
        named: files, folders, patterns and so on, as :func:`vggish_pt.dataset.find_clips` takes them.
        out: a file, a folder, or the address of a folder.
        settings: settings that decide the numbers.
        weights: name, folder or Hub repository.
        fmt: the output's format; None takes it from the ending of ``out``.
        pool: "none" for a row per window, "mean" for a row per input.
        precision: "fp32", "tf32" (on CUDA devices) or "bf16".
        engine: "local" for this machine, "ray" for a Ray cluster.
        device: device to compute on; several with commas, see :func:`vggish_pt.inference.choose_devices`.
        workers: number of threads or processes that decode ahead.
        actors: number of processes that hold the model, with "ray"; None chooses.
        checkpoint: seconds between two writes to a folder.
        overwrite: True replaces an existing output.
        retry_errors: True embeds again the inputs that failed in earlier runs.

    Raises:
        SettingsError: a value is not allowed.
    """

    named: list[str]
    out: str
    settings: EmbedSettings
    weights: str = "audioset"
    fmt: str | None = None
    pool: RowPooling = "none"
    precision: str = "fp32"
    engine: Engine = "local"
    device: str = "auto"
    workers: int = 1
    actors: int | None = None
    checkpoint: float = DEFAULT_CHECKPOINT
    overwrite: bool = False
    retry_errors: bool = False

    def __post_init__(self) -> None:
        check_row_pooling(self.pool)
        check_precision(self.precision)
        if self.engine not in get_args(Engine):
            raise SettingsError(f"engine must be local or ray, not {self.engine!r}")
        if self.actors is not None and self.engine != "ray":
            raise SettingsError("actors are for the engine ray")
        check_device_name(self.device, many=True)
        if not self.checkpoint > 0:
            raise SettingsError(f"checkpoint must be more than 0 seconds, not {self.checkpoint!r}")
        if self.retry_errors and self.format is not None:
            raise SettingsError(
                "retry_errors is for folders; a single file is written again from all inputs (--overwrite)"
            )
        if self.format == "tfrecord" and (self.settings.postprocess != "uint8" or self.pool != "none"):
            raise SettingsError(
                "TFRecord files hold 8-bit values for each window, as AudioSet's do: add --postprocess uint8, without "
                "--pool mean"
            )

    @property
    def format(self) -> outputs.Format | None:
        """The output's format; None for a folder."""
        return outputs.choose_format(self.out, self.fmt)


@dataclass(frozen=True)
class Result:
    """Contents of the output after a run, including those of earlier runs.

    Attributes:
        files: number of inputs that were embedded.
        windows: number of their windows.
        errors: number of inputs that failed.
        errors_path: file that lists the failures.
        nothing_to_do: True if earlier runs had embedded everything.
    """

    files: int
    windows: int
    errors: int
    errors_path: str
    nothing_to_do: bool = False


class Watcher(Protocol):
    """Receiver of a run's progress."""

    def begin(self, total: int, before: Counts) -> None:
        """Receive the number of inputs, and the counts of earlier runs."""

    def note(self, line: str) -> None:
        """Receive a line of information."""

    def fail(self, failure: Failure) -> None:
        """Receive an input that failed, in this run or an earlier one."""

    def watch(self, outcome: Outcome) -> None:
        """Receive the outcome of an input."""


class SilentWatcher:
    """A watcher that shows nothing."""

    def begin(self, total: int, before: Counts) -> None:
        """Ignore the number of inputs."""

    def note(self, line: str) -> None:
        """Ignore a line of information."""

    def fail(self, failure: Failure) -> None:
        """Ignore an input that failed."""

    def watch(self, outcome: object) -> None:
        """Ignore the outcome of an input."""


def run(job: EmbedJob, watcher: Watcher) -> Result:
    """Embed a dataset.

    Args:
        job: inputs, output and settings.
        watcher: receives the progress.

    Returns:
        The counts of the output.

    Raises:
        VGGishError: the run as a whole cannot continue. A single input that fails raises nothing.
    """
    from vggish_pt.dataset.inputs import find_clips

    # Find every wrong argument before torch is imported and the first file is read.
    outputs.check_output(job.out, job.format, overwrite=job.overwrite)
    items = find_clips(job.named)
    failures = _failures(items)
    for failure in failures:
        watcher.fail(failure)
    for note in items.notes:
        watcher.note(note)
    errors_path = outputs.errors_path(job.out, job.format)
    if not len(items):
        _write_failures(job, failures)
        return Result(0, 0, len(failures), errors_path)
    if job.format == "tfrecord":
        from vggish_pt.dataset.outputs.tfrecord import check_clips

        check_clips(items)
    loaded = _load(job, items)
    if job.format is None:
        return _embed_to_folder(job, loaded, items, watcher)
    watcher.begin(len(items), Counts())
    outcomes = _outcomes(job, loaded, items, ordered=True)
    with outputs.open_output(Path(job.out), job.format, loaded.schema, overwrite=job.overwrite) as output:
        summary = write_file(outcomes, output, failures, watcher.watch)
    return Result(summary.files, summary.windows, len(summary.failures), errors_path)


def _failures(items: Clips) -> list[Failure]:
    """Return a failure for each name that matches no input."""
    return [make_failure(name, error) for name, error in items.failures]


def _write_failures(job: EmbedJob, failures: list[Failure]) -> None:
    """Write the list of failures of a run without any input. A folder that has contents is left unchanged."""
    if job.format is not None:
        outputs.write_errors(Path(job.out), failures)
    else:
        outputs.write_folder_errors(outputs.open_store(job.out), failures)


class _Loaded(NamedTuple):
    """A model and the schema of its output: the model folder, replicas on the devices, schema."""

    folder: Path
    models: list[VGGish]
    schema: Schema


def _load(job: EmbedJob, items: Clips) -> _Loaded:
    from vggish_pt.inference.devices import choose_devices, replicas, set_precision
    from vggish_pt.model import VGGish
    from vggish_pt.pretrained import registry

    folder = registry.resolve(job.weights)
    if job.engine == "ray":  # the actors compute; here the model only gives the schema
        models = [VGGish.from_pretrained(folder)]
    else:
        devices = choose_devices(job.device)
        model = VGGish.from_pretrained(folder, device=devices[0])
        models = replicas(set_precision(model, job.precision), devices)
    schema = output_schema(
        models[0],
        job.settings,
        pool=job.pool,
        precision=job.precision,
        folder=folder,
        columns=items.columns,
        segments=items.segments,
    )
    return _Loaded(folder, models, schema)


def _embed_to_folder(job: EmbedJob, loaded: _Loaded, items: Clips, watcher: Watcher) -> Result:
    options = {
        "engine": job.engine,
        "device": job.device if job.engine == "ray" else ",".join(str(model.device) for model in loaded.models),
        "workers": job.workers,
        "batch_size": job.settings.batch_size,
    }
    session = outputs.Session(named_inputs(job.named), options)
    store = outputs.open_store(job.out)
    with outputs.open_run(store, loaded.schema, session, overwrite=job.overwrite, checkpoint=job.checkpoint) as folder:
        pending = folder.plan(
            items,
            _failures(items),
            duplicates=items.duplicates,
            skipped=items.skipped,
            retry_errors=job.retry_errors,
        )
        counts, earlier = folder.record.counts, folder.earlier_failures
        for note in folder.notes:
            watcher.note(note)
        for failure in earlier[:_MAX_REPEATED_FAILURES]:
            watcher.fail(failure)
        if earlier:
            hidden = len(earlier) - _MAX_REPEATED_FAILURES
            more = f" ({hidden} more than shown here)" if hidden > 0 else ""
            watcher.note(f"{len(earlier)} failed in earlier runs{more}; --retry-errors embeds them again")
        watcher.begin(counts.files + len(earlier) + len(pending), replace(counts, errors=len(earlier)))
        if len(pending):
            write_folder(_outcomes(job, loaded, pending, ordered=False), folder, watcher.watch)
        else:
            folder.finish()
        where = outputs.errors_path(job.out, None)
        return Result(counts.files, counts.windows, counts.errors, where, nothing_to_do=not len(pending))


def _outcomes(job: EmbedJob, loaded: _Loaded, items: Clips | Pending, *, ordered: bool) -> Iterator[Outcome]:
    """Run the engine."""
    if job.engine == "ray":
        from vggish_pt.dataset.engines.ray_engine import outcomes_on_ray

        return outcomes_on_ray(
            loaded.folder,
            items,
            job.settings,
            pool=job.pool,
            precision=job.precision,
            device=job.device,
            actors=job.actors,
            workers=job.workers,
        )
    return local_outcomes(
        loaded.models, items, job.settings, pool=job.pool, workers=job.workers, processes=None, ordered=ordered
    )
