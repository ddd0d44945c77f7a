"""Folder with one figure for each input, under distinct names."""

from __future__ import annotations

import os
import re
from pathlib import Path

from vggish_pt.errors import OutputError
from vggish_pt.utils.text import error_reason

_MAX_STEM = 100


class FigureFolder:
    """Folder whose figures are named after inputs.

    Args:
        folder: created if it does not exist.
        overwrite: True allows to replace figures in it.

    Raises:
        OutputError: the folder cannot be created, or is not empty and may not be overwritten.
    """

    def __init__(self, folder: Path, *, overwrite: bool = False) -> None:
        self._folder = folder
        self._used: dict[str, int] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            existing = next(folder.iterdir(), None)
        except OSError as error:
            raise OutputError(f"{folder}: cannot be used for figures ({error_reason(error)})") from error
        if existing is not None and not overwrite:
            raise OutputError(f"{folder}: is not empty ({existing.name}); choose another folder, or --overwrite")

    def path(self, name: str) -> Path:
        """Return the path of an input's figure: in the folder, the input's name with .png, numbered if it is taken.

        Args:
            name: the input's path or address.
        """
        last = re.split(r"[/\\]|::" if os.name == "nt" else r"/|::", name)[-1]
        stem = re.sub(r"[^\w.()+ -]", "_", last.rpartition(".")[0] or last)
        stem = stem.strip(". ")[:_MAX_STEM] or "figure"
        while True:
            # Some file systems ignore case.
            count = self._used[stem.casefold()] = self._used.get(stem.casefold(), 0) + 1
            if count == 1:
                return self._folder / f"{stem}.png"
            stem = f"{stem[: _MAX_STEM - 8]}-{count}"
