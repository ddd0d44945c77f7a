"""List of the inputs of a dataset folder that failed, each with its reason: ``_errors.parquet``.

The name begins with an underscore because pyarrow and other readers of Parquet folders skip such files. Folders that
were begun by earlier versions have ``errors.parquet``, which is read too, and replaced by the next run.
"""

from __future__ import annotations

import binascii
from collections.abc import Collection, Sequence
from typing import IO

from vggish_pt.audio.clip import Clip
from vggish_pt.dataset.outputs.part import INPUTS, KEY, pack_keys, unpack_keys
from vggish_pt.dataset.schema import Failure
from vggish_pt.errors import OutputError
from vggish_pt.utils.text import first_line

ERRORS_NAME = "_errors.parquet"
OLD_ERRORS_NAME = "errors.parquet"

NO_INPUT = bytes(KEY.itemsize)
"""Key of a name that matched no input."""


def errors_name(names: Collection[str]) -> str | None:
    """Return the name of the list of failures among the names of a folder; None if there is no list."""
    return next((name for name in (ERRORS_NAME, OLD_ERRORS_NAME) if name in names), None)


def write_failures(file: IO[bytes], failures: Sequence[tuple[bytes, Failure]], *, segments: bool) -> None:
    """Write the list: path, reason, type and, for segments, segment_start and segment_end.

    Args:
        file: open for writing.
        failures: keys and failures.
        segments: True if inputs may be segments of files.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        "path": pa.array([failure.path for _, failure in failures], pa.string()),
        "reason": pa.array([failure.reason for _, failure in failures], pa.string()),
        "type": pa.array([failure.type for _, failure in failures], pa.string()),
    }
    if segments:
        items = [failure.item or Clip("") for _, failure in failures]
        columns["segment_start"] = pa.array([item.start for item in items], pa.float64())
        columns["segment_end"] = pa.array([item.end for item in items], pa.float64())
    table = pa.table(columns).replace_schema_metadata({INPUTS: pack_keys([key for key, _ in failures])})
    pq.write_table(table, file, compression="zstd")


def read_failures(file: IO[bytes], path: str) -> list[tuple[bytes, Failure]]:
    """Read the list.

    Args:
        file: the file.
        path: its path, for messages.

    Returns:
        Keys and failures. The inputs have a path, a start and an end only.

    Raises:
        OutputError: the list is damaged, or was not written by this package.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file, pre_buffer=False) as opened:
            table = opened.read(use_threads=False)  # without threads: the process may end right after
        keys = [
            bytes(key).ljust(KEY.itemsize, b"\0") for key in unpack_keys((table.schema.metadata or {})[INPUTS.encode()])
        ]
        failures = [
            (key, Failure(row["path"], row["reason"], row["type"], _item(key, row)))
            for key, row in zip(keys, table.to_pylist(), strict=True)
        ]
    except KeyError:
        raise OutputError(f"{path}: was not written by this program; choose another output") from None
    except (OSError, ValueError, binascii.Error, pa.ArrowException) as error:
        raise OutputError(
            f"{path}: is damaged ({first_line(error)}); restore it, or remove it, and the inputs that it lists are "
            "embedded again"
        ) from None
    return failures


def _item(key: bytes, row: dict[str, float | None]) -> Clip | None:
    if key == NO_INPUT:
        return None
    return Clip(str(row["path"]), start=row.get("segment_start"), end=row.get("segment_end"))
