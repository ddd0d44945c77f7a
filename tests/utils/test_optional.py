from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vggish_pt.errors import MissingDependencyError
from vggish_pt.utils.optional import require


def test_present() -> None:
    assert require("json", "this test").loads("1") == 1


@pytest.mark.parametrize(
    ("module", "advice"),
    [("resampy", r'pip install "vggish_pt\[resampy\]"'), ("no_such_library.part", "pip install no_such_library$")],
)
def test_missing(monkeypatch: pytest.MonkeyPatch, module: str, advice: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=f"^reading M4A needs {module} .*install it with: {advice}"):
        require(module, "reading M4A")


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("broken_abi", "raise OSError('libfoo.so: undefined symbol\\nsecond line')", "undefined symbol"),
        ("broken_api", "import json\njson.no_such_name", "no attribute"),
        ("broken_quietly", "raise RuntimeError", "RuntimeError"),
    ],
)
def test_installed_but_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: str, message: str
) -> None:
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    for _ in range(2):
        with pytest.raises(MissingDependencyError, match=f"needs {name}.*cannot be loaded.*{message}") as caught:
            require(name, "this")
        assert len(str(caught.value).splitlines()) == 1


def test_torchaudio() -> None:
    """The real one, in a process of its own: it can be used, or there is one line that says what to do, twice alike."""
    code = (
        "from vggish_pt.utils.optional import require\n"
        "from vggish_pt.errors import MissingDependencyError\n"
        "for _ in range(2):\n"
        "    try:\n"
        "        print(require('torchaudio', 'this').functional.resample.__name__)\n"
        "    except MissingDependencyError as error:\n"
        "        print(str(error))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert line == "resample" or (
            line.startswith("this needs torchaudio, which cannot be loaded here (") and "torchaudio==2.11.0" in line
        )


def test_torchaudio_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchaudio", None)
    with pytest.raises(MissingDependencyError, match=r'install matching builds.*or do without it .*resampler="soxr"'):
        require("torchaudio", 'resampler="torchaudio"')
