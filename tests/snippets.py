"""Runs the snippets of a Markdown page.

Blocks build on each other, so a page runs as one script, in a folder where examples/ is. A shell block runs where the
line above it says so: ``<!-- run -->``, or ``<!-- run: exit 3 -->`` where it shows a failure. Lines that need Google's
weights get those that ship with the package.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from conftest import REPOSITORY

_RUN_ONE = """
import shlex as _shlex, subprocess as _subprocess, sys as _sys

def _run(commands, code):
    for command in commands.strip().splitlines():
        program, *arguments = _shlex.split(command, comments=True)
        assert program == "vggish-pt", command
        main = [_sys.executable, "-c", "from vggish_pt.cli import main; main()"]
        assert _subprocess.run([*main, *arguments]).returncode == code, command
"""


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)


def script(page: str) -> str:
    """A page's snippets as a script; empty if it has none."""
    found = re.finditer(
        r"(?:^<!-- run(?:: exit (?P<code>\d))? -->\n```sh|^```python)\n(?P<text>.*?)^```$",
        page,
        flags=re.MULTILINE | re.DOTALL,
    )
    parts = [
        match["text"] if match[0].startswith("```python") else f"_run({match['text']!r}, {int(match['code'] or 0)})\n"
        for match in found
    ]
    return "\n".join([_RUN_ONE, *parts]).replace('"audioset"', '"synthetic"') if parts else ""


def make_workplace(folder: Path) -> Path:
    """Makes a folder look like the repository to a snippet, which may write in it."""
    shutil.copytree(REPOSITORY / "examples", folder / "examples")
    return folder


def run(arguments: list[str], folder: Path) -> str:
    """Runs a program that must succeed; returns what it printed."""
    paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "MPLBACKEND": "agg", "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(
        arguments, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    return result.stdout


def run_page(page: str, folder: Path) -> str:
    """Runs a page's snippets."""
    (folder / "snippets.py").write_text(script(page), encoding="utf-8")
    return run([sys.executable, "snippets.py"], folder)


def commands(page: str) -> list[tuple[str, str]]:
    """Each vggish-pt command that shell blocks show, and what follows its name."""
    shell = "\n".join(blocks(page, "sh")).replace("\\\n", " ")
    found = re.findall(r"\bvggish-pt ((?:weights )?[a-z]+)([^|#\n]*)", shell)
    return [(name, arguments) for name, arguments in found]


def check_options(page: str, run_cli) -> None:
    """Each option that a page's shell blocks show exists in that command's help."""
    helps: dict[str, str] = {}
    for name, arguments in commands(page):
        if name not in helps:
            shown = run_cli(*name.split(), "--help")
            assert shown.returncode == 0, f"there is no vggish-pt {name}"
            helps[name] = shown.stdout
        for option in re.findall(r"--[a-z][a-z-]*", arguments):
            assert option in helps[name], f"vggish-pt {name} has no {option}"
