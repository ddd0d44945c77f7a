"""Hooks of the documentation site: pages that lie elsewhere in the repository, and roles in docstrings."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).resolve().parent.parent

ELSEWHERE = (
    "benchmarks/README.md",
    "conversion/README.md",
    "weights/README.md",
    "weights/audioset/README.md",
    "weights/synthetic/README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
)
"""Pages outside docs/. On the site they have the same path as in the repository; those in docs/ lose its name."""

_FENCED = re.compile(r"(^```.*?^```$)", flags=re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[(?P<text>[^\]]*)\]\((?P<target>[^)\s#:]+)(?P<anchor>#[^)\s]*)?\)")
_EXAMPLE = re.compile(r"^(?:>>>|\.\.\.) .*(?:\n(?:>>>|\.\.\.) .*)*", flags=re.MULTILINE)
_FLAG = re.compile(r" *# doctest: .*")
_ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):`(?P<short>~?)(?P<path>[\w.]+)`")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages outside docs/."""
    for path in ELSEWHERE:
        files.append(File(path, str(REPOSITORY), config.site_dir, config.use_directory_urls))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Points links between files of the repository, which are right where those are read, to pages of the site."""
    folder = Path(page.file.abs_src_path or "").parent.relative_to(REPOSITORY).as_posix()

    def link(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, match["target"]))
        if page.file.src_uri.endswith(".md") and files.get_file_from_path(on_site := target.removeprefix("docs/")):
            relative = posixpath.relpath(on_site, posixpath.dirname(page.file.src_uri) or ".")
            return f"[{match['text']}]({relative}{match['anchor'] or ''})"
        if (REPOSITORY / target).exists():  # code, which the site does not hold
            return match["text"]
        return match[0]  # leads nowhere, of which MkDocs warns

    parts = _FENCED.split(markdown)
    parts[::2] = [_LINK.sub(link, part) for part in parts[::2]]
    return "".join(parts)


class Roles(griffe.Extension):
    """Turns docstrings into Markdown: Sphinx's roles into links to what the site documents, doctests into code."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:  # noqa: ARG002
        """Rewrites an object's docstring."""
        if obj.docstring is None:
            return
        scope = obj if obj.is_class or obj.is_module else obj.parent

        def link(match: re.Match[str]) -> str:
            path = match["path"]
            shown = path.rpartition(".")[2] if match["short"] else path
            if not path.startswith("vggish_pt.") and scope is not None:
                path = f"{scope.path}.{path}"
            return f'<autoref optional identifier="{path}"><code>{shown}</code></autoref>'

        text = _ROLE.sub(link, obj.docstring.value)
        obj.docstring.value = _EXAMPLE.sub(lambda match: f"```pycon\n{_FLAG.sub('', match[0])}\n```", text)
