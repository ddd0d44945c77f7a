"""AudioSet's format: TFRecord files with a ``tf.train.SequenceExample`` for each input.

Context: ``video_id`` (bytes), ``start_time_seconds`` and ``end_time_seconds`` (float), ``labels`` (int64, if known).
Feature lists: ``audio_embedding``, a string of 128 bytes for each window.

The messages are encoded here: protobuf and TensorFlow, which could do it, are heavy dependencies for three of their
types. tests/dataset/outputs/test_tfrecord.py reads the files by TensorFlow.

Formats: https://research.google.com/audioset/download.html, https://www.tensorflow.org/tutorials/load_data/tfrecord,
https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from vggish_pt import constants as c
from vggish_pt.audio.clip import path_text
from vggish_pt.dataset.outputs.numpy_files import npy_companions
from vggish_pt.dataset.schema import Rows, Schema
from vggish_pt.errors import SettingsError
from vggish_pt.utils.crc32c import crc32c, mask

if TYPE_CHECKING:
    from vggish_pt.audio.clip import Clip


class TFRecordWriter:
    """Writer of ``NAME``, with a record for each input, and of ``NAME.json``, with weights and settings.

    Args:
        path: the ``.tfrecord`` file.
        schema: the schema of the rows.

    Raises:
        SettingsError: the format cannot hold such rows.
    """

    def __init__(self, path: Path, schema: Schema) -> None:
        check_schema(schema)
        self._path, self._metadata = path, schema.metadata
        self._file: IO[bytes] = path.open("wb")

    def write(self, rows: Rows) -> None:
        """Add an input with all of its rows."""
        self._file.writelines(_record(_example(rows)))

    def complete(self) -> None:
        """Close the file and write the metadata."""
        self.close()
        metadata = npy_companions(self._path)[1]
        metadata.write_text(json.dumps(self._metadata, indent=2) + "\n", encoding="utf-8")

    def close(self) -> None:
        """Close the file, complete or not."""
        self._file.close()


def check_schema(schema: Schema) -> None:
    """Check that the format can hold the rows.

    Raises:
        SettingsError: the rows are not 128 values of 8 bits for each window.
    """
    if schema.dtype != "uint8" or schema.shape != (c.EMBEDDING_SIZE,):
        raise SettingsError(
            "TFRecord files hold 128 values of 8 bits for each window, as AudioSet's do; add --postprocess uint8, "
            "without --pool mean"
        )


def check_clips(items: Iterable[Clip]) -> None:
    """Check, before any work is done, that all labels are whole numbers.

    Raises:
        SettingsError: a label is not; the message names the first one.
    """
    for item in items:
        try:
            _labels(item.columns.get("labels"))
        except (ValueError, TypeError):
            raise SettingsError(
                f"{path_text(item.path)}: labels in TFRecord files are whole numbers, as AudioSet numbers its classes, "
                f"not {item.columns['labels']!r}; put the numbers there, or rename the column"
            ) from None


def _labels(value: Any) -> list[int] | None:
    """Return labels as numbers; a text holds several of them, separated by semicolons."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        value = value.split(";")
    parts = list(value) if isinstance(value, list | tuple | np.ndarray) else [value]
    if any(isinstance(part, bool) or (isinstance(part, float) and not part.is_integer()) for part in parts):
        raise ValueError
    numbers = [int(part) for part in parts]
    if not all(-(1 << 63) <= number < 1 << 63 for number in numbers):
        raise ValueError
    return numbers


def _example(rows: Rows) -> bytes:
    columns = rows.columns
    name = columns.get("video_id")
    begins = columns.get("segment_start") or 0.0
    context = {
        "video_id": _feature(1, _field(1, str(rows.path if name is None else name).encode())),
        "start_time_seconds": _feature(2, _field(1, struct.pack("<f", begins))),
        "end_time_seconds": _feature(2, _field(1, struct.pack("<f", begins + rows.duration))),
    }
    labels = _labels(columns.get("labels"))
    if labels is not None:
        context["labels"] = _feature(3, _field(1, b"".join(_varint(label & (1 << 64) - 1) for label in labels)))
    frames = b"".join(_field(1, _feature(1, _field(1, frame.tobytes()))) for frame in rows.embedding)
    feature_lists = {"audio_embedding": frames}
    return _field(1, _map(context)) + _field(2, _map(feature_lists))


def _feature(kind: int, content: bytes) -> bytes:
    """Encode a Feature: a BytesList (1), FloatList (2) or Int64List (3)."""
    return _field(kind, content)


def _map(entries: dict[str, bytes]) -> bytes:
    return b"".join(_field(1, _field(1, name.encode()) + _field(2, value)) for name, value in entries.items())


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _record(data: bytes) -> Iterator[bytes]:
    length = struct.pack("<Q", len(data))
    for part in (length, data):
        yield part
        yield struct.pack("<I", mask(crc32c(memoryview(part))))
