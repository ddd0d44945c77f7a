"""A folder of pictures, one for each input, each under a name of its own."""

from __future__ import annotations

import os
import re
from pathlib import Path

from vggish_pt.errors import OutputError

_MAX_STEM = 100


class PictureFolder:
    """Names pictures after inputs.

    Args:
        folder: made if it does not exist.
        overwrite: whether pictures that are there may be replaced.

    Raises:
        OutputError: it cannot be made, or holds something already.
    """

    def __init__(self, folder: Path, *, overwrite: bool = False) -> None:
        self._folder = folder
        self._used: dict[str, int] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            held = next(folder.iterdir(), None)
        except OSError as error:
            raise OutputError(f"{folder}: cannot be used for pictures ({error.strerror or error})") from error
        if held is not None and not overwrite:
            raise OutputError(f"{folder}: holds something already ({held.name}); choose another folder, or --overwrite")

    def path(self, name: str) -> Path:
        """Where the picture of an input goes: its name with .png, always in the folder, and with a number if need be.

        Args:
            name: the input's path or address.
        """
        last = re.split(r"[/\\]|::" if os.name == "nt" else r"/|::", name)[-1]
        stem = re.sub(r"[^\w.()+ -]", "_", last.rpartition(".")[0] or last)
        stem = stem.strip(". ")[:_MAX_STEM] or "picture"
        while True:
            # Names that differ in nothing but case are one on some file systems.
            count = self._used[stem.casefold()] = self._used.get(stem.casefold(), 0) + 1
            if count == 1:
                return self._folder / f"{stem}.png"
            stem = f"{stem[: _MAX_STEM - 8]}-{count}"
