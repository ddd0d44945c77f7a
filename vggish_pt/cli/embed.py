"""``vggish-pt embed``: files and folders to embeddings in one file or a folder."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vggish_pt.errors import AudioError, SettingsError, VGGishError

if TYPE_CHECKING:
    from vggish_pt.cli.progress import Progress
    from vggish_pt.embedding import Embeddings
    from vggish_pt.model import VGGish
    from vggish_pt.output import Layout, Rows
    from vggish_pt.settings import EmbedSettings


def embed(
    inputs: Annotated[
        list[str],
        typer.Argument(help="Audio files, folders (searched to any depth) or glob patterns.", metavar="INPUT..."),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="Output: .parquet, .npz or .npy; without an ending, a folder of Parquet parts.", metavar="PATH"
        ),
    ],
    weights: Annotated[
        str, typer.Option(help="'audioset', 'synthetic', a model folder, or a Hub repository user/name.")
    ] = "audioset",
    hop: Annotated[float, typer.Option(help="Seconds from window to window, a multiple of 0.01.")] = 0.96,
    pad: Annotated[
        str,
        typer.Option(help="'short' pads clips below one window; 'drop' never pads; 'tail' covers every sample."),
    ] = "short",
    layer: Annotated[str, typer.Option(help="conv1 to conv4, fc1, fc2 or embedding.")] = "embedding",
    postprocess: Annotated[
        str | None, typer.Option(help="'pca' (whitened, in [-2, 2]) or 'uint8' (8 bits, as AudioSet's features).")
    ] = None,
    pool: Annotated[str, typer.Option(help="'none': a row per window; 'mean': a row per file.")] = "none",
    resampler: Annotated[str, typer.Option(help="'soxr', 'resampy' (the reference's) or 'torchaudio'.")] = "soxr",
    fmt: Annotated[
        str | None, typer.Option("--format", help="parquet, npz or npy; default: by the ending of --out.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="fp32 or bf16 (the network's).")] = "fp32",
    batch_size: Annotated[int | None, typer.Option(help="Windows per pass; results do not depend on it.")] = None,
    workers: Annotated[int, typer.Option(help="Threads that decode ahead; results do not depend on them.")] = 1,
    allow_truncated: Annotated[
        bool, typer.Option("--allow-truncated", help="Use what a truncated file still holds, with a warning.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only errors.")] = False,
) -> None:
    """Turn audio into embeddings, one row per 0.96 s window.

    Every input ends either in the output or, with its reason, in the errors file beside it.
    """
    from vggish_pt import output, registry
    from vggish_pt.cli.progress import Progress
    from vggish_pt.inputs import find_inputs
    from vggish_pt.settings import EmbedSettings

    # All that can be wrong is found out before torch loads and before the first file is read.
    settings = EmbedSettings(hop, pad, batch_size, layer, postprocess, resampler, allow_truncated)  # type: ignore[arg-type]
    for option, value, choices in (("--pool", pool, ("none", "mean")), ("--precision", precision, ("fp32", "bf16"))):
        if value not in choices:
            raise SettingsError(f"{option} must be {' or '.join(choices)}, not {value!r}")
    kind = output.choose_format(out, fmt)
    output.check_output(out, kind, overwrite=overwrite)
    folder = registry.resolve(weights)
    found = find_inputs(inputs)

    with Progress(len(found.files), enabled=not quiet) as progress:
        warnings.showwarning = lambda message, *_, **__: progress.print(f"vggish-pt: warning: {_one_line(message)}")
        failures = _Failures(progress)
        for failure in found.failures:
            failures.add(failure.source or "", failure)
        if found.passed_over and not quiet:
            progress.print(f"{found.passed_over} files in folders passed over, as their endings are not audio")
        if found.repeated and not quiet:
            progress.print(f"{found.repeated} files named more than once; each is done once")
        model = _load(folder, device, precision)
        layout = _layout(model, settings, pool, precision, folder)
        with output.open_output(out, kind, layout, overwrite=overwrite) as writer:
            files = windows = 0
            results = model.embed_iter(found.files, workers=workers, **vars(settings))
            for path, result in zip(found.files, results, strict=True):
                if isinstance(result, VGGishError):
                    failures.add(path, result)
                    progress.advance(0.0, failed=True)
                elif len(result) == 0:
                    failures.add(path, AudioError(f"{result.duration:.3f} s give no window with --pad {pad}"))
                    progress.advance(result.duration, failed=True)
                else:
                    writer.write(_rows(result, pool))
                    files, windows = files + 1, windows + len(result)
                    progress.advance(result.duration)
            if files:
                writer.finish()
        errors = output.errors_path(out, kind if files else "parquet")
        output.write_errors(errors, failures.rows)
        progress.finish(f"{files} files, {windows} windows → {out}" if files else "nothing could be embedded")
    if failures.rows:
        typer.echo(f"vggish-pt: {len(failures.rows)} inputs failed; {errors} names each with its reason", err=True)
        raise typer.Exit(3 if files else 1)


def _one_line(message: object) -> str:
    return " ".join(str(message).split())


class _Failures:
    """The inputs that failed: printed as they come, and kept for the errors file."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.rows: list[tuple[str, str, str]] = []

    def add(self, path: str, error: VGGishError) -> None:
        from vggish_pt.audio import display_name

        name = display_name(path)
        reason = _one_line(error).removeprefix(f"{name}: ")
        self.rows.append((name, reason, type(error).__name__))
        self._progress.print(f"vggish-pt: {name}: {reason}")


def _load(folder: Path, device: str, precision: str) -> VGGish:
    import torch

    from vggish_pt.devices import choose_device
    from vggish_pt.model import VGGish

    model = VGGish.from_pretrained(folder, device=choose_device(device))
    return model.to(torch.bfloat16) if precision == "bf16" else model


def _layout(model: VGGish, settings: EmbedSettings, pool: str, precision: str, folder: Path) -> Layout:
    import torch

    from vggish_pt.output import Layout
    from vggish_pt.storage import weights_digest
    from vggish_pt.version import __version__

    shape = tuple(model.network.infer(torch.zeros(0, 96, 64).to(model.network.conv1.weight), settings.layer).shape[1:])
    quantised = settings.postprocess == "uint8" and pool == "none"
    metadata = {
        "version": __version__,
        "weights": {
            "name": model.config.name,
            "license": model.config.license,
            "sha256": weights_digest(folder),
            "final_relu": model.config.final_relu,
        },
        "settings": {
            "hop": settings.hop,
            "pad": settings.pad,
            "layer": settings.layer,
            "postprocess": settings.postprocess,
            "resampler": settings.resampler,
            "pool": pool,
            "precision": precision,
            "allow_truncated": settings.allow_truncated,
        },
    }
    return Layout(shape, "uint8" if quantised else "float32", pool == "mean", metadata)


def _rows(result: Embeddings, pool: str) -> Rows:
    import numpy as np

    from vggish_pt.output import Rows

    values, start, end = result.values.numpy(), result.start.numpy(), result.end.numpy()
    if pool == "none":
        return Rows(result.source, np.arange(len(values), dtype=np.int32), start, end, values)
    mean = values.mean(axis=0, keepdims=True, dtype=np.float64).astype(np.float32)
    return Rows(result.source, np.array([len(values)], dtype=np.int32), start[:1], end[-1:], mean)
