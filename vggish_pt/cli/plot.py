"""``vggish-pt plot``: draw a clip."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vggish_pt.cli.options import Hop, Overwrite, Weights


def plot(
    file: Annotated[Path, typer.Argument(help="An audio file of at most 600 s.", metavar="FILE", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Output: a .png, .svg or .pdf file. Default: the name of FILE with .png, in the current folder.",
            metavar="PATH",
        ),
    ] = None,
    weights: Weights = "audioset",
    layer: Annotated[
        str | None,
        typer.Option(help="Also draw a layer: conv1 to conv4, fc1, fc2 or fused.", metavar="LAYER"),
    ] = None,
    hop: Hop = 0.96,
    overwrite: Overwrite = False,
) -> None:
    """Draw a clip: waveform, log-mel spectrogram and embeddings over time.

    Example: vggish-pt plot dog.wav --layer conv3
    """
    from vggish_pt.nn.layers import check_layer
    from vggish_pt.nn.windows import hop_frames
    from vggish_pt.pretrained import registry
    from vggish_pt.utils.figures import check_figure, save
    from vggish_pt.utils.optional import require

    hop_frames(hop)
    if layer is not None:
        check_layer(layer)
    path = out or Path(f"{file.stem}.png")
    check_figure(path, overwrite=overwrite)
    require("matplotlib", "plotting")
    folder = registry.resolve(weights)

    from vggish_pt.model import VGGish
    from vggish_pt.plot import plot_clip

    save(plot_clip(VGGish.from_pretrained(folder), file, layer=layer, hop=hop), path)
    typer.echo(path)
