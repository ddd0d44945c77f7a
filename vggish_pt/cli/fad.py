"""``vggish-pt fad``: Fréchet audio distance between two sets of audio or embeddings."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from vggish_pt.cli.options import AsJson, Device, Hop, Overwrite, Pad, Quiet, Resampler, Seed, Threads, Weights
from vggish_pt.errors import SettingsError
from vggish_pt.utils.text import one_line


def fad(
    reference: Annotated[
        str,
        typer.Argument(
            help="Set to compare with: an audio file, a folder, a pattern or any other INPUT of 'vggish-pt embed'; "
            "embeddings (.parquet, .npz, .npy, a folder of Parquet parts); or saved statistics (.npz).",
            metavar="REFERENCE",
            show_default=False,
        ),
    ],
    evaluation: Annotated[
        str | None,
        typer.Argument(
            help="Set to judge, in the same forms. Optional with --save-statistics.",
            metavar="EVALUATION",
            show_default=False,
        ),
    ] = None,
    weights: Weights = "audioset",
    hop: Hop = 0.96,
    pad: Pad = "short",
    resampler: Resampler = "soxr",
    postprocess: Annotated[
        str,
        typer.Option(help="none, or pca: whiten with PCA and clip to [-2, 2].", metavar="none|pca"),
    ] = "none",
    infinite: Annotated[
        bool, typer.Option("--infinite", help="Also extrapolate FAD to infinitely many evaluation windows.")
    ] = False,
    scores: Annotated[
        Path | None,
        typer.Option("--per-file", help="Write the FAD of each evaluation file to this CSV file.", metavar="FILE"),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            "--bootstrap",
            help="Also compute a 95 % interval from N bootstrap samples of the evaluation files.",
            metavar="N",
            min=10,
        ),
    ] = None,
    seed: Seed = 0,
    statistics_file: Annotated[
        Path | None,
        typer.Option(
            "--save-statistics", help="Write the statistics of the reference to this .npz file.", metavar="FILE"
        ),
    ] = None,
    device: Device = "auto",
    workers: Threads = 1,
    as_json: AsJson = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Compute the Fréchet audio distance of EVALUATION from REFERENCE; 0 means equal mean and covariance.

    --weights, --hop, --pad, --resampler, --postprocess and --device apply to sets of audio.

    Example: vggish-pt fad real/ generated/ --weights audioset --infinite --bootstrap 1000
    """
    from vggish_pt.inference.settings import EmbedSettings
    from vggish_pt.utils.atomic import check_file

    # Settings and outputs are checked before torch is imported and before a file is read.
    if postprocess not in ("none", "pca"):
        raise SettingsError(f"postprocess must be none or pca, not {postprocess!r}")
    settings = EmbedSettings(
        hop,
        pad,  # type: ignore[arg-type]
        postprocess=None if postprocess == "none" else "pca",
        resampler=resampler,  # type: ignore[arg-type]
    )
    wanted = {"--infinite": infinite, "--per-file": scores is not None, "--bootstrap": samples is not None}
    needs = next((option for option, given in wanted.items() if given), None)
    if evaluation is None and (needs or statistics_file is None):
        raise SettingsError(
            f"EVALUATION is missing{f', which {needs} needs' if needs else ''}; see 'vggish-pt fad --help'"
        )
    if scores is not None:
        check_file(scores, overwrite=overwrite)
    if quiet:
        warnings.simplefilter("ignore")
    from vggish_pt.cli.progress import Progress
    from vggish_pt.fad import compare_sets

    with Progress(enabled=not quiet) as progress:
        result = compare_sets(
            reference,
            evaluation,
            settings,
            weights=weights,
            device=device,
            workers=workers,
            infinite=infinite,
            bootstrap_samples=samples,
            scores=scores is not None,
            seed=seed,
            save_statistics=statistics_file,
            overwrite=overwrite,
            watcher=progress,
        )
    report = result.to_dict()
    if scores is not None:
        result.write_scores(scores, overwrite=overwrite)
        report["per_file"]["file"] = str(scores)
    typer.echo(json.dumps(report) if as_json else "\n".join(map(one_line, _lines(report))))
    if result.failures:
        typer.echo(f"vggish-pt: {len(result.failures)} inputs failed and are left out", err=True)
        raise typer.Exit(3)


def _lines(report: dict[str, Any]) -> list[str]:
    """Return the result as lines of text."""
    lines = [f"FAD {report['fad']:.6g}"] if "fad" in report else []
    if result := report.get("infinite"):
        lines.append(
            f"FAD of infinitely many evaluation windows {result['value']:.6g} (line through parts of the sample, "
            f"R² {result['r2']:.3f}; {result['unit']} drawn, seed {result['seed']})"
        )
    if result := report.get("bootstrap"):
        lines.append(
            f"95 % interval {result['low']:.6g} to {result['high']:.6g} "
            f"({result['samples']} bootstrap samples of {result['unit']}, seed {result['seed']})"
        )
    if result := report.get("per_file"):
        without = f" ({result['without_score']} of one window have none)" if result["without_score"] else ""
        lines.append(f"FAD of each of {result['files']} files{without}: {result['file']}")
    for role in ("reference", "evaluation"):
        if side := report.get(role):
            files = f" of {side['files']} files" if side["files"] else ""
            lines.append(f"{role} {side['name']}: {side['windows']} windows{files}")
    return [*lines, f"embeddings of {report['dimensions']} values, {_made(report['made_with'])}"]


def _made(metadata: dict[str, Any] | None) -> str:
    if not metadata:
        return "of unknown weights and settings"
    weights, settings = metadata.get("weights") or {}, metadata.get("settings") or {}
    digest = str(weights.get("sha256"))[:12]
    listed = ", ".join(
        f"{name} {settings[name]}" for name in ("hop", "pad", "resampler", "postprocess") if name in settings
    )
    return f"weights {weights.get('name')} (sha256 {digest}), {listed}"
