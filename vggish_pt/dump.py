"""Files → embeddings → an output: each input ends among its rows or, with its reason, in its list of failures.

:func:`embed_files` says what becomes of each file and knows nothing of outputs; :func:`dump` puts it into one.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, cast, get_args

import numpy as np

from vggish_pt import constants as c
from vggish_pt.audio import display_name
from vggish_pt.errors import AudioError, SettingsError, VGGishError
from vggish_pt.inputs import path_text
from vggish_pt.output.rows import Failure, Layout, Rows
from vggish_pt.settings import EmbedSettings
from vggish_pt.storage import weights_digest
from vggish_pt.version import __version__

if TYPE_CHECKING:
    from vggish_pt.embedding import Embeddings
    from vggish_pt.model import VGGish
    from vggish_pt.output import Output

Pool = Literal["none", "mean"]
"""``"none"``: a row is a window. ``"mean"``: a row is a file, its embedding the mean over the file's windows."""


@dataclass(frozen=True)
class Done:
    """A file that was embedded.

    Attributes:
        rows: its rows, at least one.
        windows: how many windows they come from.
        duration: seconds of audio.
    """

    rows: Rows
    windows: int
    duration: float


Outcome: TypeAlias = Done | Failure


@dataclass
class Summary:
    """What became of all inputs.

    Attributes:
        files: how many were embedded.
        windows: how many windows they gave.
        failures: the others.
    """

    files: int
    windows: int
    failures: list[Failure]


def check_pool(pool: str) -> Pool:
    """Returns ``pool`` if it is known.

    Raises:
        SettingsError: it is not.
    """
    if pool not in get_args(Pool):
        raise SettingsError(f"pool must be 'none' or 'mean', not {pool!r}")
    return cast("Pool", pool)


def failure(path: str, error: VGGishError) -> Failure:
    """What is recorded of an input that failed."""
    reason = str(error).removeprefix(f"{display_name(path)}: ")
    return Failure(path_text(path), reason, type(error).__name__)


def embed_files(
    model: VGGish, paths: Sequence[str], settings: EmbedSettings, *, pool: Pool = "none", workers: int = 1
) -> Iterator[Outcome]:
    """Embeds files; closing the iterator early stops its threads.

    Args:
        model: the model.
        paths: audio files.
        settings: what decides the numbers.
        pool: whether a row is a window or a file.
        workers: threads that decode ahead; 0 for none.

    Yields:
        For each file, in order, its rows, or why there are none.

    Raises:
        SettingsError: settings that do not fit the model.
    """
    results = model.embed_iter(paths, workers=workers, **vars(settings))
    with closing(results):
        for path, result in zip(paths, results, strict=True):
            if isinstance(result, VGGishError):
                yield failure(path, result)
            elif len(result) == 0:
                short = f"{result.duration:.3f} s are shorter than a window of {c.EXAMPLE_SECONDS:g} s"
                yield failure(path, AudioError(f"{short}, and pad={settings.pad!r} pads nothing"))
            else:
                yield Done(_rows(path_text(path), result, pool), len(result), result.duration)


def _rows(path: str, result: Embeddings, pool: Pool) -> Rows:
    values, start, end = result.values.numpy(), result.start.numpy(), result.end.numpy()
    if pool == "mean":
        values = values.mean(axis=0, keepdims=True, dtype=np.float64).astype(np.float32)
        start, end = start[:1], end[-1:]
    return Rows(path, np.arange(len(values), dtype=np.int32), start, end, values)


def layout(
    model: VGGish, settings: EmbedSettings, *, pool: Pool = "none", precision: str = "fp32", folder: Path | None = None
) -> Layout:
    """What the rows will be, and what the output says about how they were made.

    Args:
        model: the model.
        settings: what decides the numbers.
        pool: whether a row is a window or a file.
        precision: of the network, for the record.
        folder: the model folder, for its digest.
    """
    no_examples = model.network.conv1.weight.new_zeros(0, c.EXAMPLE_FRAMES, c.MEL_BANDS)
    shape = tuple(model.network.infer(no_examples, settings.layer).shape[1:])
    quantised = settings.postprocess == "uint8" and pool == "none"
    weights = {
        "name": model.config.name,
        "license": model.config.license,
        "sha256": None if folder is None else weights_digest(folder),
        "final_relu": model.config.final_relu,
    }
    numbers = {name: value for name, value in asdict(settings).items() if name != "batch_size"}  # it changes nothing
    return Layout(
        shape=shape,
        dtype="uint8" if quantised else "float32",
        metadata={
            "version": __version__,
            "weights": weights,
            "settings": {**numbers, "pool": pool, "precision": precision},
            "shape": list(shape),
        },
    )


def dump(
    outcomes: Iterator[Outcome], output: Output, failures: Sequence[Failure], watch: Callable[[Outcome], None]
) -> Summary:
    """Writes what became of files to an output, and finishes it.

    Args:
        outcomes: from :func:`embed_files`; closed if writing fails.
        output: where to.
        failures: inputs that led to no file, for the output's list.
        watch: is called with each outcome.

    Raises:
        OutputError: the output cannot be written.
    """
    summary = Summary(0, 0, list(failures))
    with closing(cast("Generator[Outcome]", outcomes)):
        for outcome in outcomes:
            if isinstance(outcome, Failure):
                summary.failures.append(outcome)
            else:
                output.write(outcome.rows)
                summary.files += 1
                summary.windows += outcome.windows
            watch(outcome)
    output.finish(summary.failures)
    return summary
