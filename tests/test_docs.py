"""The documentation: every snippet runs, every command's options exist, and the site builds without a warning."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import snippets
import yaml
from conftest import REPOSITORY

DOCS = REPOSITORY / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
NAMES = [page.relative_to(DOCS).as_posix() for page in PAGES]
SITE = yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8"))


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", [p for p in PAGES if snippets.script(_read(p))], ids=lambda p: p.stem)
def test_snippets_run(page, tmp_path):
    text = _read(page)
    for library in ("datasets", "duckdb", "matplotlib", "pandas", "polars", "resampy"):
        if re.search(rf"import {library}|vggish_pt\.plot|resampler=\"{library}\"", text):
            pytest.importorskip(library)
    snippets.run_page(text, snippets.make_workplace(tmp_path))


@pytest.mark.parametrize("page", [p for p in PAGES if snippets.commands(_read(p))], ids=lambda p: p.stem)
def test_shell_snippets_use_real_options(page, run_cli):
    snippets.check_options(_read(page), run_cli)


def test_command_line_page_names_every_command(run_cli):
    shown = run_cli("--help").stdout
    names = re.findall(r"^│ ([a-z]+) ", shown[shown.index("Commands") :], flags=re.MULTILINE)
    assert len(names) >= 6
    page = _read(DOCS / "reference" / "cli.md")
    assert [name for name in names if f"| `{name}" not in page] == []


def _pages(entry):
    if isinstance(entry, str):
        return [entry]
    children = entry.values() if isinstance(entry, dict) else entry
    return [page for child in children for page in _pages(child)]


def test_navigation_names_every_page_and_only_pages():
    named = _pages(SITE["nav"])
    elsewhere = [page for page in named if page not in NAMES]
    assert set(NAMES) <= set(named)
    assert len(elsewhere) >= 7 and [page for page in elsewhere if not (REPOSITORY / page).is_file()] == []


def test_reference_names_what_there_is():
    named = re.findall(r"^::: ([\w.]+)$", "\n".join(map(_read, PAGES)), flags=re.MULTILINE)
    assert len(set(named)) == len(named) > 15
    for name in named:
        if name != "vggish_pt.mteb":  # an extra
            module, _, attribute = name.rpartition(".")
            found = importlib.import_module(module)
            assert hasattr(found, attribute) or importlib.import_module(name)


def test_reference_has_all_that_the_package_exports():
    import vggish_pt

    text = "\n".join(map(_read, PAGES))
    errors = {name for name in vggish_pt.__all__ if name.endswith(("Error", "Warning"))}
    assert "::: vggish_pt.errors" in text
    missing = [n for n in vggish_pt.__all__ if n not in errors | {"__version__"} and f"::: vggish_pt.{n}\n" not in text]
    assert missing == []


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site as CI builds it: warnings are errors."""
    pytest.importorskip("mkdocs")
    pytest.importorskip("material")
    pytest.importorskip("mkdocstrings_handlers.python")
    folder = tmp_path_factory.mktemp("built") / "site"
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return folder


def test_site_loads_nothing_from_elsewhere(site):
    for page in site.rglob("*.html"):
        tags = re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", _read(page))
        assert [tag for tag in tags if re.search(r"(?:src|href)=[\"']?(?:https?:)?//", tag)] == [], page


def test_site_documents_the_package(site):
    model = _read(site / "reference" / "model" / "index.html")
    for name in ("VGGish.embed", "VGGish.stream", "Embeddings", "VGGishConfig"):
        assert f'id="vggish_pt.{name}"' in model
    assert "the start of one window to the next" in model
    for page in (site / "reference").rglob("*.html"):
        assert not re.search(r":(?:meth|class|func|data|attr|mod):", _read(page)), page
    frameworks = _read(site / "reference" / "frameworks" / "index.html")
    assert "make_pipeline" in frameworks and "doctest:" not in frameworks and "<blockquote>" not in frameworks


def test_links_between_the_repository_and_the_site(site):
    assert 'href="../benchmarks/"' in _read(site / "streaming" / "index.html")
    assert (site / "weights" / "synthetic" / "index.html").is_file()
    assert not list(site.rglob("*.py"))
