"""Schema of an output, and the rows and failures that are written to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast, get_args

import numpy as np
from numpy.typing import NDArray

from vggish_pt import constants as c
from vggish_pt.errors import SettingsError
from vggish_pt.inference.settings import EmbedSettings
from vggish_pt.pretrained.folder import weights_digest
from vggish_pt.version import __version__

if TYPE_CHECKING:
    from vggish_pt.audio.clip import Clip
    from vggish_pt.model import VGGish

RESERVED = ("path", "window", "start", "end", "embedding", "segment_start", "segment_end")
"""Columns of every output. No column of a manifest may have one of these names."""

RowPooling = Literal["none", "mean"]
"""``"none"``: a row for each window. ``"mean"``: a row for each file, with the mean of the file's windows."""


@dataclass(frozen=True)
class Rows:
    """Rows of one input.

    Attributes:
        path: the input.
        window: (n,) int32, index of each window; 0 if the row is a whole input.
        start: (n,) float64 seconds.
        end: (n,) float64 seconds.
        embedding: (n, ...) float32 or uint8.
        columns: values of the additional columns, by name; the same for each row.
        duration: seconds of audio in the input.
    """

    path: str
    window: NDArray[np.int32]
    start: NDArray[np.float64]
    end: NDArray[np.float64]
    embedding: NDArray[Any]
    columns: Mapping[str, Any] = field(default_factory=dict)
    duration: float = 0.0

    def __len__(self) -> int:
        return len(self.window)


@dataclass(frozen=True)
class Failure:
    """An input that is not in the output.

    Attributes:
        path: the input.
        reason: one line.
        type: name of the exception's class.
        item: the input itself; None for a name that matches no input.
    """

    path: str
    reason: str
    type: str
    item: Clip | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Schema:
    """Type of an output's rows, and how the embeddings were made.

    Attributes:
        shape: shape of one row's embedding.
        dtype: "float32" or "uint8".
        metadata: weights, settings and version; JSON types.
        columns: a ``pyarrow.Schema`` of the additional columns; None for none.
    """

    shape: tuple[int, ...]
    dtype: str
    metadata: dict[str, Any]
    columns: Any = None

    @property
    def size(self) -> int:
        """Number of values in a row's embedding."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def row_bytes(self) -> int:
        """Number of bytes in a row's embedding."""
        return self.size * np.dtype(self.dtype).itemsize

    @property
    def extra(self) -> list[Any]:
        """The additional columns, as ``pyarrow.Field``."""
        return [] if self.columns is None else list(self.columns)


class Writer(Protocol):
    """Writer of one format. It writes files, under their final names, into the folder that it was made for."""

    def write(self, rows: Rows) -> None:
        """Add the rows of one input."""

    def complete(self) -> None:
        """Write the rest and close the files."""

    def close(self) -> None:
        """Close the files, complete or not."""


def check_row_pooling(pool: str) -> RowPooling:
    """Return ``pool`` if it is known.

    Raises:
        SettingsError: ``pool`` is unknown.
    """
    if pool not in get_args(RowPooling):
        raise SettingsError(f"pool must be 'none' or 'mean', not {pool!r}")
    return cast("RowPooling", pool)


def output_schema(
    model: VGGish,
    settings: EmbedSettings,
    *,
    pool: RowPooling = "none",
    precision: str = "fp32",
    folder: Path | None = None,
    columns: Any = None,
    segments: bool = False,
) -> Schema:
    """Return the schema of the output of a model.

    Args:
        model: the model.
        settings: settings that decide the numbers.
        pool: "none" for a row per window, "mean" for a row per input.
        precision: precision of the network, for the metadata.
        folder: the model folder, for its digest.
        columns: a ``pyarrow.Schema`` of the inputs' columns that are copied to the output; None for none.
        segments: True adds the columns segment_start and segment_end, for inputs that are segments of files.

    Raises:
        SettingsError: a column has the name of one that every output has.
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
    numbers = {name: value for name, value in asdict(settings).items() if name != "batch_size"}  # changes speed only
    return Schema(
        shape=shape,
        dtype="uint8" if quantised else "float32",
        metadata={
            "version": __version__,
            "weights": weights,
            "settings": {**numbers, "pool": pool, "precision": precision},
            "shape": list(shape),
        },
        columns=_extra_columns(columns, segments),
    )


def _extra_columns(columns: Any, segments: bool) -> Any:
    import pyarrow as pa

    fields = [] if columns is None else list(columns)
    if reserved := [field.name for field in fields if field.name in RESERVED]:
        raise SettingsError(
            f"a column of the inputs is called {reserved[0]!r}, as one of the output's; rename it in the inputs"
        )
    if segments:
        fields += [pa.field("segment_start", pa.float64()), pa.field("segment_end", pa.float64())]
    return pa.schema(fields) if fields else None
