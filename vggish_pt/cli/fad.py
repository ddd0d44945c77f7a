"""``vggish-pt fad``: Fréchet audio distance between two sets of sounds or embeddings."""

from __future__ import annotations

import csv
import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vggish_pt.cli.options import Device, Threads
from vggish_pt.errors import AudioError, SettingsError
from vggish_pt.utils.text import one_line

if TYPE_CHECKING:
    from vggish_pt.cli.progress import Progress
    from vggish_pt.dataset.inputs import Inputs
    from vggish_pt.dataset.schema import Failure
    from vggish_pt.fad.samples import Sample
    from vggish_pt.inference.settings import EmbedSettings
    from vggish_pt.model import VGGish


def fad(
    reference: Annotated[
        str,
        typer.Argument(
            help="The sound to compare with: an audio file, a folder or a pattern; or embeddings (.parquet, .npz, "
            ".npy, a folder of Parquet files); or saved statistics (.npz).",
            metavar="REFERENCE",
            show_default=False,
        ),
    ],
    evaluation: Annotated[
        str | None,
        typer.Argument(
            help="The sound to judge, in the same forms. May be left out with --save-statistics.",
            metavar="EVALUATION",
            show_default=False,
        ),
    ] = None,
    weights: Annotated[
        str,
        typer.Option(
            help="For audio: 'audioset' (Google's, downloaded on first use), 'synthetic' (ships with the package), a "
            "model folder, or a Hugging Face Hub repository user/name.",
            metavar="NAME",
        ),
    ] = "audioset",
    hop: Annotated[
        float,
        typer.Option(help="For audio: seconds from window to window, as in embed.", metavar="SECONDS"),
    ] = 0.96,
    pad: Annotated[
        str,
        typer.Option(
            help="For audio: what to do with sound that does not fill a window, as in embed.",
            metavar="short|drop|tail",
        ),
    ] = "short",
    resampler: Annotated[
        str,
        typer.Option(help="For audio: soxr (fast), resampy (equal to Google's code) or torchaudio.", metavar="NAME"),
    ] = "soxr",
    postprocess: Annotated[
        str,
        typer.Option(help="For audio: none (embeddings as they are) or pca (whitened, clipped).", metavar="none|pca"),
    ] = "none",
    infinite: Annotated[
        bool, typer.Option("--infinite", help="Also FAD extrapolated to infinitely many evaluation windows.")
    ] = False,
    scores: Annotated[
        Path | None,
        typer.Option(
            "--per-file", help="Write the FAD of each evaluation file by itself to this CSV file.", metavar="FILE"
        ),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            "--bootstrap",
            help="Also an interval of 95 %, from N bootstrap samples of evaluation files.",
            metavar="N",
            min=10,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="For --infinite and --bootstrap.", metavar="N", min=0)] = 0,
    statistics_file: Annotated[
        Path | None,
        typer.Option("--save-statistics", help="Write the reference's statistics to this .npz file.", metavar="FILE"),
    ] = None,
    device: Device = "auto",
    workers: Threads = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the result and errors only.")] = False,
) -> None:
    """Fréchet audio distance: how far EVALUATION is from REFERENCE; 0 is equal in mean and covariance.

    Example: vggish-pt fad real/ generated/ --weights audioset --infinite --bootstrap 1000
    """
    from vggish_pt.fad import frechet_distance, too_small
    from vggish_pt.fad.statistics import check_name
    from vggish_pt.inference.settings import EmbedSettings
    from vggish_pt.utils.atomic import check_file

    # All that can be wrong is found out before torch loads and before the first file is read.
    if postprocess not in ("none", "pca"):
        raise SettingsError(f"postprocess must be none or pca, not {postprocess!r}")
    settings = EmbedSettings(
        hop,
        pad,  # type: ignore[arg-type]
        postprocess=None if postprocess == "none" else "pca",
        resampler=resampler,  # type: ignore[arg-type]
    )
    wanted = {"--infinite": infinite, "--per-file": scores is not None, "--bootstrap": samples is not None}
    keep = next((option for option, given in wanted.items() if given), None)
    if evaluation is None and (keep or statistics_file is None):
        raise SettingsError(
            f"EVALUATION is missing{f', which {keep} needs' if keep else ''}; see 'vggish-pt fad --help'"
        )
    if statistics_file is not None:
        check_name(statistics_file)
    for path in (statistics_file, scores):
        if path is not None:
            check_file(path, overwrite=overwrite)
    if quiet:
        warnings.simplefilter("ignore")

    names = [reference] if evaluation is None else [reference, evaluation]
    sides, failures = _read(names, settings, (weights, device, workers), keep=keep, quiet=quiet)
    if statistics_file is not None:
        sides[0].statistics.save(statistics_file, overwrite=overwrite)
    report: dict[str, Any] = {}
    if len(sides) == 2:
        report["fad"] = frechet_distance(sides[0].statistics, sides[1].statistics, _labels(sides))
        if infinite:
            report["infinite"] = _infinite(sides, seed)
        if samples is not None:
            report["bootstrap"] = _bootstrap(sides, samples, seed)
        if scores is not None:
            report["per_file"] = _write_scores(sides, scores, overwrite)
    for role, side in zip(("reference", "evaluation"), sides, strict=False):
        report[role] = {"name": side.name, "windows": side.statistics.windows, "files": side.statistics.files}
    report["dimensions"] = sides[0].statistics.dimensions
    report["made_with"] = next((side.statistics.metadata for side in sides if side.statistics.metadata), None)
    report["warnings"] = [f"{side.name}: {text}" for side in sides if (text := too_small(side.statistics))]
    report["failures"] = [{"path": each.path, "reason": each.reason, "type": each.type} for each in failures]
    typer.echo(json.dumps(report) if as_json else "\n".join(map(one_line, _lines(report))))
    if failures:
        typer.echo(f"vggish-pt: {len(failures)} inputs failed and are left out", err=True)
        raise typer.Exit(3)


