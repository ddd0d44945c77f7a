from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from vggish_pt.errors import CheckpointError, OutputError
from vggish_pt.utils.json_file import object_text, read_object, read_text, write_object


def test_written_and_read(tmp_path: Path) -> None:
    write_object(tmp_path / "x.json", {"ü": [1, None]})
    assert read_object(tmp_path / "x.json") == {"ü": [1, None]}
    assert (tmp_path / "x.json").read_text(encoding="utf-8") == '{\n  "ü": [\n    1,\n    null\n  ]\n}\n'
    with pytest.raises(ValueError):
        write_object(tmp_path / "x.json", {"ü": math.nan})
    assert read_object(tmp_path / "x.json") == {"ü": [1, None]}
    assert json.loads(object_text({"a": math.inf}, allow_nan=True)) == {"a": math.inf}
    with pytest.raises(OutputError):
        write_object(tmp_path / "nowhere" / "x.json", {})


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not valid JSON"),
        (b'{"a": 1', "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[1]", "no JSON object"),
        (b"\xff{}", "not UTF-8"),
        (b" " * 101, "larger than 100 bytes"),
    ],
)
def test_damaged(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=says) as caught:
        read_object(path, max_bytes=100 if says.startswith("larger") else 1 << 20)
    assert str(caught.value).startswith(f"{path}: ")


def test_the_limit(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x" * 100)
    assert read_text(tmp_path / "x", max_bytes=100) == "x" * 100
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "y", max_bytes=100)
