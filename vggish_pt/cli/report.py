"""``vggish-pt report``: the report of a dataset as one HTML page."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import typer

from vggish_pt.cli.options import Overwrite, Quiet


def report(
    folder: Annotated[
        str,
        typer.Argument(
            help="Output of vggish-pt embed: a dataset folder, also at an address, or a .parquet, .npz or .npy file.",
            metavar="FOLDER",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="Page to write.", metavar="PATH")] = Path("report.html"),
    sounds: Annotated[
        Path,
        typer.Option(
            help="Folder that relative paths in the dataset start from, to play the files: where embed ran.",
            metavar="FOLDER",
        ),
    ] = Path(),
    max_files: Annotated[
        int,
        typer.Option(
            help="Maximum number of files on the map; a random sample is shown if there are more.",
            metavar="N",
            min=1,
            max=20_000,
        ),
    ] = 5000,
    seed: Annotated[
        int, typer.Option(help="Random seed of the sample and of the map.", metavar="N", min=0, max=2**32 - 1)
    ] = 0,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Write a report: counts, durations, failures, throughput, and a map of the files, which can be played.

    The report is one self-contained HTML page. The dataset may still be growing.

    Example: vggish-pt report embeddings --out report.html
    """
    from vggish_pt.cli.streams import echo_message
    from vggish_pt.dataset.report import write_report

    if quiet:
        warnings.simplefilter("ignore")
    path = write_report(folder, out, sounds=sounds, max_files=max_files, seed=seed, overwrite=overwrite)
    if not quiet:
        echo_message(path)
