"""Files of matplotlib figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vggish_pt.errors import SettingsError
from vggish_pt.utils.atomic import check_file, whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Key of the date in each format; without it, the same figure has the same bytes.
_DATES = {".png": None, ".svg": "Date", ".pdf": "CreationDate"}


def check_figure(path: Path, *, overwrite: bool = False) -> None:
    """Check that a figure can be written, before it is computed.

    Raises:
        SettingsError: the ending is not .png, .svg or .pdf.
        OutputError: the file exists and ``overwrite`` is False, or its folder cannot be written to.
    """
    if path.suffix.lower() not in _DATES:
        raise SettingsError(f"{path}: a figure must end in {', '.join(_DATES)}")
    check_file(path, overwrite=overwrite)


def save(figure: Figure, path: Path) -> None:
    """Write a figure, whole or not at all.

    Args:
        figure: a matplotlib figure.
        path: file that ends in .png, .svg or .pdf; replaced if it exists.

    Raises:
        SettingsError: the file has another ending.
        OutputError: the file cannot be written.
    """
    check_figure(path, overwrite=True)
    ending = path.suffix.lower()
    options: dict[str, Any] = {"metadata": {key: None}} if (key := _DATES[ending]) else {}
    with whole_file(path, overwrite=True) as file:
        figure.savefig(file, format=ending.lstrip("."), dpi=110, **options)
