from __future__ import annotations

import os

import pytest

from vggish_pt.utils.text import display_name, error_reason, first_line, joined_lines, one_line, path_text


def test_one_line_escapes_what_is_not_printable() -> None:
    assert one_line("größe 音  x") == "größe 音  x"
    assert one_line("a\nb\r\x1b[31m\x00\u2028\udcff") == r"a\nb\r\x1b[31m\x00\u2028\udcff"


def test_display_name_escapes_control_characters_and_stray_bytes() -> None:
    assert display_name("é 音　x.wav") == "é 音　x.wav"
    assert display_name("a\nb\x1b[31m\x85\u2028") == r"a\nb\x1b[31m\x85\u2028"
    assert display_name(b"caf\xe9") == display_name("caf\udce9") == r"caf\xe9"
    assert display_name("") == "''"
    assert display_name(3) == "3"


def test_path_text_is_unicode() -> None:
    assert path_text("größe\n音\t.wav") == "größe\n音\t.wav"
    assert path_text(os.fsdecode(b"\xff\xfe.wav")) == r"\xff\xfe.wav"


@pytest.mark.parametrize(
    ("error", "first", "joined"),
    [
        (ValueError("  one\n two\r\nthree "), "one", "one two three"),
        (ValueError(""), "ValueError", "ValueError"),
        (ValueError(" \n "), "ValueError", "ValueError"),
        (ValueError("x" * 300), "x" * 200, "x" * 300),
    ],
)
def test_an_error_as_one_line(error: Exception, first: str, joined: str) -> None:
    assert (first_line(error), joined_lines(error), error_reason(error)) == (first, joined, first)


def test_the_operating_systems_reason_of_an_error() -> None:
    assert error_reason(FileNotFoundError(2, "No such file or directory", "x.wav")) == "No such file or directory"
    assert error_reason(OSError("broken\nfile")) == "broken"
