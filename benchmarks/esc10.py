"""ESC-10 accuracy of weights: logistic regression on the mean embedding of each clip.

    python benchmarks/esc10.py FOLDER --weights synthetic --weights audioset

FOLDER holds a folder per class; the first digit of a file's name is its fold. Each fold is predicted by a classifier
fitted to the other folds (standardised features, C=0.1). Choices made while building the embedded model looked at
folds 1 and 2, so folds 3 to 5 are reported apart. `random` stands for a network of the default initialisation.
`--half` adds each model rounded to float16.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from vggish_pt import VGGish, VGGishConfig


def clips(folder: Path) -> tuple[list[Path], np.ndarray, np.ndarray]:
    """Paths, classes and folds."""
    paths = sorted(p for p in folder.glob("*/*") if p.name[:1] in "12345")
    if not paths:
        raise SystemExit(f"{folder}: no clips named CLASS/FOLD-....ogg")
    return paths, np.array([p.parent.name for p in paths]), np.array([int(p.name[0]) for p in paths])


def load(weights: str, fc_width: int) -> VGGish:
    if weights != "random":
        return VGGish.from_pretrained(weights)
    torch.manual_seed(0)
    return VGGish(VGGishConfig(fc_width=fc_width)).eval()


def features(model: VGGish, paths: list[Path], layer: str) -> np.ndarray:
    """The mean over windows (and, of a convolutional layer, over time and frequency): (clips, d)."""
    rows = []
    for result in model.embed(paths, layer=layer):
        values = result.values.float()
        rows.append(values.mean((0, 2, 3)) if values.ndim == 4 else values.mean(0))
    return torch.stack(rows).numpy()


def accuracies(x: np.ndarray, classes: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Accuracy on each fold."""
    scores = []
    for fold in range(1, 6):
        held_out = folds == fold
        classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=5000))
        classifier.fit(x[~held_out], classes[~held_out])
        scores.append(classifier.score(x[held_out], classes[held_out]))
    return np.array(scores)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", action="append", help="a name, model folder or 'random'; repeatable")
    parser.add_argument("--layer", default="embedding")
    parser.add_argument("--fc-width", type=int, default=4096, help="of 'random'")
    parser.add_argument("--half", action="store_true", help="also with weights rounded to float16")
    args = parser.parse_args()
    paths, classes, folds = clips(args.folder)

    print("| weights | fold 1 | 2 | 3 | 4 | 5 | mean | folds 1-2 | folds 3-5 |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")

    def report(label: str, x: np.ndarray) -> None:
        scores = accuracies(x, classes, folds)
        figures = [*scores, scores.mean(), scores[:2].mean(), scores[2:].mean()]
        print(f"| {label} | " + " | ".join(f"{figure:.3f}" for figure in figures) + " |", flush=True)

    for weights in args.weights or ["synthetic"]:
        model = load(weights, args.fc_width)
        report(weights, features(model, paths, args.layer))
        if args.half:
            # Rounded weights, computed with in float32: what a float16 file costs.
            model.network.half().float()
            report(f"{weights}, float16", features(model, paths, args.layer))


if __name__ == "__main__":
    main()
