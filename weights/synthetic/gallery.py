"""Figure of generated sound: spectrograms of each family of sources, and of pairs of views.

    python weights/synthetic/gallery.py --out docs/synthetic_sounds.png [--wav FOLDER]

Each upper row shows clips of one family with one layer. The last two rows show mixtures like those of the training, and
below each its partner. ``--wav`` also writes the clips, to listen to.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from sounds import FAMILIES, Recipe, draw, perturb, render
from torch import Tensor

from vggish_pt.constants import SAMPLE_RATE
from vggish_pt.nn.frontend import LogMel

COLUMNS = 6


def of_family(number: int, generator: torch.Generator) -> Recipe:
    """Return a recipe of clips of one layer at full level, with little noise, room and colour, to show the source."""
    recipe = draw(COLUMNS, generator)
    recipe.family[:] = -1
    recipe.family[:, 0] = number
    recipe.clips[:] = torch.tensor([0.5] * 5 + [0.2, 0.3, 0.0, 0.5, 0.0] + [0.5] * 6)
    return recipe


def rows(seed: int) -> dict[str, Tensor]:
    """Return clips (COLUMNS, samples) by label."""
    generator = torch.Generator().manual_seed(seed)
    out = {name: render(of_family(number, generator), generator) for number, name in enumerate(FAMILIES)}
    recipe = draw(COLUMNS, generator)
    out["mixtures"] = render(recipe, generator)
    out["partners"] = render(perturb(recipe, 0.1, 0.3, generator), generator)
    return out


def write_picture(made: dict[str, Tensor], out: Path) -> None:
    """Write a row of spectrograms for each label."""
    import matplotlib.pyplot as plt
    from PIL import Image

    frontend = LogMel(torch.float32)
    figure, axes = plt.subplots(len(made), COLUMNS, figsize=(10, 13), dpi=72, sharex=True, sharey=True)
    for (name, waves), line in zip(made.items(), axes, strict=True):
        for example, axis in zip(frontend(waves)[:, 0], line, strict=True):
            axis.imshow(np.asarray(example).T, origin="lower", aspect="auto", vmin=-4.6, vmax=3, cmap="magma")
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(name)
    figure.supxlabel("0.96 s, left to right; 64 mel bands, 125 to 7500 Hz, bottom to top", fontsize=9, y=0.002)
    figure.tight_layout(pad=0.3, rect=(0, 0.015, 1, 1))
    figure.canvas.draw()
    # Noise compresses badly; a palette of few colours makes the file small.
    Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3]).quantize(24).save(out, "PNG", optimize=True)


def write_clips(made: dict[str, Tensor], folder: Path) -> None:
    """Write the clips as WAV files."""
    import soundfile

    folder.mkdir(parents=True, exist_ok=True)
    for name, waves in made.items():
        for column, wave in enumerate(waves):
            soundfile.write(folder / f"{name}-{column + 1}.wav", wave.numpy(), SAMPLE_RATE)


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description="Draw spectrograms of generated sound.")
    parser.add_argument("--out", type=Path, required=True, help="PNG file to write")
    parser.add_argument("--wav", type=Path, help="folder to write the clips to")
    parser.add_argument("--seed", type=int, default=3)
    args = parser.parse_args()
    made = rows(args.seed)
    try:
        write_picture(made, args.out)
        if args.wav:
            write_clips(made, args.wav)
    except OSError as error:
        raise SystemExit(f"gallery.py: {error}") from None


if __name__ == "__main__":
    main()
