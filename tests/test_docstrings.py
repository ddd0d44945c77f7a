"""Docstrings begin with a verb in the imperative or with a noun, never with a relative clause.

Only the syntax tree is read, so that this test imports nothing of the package.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "vggish_pt"

CLAUSES = {"what", "whether", "where", "how", "which", "who", "that", "if"}
_VERBS = """
Adds Asks Begins Brings Builds Calls Checks Chooses Closes Collects Compares Computes Converts Copies Counts
Creates Cuts Decides Decodes Deletes Describes Does Downloads Draws Embeds Ends Estimates Fills Finds Fits Flushes
Forgets Gathers Gets Gives Goes Groups Holds Is Joins Keeps Lists Loads Looks Makes Maps Marks Measures Merges
Moves Notes Opens Parses Passes Plans Predicts Prepares Prints Puts Raises Reads Records Releases Removes Renames
Replaces Resolves Returns Runs Saves Says Scores Searches Sends Sets Settles Shows Sorts Splits Starts Stops Stores
Takes Tells Tests Trains Turns Updates Uploads Uses Verifies Waits Walks Wraps Writes Yields
"""
THIRD_PERSON = set(_VERBS.split())  # a function's docstring has the imperative instead: "Return", not "Returns"


def _docstrings(path: Path) -> Iterator[tuple[int, bool, str]]:
    """Line, whether it is that of a function or method (properties aside), and first word of each docstring."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                is_call = not isinstance(node, ast.Module | ast.ClassDef) and not any(
                    "property" in ast.unparse(decorator) for decorator in node.decorator_list
                )
                yield getattr(node, "lineno", 1), is_call, text.split()[0].strip(".,:;`*'\"")


def _faults(path: Path) -> list[str]:
    return [
        f"{path.name}:{line}: {word}"
        for line, is_call, word in _docstrings(path)
        if word.lower() in CLAUSES or (is_call and word in THIRD_PERSON)
    ]


FILES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}


@pytest.mark.parametrize("name", FILES)
def test_first_words(name: str) -> None:
    faults = _faults(FILES[name])
    assert not faults, f"begin these docstrings with an imperative or a noun: {', '.join(faults)}"


def test_the_rules_find_faults(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(
        '"""Where things are."""\n'
        'class A:\n    """``What`` it is."""\n'
        '    def _f(self):\n        """Returns x."""\n'
        '    async def g(self):\n        """Return x."""\n'
        '    @cached_property\n    def h(self):\n        """Reads per second."""\n'
        'def k():\n    """if so."""\n'
    )
    assert sorted(_faults(module)) == [
        "module.py:11: if",
        "module.py:1: Where",
        "module.py:2: What",
        "module.py:4: Returns",
    ]
