"""A dump as one HTML page that needs nothing else: what it is, what failed, how fast it went, and a map of its files.

>>> write_report("embeddings", "report.html")    # doctest: +SKIP
"""

from __future__ import annotations

import os
from pathlib import Path

from vggish_pt.errors import SettingsError
from vggish_pt.utils.atomic import check_file, whole_file

MAX_FILES = 5000
"""On the map; of more, so many are drawn by lot."""


def write_report(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str] = "report.html",
    *,
    sounds: str | os.PathLike[str] = ".",
    max_files: int = MAX_FILES,
    seed: int = 0,
    overwrite: bool = False,
) -> Path:
    """Writes the report of a dump.

    The same dump, place and seed give the same page.

    Args:
        folder: what ``vggish-pt embed`` wrote: a dataset folder, finished or not, or a single ``.parquet``, ``.npz`` or
            ``.npy`` file; see :func:`vggish_pt.read_dataset`.
        out: the page.
        sounds: the folder that relative paths in the dump start from, for hearing the files: where ``embed`` ran.
        max_files: how many files the map shows at most, 1 to 20,000; of more, so many are drawn by lot.
        seed: of that, and of the map.
        overwrite: whether to replace a page that is there.

    Returns:
        The page's path.

    Raises:
        OutputError: the dump cannot be read or the page not be written.
        SettingsError: ``max_files`` is out of its range.
    """
    from vggish_pt.dataset.reader import read_dataset
    from vggish_pt.dataset.report.gather import gather
    from vggish_pt.dataset.report.map import project
    from vggish_pt.dataset.report.page import page

    if not 1 <= max_files <= 20_000:
        raise SettingsError(f"max_files must be from 1 to 20000, not {max_files}")
    path = Path(out)
    check_file(path, overwrite=overwrite)
    facts = gather(read_dataset(folder), max_files=max_files, seed=seed)
    text = page(facts, project(facts.sample.values, seed), out=path, sounds=Path(sounds))
    with whole_file(path, overwrite=overwrite) as file:
        file.write(text.encode())
    return path


__all__ = ["MAX_FILES", "write_report"]