def _labels(sides: list[Sample]) -> tuple[str, str]:
    return f"reference {sides[0].name}", f"evaluation {sides[1].name}"


def _read(
    names: list[str], settings: EmbedSettings, how: tuple[str, str, int], *, keep: str | None, quiet: bool
) -> tuple[list[Sample], list[Failure]]:
    """Reads or embeds each side; keeps the evaluation's embeddings where an option needs them."""
    from vggish_pt.cli.progress import Progress
    from vggish_pt.dataset.inputs import find_inputs
    from vggish_pt.fad.samples import Sample, is_dumped, read_sample
    from vggish_pt.fad.statistics import Statistics, check_same
    from vggish_pt.inference.devices import check_device_name

    weights, device, workers = how
    check_device_name(device)
    found = [None if is_dumped(name) else find_inputs([name]) for name in names]
    for inputs in found:
        if inputs is not None and not inputs.files:
            raise inputs.failures[0][1]
    model, metadata = (None, None) if not any(found) else _load(weights, device, settings)
    sides: list[Sample] = []
    for name, inputs in zip(names, found, strict=True):
        kept = keep is not None and len(sides) == 1
        sides.append(read_sample(name, keep=kept) if inputs is None else Sample(name, Statistics(metadata), kept))
    if len(sides) == 2:
        check_same(sides[0].statistics, sides[1].statistics, _labels(sides))
        if keep is not None and not sides[1].keep:
            raise SettingsError(
                f"{names[1]}: {keep} needs embeddings, not statistics; give the embeddings or the audio"
            )
    failures: list[Failure] = []
    with Progress(sum(len(inputs.files) for inputs in found if inputs), enabled=not quiet) as progress:
        for side, inputs in zip(sides, found, strict=True):
            if inputs is not None and model is not None:
                failures += _embed(model, inputs, settings, workers, side, progress)
    return sides, failures


