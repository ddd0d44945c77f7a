"""``vggish-pt report``: what a dump holds, as one HTML page."""

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
            help="What vggish-pt embed wrote: a dataset folder, also at an address, or a .parquet, .npz or .npy file.",
            metavar="FOLDER",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="The page to write.", metavar="PATH")] = Path("report.html"),
    sounds: Annotated[
        Path,
        typer.Option(
            help="The folder that relative paths in the dump start from, to hear them: where embed ran.",
            metavar="FOLDER",
        ),
    ] = Path(),
    max_files: Annotated[
        int,
        typer.Option(help="Files on the map; of more, so many are drawn by lot.", metavar="N", min=1, max=20_000),
    ] = 5000,
    seed: Annotated[int, typer.Option(help="Of that, and of the map.", metavar="N", min=0, max=2**32 - 1)] = 0,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Write a dump's report: counts, durations, failures, throughput, and a map of its files that can be heard.

    It is one HTML page that needs nothing else. A dump that is still growing can be reported on too.

    Example: vggish-pt report embeddings --out report.html
    """
    from vggish_pt.dataset.report import write_report

    if quiet:
        warnings.simplefilter("ignore")
    path = write_report(folder, out, sounds=sounds, max_files=max_files, seed=seed, overwrite=overwrite)
    if not quiet:
        typer.echo(path)
