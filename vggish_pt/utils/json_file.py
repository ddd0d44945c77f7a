"""JSON objects in files: read with a limit on the size, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vggish_pt.errors import CheckpointError
from vggish_pt.utils.atomic import whole_file


def read_object(path: Path, *, max_bytes: int = 1 << 26) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Args:
        path: the file, UTF-8.
        max_bytes: size from which the file is refused; no more than this is read.

    Raises:
        OSError: the file cannot be opened or read.
        CheckpointError: the file is larger, or holds something else than a JSON object.
    """
    return parse_object(read_text(path, max_bytes=max_bytes), origin=str(path))


def read_text(path: Path, *, max_bytes: int) -> str:
    """Read a UTF-8 text file.

    Args:
        path: the file.
        max_bytes: size from which the file is refused; no more than this is read.

    Raises:
        OSError: the file cannot be opened or read.
        CheckpointError: the file is larger, or not UTF-8.
    """
    with path.open("rb") as file:
        raw = file.read(max_bytes + 1)
    if len(raw) > max_bytes:
        raise CheckpointError(f"{path}: larger than {max_bytes} bytes; this is another file, or a damaged one")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise CheckpointError(f"{path}: not UTF-8 text; the file is damaged") from None


def parse_object(text: str, *, origin: str) -> dict[str, Any]:
    """Parse a JSON object.

    Args:
        text: the JSON text.
        origin: name of the file in error messages.

    Raises:
        CheckpointError: the text is no JSON, or holds another value than an object.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{origin}: not valid JSON ({error}); the file is damaged") from None
    if not isinstance(document, dict):
        raise CheckpointError(f"{origin}: holds no JSON object; the file is damaged")
    return document


def object_text(document: Mapping[str, Any], *, allow_nan: bool = False) -> str:
    """Return a JSON object as indented text that ends with a line break.

    Args:
        document: the object.
        allow_nan: True writes NaN and infinity, which JSON does not have, as Python does.

    Raises:
        ValueError: the object holds NaN or infinity, and they are not allowed.
    """
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=allow_nan) + "\n"


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file whole or not at all, replacing an existing one.

    Raises:
        OutputError: the file cannot be written.
    """
    with whole_file(path, overwrite=True) as file:
        file.write(text.encode("utf-8"))


def write_object(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON object with :func:`object_text` and :func:`write_text`."""
    write_text(path, object_text(document))
