"""``vggish-pt embed``: files and folders to embeddings in one file or a folder."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vggish_pt.cli.options import Device, Hop, Resampler, Weights
from vggish_pt.errors import SettingsError

if TYPE_CHECKING:
    from vggish_pt.cli.progress import Progress
    from vggish_pt.inputs import Inputs
    from vggish_pt.model import VGGish


def embed(
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="Audio files, folders (searched to any depth) or patterns such as 'sounds/**/*.wav'.",
            metavar="INPUT",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="What to write: a .parquet, .npz or .npy file; a name without an ending makes a folder of "
            "Parquet files.",
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
        typer.Option("--format", help="Left out: by the ending of --out.", metavar="parquet|npz|npy"),
    ] = None,
    device: Device = "auto",
    precision: Annotated[
        str,
        typer.Option(help="Of the network's arithmetic; bf16 is faster and less exact.", metavar="fp32|bf16"),
    ] = "fp32",
    batch_size: Annotated[
        int | None,
        typer.Option(help="Windows computed at a time; changes speed and memory only.", metavar="N", min=1),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(help="Threads that decode files ahead; changes speed only.", metavar="N", min=0, max=256),
    ] = 1,
    allow_truncated: Annotated[
        bool, typer.Option("--allow-truncated", help="Use what a truncated file still holds, with a warning.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Turn audio into embeddings: 128 numbers for each window of 0.96 s.

    Every input ends either in the output or, with its reason, in a list of failures beside it (errors.csv).

    Example: vggish-pt embed sounds --out embeddings.parquet
    """
    from vggish_pt import dump, output
    from vggish_pt.cli.progress import Progress
    from vggish_pt.devices import check_device_name
    from vggish_pt.inputs import find_inputs
    from vggish_pt.pretrained import registry
    from vggish_pt.settings import EmbedSettings

    # All that can be wrong is found out before torch loads and before the first file is read.
    settings = EmbedSettings(hop, pad, batch_size, layer, postprocess, resampler, allow_truncated)  # type: ignore[arg-type]
    pooling = dump.check_pool(pool)
    if precision not in ("fp32", "bf16"):
        raise SettingsError(f"precision must be fp32 or bf16, not {precision!r}")
    check_device_name(device)
    if quiet:
        warnings.simplefilter("ignore")
    form = output.choose_format(out, fmt)
    output.check_output(out, form, overwrite=overwrite)
    found = find_inputs(inputs)
    failures = [dump.failure(name, error) for name, error in found.failures]

    with Progress(len(found.files), enabled=not quiet) as progress:
        for failure in failures:
            progress.fail(failure)
        _say_left_out(found, progress)
        if not found.files:
            output.write_errors(out, form, failures)
            summary = dump.Summary(0, 0, failures)
        else:
            folder = registry.resolve(weights)
            model = _load(folder, device, precision)
            layout = dump.layout(model, settings, pool=pooling, precision=precision, folder=folder)
            outcomes = dump.embed_files(model, found.files, settings, pool=pooling, workers=workers)
            with output.open_output(out, form, layout, overwrite=overwrite) as opened:
                summary = dump.dump(outcomes, opened, failures, progress.watch)
        progress.finish(f"{summary.files} files, {summary.windows} windows → {out}" if summary.files else "no output")
    if summary.failures:
        where = output.errors_path(out, form)
        typer.echo(f"vggish-pt: {len(summary.failures)} failed; {where} names each with its reason", err=True)
        raise typer.Exit(3 if summary.files else 1)


def _say_left_out(found: Inputs, progress: Progress) -> None:
    if found.passed_over:
        progress.note(f"{found.passed_over} files passed over, as their endings are not audio")
    if found.repeated:
        progress.note(f"{found.repeated} files named more than once; each is done once")


def _load(folder: Path, device: str, precision: str) -> VGGish:
    import torch

    from vggish_pt.devices import choose_device
    from vggish_pt.model import VGGish

    model = VGGish.from_pretrained(folder, device=choose_device(device))
    return model.to(torch.bfloat16) if precision == "bf16" else model
