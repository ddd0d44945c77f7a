"""Every name of the package that the documentation, an example or a docstring shows can be imported."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY

PAGES = sorted(
    page
    for folder in (".", "docs", "conversion", "weights", "benchmarks")
    for page in (REPOSITORY.glob("*.md") if folder == "." else (REPOSITORY / folder).rglob("*.md"))
)
SCRIPTS = sorted(
    script
    for folder in ("examples", "benchmarks", "weights", "conversion", "docs")
    for script in (REPOSITORY / folder).rglob("*.py")
)
SOURCES = sorted((REPOSITORY / "vggish_pt").rglob("*.py"))

_DOTTED = re.compile(r"(?<![\w/.-])vggish_pt(?:\.[A-Za-z_]\w*)+")
_NO_NAMES = re.compile(r"\.(?:py|toml|git|npz|egg-info)$")
_IMPORT = re.compile(r"^\s*from (vggish_pt[\w.]*) import (?:\(([^)]*)\)|([^#\n]*))", re.MULTILINE)
_ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):`~?(vggish_pt\.[\w.]+)`")


def resolve(name: str) -> object:
    """Import what a dotted name stands for.

    Raises:
        ImportError, AttributeError: there is no such thing.
    """
    parts = name.split(".")
    found = importlib.import_module(parts[0])
    for position, part in enumerate(parts[1:], start=2):
        if not hasattr(found, part):
            importlib.import_module(".".join(parts[:position]))
        found = getattr(found, part)
    return found


def shown(text: str) -> Iterator[str]:
    """Yield the dotted names of a page."""
    for match in _DOTTED.finditer(text):
        if not _NO_NAMES.search(match[0]):
            yield match[0]
    for module, within, plain in _IMPORT.findall(text):
        for name in re.findall(r"(?:^|,)\s*([A-Za-z_]\w*)", within or plain):
            yield f"{module}.{name}"


def imported(path: Path) -> Iterator[str]:
    """Yield the names of the package that a script imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "vggish_pt":
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def missing(names: Iterator[str]) -> list[str]:
    """Return those that cannot be imported. The extra ``mteb`` may be absent."""
    found = []
    for name in sorted(set(names)):
        if name.startswith("vggish_pt.mteb"):
            continue
        try:
            resolve(name)
        except (ImportError, AttributeError) as error:
            found.append(f"{name}: {error}")
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_names_in_pages(page):
    assert missing(shown(page.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: str(script.relative_to(REPOSITORY)))
def test_names_in_scripts(script):
    assert missing(imported(script)) == []


def test_names_in_docstrings():
    named = (name for source in SOURCES for name in _ROLE.findall(source.read_text(encoding="utf-8")))
    assert missing(named) == []


def test_the_search_finds_names():
    assert {*shown("`vggish_pt.dataset.job.run`\nfrom vggish_pt import VGGish, load_waveform")} == {
        "vggish_pt.dataset.job.run",
        "vggish_pt.VGGish",
        "vggish_pt.load_waveform",
    }
    assert missing(iter(["vggish_pt.errors.NoSuchError", "vggish_pt.no_such_module"])) != []
