"""Addresses of audio files, as seen from a report's page."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from vggish_pt.utils.remote import is_address, local_path

_WEB = re.compile(r"https?://[^\s\"'<>]+", re.IGNORECASE)
_SAFE = "/:@!$&'()*+,;=-._~"
MAX_NAME = 400
"""Maximum number of letters of a name; longer names are shortened to keep the page small."""

# Reasons why a file cannot be played; page.js has a sentence for each.
NOT_FOUND, INSIDE, ELSEWHERE = 1, 2, 3


@dataclass(frozen=True)
class Playable:
    """Finder of the files of a page.

    Args:
        page: path of the page.
        sounds: the folder that relative paths start from.
    """

    page: Path
    sounds: Path

    def url(self, name: str) -> str | int:
        """Return the address of a file for the page, or the reason why the page cannot play it.

        A relative path gives an address relative to the page, so that both can be moved or served together.
        """
        if _WEB.fullmatch(name) and len(name) <= MAX_NAME:
            return quote(name, safe=_SAFE + "%?#[]")
        if is_address(name):
            return ELSEWHERE
        path = local_path(name)
        if len(path) > MAX_NAME or not _is_file(self.sounds / path):
            return INSIDE if "::" in path else NOT_FOUND
        if Path(path).is_absolute():
            return Path(path).as_uri()
        return quote(os.path.relpath(self.sounds / path, self.page.parent).replace(os.sep, "/"), safe="/-._~")


def shortened(name: str) -> str:
    """Return a name, shortened in the middle if it is too long."""
    half = MAX_NAME // 2 - 1
    return name if len(name) <= MAX_NAME else f"{name[:half]} … {name[-half:]}"


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, or with a null byte
        return False
