"""Part of a dataset folder: a Parquet file with all rows of some inputs.

The footer contains the keys of these inputs (:attr:`vggish_pt.audio.clip.Clip.key`) and their counts, so the contents
of a folder are read from footers alone.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vggish_pt.dataset.outputs.parquet import PART_NAME, ParquetWriter
from vggish_pt.dataset.outputs.record import column_types
from vggish_pt.dataset.schema import RESERVED, Schema
from vggish_pt.errors import OutputError
from vggish_pt.utils.text import first_line

if TYPE_CHECKING:
    from vggish_pt.dataset.outcomes import EmbeddedClip

INPUTS = "vggish_pt.dataset.inputs"
"""Metadata key: the keys of the part's inputs, 16 bytes each, in base64."""
COUNTS = "vggish_pt.counts"
"""Metadata key: JSON with ``files``, ``windows`` and ``seconds`` of audio."""

KEY = np.dtype("S16")


@dataclass(frozen=True)
class Part:
    """Contents of a part's footer.

    Attributes:
        name: the file's name.
        metadata: weights, settings and version.
        columns: types of the additional columns, by name.
        keys: (files,) the inputs' keys, of type ``S16``.
        windows: number of windows that the rows were computed from.
        seconds: seconds of audio.
    """

    name: str
    metadata: dict[str, Any]
    columns: dict[str, str]
    keys: NDArray[Any]
    windows: int
    seconds: float


def part_name(number: int) -> str:
    """Return the name of a part."""
    return f"part-{number:05d}.parquet"


def part_number(name: str) -> int | None:
    """Return the number of a part; None if the name is not that of a part."""
    match = PART_NAME.fullmatch(name)
    return None if match is None else int(match[1])


def pack_keys(keys: Sequence[bytes]) -> str:
    """Encode keys as text, for metadata."""
    return base64.b64encode(b"".join(keys)).decode()


def unpack_keys(text: bytes) -> NDArray[Any]:
    """Decode keys.

    Raises:
        ValueError: the text is not valid.
    """
    raw = base64.b64decode(text, validate=True)
    if len(raw) % KEY.itemsize:
        raise ValueError("incomplete keys")
    return np.frombuffer(raw, KEY)


def write_part(file: IO[bytes], schema: Schema, clips: Sequence[EmbeddedClip]) -> None:
    """Write a part.

    Args:
        file: open for writing.
        schema: the schema of the rows.
        clips: the inputs, in their order.
    """
    counts = {
        "files": len(clips),
        "windows": sum(clip.windows for clip in clips),
        "seconds": sum(clip.duration for clip in clips),
    }
    metadata = {INPUTS: pack_keys([clip.item.key for clip in clips]), COUNTS: json.dumps(counts)}
    writer = ParquetWriter(file, schema, metadata)
    try:
        for clip in clips:
            writer.write(clip.rows)
        writer.complete()
    finally:
        writer.close()


def read_part(file: IO[bytes], name: str, folder: str) -> Part:
    """Read the footer of a part.

    Args:
        file: the part.
        name: its name.
        folder: the name of its folder, for messages.

    Raises:
        OutputError: the part is damaged, or was not written by this package.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = f"{folder.rstrip('/')}/{name}"
    try:
        schema = pq.read_metadata(file).schema.to_arrow_schema()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise OutputError(
            f"{path}: is damaged ({first_line(error)}); restore it, or remove it, and its inputs are embedded again"
        ) from None
    footer = schema.metadata or {}
    try:
        metadata = json.loads(footer[b"vggish_pt"])
        counts = json.loads(footer[COUNTS.encode()])
        keys = unpack_keys(footer[INPUTS.encode()])
        if not isinstance(metadata, dict) or len(keys) != int(counts["files"]):
            raise ValueError
        columns = column_types([field for field in schema if field.name not in RESERVED[:5]])
        return Part(name, metadata, columns, keys, int(counts["windows"]), float(counts["seconds"]))
    except (KeyError, TypeError, ValueError, binascii.Error):
        raise OutputError(
            f"{path}: does not say which inputs it holds, so it was not written by this program; choose another output"
        ) from None
