"""Every command and snippet of README.md and every example runs as it stands."""

from __future__ import annotations

import re
import sys

import pytest
import snippets
from conftest import REPOSITORY

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
EXAMPLES = sorted((REPOSITORY / "examples").glob("*.py"))


@pytest.fixture
def workplace(tmp_path):
    """A folder that looks like the repository to a snippet, and in which it may write."""
    return snippets.make_workplace(tmp_path)


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
    snippets.run([sys.executable, "-c", "from vggish_pt.cli import main; main()", *arguments], workplace)
    assert (workplace / arguments[-1]).stat().st_size > 10_000


def test_python_snippets(workplace):
    """Lines that need the network are left to other tests."""
    assert len(snippets.blocks(README, "python")) >= 3
    snippets.run_page(README, workplace)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_example(path, workplace):
    arguments = {
        "plot_clip.py": ["examples/clips/speech.mp3", "picture.png"],
        "make_clips.py": ["made"],
    }.get(path.name, [])
    assert snippets.run([sys.executable, f"examples/{path.name}", *arguments], workplace).strip()


def test_shell_snippets_use_real_options(run_cli):
    """Each option that README shows exists in that command's help."""
    assert {name for name, _ in snippets.commands(README)} >= {"embed", "convert", "inspect", "weights list"}
    snippets.check_options(README, run_cli)
