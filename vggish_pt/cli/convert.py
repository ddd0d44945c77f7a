"""``vggish-pt convert``: convert a checkpoint to a model folder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer


def convert(
    checkpoint: Annotated[
        Path,
        typer.Argument(help="TensorFlow V1 file, TensorFlow V2 prefix, or the weights of torchvggish or torchaudio."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Model folder to write.")],
    pca: Annotated[
        Path | None,
        typer.Option("--pca", help="PCA parameters, such as vggish_pca_params.npz; default: those in the checkpoint."),
    ] = None,
    final_relu: Annotated[
        bool, typer.Option("--final-relu", help="Set final_relu in the configuration: a ReLU after the last layer.")
    ] = False,
    name: Annotated[
        str | None, typer.Option(help="Name of the weights, for records; default: the checkpoint's file name.")
    ] = None,
    license: Annotated[
        str | None, typer.Option(help="SPDX expression of the weights' licence; default: unknown.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write into a folder that is not empty; default: refuse.")
    ] = False,
) -> None:
    """Convert TensorFlow, torchvggish or torchaudio weights to a model folder; TensorFlow is not needed."""
    from vggish_pt.pretrained.convert import convert as run

    start = time.perf_counter()
    report = run(checkpoint, out, pca=pca, final_relu=final_relu, name=name, license=license, overwrite=overwrite)
    seconds = time.perf_counter() - start
    typer.echo(f"{checkpoint} ({report.format}) -> {report.folder}")
    typer.echo(f"tensors   {len(report.taken)} taken, {'with' if report.has_pca else 'without'} PCA parameters")
    typer.echo(f"ignored   {len(report.slots)} slots of optimizers, {len(report.ignored)} other variables")
    typer.echo(f"sha256    {report.sha256}")
    typer.echo(f"size      {report.size:,} bytes, in {seconds:.1f} s")
