"""Report of a dataset: one HTML page with its counts, settings, failures, throughput and a map of its files.

>>> write_report("embeddings", "report.html")    # doctest: +SKIP
"""

from __future__ import annotations

import os
from pathlib import Path

from vggish_pt.errors import SettingsError
from vggish_pt.utils.atomic import check_file, whole_file

MAX_FILES = 5000
"""Maximum number of files on the map by default."""


def write_report(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str] = "report.html",
    *,
    sounds: str | os.PathLike[str] = ".",
    max_files: int = MAX_FILES,
    seed: int = 0,
    overwrite: bool = False,
) -> Path:
    """Write the report of a dataset.

    The same dataset, path and seed give the same page.

    Args:
        folder: the output of ``vggish-pt embed``: a dataset folder, finished or not, or a single ``.parquet``, ``.npz``
            or ``.npy`` file; see :func:`vggish_pt.read_dataset`.
        out: path of the page.
        sounds: the folder that relative paths in the dataset start from, to play the files: where ``embed`` ran.
        max_files: maximum number of files on the map, 1 to 20,000; a random sample is shown if there are more.
        seed: random seed of the sample and of the map.
        overwrite: True replaces an existing page.

    Returns:
        The path of the page.

    Raises:
        OutputError: the dataset cannot be read, or the page cannot be written.
        SettingsError: ``max_files`` is not allowed.
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
