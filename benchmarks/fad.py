"""Fréchet audio distance on ESC-10: classes against each other, against degradation, against the size of the sample.

    python benchmarks/fad.py classes FOLDER --picture docs/fad_classes.png
    python benchmarks/fad.py degrade FOLDER --clips 20
    python benchmarks/fad.py size FOLDER
    python benchmarks/fad.py replacement
    python benchmarks/fad.py formula

FOLDER holds a folder per class, with 40 clips of 5 s each. `replacement` and `formula` need no
recordings; `formula` needs the packages frechet-audio-distance and fadtk, or one of them, in the same environment.
"""

from __future__ import annotations

import argparse
import inspect
import sys
import time
import warnings
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np

from vggish_pt.errors import AudioWarning
from vggish_pt.fad import extrapolate, frechet_audio_distance, frechet_distance, statistics_of


def load(args: argparse.Namespace):
    from vggish_pt import VGGish

    return VGGish.from_pretrained(args.weights, device=args.device)


def classes_of(folder: Path, clips: int) -> dict[str, list[Path]]:
    """Class → its clips."""
    found = {p.name.split(" - ")[-1]: sorted(p.glob("*.*"))[:clips] for p in sorted(folder.iterdir()) if p.is_dir()}
    if not found:
        raise SystemExit(f"{folder}: no folders of clips")
    return found


def header(*cells: str) -> None:
    print("| " + " | ".join(cells) + " |")
    print("| " + " | ".join("---" for _ in cells) + " |")


def row(*cells: str) -> None:
    print("| " + " | ".join(cells) + " |", flush=True)


def classes(args: argparse.Namespace) -> None:
    model = load(args)
    samples = {name: statistics_of(model.embed(paths)) for name, paths in classes_of(args.folder, args.clips).items()}
    names = list(samples)
    matrix = np.array([[frechet_distance(samples[a], samples[b]) for b in names] for a in names])
    header("", *names)
    for name, values in zip(names, matrix, strict=True):
        row(name, *(f"{value:.0f}" for value in values))
    windows = {s.windows for s in samples.values()}
    print(f"\nwindows of each class: {min(windows)} to {max(windows)}")
    if args.picture:
        draw(matrix, names, args.weights, args.picture)


