from __future__ import annotations

import io
import os
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vggish_pt.audio.view import QuietView, Scanner, View, buffered

CONTENT = bytes(range(200))


@given(
    start=st.integers(0, 220),
    offset=st.integers(0, 220),
    replacement=st.binary(max_size=20),
    padded=st.none() | st.integers(200, 500),
    moves=st.lists(st.tuples(st.integers(-50, 300), st.sampled_from([0, 1, 2]), st.integers(0, 120)), max_size=12),
)
@settings(deadline=None, max_examples=200)
def test_reads_like_a_file_of_those_bytes(
    start: int, offset: int, replacement: bytes, padded: int | None, moves: list[tuple[int, int, int]]
) -> None:
    """Against a plain file that holds what is to be seen."""
    expected = bytearray(CONTENT[start:])
    for index, byte in enumerate(replacement, offset):
        if index < len(expected):
            expected[index] = byte
    if padded is not None:
        expected += bytes(padded - len(expected))
    plain = io.BytesIO(bytes(expected))
    file = io.BytesIO(CONTENT)
    file.seek(start)
    offset = min(offset, len(CONTENT[start:]))
    stop = min(len(CONTENT), start + offset + len(replacement))
    replacement = replacement[: max(0, len(CONTENT) - start - offset)]
    parts = [(start, start + offset), replacement, (stop, max(stop, len(CONTENT)))] if start < len(CONTENT) else []
    view = View(file, parts)
    view.padded_length = padded
    reader = buffered(view)
    for to, whence, size in moves:
        base = (0, plain.tell(), len(expected))[whence]
        target = max(0, base + to)
        plain.seek(target)
        assert reader.seek(to if base + to >= 0 else -base, whence) == target
        assert reader.read(size) == plain.read(size)


def test_closing_leaves_the_file_open() -> None:
    file = io.BytesIO(CONTENT)
    reader = buffered(View(file))
    assert reader.read(3) == CONTENT[:3]
    reader.close()
    assert file.read(0) == b"" and not file.closed


def test_plain() -> None:
    file = io.BytesIO(CONTENT)
    assert View(file).plain
    assert View(file, [(0, len(CONTENT))]).plain
    assert not View(file, [(0, 3), b"x", (4, len(CONTENT))]).plain
    file.seek(1)
    assert not View(file).plain


def test_joins_ranges_and_remembers_how_far_it_was_read() -> None:
    view = View(io.BytesIO(CONTENT), [(10, 20), b"between", (100, 103), (50, 51)])
    assert view.furthest == 0
    assert view.read(13) == CONTENT[10:20] + b"bet" and view.furthest == 13
    view.seek(2)
    assert view.read() == CONTENT[12:20] + b"between" + CONTENT[100:103] + CONTENT[50:51]
    assert view.furthest == 21


def test_scanner_reads_anywhere() -> None:
    scanner = Scanner(io.BytesIO(CONTENT * 5000))
    for position in (0, 999_999, 3, 500_000, 66_000, 65_500):
        assert scanner.read(position, 100) == (CONTENT * 5000)[position : position + 100]
    assert scanner.read(1_000_000, 5) == scanner.read(0, 0) == b""
    joined = b""
    for base, block in scanner.blocks(100, 700_001, 8):
        joined = joined[: base - 100] + block
    assert joined == (CONTENT * 5000)[100:700_001]


class Failing(io.BytesIO):
    def read(self, size: int | None = -1) -> bytes:
        raise zlib.error("invalid stored block lengths")


class Greedy(io.BytesIO):
    def read(self, size: int | None = -1) -> bytes:
        return self.getvalue()


@pytest.mark.parametrize(
    ("kind", "message"), [(Failing, "error: invalid stored"), (Greedy, r"read\(\d+\) gave 200000")]
)
def test_errors_of_the_file_underneath(kind: type[io.BytesIO], message: str) -> None:
    with pytest.raises(OSError, match=message):
        buffered(View(kind(CONTENT * 1000))).read(10)
    quiet = QuietView(kind(CONTENT * 1000))
    assert buffered(quiet).read(10) == b""
    with pytest.raises(OSError, match=message):
        raise quiet.error or AssertionError


def test_far_positions(tmp_path: Path) -> None:
    """Decoders of damaged files seek to wherever the header says."""
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    with path.open("rb") as file:
        view = View(file)
        for far in (1 << 40, (1 << 63) - 1):
            assert view.seek(far) > 0
            assert view.read(10) == b""
        assert view.seek(1 << 62, os.SEEK_CUR) <= 1 << 62
