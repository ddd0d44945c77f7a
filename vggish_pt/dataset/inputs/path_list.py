"""Lists of paths and addresses, as programs such as ``find`` write them to standard output."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import BinaryIO

from vggish_pt.errors import SettingsError

MAX_PATH = 1 << 16
"""Largest length of a path in bytes."""


def read_path_list(file: BinaryIO, name: str) -> Iterator[bytes]:
    """Read paths from a list: one on each line or, if the first 64 KiB contain a NUL, separated by NULs.

    Empty lines and the byte order mark of UTF-8 are left out.

    Args:
        file: the list.
        name: name of the list in errors.

    Raises:
        SettingsError: the list is in UTF-16, in which every other byte is a NUL.
    """
    rest = file.read(MAX_PATH)
    if _is_utf16(rest):
        raise SettingsError(f"{name}: the list of paths is in UTF-16; write it in UTF-8")
    with_nuls = b"\0" in rest
    separator = b"\0" if with_nuls else b"\n"
    rest = rest.removeprefix(codecs.BOM_UTF8)
    while True:
        *paths, rest = rest.split(separator)
        for path in paths:
            path = path if with_nuls else path.removesuffix(b"\r")
            if path:
                yield path
        block = file.read(1 << 16)
        if not block:
            break
        rest += block
    rest = rest if with_nuls else rest.removesuffix(b"\r")
    if rest:
        yield rest


def _is_utf16(head: bytes) -> bool:
    """Return True if a list begins like UTF-16.

    It has a byte order mark and a quarter of its bytes are NULs, or every other byte is a NUL and there is a line
    break. Names separated by NULs have neither: one NUL a name, and no line breaks.
    """
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return 4 * head.count(0) >= len(head)
    alternate = any(not head[start::2].strip(b"\0") for start in (0, 1))
    return alternate and b"\0" in head and b"\n" in head