def _load(weights: str, device: str, settings: EmbedSettings) -> tuple[VGGish, dict[str, Any]]:
    from vggish_pt.dataset import outcomes as dump
    from vggish_pt.inference.devices import choose_device
    from vggish_pt.model import VGGish
    from vggish_pt.pretrained import registry

    folder = registry.resolve(weights)
    model = VGGish.from_pretrained(folder, device=choose_device(device))
    return model, dump.layout(model, settings, folder=folder).metadata


def _embed(
    model: VGGish, inputs: Inputs, settings: EmbedSettings, workers: int, side: Sample, progress: Progress
) -> list[Failure]:
    from vggish_pt.audio.clip import Clip
    from vggish_pt.dataset import outcomes as dump

    failures = [dump.failure(name, error) for name, error in inputs.failures]
    for failure in failures:
        progress.fail(failure)
    items = [Clip(path, place) for place, path in enumerate(inputs.files)]
    for outcome in dump.outcomes(model, items, settings, workers=workers):
        if len(inputs.files) == 1 and not isinstance(outcome, dump.EmbeddedClip):
            raise AudioError(f"{outcome.path}: {outcome.reason}", outcome.path)
        if isinstance(outcome, dump.EmbeddedClip):
            side.add([outcome.rows.path] * len(outcome.rows), outcome.rows.embedding)
        else:
            failures.append(outcome)
        progress.watch(outcome)
    if not side.statistics.windows:
        raise AudioError(f"{side.name}: none of its {len(inputs.files)} files could be embedded", side.name)
    return failures


def _infinite(sides: list[Sample], seed: int) -> dict[str, Any]:
    from vggish_pt.fad import extrapolate

    result = extrapolate(sides[0].statistics, sides[1].values, seed=seed)
    return {**vars(result), "points": result.points.tolist(), "seed": seed}


def _bootstrap(sides: list[Sample], samples: int, seed: int) -> dict[str, Any]:
    from vggish_pt.fad import bootstrap

    return {**vars(bootstrap(sides[0].statistics, sides[1].values, samples, seed=seed)), "seed": seed}


def _write_scores(sides: list[Sample], path: Path, overwrite: bool) -> dict[str, Any]:
    import io

    from vggish_pt.fad import per_file
    from vggish_pt.utils.atomic import whole_file

    if not sides[1].statistics.files:
        raise SettingsError(f"{sides[1].name}: --per-file needs the names of the files, which these embeddings lack")
    values = sides[1].values
    scores = per_file(sides[0].statistics, values)
    with whole_file(path, overwrite=overwrite) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        table = csv.writer(text)
        table.writerow(["path", "windows", "fad"])
        table.writerows(zip(sides[1].paths, map(len, values), scores, strict=True))
        text.detach()
    return {"file": str(path), "files": len(scores), "without_score": scores.count(None)}


def _lines(report: dict[str, Any]) -> list[str]:
    """The result for people."""
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
        without = f", {result['without_score']} of one window without a score" if result["without_score"] else ""
        lines.append(f"FAD of {result['files']} files by themselves{without}: {result['file']}")
    for role in ("reference", "evaluation"):
        if side := report.get(role):
            files = f" of {side['files']} files" if side["files"] else ""
            lines.append(f"{role} {side['name']}: {side['windows']} windows{files}")
    return [*lines, f"embeddings of {report['dimensions']} values, {_made(report['made_with'])}"]


def _made(metadata: dict[str, Any] | None) -> str:
    if not metadata:
        return "made in an unknown way"
    weights, settings = metadata.get("weights") or {}, metadata.get("settings") or {}
    digest = str(weights.get("sha256"))[:12]
    said = ", ".join(
        f"{name} {settings[name]}" for name in ("hop", "pad", "resampler", "postprocess") if name in settings
    )
    return f"weights {weights.get('name')} (sha256 {digest}), {said}"
