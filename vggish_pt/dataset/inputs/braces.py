"""Names with braces, as WebDataset writes them: ``shard-{0000..0127}.tar``, ``{dog,cat}.wav``."""

from __future__ import annotations

import re
from collections.abc import Iterator

from vggish_pt.errors import SettingsError
from vggish_pt.utils.text import display_name

_MAX_NAMES = 1_000_000
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{},]*(?:,[^{},]*)+)\}")


def has_braces(name: str) -> bool:
    """Return True if a name contains braces that can be expanded."""
    return _BRACES.search(name) is not None


def expand_braces(name: str) -> Iterator[str]:
    """Expand the braces in a name: ``{000..012}`` counts, ``{a,b}`` lists.

    Raises:
        SettingsError: it expands to more than a million names.
    """
    choices: list[list[str] | range] = []
    widths: list[int] = []
    literals: list[str] = []
    position, count = 0, 1
    for braces in _BRACES.finditer(name):
        literals.append(name[position : braces.start()])
        position = braces.end()
        if braces[3] is not None:
            choices.append(braces[3].split(","))
            widths.append(0)
        else:
            first, last = int(braces[1][:18]), int(braces[2][:18])
            choices.append(range(first, last + 1) if first <= last else range(first, last - 1, -1))
            padded = any(len(digits) > 1 and digits.startswith("0") for digits in (braces[1], braces[2]))
            widths.append(max(len(braces[1]), len(braces[2])) if padded else 0)
        count *= len(choices[-1])
        if count > _MAX_NAMES:
            raise SettingsError(f"{display_name(name)}: its braces expand to more than {_MAX_NAMES} names")

    def expand(index: int) -> Iterator[str]:
        if index == len(choices):
            yield name[position:]
            return
        for value in choices[index]:
            for rest in expand(index + 1):
                yield f"{literals[index]}{str(value).zfill(widths[index])}{rest}"

    return expand(0)