def draw(matrix: np.ndarray, names: list[str], weights: str, path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 5.6), dpi=100, layout="constrained")
    image = axes.imshow(matrix, cmap="viridis")
    middle = matrix.max() / 2
    for i, j in np.ndindex(matrix.shape):
        colour = "white" if matrix[i, j] < middle else "black"
        axes.text(j, i, f"{matrix[i, j]:.0f}", ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set_title(f"FAD between ESC-10's classes, weights {weights!r}", fontsize=10)
    figure.colorbar(image, shrink=0.8)
    figure.savefig(path)


def degrade(args: argparse.Namespace) -> None:
    import scipy.signal

    from vggish_pt import load_waveform

    model = load(args)
    paths = [path for group in classes_of(args.folder, args.clips).values() for path in group]
    clips = [load_waveform(path).double().numpy() for path in paths]
    rng = np.random.default_rng(0)
    noise = [rng.standard_normal(len(clip)) for clip in clips]
    clean = statistics_of(model.embed(clips, sample_rate=16_000))
    print(f"{len(clips)} clips, {clean.windows} windows\n")

    def fad(changed: list[np.ndarray]) -> str:
        return f"{frechet_distance(clean, statistics_of(model.embed(changed, sample_rate=16_000))):.2f}"

    header("white noise, dB below the clip", "FAD against the clean clips")
    row("none", fad(clips))
    for decibels in (50, 40, 30, 20, 10, 0, -10):
        levels = [np.sqrt(np.mean(clip**2) / 10 ** (decibels / 10)) for clip in clips]
        row(f"{decibels}", fad([c + level * n for c, level, n in zip(clips, levels, noise, strict=True)]))
    print()
    header("low-pass at, Hz", "FAD against the clean clips")
    row("none", fad(clips))
    for cutoff in (7000, 6000, 4000, 3000, 2000, 1000, 500):
        sos = scipy.signal.butter(8, cutoff, fs=16_000, output="sos")
        row(f"{cutoff}", fad([scipy.signal.sosfilt(sos, clip) for clip in clips]))


def size(args: argparse.Namespace) -> None:
    """Two random halves of the same clips: FAD should be 0, and is not where the evaluation set is small."""
    model = load(args)
    results = model.embed([path for group in classes_of(args.folder, args.clips).values() for path in group])
    rng = np.random.default_rng(0)
    order = rng.permutation(len(results))
    half = len(results) // 2
    reference = statistics_of([results[i] for i in order[:half]])
    others = [results[i].values.numpy() for i in order[half:]]
    print(f"reference: {reference.windows} windows of {half} files\n")
    header("evaluation files", "windows", "FAD", "FAD of infinitely many windows")
    for files in (5, 10, 20, 40, 80, 120, 160, len(others)):
        plain, infinite, windows = [], [], 0
        for _ in range(5 if files < len(others) else 1):
            chosen = [others[i] for i in rng.permutation(len(others))[:files]]
            windows = sum(map(len, chosen))
            plain.append(frechet_audio_distance(reference, chosen))
            if windows >= 2 * (reference.dimensions + 1):
                infinite.append(extrapolate(reference, chosen).value)
        row(str(files), str(windows), f"{np.mean(plain):.1f}", f"{np.mean(infinite):.1f}" if infinite else "-")


def replacement(_: argparse.Namespace) -> None:
    """Extrapolation of 1000 windows of two equal Gaussians in 128 dimensions, mean of 12 runs; 0 would be right."""
    rng = np.random.default_rng(0)
    deviations = np.sqrt(np.exp(-np.arange(128) / 12))
    reference = statistics_of(rng.standard_normal((200_000, 128)) * deviations)
    found = []
    for _ in range(12):
        x = rng.standard_normal((1000, 128)) * deviations
        sizes = np.linspace(500, 1000, 25).astype(int)  # fadtk's
        drawn = [frechet_audio_distance(reference, x[rng.integers(1000, size=n)]) for n in sizes]
        with_replacement = np.polyfit(1 / sizes, drawn, 1)[1]
        without = extrapolate(reference, [x]).value
        found.append((frechet_audio_distance(reference, x), with_replacement, without))
    header("", "FAD", "extrapolated with replacement", "without")
    row("mean", *(f"{value:.4f}" for value in np.mean(found, axis=0)))
    row("standard deviation", *(f"{value:.4f}" for value in np.std(found, axis=0)))


def formula(_: argparse.Namespace) -> None:
    """Equal embeddings through the packages' own functions."""
    try:
        import torchaudio  # noqa: F401
    except (ImportError, OSError, RuntimeError):  # imported for other models than VGGish; the formulas need none of it
        sys.modules |= {name: MagicMock() for name in ("torchaudio", "laion_clap", "encodec")}
    theirs = {}
    try:
        from frechet_audio_distance import FrechetAudioDistance

        bare = FrechetAudioDistance.__new__(FrechetAudioDistance)  # its formula needs neither model nor network

        def one(a: np.ndarray, b: np.ndarray) -> float:
            moments = [*bare.calculate_embd_statistics(a), *bare.calculate_embd_statistics(b)]
            return float(bare.calculate_frechet_distance(*moments))

        theirs["frechet-audio-distance"] = one
    except (ImportError, OSError) as error:
        print(f"frechet-audio-distance: {error}")
    try:
        from fadtk import fad as fadtk

        def two(a: np.ndarray, b: np.ndarray) -> float:
            return float(fadtk.calc_frechet_distance(*fadtk.calc_embd_statistics(a), *fadtk.calc_embd_statistics(b)))

        assert "cov1" in inspect.signature(fadtk.calc_frechet_distance).parameters
        theirs["fadtk"] = two
    except (ImportError, OSError) as error:
        print(f"fadtk: {error}")

    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((128, 128)) * np.logspace(0, -1, 128)
    header("package", "windows", "theirs", "ours", "relative difference", "their ms", "our ms")
    for windows in ((1000, 1000), (5000, 300), (150, 150), (100, 100), (20, 1000)):
        a = rng.standard_normal((windows[0], 128)) @ mixing
        b = 1.2 * rng.standard_normal((windows[1], 128)) @ mixing + 0.1
        start = time.process_time()
        ours = frechet_audio_distance(a, b)
        ours_ms = 1000 * (time.process_time() - start)
        for name, function in theirs.items():
            start = time.process_time()
            try:
                value = function(a, b)
                text, difference = f"{value:.9g}", f"{abs(value - ours) / ours:.1e}"
            except Exception as error:  # whatever theirs raises is what the table is to show
                text, difference = f"{type(error).__name__}", "-"
            ms = 1000 * (time.process_time() - start)
            row(name, f"{windows[0]} and {windows[1]}", text, f"{ours:.9g}", difference, f"{ms:.0f}", f"{ours_ms:.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    for command in (classes, degrade, size, replacement, formula):
        sub = commands.add_parser(command.__name__)
        sub.set_defaults(run=command)
        if command not in (formula, replacement):
            sub.add_argument("folder", type=Path)
            sub.add_argument("--weights", default="synthetic", help="a name or model folder")
            sub.add_argument("--clips", type=int, default=40, help="of each class")
            sub.add_argument("--device", default="cpu")
        if command is classes:
            sub.add_argument("--picture", type=Path)
    args = parser.parse_args()
    warnings.simplefilter("ignore", AudioWarning)
    args.run(args)


if __name__ == "__main__":
    main()
