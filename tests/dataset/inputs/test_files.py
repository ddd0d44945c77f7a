"""Which files folders, patterns and names stand for, on a disk."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from vggish_pt.dataset.inputs import find_inputs, path_text

posix = pytest.mark.skipif(os.name != "posix", reason="file names of any bytes, links")


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _make(*names: str) -> None:
    for name in names:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_a_tree_is_searched_in_order() -> None:
    _make(
        "t/b.wav", "t/a.FLAC", "t/c/z.ogg", "t/c/d/y.m4a", "t/notes.txt", "t/noending", "t/.hidden.wav", "t/.git/x.wav"
    )
    found = find_inputs(["t"])
    assert found.files == [str(Path("t", name)) for name in ("a.FLAC", "b.wav", "c/z.ogg", "c/d/y.m4a")]
    assert (found.skipped, found.duplicates, found.failures) == (2, 0, [])


def test_named_files_are_always_tried() -> None:
    _make("notes.txt", ".hidden.wav")
    names = ["notes.txt", ".hidden.wav", "missing.wav", "no/such/folder/x.wav", "-dash.wav", "x" * 300]
    assert find_inputs(names).files == names


def test_what_leads_to_no_file_is_a_failure() -> None:
    _make("empty/notes.txt")
    Path("bare").mkdir()
    found = find_inputs(["empty", "bare", "*.wav", "", "nothing/**"])
    assert found.files == []
    assert [str(error) for _, error in found.failures] == [
        "empty: holds no audio file",
        "bare: holds no audio file",
        "*.wav: matches no audio file",
        "'': the name of a file is empty",
        "nothing/**: matches no audio file",
    ]
    assert [error.source for _, error in found.failures] == ["empty", "bare", "*.wav", "''", "nothing/**"]


def test_patterns() -> None:
    _make("t/a.wav", "t/b.xyz", "t/c.txt", "t/s/d.wav", "t/s/u/e.wav", "t/.f.wav")

    def found(*patterns: str) -> list[str]:
        return [path.replace(os.sep, "/") for path in find_inputs(patterns).files]

    assert found("t/*.wav") == ["t/a.wav"]
    assert found("t/*.xyz") == ["t/b.xyz"]  # its ending was asked for
    assert found("t/*") == ["t/a.wav", "t/s/d.wav", "t/s/u/e.wav"]  # as a shell would hand it over
    assert found("t/**/*.wav") == found("t/**") == found("t") == ["t/a.wav", "t/s/d.wav", "t/s/u/e.wav"]
    assert found("t/[a-b].*") == ["t/a.wav"]
    assert found("**/u/**") == found("t/**/u/*.wav") == found("t/*/**/e.wav") == ["t/s/u/e.wav"]
    assert found("**/*.wav") == found("t")
    assert find_inputs(["t/**"]).skipped == 2
    assert find_inputs([str(Path.cwd() / "t" / "*.wav")]).files == [str(Path.cwd() / "t" / "a.wav")]


def test_names_with_magic_characters_that_exist() -> None:
    _make("[a].wav", "t[1]/b.wav")
    assert find_inputs(["[a].wav", "t[1]"]).files == ["[a].wav", str(Path("t[1]/b.wav"))]


def test_each_file_is_kept_once() -> None:
    _make("t/a.wav", "t/b.wav")
    found = find_inputs(["t/a.wav", "./t/a.wav", "t", "t/../t", "t/*.wav", str(Path("t/b.wav").resolve())])
    assert [path.replace(os.sep, "/") for path in found.files] == ["t/a.wav", "t/b.wav"]
    assert found.duplicates == 7
    assert found.failures == []


@posix
def test_links() -> None:
    _make("data/a.wav", "elsewhere/b.wav")
    Path("data/again").symlink_to(".", target_is_directory=True)
    Path("data/sub").mkdir()
    Path("data/sub/up").symlink_to("../..", target_is_directory=True)
    Path("data/there").symlink_to("../elsewhere", target_is_directory=True)
    Path("data/label.wav").symlink_to("a.wav")
    Path("data/broken.wav").symlink_to("nowhere.wav")
    expected = ["a.wav", "broken.wav", "label.wav", "sub/up/elsewhere/b.wav"]
    assert find_inputs(["data"]).files == [f"data/{name}" for name in expected]
    assert find_inputs(["data/**/*.wav"]).files == [f"data/{name}" for name in expected]
    assert find_inputs(["data", "data/**"]).duplicates == len(expected)


@posix
def test_names_of_any_bytes() -> None:
    names = [b"sp ace.wav", b"new\nline.wav", "größe 音.wav".encode(), b"\xff\xfe.wav", b"-dash.wav", b"\x1b[31m.wav"]
    if sys.platform == "darwin":
        names.remove(b"\xff\xfe.wav")
    os.mkdir("t")
    for name in names:
        with open(b"t/" + name, "wb"):
            pass
    found = find_inputs(["t"])
    assert sorted(os.fsencode(path) for path in found.files) == sorted(b"t/" + name for name in names)
    assert path_text("größe\n音\t.wav") == "größe\n音\t.wav"
    assert path_text(os.fsdecode(b"\xff\xfe.wav")) == r"\xff\xfe.wav"


@posix
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read() -> None:
    _make("t/a.wav", "t/locked/b.wav")
    Path("t/locked").chmod(0)
    try:
        found = find_inputs(["t"])
        assert found.files == ["t/a.wav"]
        assert [str(error) for _, error in found.failures] == [
            "t/locked: the folder cannot be read (Permission denied)"
        ]
    finally:
        Path("t/locked").chmod(0o700)
