"""``vggish-pt embed``: audio files to embeddings in one file or in a dataset folder."""

from __future__ import annotations

import warnings
from typing import Annotated

import typer

from vggish_pt.cli.options import (
    LAYERS_HELP,
    AllowTruncated,
    BatchSize,
    Hop,
    Inputs,
    Overwrite,
    Pad,
    Postprocess,
    Quiet,
    Resampler,
    Weights,
)


def embed(
    inputs: Inputs,
    out: Annotated[
        str,
        typer.Option(
            help="Output: a .parquet, .npz, .npy or .tfrecord file; or a name without an ending, for a folder of "
            "Parquet parts, also at an address (s3://bucket/folder). If a run into a folder is interrupted, the same "
            "command resumes it.",
            metavar="PATH",
        ),
    ],
    weights: Weights = "audioset",
    hop: Hop = 0.96,
    pad: Pad = "short",
    layer: Annotated[
        str,
        typer.Option(help=f"Layer of the network to write: {LAYERS_HELP}.", metavar="LAYER"),
    ] = "embedding",
    postprocess: Postprocess = None,
    pool: Annotated[
        str,
        typer.Option(
            help="none: one row per window; mean: one row per file, the mean over its windows.", metavar="none|mean"
        ),
    ] = "none",
    resampler: Resampler = "soxr",
    fmt: Annotated[
        str | None,
        typer.Option(
            "--format", help="Output format. Default: from the ending of --out.", metavar="parquet|npz|npy|tfrecord"
        ),
    ] = None,
    device: Annotated[
        str,
        typer.Option(
            help="auto (a GPU if there is one), cpu, cuda, cuda:N or mps; several devices with commas "
            "(cuda:0,cuda:1), or cuda:all.",
            metavar="DEVICE",
        ),
    ] = "auto",
    precision: Annotated[
        str,
        typer.Option(
            help="Arithmetic of the network; tf32 (on CUDA) and bf16 are faster and less exact.",
            metavar="fp32|tf32|bf16",
        ),
    ] = "fp32",
    batch_size: BatchSize = None,
    workers: Annotated[
        int,
        typer.Option(
            help="Worker processes that decode files ahead; affects speed only. 1 on a CPU is a thread.",
            metavar="N",
            min=0,
            max=256,
        ),
    ] = 1,
    engine: Annotated[
        str,
        typer.Option(
            help="local: this machine; ray: the Ray cluster at RAY_ADDRESS, or a new one on this machine.",
            metavar="local|ray",
        ),
    ] = "local",
    actors: Annotated[
        int | None,
        typer.Option(
            help="With --engine ray: processes that run the model. Default: one per GPU, or one per four CPU cores.",
            metavar="N",
            min=1,
        ),
    ] = None,
    checkpoint: Annotated[
        float,
        typer.Option(
            help="Seconds between writes to a folder; a killed run loses at most the work of this time.",
            metavar="SECONDS",
        ),
    ] = 60.0,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Retry the inputs that failed in earlier runs into the folder.")
    ] = False,
    allow_truncated: AllowTruncated = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Compute embeddings of audio: 128 numbers for each window of 0.96 s.

    Inputs that fail are listed with the reason in _errors.parquet in a folder, or in NAME.errors.csv next to a file.

    Example: vggish-pt embed sounds --out embeddings.parquet
    """
    from vggish_pt.cli.progress import Progress
    from vggish_pt.dataset import EmbedJob, run
    from vggish_pt.inference.settings import EmbedSettings
    from vggish_pt.utils.remote import redacted

    settings = EmbedSettings(hop, pad, batch_size, layer, postprocess, resampler, allow_truncated)  # type: ignore[arg-type]
    job = EmbedJob(
        named=inputs,
        out=out,
        settings=settings,
        weights=weights,
        fmt=fmt,
        pool=pool,  # type: ignore[arg-type]
        precision=precision,
        engine=engine,  # type: ignore[arg-type]
        device=device,
        workers=workers,
        actors=actors,
        checkpoint=checkpoint,
        overwrite=overwrite,
        retry_errors=retry_errors,
    )
    if quiet:
        warnings.simplefilter("ignore")
    with Progress(enabled=not quiet) as progress:
        result = run(job, progress)
        if result.nothing_to_do:
            progress.note(f"nothing left to do: {redacted(out)} holds {result.files} files, {result.windows} windows")
        elif result.files:
            progress.finish(f"{result.files} files, {result.windows} windows → {redacted(out)}")
        else:
            progress.finish("no output")
    if result.errors:
        typer.echo(f"vggish-pt: {result.errors} failed; {result.errors_path} names each with its reason", err=True)
        raise typer.Exit(3 if result.files else 1)
