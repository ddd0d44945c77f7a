"""Inputs → embeddings → an output: each input ends among its rows or, with its reason, in its list of failures.

An engine says what becomes of each input, in any order, and knows nothing of outputs: :func:`outcomes` is that of one
machine. :func:`fill` puts it into a dataset folder, :func:`dump` into a single file.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast, get_args

import numpy as np

from vggish_pt import constants as c
from vggish_pt.audio import display_name
from vggish_pt.audio.clip import Clip, path_text
from vggish_pt.dataset.schema import RESERVED, Failure, Rows, Schema
from vggish_pt.errors import AudioError, SettingsError, VGGishError
from vggish_pt.inference.settings import EmbedSettings
from vggish_pt.pretrained.folder import weights_digest
from vggish_pt.version import __version__

if TYPE_CHECKING:
    from vggish_pt.inference.embeddings import Embeddings
    from vggish_pt.model import VGGish

Pool = Literal["none", "mean"]
"""``"none"``: a row is a window. ``"mean"``: a row is a file, its embedding the mean over the file's windows."""


@dataclass(frozen=True)
class EmbeddedClip:
    """An input that was embedded.

    Attributes:
        item: the input.
        rows: its rows, at least one.
        windows: how many windows they come from.
        duration: seconds of audio.
    """

    item: Clip
    rows: Rows
    windows: int
    duration: float


Outcome: TypeAlias = EmbeddedClip | Failure


def check_pool(pool: str) -> Pool:
    """Returns ``pool`` if it is known.

    Raises:
        SettingsError: it is not.
    """
    if pool not in get_args(Pool):
        raise SettingsError(f"pool must be 'none' or 'mean', not {pool!r}")
    return cast("Pool", pool)


def failure(path: str, error: VGGishError, item: Clip | None = None) -> Failure:
    """What is recorded of an input, or of a name that led to none, that failed."""
    reason = str(error).removeprefix(f"{display_name(path)}: ")
    return Failure(path_text(path), reason, type(error).__name__, item)


def outcomes(
    model: VGGish | Sequence[VGGish],
    items: Iterable[Clip],
    settings: EmbedSettings,
    *,
    pool: Pool = "none",
    workers: int = 1,
    processes: bool | None = False,
    ordered: bool = True,
) -> Generator[Outcome]:
    """Embeds inputs on this machine; closing the iterator early stops its threads and processes.

    Args:
        model: the model, or replicas of it on several devices.
        items: the inputs.
        settings: what decides the numbers.
        pool: whether a row is a window or a whole input.
        workers: threads or processes that read ahead; 0 for none.
        processes: which of these; None chooses. See :func:`vggish_pt.inference.pipeline.embed_clips`.
        ordered: True gives outcomes in the order of the items; False, as soon as they are complete.

    Yields:
        For each input its rows, or why there are none.

    Raises:
        SettingsError: settings that do not fit the model.
        WorkerError: worker processes cannot be started.
    """
    from vggish_pt.inference.pipeline import embed_clips

    results = embed_clips(model, items, settings, workers=workers, processes=processes, ordered=ordered)
    with closing(results):
        for item, result in results:
            yield outcome(item, result, settings, pool)


def outcome(item: Clip, result: Embeddings | VGGishError, settings: EmbedSettings, pool: Pool) -> Outcome:
    """What becomes of an input: its embeddings or its error as an output takes them."""
    if isinstance(result, VGGishError):
        return failure(item.path, result, item)
    if len(result) == 0:
        short = f"{result.duration:.3f} s are shorter than a window of {c.EXAMPLE_SECONDS:g} s"
        return failure(item.path, AudioError(f"{short}, and pad={settings.pad!r} pads nothing"), item)
    return EmbeddedClip(item, _rows(item, result, pool), len(result), result.duration)


def _rows(item: Clip, result: Embeddings, pool: Pool) -> Rows:
    values, start, end = result.values.numpy(), result.start.numpy(), result.end.numpy()
    if pool == "mean":
        values = values.mean(axis=0, keepdims=True, dtype=np.float64).astype(np.float32)
        start, end = start[:1], end[-1:]
    window = np.arange(len(values), dtype=np.int32)
    return Rows(path_text(item.path), window, start, end, values, row_columns(item), result.duration)


def row_columns(item: Clip) -> dict[str, Any]:
    """What else outputs may say of an input's rows, by column."""
    return {**item.columns, "segment_start": item.start, "segment_end": item.end}


def layout(
    model: VGGish,
    settings: EmbedSettings,
    *,
    pool: Pool = "none",
    precision: str = "fp32",
    folder: Path | None = None,
    columns: Any = None,
    segments: bool = False,
) -> Schema:
    """What the rows will be, and what the output says about how they were made.

    Args:
        model: the model.
        settings: what decides the numbers.
        pool: whether a row is a window or a file.
        precision: of the network, for the record.
        folder: the model folder, for its digest.
        columns: a ``pyarrow.Schema`` of the inputs' columns that go into the output; None for none.
        segments: whether inputs may be parts of files: then rows say which, in segment_start and segment_end.

    Raises:
        SettingsError: a column is called like one that every output has.
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
    return Schema(
        shape=shape,
        dtype="uint8" if quantised else "float32",
        metadata={
            "version": __version__,
            "weights": weights,
            "settings": {**numbers, "pool": pool, "precision": precision},
            "shape": list(shape),
        },
        columns=_columns(columns, segments),
    )


def _columns(columns: Any, segments: bool) -> Any:
    import pyarrow as pa

    fields = [] if columns is None else list(columns)
    if taken := [field.name for field in fields if field.name in RESERVED]:
        raise SettingsError(
            f"a column of the inputs is called {taken[0]!r}, as one of the output's; call it otherwise there"
        )
    if segments:
        fields += [pa.field("segment_start", pa.float64()), pa.field("segment_end", pa.float64())]
    return pa.schema(fields) if fields else None
