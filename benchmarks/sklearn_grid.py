"""GridSearchCV over the layer and the classifier's C on ESC-10.

    python benchmarks/sklearn_grid.py FOLDER --weights synthetic

FOLDER holds a folder per class; the first digit of a file's name is its fold. A pipeline of VGGishTransformer,
StandardScaler and LogisticRegression is searched over two halves, folds 1 and 3 against 2 and 4 (either predicted by a
classifier fitted to the other), then the best one is fitted to all four and scored on fold 5. The transformer keeps its
features in a folder of its own, so each layer embeds each half once, whatever C is. `--clips` takes the first so many
clips of each class and fold.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from esc10 import clips
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from vggish_pt.sklearn import VGGishTransformer


def subset(classes: np.ndarray, folds: np.ndarray, count: int) -> np.ndarray:
    """Indices of the first `count` clips of each class and fold."""
    groups = {}
    for index, group in enumerate(zip(classes, folds, strict=True)):
        groups.setdefault(group, []).append(index)
    return np.sort(np.concatenate([group[:count] for group in groups.values()]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", default="synthetic", help="a name or model folder")
    parser.add_argument("--layers", nargs="+", default=["embedding", "fc1", "conv4"])
    parser.add_argument("--c", type=float, nargs="+", default=[0.001, 0.01, 0.1, 1.0])
    parser.add_argument("--clips", type=int, default=8, help="of each class and fold; ESC-10 has 8")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()

    paths, classes, folds = clips(args.folder)
    chosen = subset(classes, folds, args.clips)
    paths, classes, folds = [str(paths[i]) for i in chosen], classes[chosen], folds[chosen]
    seen = np.flatnonzero(folds < 5)
    held_out = np.flatnonzero(folds == 5)

    with TemporaryDirectory() as memory:
        pipeline = Pipeline(
            [
                ("vggish", VGGishTransformer(args.weights, device=args.device, memory=memory)),
                ("scale", StandardScaler()),
                ("classify", LogisticRegression(max_iter=5000)),
            ]
        )
        grid = {"vggish__layer": args.layers, "classify__C": args.c}
        search = GridSearchCV(pipeline, grid, cv=PredefinedSplit(folds[seen] % 2), error_score="raise")
        start = time.perf_counter()
        search.fit([paths[i] for i in seen], classes[seen])
        seconds = time.perf_counter() - start
        score = search.score([paths[i] for i in held_out], classes[held_out])

    print(f"{args.weights}: {len(seen)} clips searched in {seconds:.0f} s, {len(held_out)} held out\n")
    print("| layer | " + " | ".join(f"C={c:g}" for c in args.c) + " |")
    print("| --- |" + " --- |" * len(args.c))
    for layer in args.layers:
        means = {
            p["classify__C"]: mean
            for p, mean in zip(search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True)
            if p["vggish__layer"] == layer
        }
        print(f"| {layer} | " + " | ".join(f"{means[c]:.3f}" for c in args.c) + " |")
    best = search.best_params_
    print(f"\nbest: {best['vggish__layer']}, C={best['classify__C']:g}; on fold 5: {score:.3f}")


if __name__ == "__main__":
    main()
