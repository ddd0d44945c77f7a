"""``vggish-pt bench``: measure this machine and recommend settings."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vggish_pt.cli.options import AsJson, Device, Weights

if TYPE_CHECKING:
    from vggish_pt.bench import Report


def bench(
    weights: Weights = "audioset",
    audio: Annotated[
        Path | None,
        typer.Option(
            help="Audio file to measure with. Default: 15 s of generated stereo audio at 44.1 kHz.", metavar="FILE"
        ),
    ] = None,
    device: Device = "auto",
    seconds: Annotated[float, typer.Option(help="Approximate duration of the measurement.", metavar="SECONDS")] = 20.0,
    batch_size: Annotated[
        list[int] | None,
        typer.Option(help="Windows per batch; can be given several times. Default: 16, 64 and 256.", metavar="N"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure decoding, front end and network on this machine, and recommend settings for 'vggish-pt embed'.

    Run it while no other program uses the processor. Nothing is written.

    Example: vggish-pt bench --weights synthetic
    """
    from vggish_pt.inference.devices import check_device_name
    from vggish_pt.pretrained import registry

    check_device_name(device)
    folder = registry.resolve(weights)

    from vggish_pt.bench import BATCH_SIZES
    from vggish_pt.bench import bench as measure
    from vggish_pt.inference.devices import choose_device
    from vggish_pt.model import VGGish

    model = VGGish.from_pretrained(folder, device=choose_device(device))
    report = measure(model, audio, seconds=seconds, batch_sizes=batch_size or BATCH_SIZES)
    typer.echo(json.dumps(asdict(report)) if as_json else text(report))


def text(report: Report) -> str:
    """Format a report as text."""
    lines = [f"{name:<10} {fact}" for name, fact in {**report.machine, "weights": report.weights}.items()]
    for precision, (product, convolution) in report.peak.items():
        lines.append(
            f"{'peak ' + precision:<10} {product / 1e9:.0f} GFLOP/s matrix product, "
            f"{convolution / 1e9:.0f} GFLOP/s best convolution"
        )
    lines += ["", f"{'before the network, on one thread':<44} {'times real time':>15}"]
    lines += [f"{rate.name:<44} {rate.real_time:>15,.0f}" for rate in report.host]

    lines += ["", f"{'network':<16} {'batch':>6} {'threads':>8} {'windows/s':>10} {'spread':>7} {'of peak':>8}"]
    on_cpu = report.recommended.device == "cpu"
    for rate in report.network:
        name = rate.precision if rate.winograd or not on_cpu else f"{rate.precision}, direct"
        share = "" if rate.share is None else f"{rate.share:.0%}"
        lines.append(
            f"{name:<16} {rate.batch_size:>6} {rate.threads:>8} {rate.windows:>10.1f} {rate.spread:>7.0%} {share:>8}"
        )
    lines.append("A window is 0.96 s of new audio. 'of peak' counts the operations of direct convolutions.")
    if on_cpu:
        lines.append("fp32 from 32 windows on, and bf16, use Winograd's convolutions, which need fewer.")

    lines += ["", f"{'against fp32, direct':<24} {'largest difference':>19} {'lowest cosine':>14}"]
    lines += [f"{d.name:<24} {d.largest:>19.1e} {d.cosine:>14.7f}" for d in report.deviations]
    lines += [f"note: {note}" for note in report.notes]

    best = report.recommended
    lines += [
        "",
        f"recommended: --device {best.device} --precision {best.precision} --batch-size {best.batch_size} "
        f"--workers {best.workers}",
        f"with these, files to embeddings: {best.real_time:,.0f} times real time",
    ]
    if best.precision != "fp32":
        deviation = next(d for d in report.deviations if d.name == best.precision)
        lines.append(
            f"{best.precision} moved values by up to {deviation.largest:.1e} on the audio measured (lowest cosine "
            f"{deviation.cosine:.6f}),\nand may move those of near silence more (--audio measures a file of yours); "
            "for exact results use --precision fp32"
        )
    return "\n".join(lines)
