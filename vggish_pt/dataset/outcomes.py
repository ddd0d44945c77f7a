"""Outcomes of embedding: each input ends with its rows, or with a failure and its reason.

An engine (:mod:`vggish_pt.dataset.engines`) yields one outcome for each input, in any order, and does not depend on
outputs. :mod:`vggish_pt.dataset.writing` writes the outcomes to an output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from vggish_pt import constants as c
from vggish_pt.audio import display_name
from vggish_pt.audio.clip import Clip, path_text
from vggish_pt.dataset.schema import Failure, RowPooling, Rows
from vggish_pt.errors import AudioError, VGGishError
from vggish_pt.inference.settings import EmbedSettings

if TYPE_CHECKING:
    from vggish_pt.inference.embeddings import Embeddings


@dataclass(frozen=True)
class EmbeddedClip:
    """An input that was embedded.

    Attributes:
        item: the input.
        rows: its rows, at least one.
        windows: number of windows that the rows were computed from.
        duration: seconds of audio.
    """

    item: Clip
    rows: Rows
    windows: int
    duration: float


Outcome: TypeAlias = EmbeddedClip | Failure


def failure(path: str, error: VGGishError, item: Clip | None = None) -> Failure:
    """Return the failure of an input, or of a name that matches no input."""
    reason = str(error).removeprefix(f"{display_name(path)}: ")
    return Failure(path_text(path), reason, type(error).__name__, item)


def outcome(item: Clip, result: Embeddings | VGGishError, settings: EmbedSettings, pool: RowPooling) -> Outcome:
    """Return the outcome of an input, given its embeddings or its error."""
    if isinstance(result, VGGishError):
        return failure(item.path, result, item)
    if len(result) == 0:
        short = f"{result.duration:.3f} s are shorter than a window of {c.EXAMPLE_SECONDS:g} s"
        return failure(item.path, AudioError(f"{short}, and pad={settings.pad!r} pads nothing"), item)
    return EmbeddedClip(item, _rows(item, result, pool), len(result), result.duration)


def _rows(item: Clip, result: Embeddings, pool: RowPooling) -> Rows:
    values, start, end = result.values.numpy(), result.start.numpy(), result.end.numpy()
    if pool == "mean":
        values = values.mean(axis=0, keepdims=True, dtype=np.float64).astype(np.float32)
        start, end = start[:1], end[-1:]
    window = np.arange(len(values), dtype=np.int32)
    return Rows(path_text(item.path), window, start, end, values, row_columns(item), result.duration)


def row_columns(item: Clip) -> dict[str, Any]:
    """Return the values of an input's additional columns, by name."""
    return {**item.columns, "segment_start": item.start, "segment_end": item.end}
