"""A whole data set to an output: what ``vggish-pt embed`` does, and how it tells of it.

Inputs are found, the model is loaded, an engine embeds, an output takes what comes of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, get_args

from vggish_pt.dataset import outcomes as dump
from vggish_pt.dataset import outputs as output
from vggish_pt.dataset import writing
from vggish_pt.dataset.outcomes import Outcome, Pool
from vggish_pt.dataset.outputs.folder import DEFAULT_CHECKPOINT, Pending
from vggish_pt.dataset.outputs.record import Counts, named_inputs
from vggish_pt.dataset.schema import Failure, Schema
from vggish_pt.errors import SettingsError
from vggish_pt.inference.devices import check_device_name
from vggish_pt.inference.settings import EmbedSettings, check_precision

if TYPE_CHECKING:
    from vggish_pt.dataset.inputs import Clips
    from vggish_pt.model import VGGish

Engine = Literal["local", "ray"]

# Of what failed in runs before, so many are named again.
_SHOWN = 100


@dataclass(frozen=True)
class EmbedJob:
    """What is to be done.

    Attributes:
        named: files, folders, patterns and so on, as :func:`vggish_pt.dataset.inputs.find_clips` takes them.
        out: file, folder, or address of a folder.
        settings: what decides the numbers.
        weights: name, folder or Hub repository.
        fmt: the output's format; None: by the ending of ``out``.
        pool: whether a row is a window or a whole input.
        precision: "fp32", "tf32" (on CUDA devices) or "bf16".
        engine: "local" for this machine, "ray" for a Ray cluster.
        device: to compute on; several with commas between them, see :func:`vggish_pt.inference.devices.choose_devices`.
        workers: that decode ahead.
        actors: with "ray", how many processes hold the model; None chooses.
        checkpoint: seconds after which a folder gets what has come.
        overwrite: whether to replace an output that is there.
        retry_errors: whether to try again what failed in runs before.

    Raises:
        SettingsError: a value outside what it may be.
    """

    named: list[str]
    out: str
    settings: EmbedSettings
    weights: str = "audioset"
    fmt: str | None = None
    pool: Pool = "none"
    precision: str = "fp32"
    engine: Engine = "local"
    device: str = "auto"
    workers: int = 1
    actors: int | None = None
    checkpoint: float = DEFAULT_CHECKPOINT
    overwrite: bool = False
    retry_errors: bool = False

    def __post_init__(self) -> None:
        dump.check_pool(self.pool)
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
                "retry_errors is for folders: a single file is written anew (--overwrite), errors and all"
            )
        if self.format == "tfrecord" and (self.settings.postprocess != "uint8" or self.pool != "none"):
            raise SettingsError(
                "TFRecord files hold 8-bit values for each window, as AudioSet's do: add --postprocess uint8, without "
                "--pool mean"
            )

    @property
    def format(self) -> output.Format | None:
        """The output's format; None for a folder."""
        return output.choose_format(self.out, self.fmt)


@dataclass(frozen=True)
class Result:
    """What the output holds at the end, runs before included.

    Attributes:
        files: how many inputs were embedded.
        windows: how many windows they gave.
        errors: how many inputs failed.
        errors_path: where these are listed.
        nothing_to_do: whether everything had been done before.
    """

    files: int
    windows: int
    errors: int
    errors_path: str
    nothing_to_do: bool = False


class Watcher(Protocol):
    """Is told how a job goes on."""

    def begin(self, total: int, before: Counts) -> None:
        """So many inputs there are, and so much was done in runs before."""

    def note(self, line: str) -> None:
        """Something worth knowing."""

    def fail(self, failure: Failure) -> None:
        """An input failed, in this run or one before."""

    def watch(self, outcome: Outcome) -> None:
        """One more input is done, or failed."""


