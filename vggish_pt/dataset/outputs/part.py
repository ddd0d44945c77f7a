"""A part of a dataset folder: whole inputs in one Parquet file, whose footer says which.

The footer's metadata hold, beside what made the embeddings, the inputs' keys (:attr:`vggish_pt.audio.clip.Clip.key`)
and their counts. So what a folder holds is read from its footers alone.
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
from vggish_pt.dataset.schema import RESERVED, Schema
from vggish_pt.errors import OutputError

if TYPE_CHECKING:
    from vggish_pt.dataset.outcomes import EmbeddedClip

INPUTS = "vggish_pt.dataset.inputs"
"""Metadata: the keys of the part's inputs, 16 bytes each, in base64."""
COUNTS = "vggish_pt.counts"
"""Metadata: JSON with ``files``, ``windows`` and ``seconds`` of audio."""

KEY = np.dtype("S16")


@dataclass(frozen=True)
class Part:
    """What a part's footer says.

    Attributes:
        name: the file's name.
        metadata: what made the embeddings.
        columns: types of the columns beside the usual ones, by name.
        keys: (files,) the inputs' keys, of type ``S16``.
        windows: how many windows its rows come from.
        seconds: of audio.
    """

    name: str
    metadata: dict[str, Any]
    columns: dict[str, str]
    keys: NDArray[Any]
    windows: int
    seconds: float


def part_name(number: int) -> str:
    """The name of a part."""
    return f"part-{number:05d}.parquet"


def part_number(name: str) -> int | None:
    """The number of a part; None if the name is not one of a part."""
    match = PART_NAME.fullmatch(name)
    return None if match is None else int(match[1])


def pack_keys(keys: Sequence[bytes]) -> str:
    """Keys as the text that metadata hold."""
    return base64.b64encode(b"".join(keys)).decode()


def unpack_keys(text: bytes) -> NDArray[Any]:
    """Keys from that text.

    Raises:
        ValueError: it is none.
    """
    raw = base64.b64decode(text, validate=True)
    if len(raw) % KEY.itemsize:
        raise ValueError("keys that are cut off")
    return np.frombuffer(raw, KEY)


def write_part(file: IO[bytes], layout: Schema, done: Sequence[EmbeddedClip]) -> None:
    """Writes a part.

    Args:
        file: open for writing.
        layout: what the rows are.
        done: its inputs, in their order.
    """
    counts = {
        "files": len(done),
        "windows": sum(each.windows for each in done),
        "seconds": sum(each.duration for each in done),
    }
    facts = {INPUTS: pack_keys([each.item.key for each in done]), COUNTS: json.dumps(counts)}
    writer = ParquetWriter(file, layout, facts)
    try:
        for each in done:
            writer.write(each.rows)
        writer.complete()
    finally:
        writer.close()


def read_part(file: IO[bytes], name: str, folder: str) -> Part:
    """Reads a part's footer.

    Args:
        file: the part.
        name: its name.
        folder: the name of its folder, for errors.

    Raises:
        OutputError: it is damaged, or no part that this package wrote.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    place = f"{folder.rstrip('/')}/{name}"
    try:
        metadata = pq.read_metadata(file)
        schema = metadata.schema.to_arrow_schema()
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise OutputError(
            f"{place}: is damaged ({reason}); restore it, or remove it, and its inputs are embedded again"
        ) from None
    facts = schema.metadata or {}
    try:
        made_by = json.loads(facts[b"vggish_pt"])
        counts = json.loads(facts[COUNTS.encode()])
        keys = unpack_keys(facts[INPUTS.encode()])
        if not isinstance(made_by, dict) or len(keys) != int(counts["files"]):
            raise ValueError
        columns = {field.name: str(field.type) for field in schema if field.name not in RESERVED[:5]}
        return Part(name, made_by, columns, keys, int(counts["windows"]), float(counts["seconds"]))
    except (KeyError, TypeError, ValueError, binascii.Error):
        raise OutputError(
            f"{place}: does not say which inputs it holds, so it was not written by this program; choose another output"
        ) from None
