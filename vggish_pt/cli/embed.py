"""``vggish-pt embed``: files and folders to embeddings in one file or a folder."""

from __future__ import annotations

import warnings
from typing import Annotated

import typer

from vggish_pt.cli.options import AllowTruncated, BatchSize, Hop, Resampler, Weights


def embed(
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="Audio files, folders (searched to any depth), patterns such as 'sounds/**/*.wav', addresses "
            "(s3://bucket/folder); manifests with a column path (.csv, .tsv, .jsonl, .parquet); .tar shards and "
            ".parquet files with sound in them; - for a list of paths on standard input.",
            metavar="INPUT",
            show_default=False,
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            help="What to write: a .parquet, .npz, .npy or .tfrecord file; or, without an ending, a folder of "
            "Parquet parts, which may lie at an address (s3://bucket/folder). Into a folder the same command goes on "
            "where it stopped.",
            metavar="PATH",
        ),
    ],
    weights: Weights = "audioset",
    hop: Hop = 0.96,
    pad: Annotated[
        str,
        typer.Option(
            help="short: fill up clips shorter than a window with silence, leave out an incomplete end of longer "
            "ones; tail: fill up that end too; drop: fill up nothing, so that shorter clips fail.",
            metavar="short|drop|tail",
        ),
    ] = "short",
    layer: Annotated[
        str,
        typer.Option(
            help="Where to read the network: conv1 to conv4, fc1, fc2, embedding (its end), or fused (several layers).",
            metavar="LAYER",
        ),
    ] = "embedding",
    postprocess: Annotated[
        str | None,
        typer.Option(
            help="pca: whiten and clip to [-2, 2]; uint8: that, in 8 bits, as in the AudioSet release. "
            "Left out: the embeddings as they are.",
            metavar="pca|uint8",
        ),
    ] = None,
    pool: Annotated[
        str, typer.Option(help="none: a row for each window; mean: a row for each file.", metavar="none|mean")
    ] = "none",
    resampler: Resampler = "soxr",
    fmt: Annotated[
        str | None,
        typer.Option("--format", help="Left out: by the ending of --out.", metavar="parquet|npz|npy|tfrecord"),
    ] = None,
    device: Annotated[
        str,
        typer.Option(
            help="auto (a GPU if there is one), cpu, cuda, cuda:N or mps; several with commas (cuda:0,cuda:1), or "
            "cuda:all.",
            metavar="DEVICE",
        ),
    ] = "auto",
    precision: Annotated[
        str,
        typer.Option(
            help="Of the network's arithmetic; tf32 (on CUDA) and bf16 are faster and less exact.",
            metavar="fp32|tf32|bf16",
        ),
    ] = "fp32",
    batch_size: BatchSize = None,
    workers: Annotated[
        int,
        typer.Option(
            help="Processes that decode files ahead (one beside a CPU's network: a thread); changes speed only.",
            metavar="N",
            min=0,
            max=256,
        ),
    ] = 1,
    engine: Annotated[
        str,
        typer.Option(
            help="local: this machine; ray: the Ray cluster of RAY_ADDRESS, or one here.", metavar="local|ray"
        ),
    ] = "local",
    actors: Annotated[
        int | None,
        typer.Option(
            help="With --engine ray: processes that hold the model. Left out: one on each GPU, or on each four cores.",
            metavar="N",
            min=1,
        ),
    ] = None,
    checkpoint: Annotated[
        float,
        typer.Option(
            help="Seconds after which a folder gets what has been embedded: what a killed run may lose.",
            metavar="SECONDS",
        ),
    ] = 60.0,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Try again what failed in runs before into that folder.")
    ] = False,
    allow_truncated: AllowTruncated = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the output if it exists; start a folder afresh.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Turn audio into embeddings: 128 numbers for each window of 0.96 s.

    Every input ends either in the output or, with its reason, in a list of failures: errors.parquet in a folder, or
    beside a file NAME.errors.csv.

    Example: vggish-pt embed sounds --out embeddings.parquet
    """
    from vggish_pt.cli.progress import Progress
    from vggish_pt.dataset import job
    from vggish_pt.inference.settings import EmbedSettings
    from vggish_pt.utils.remote import redacted

    settings = EmbedSettings(hop, pad, batch_size, layer, postprocess, resampler, allow_truncated)  # type: ignore[arg-type]
    todo = job.EmbedJob(
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
        result = job.run(todo, progress)
        if result.nothing_to_do:
            progress.note(f"nothing left to do: {redacted(out)} holds {result.files} files, {result.windows} windows")
        elif result.files:
            progress.finish(f"{result.files} files, {result.windows} windows → {redacted(out)}")
        else:
            progress.finish("no output")
    if result.errors:
        typer.echo(f"vggish-pt: {result.errors} failed; {result.errors_path} names each with its reason", err=True)
        raise typer.Exit(3 if result.files else 1)
