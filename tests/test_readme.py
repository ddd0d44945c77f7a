"""Every command and snippet of README.md and every example runs as it stands."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import REPOSITORY

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
EXAMPLES = sorted((REPOSITORY / "examples").glob("*.py"))


def _blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def workplace(tmp_path):
    """A folder that looks like the repository to a snippet, and in which it may write."""
    shutil.copytree(REPOSITORY / "examples", tmp_path / "examples")
    return tmp_path


def _run(arguments, folder):
    paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "MPLBACKEND": "agg", "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(
        arguments, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    return result.stdout


def test_readme_opens_with_three_sentences_and_two_commands():
    opening = README.split("```", maxsplit=1)[0].split("\n\n")[1]
    assert len(re.findall(r"[.!?](?=\s|$)", opening)) == 3
    first, second = re.findall(r"<!-- command: (\w+) -->\n```sh\n.+\n```", README)
    assert (first, second) == ("run", "test")


def test_first_command(workplace):
    command = re.search(r"<!-- command: run -->\n```sh\n(.+)\n```", README)[1]
    install, _, run = command.rpartition(" && ")
    assert install == "python3 -m venv .venv && .venv/bin/pip install ."
    program, *arguments = run.split()
    assert program == ".venv/bin/vggish-pt"
    _run([sys.executable, "-c", "from vggish_pt.cli import main; main()", *arguments], workplace)
    assert (workplace / arguments[-1]).stat().st_size > 10_000


def test_python_snippets(workplace):
    """They build on each other, so they run as one script. Lines that need the network are left to other tests."""
    snippets = _blocks("python")
    assert len(snippets) >= 3
    script = "\n".join(snippets).replace('"audioset"', '"synthetic"')
    (workplace / "snippets.py").write_text(script, encoding="utf-8")
    _run([sys.executable, "snippets.py"], workplace)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_example(path, workplace):
    arguments = {
        "plot_clip.py": ["examples/clips/speech.mp3", "picture.png"],
        "make_clips.py": ["made"],
    }.get(path.name, [])
    assert _run([sys.executable, f"examples/{path.name}", *arguments], workplace).strip()


def test_shell_snippets_use_real_options(run_cli):
    """Each option that README shows exists in that command's help."""
    commands = re.findall(r"^vggish-pt (\w+)(.*)$", "\n".join(_blocks("sh")), flags=re.MULTILINE)
    assert {name for name, _ in commands} >= {"embed", "convert", "inspect", "weights"}
    for name in {name for name, _ in commands}:
        help_text = run_cli(name, "--help").stdout
        for _, arguments in filter(lambda c, name=name: c[0] == name, commands):
            for option in re.findall(r"--[a-z-]+", arguments):
                assert option in help_text, f"vggish-pt {name} has no {option}"
