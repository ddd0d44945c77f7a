"""ESC-10, five folds as given: librosa's spectra, random weights, and weights by name, with simple classifiers.

    python benchmarks/probe_esc10.py FOLDER --weights synthetic

FOLDER holds a folder per class; the first digit of a file's name is its fold. A row is one kind of features with one
classifier: mean accuracy and its (sample) standard deviation over folds. Random weights are drawn for several seeds, of
which the mean is shown, and the deviation over seeds. Figures that were measured apart from this package stand beside.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import numpy as np

from vggish_pt.classify import FeatureSettings, LabelledSet, read_labelled
from vggish_pt.classify.probe import ProbeProgress, ProbeRow, probe

# Mean over the five folds, measured apart from this package: logistic regression, SVM, random forest.
EXPECTED = {
    "log-mel, mean+std": (0.798, 0.773, 0.740),
    "mfcc, mean+std": (0.753, 0.772, 0.738),
    "cqt, mean+std": (0.762, 0.790, 0.728),
    "random embedding, mean": (0.782, 0.787, 0.737),
    "random conv4, mean": (0.853, 0.815, 0.765),
}
CLASSIFIERS = ("logistic", "svm", "forest")
DRAWN = ("embedding", "conv4")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--weights", action="append", help="repeatable; default: synthetic")
    parser.add_argument("--layer", action="append", help="repeatable; default: embedding, conv4, fused")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    data = read_labelled(args.folder, fold_from=r"^(\d)-")
    features = [FeatureSettings(name) for name in ("log-mel", "mfcc", "cqt")]
    features += [
        FeatureSettings(weights=weights, layer=layer)
        for weights in args.weights or ["synthetic"]
        for layer in args.layer or ["embedding", "conv4", "fused"]
    ]
    rows = [[row] for row in measure(data, features, 0, args.workers)]
    drawn = [
        measure(data, [FeatureSettings(weights="random", layer=e, seed=seed) for e in DRAWN], seed, args.workers)
        for seed in range(args.seeds)
    ]
    print("| features | numbers | classifier | accuracy | over folds | over seeds | measured elsewhere |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for same in [*rows, *zip(*drawn, strict=True)]:
        row, means = same[0], [each.mean() for each in same]
        folds = f"{np.mean([each.spread() for each in same]):.3f}"
        seeds = f"{np.std(means, ddof=1):.3f}" if len(means) > 1 else ""
        expected = EXPECTED.get(row.features.name)
        beside = f"{expected[CLASSIFIERS.index(row.classifier)]:.3f}" if expected else ""
        cells = [row.features.name, str(row.dimensions), row.classifier, f"{np.mean(means):.3f}", folds, seeds, beside]
        print("| " + " | ".join(cells) + " |")


def measure(data: LabelledSet, features: list[FeatureSettings], seed: int, workers: int) -> Sequence[ProbeRow]:
    return probe(data, features, CLASSIFIERS, seed=seed, workers=workers, keep=False, watch=watch).rows


def watch(event: ProbeProgress) -> None:
    if event.row is not None:
        print(event.name, event.row.classifier, f"{event.row.mean():.4f}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
