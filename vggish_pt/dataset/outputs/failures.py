"""``errors.parquet``: the inputs of a dataset folder that could not be embedded, each with its reason."""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from typing import IO

from vggish_pt.audio.clip import Clip
from vggish_pt.dataset.outputs.part import INPUTS, KEY, pack_keys, unpack_keys
from vggish_pt.dataset.schema import Failure
from vggish_pt.errors import OutputError

ERRORS_NAME = "errors.parquet"

NO_INPUT = bytes(KEY.itemsize)
"""Stands for the key of a name that led to no input."""


def write_failures(file: IO[bytes], failures: Sequence[tuple[bytes, Failure]], *, segments: bool) -> None:
    """Writes the table: path, reason, type and, of parts of files, segment_start and segment_end.

    Args:
        file: open for writing.
        failures: keys and failures.
        segments: whether inputs may be parts of files.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    told = [failure for _, failure in failures]
    columns = {
        "path": pa.array([failure.path for failure in told], pa.string()),
        "reason": pa.array([failure.reason for failure in told], pa.string()),
        "type": pa.array([failure.type for failure in told], pa.string()),
    }
    if segments:
        items = [failure.item or Clip("") for failure in told]
        columns["segment_start"] = pa.array([item.start for item in items], pa.float64())
        columns["segment_end"] = pa.array([item.end for item in items], pa.float64())
    table = pa.table(columns).replace_schema_metadata({INPUTS: pack_keys([key for key, _ in failures])})
    pq.write_table(table, file, compression="zstd")


def read_failures(file: IO[bytes], folder: str) -> list[tuple[bytes, Failure]]:
    """Reads the table.

    Args:
        file: the file.
        folder: the name of its folder, for errors.

    Returns:
        Keys and failures. Of an item there are path, start and end.

    Raises:
        OutputError: it is damaged, or not of this package.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    place = f"{folder.rstrip('/')}/{ERRORS_NAME}"
    try:
        with pq.ParquetFile(file, pre_buffer=False) as opened:
            table = opened.read(use_threads=False)  # no threads for a small table: the process may end right after
        keys = [
            bytes(key).ljust(KEY.itemsize, b"\0") for key in unpack_keys((table.schema.metadata or {})[INPUTS.encode()])
        ]
        failures = [
            (key, Failure(row["path"], row["reason"], row["type"], _item(key, row)))
            for key, row in zip(keys, table.to_pylist(), strict=True)
        ]
    except KeyError:
        raise OutputError(f"{place}: was not written by this program; choose another output") from None
    except (OSError, ValueError, binascii.Error, pa.ArrowException) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise OutputError(
            f"{place}: is damaged ({reason}); restore it, or remove it, and what it lists is tried again"
        ) from None
    return failures


def _item(key: bytes, row: dict[str, float | None]) -> Clip | None:
    if key == NO_INPUT:
        return None
    return Clip(str(row["path"]), start=row.get("segment_start"), end=row.get("segment_end"))
