"""Writes figures to files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vggish_pt.errors import SettingsError
from vggish_pt.utils.atomic import check_file, whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The key under which each format keeps its date; without it, the same picture has the same bytes.
_DATES = {".png": None, ".svg": "Date", ".pdf": "CreationDate"}


def check_picture(path: Path, *, overwrite: bool = False) -> None:
    """Finds out early what would prevent a picture.

    Raises:
        SettingsError: an ending other than .png, .svg and .pdf.
        OutputError: it exists and may not be replaced, or its folder cannot be written to.
    """
    if path.suffix.lower() not in _DATES:
        raise SettingsError(f"{path}: a picture must end in {', '.join(_DATES)}")
    check_file(path, overwrite=overwrite)


def save(figure: Figure, path: Path) -> None:
    """Writes a figure, whole or not at all.

    Args:
        figure: a matplotlib figure.
        path: ends in .png, .svg or .pdf; replaced if it exists.

    Raises:
        SettingsError: another ending.
        OutputError: it cannot be written.
    """
    check_picture(path, overwrite=True)
    ending = path.suffix.lower()
    options: dict[str, Any] = {"metadata": {key: None}} if (key := _DATES[ending]) else {}
    with whole_file(path, overwrite=True) as file:
        figure.savefig(file, format=ending.lstrip("."), dpi=110, **options)