def run(job: EmbedJob, watcher: Watcher) -> Result:
    """Does a job.

    Args:
        job: what is to be done.
        watcher: is told how it goes on.

    Raises:
        VGGishError: what prevents it as a whole. An input that fails does not.
    """
    from vggish_pt.dataset.inputs import find_clips
    from vggish_pt.pretrained import registry

    # All that can be wrong is found out before torch loads and before the first file is read.
    output.check_output(job.out, job.format, overwrite=job.overwrite)
    items = find_clips(job.named)
    failures = [dump.failure(name, error) for name, error in items.failures]
    for failure in failures:
        watcher.fail(failure)
    for note in items.notes:
        watcher.note(note)
    if not len(items):
        _record_failures(job, failures)
        return Result(0, 0, len(failures), output.errors_path(job.out, job.format))
    if job.format == "tfrecord":
        from vggish_pt.dataset.outputs.tfrecord import check_clips

        check_clips(items)
    folder = registry.resolve(job.weights)
    models = _load(folder, job)
    layout = dump.layout(
        models[0],
        job.settings,
        pool=job.pool,
        precision=job.precision,
        folder=folder,
        columns=items.columns,
        segments=items.segments,
    )
    if job.format is None:
        return _fill(job, models, folder, items, failures, layout, watcher)
    watcher.begin(len(items), Counts())
    outcomes = _outcomes(job, models, folder, items, ordered=True)
    with output.open_output(Path(job.out), job.format, layout, overwrite=job.overwrite) as opened:
        summary = writing.dump(outcomes, opened, failures, watcher.watch)
    where = output.errors_path(job.out, job.format)
    return Result(summary.files, summary.windows, len(summary.failures), where)


def _record_failures(job: EmbedJob, failures: list[Failure]) -> None:
    """Lists names of which none led to an input; a folder that holds something stays as it is."""
    if job.format is not None:
        output.write_errors(Path(job.out), failures)
    else:
        output.write_folder_errors(output.open_store(job.out), failures)


def _fill(
    job: EmbedJob,
    models: list[VGGish],
    weights: Path,
    items: Clips,
    failures: list[Failure],
    layout: Schema,
    watcher: Watcher,
) -> Result:
    options = {
        "engine": job.engine,
        "device": job.device if job.engine == "ray" else ",".join(str(model.device) for model in models),
        "workers": job.workers,
        "batch_size": job.settings.batch_size,
    }
    session = output.Session(named_inputs(job.named), options)
    store = output.open_store(job.out)
    with output.open_run(store, layout, session, overwrite=job.overwrite, checkpoint=job.checkpoint) as folder:
        pending = folder.plan(
            items,
            failures,
            repeated=items.duplicates,
            passed_over=items.skipped,
            retry_errors=job.retry_errors,
        )
        counts, earlier = folder.record.counts, folder.failed_before
        for note in folder.notes:
            watcher.note(note)
        for failure in earlier[:_SHOWN]:
            watcher.fail(failure)
        if earlier:
            more = f" ({len(earlier) - _SHOWN} more than shown here)" if len(earlier) > _SHOWN else ""
            watcher.note(f"{len(earlier)} failed in runs before{more}; --retry-errors tries them again")
        watcher.begin(counts.files + len(earlier) + len(pending), replace(counts, errors=len(earlier)))
        if len(pending):
            writing.fill(_outcomes(job, models, weights, pending, ordered=False), folder, watcher.watch)
        else:
            folder.finish()
        where = output.errors_path(job.out, None)
        return Result(counts.files, counts.windows, counts.errors, where, nothing_to_do=not len(pending))


def _outcomes(
    job: EmbedJob, models: list[VGGish], weights: Path, items: Clips | Pending, *, ordered: bool
) -> Iterator[Outcome]:
    if job.engine == "ray":
        from vggish_pt.dataset.engines.ray_engine import outcomes_on_ray

        return outcomes_on_ray(
            weights,
            items,
            job.settings,
            pool=job.pool,
            precision=job.precision,
            device=job.device,
            actors=job.actors,
            workers=job.workers,
        )
    return dump.outcomes(
        models, items, job.settings, pool=job.pool, workers=job.workers, processes=None, ordered=ordered
    )


def _load(folder: Path, job: EmbedJob) -> list[VGGish]:
    from vggish_pt.inference.devices import choose_devices, replicas, set_precision
    from vggish_pt.model import VGGish

    if job.engine == "ray":  # the workers compute; here the model only says what the rows will be
        return [VGGish.from_pretrained(folder)]
    devices = choose_devices(job.device)
    model = VGGish.from_pretrained(folder, device=devices[0])
    return replicas(set_precision(model, job.precision), devices)
