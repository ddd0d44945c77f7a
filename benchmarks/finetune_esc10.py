"""ESC-10: fine-tuned against probed, and against the same network trained from scratch.

    python benchmarks/finetune_esc10.py FOLDER --out RESULTS

FOLDER holds a folder per class; the first digit of a file's name is its fold. Each fold is predicted by a classifier
that was trained on the other four. Choices of the recipe below go by folds 1 and 2 (README.md says what else was
seen); no run sees its test fold before it has ended: there is no early stopping, and the weights of the last epochs are
averaged.

Results are appended to RESULTS/results.csv, one row for each arm, fold and seed, and those that are there are not
computed again; so the benchmark can be stopped and started, and run in several processes at once (--arm, --seed).
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from common import print_table
from esc10 import accuracies, clips
from filelock import FileLock

from vggish_pt import VGGish, VGGishConfig
from vggish_pt.audio.clip import Clip
from vggish_pt.classify import HeadConfig, VGGishClassifier
from vggish_pt.classify.training.settings import AugmentSettings, TrainSettings
from vggish_pt.classify.training.train import RunOptions, initialise, train

RECIPE = TrainSettings(
    weights="synthetic",
    head=HeadConfig("mlp", features="fused:conv4", hidden=512, dropout=0.5),
    frozen_blocks=3,
    head_epochs=60,
    epochs=4,
    batch_size=16,
    windows=2,
    lr=5e-5,
    backbone_lr_factor=0.2,
    weight_decay=0.05,
    swa=0.5,
    keep="last",
    precision="bf16",
    augment=AugmentSettings(gain=6),
)
SCRATCH = replace(
    RECIPE,
    weights="none",
    head=HeadConfig("linear", features="fused:conv4", dropout=0.2),
    frozen_blocks=0,
    head_epochs=0,
    epochs=8,
    batch_size=8,
    lr=5e-4,
    swa=0.75,
)
HEAD_ALONE = replace(RECIPE, epochs=0)
RECIPES = {"head alone": HEAD_ALONE, "fine-tuned": RECIPE, "from scratch": SCRATCH}
PROBES = {"probe, embedding": "embedding", "probe, fused:conv4": "fused:conv4"}
ARMS = (*PROBES, *RECIPES)
COLUMNS = ("arm", "fold", "seed", "accuracy", "seconds")


@dataclass(frozen=True)
class LabelledFile:
    item: Clip
    labels: tuple[str, ...]


def measure(arm: str, fold: int, seed: int, paths: list[Path], classes: np.ndarray, folds: np.ndarray) -> float:
    """Accuracy on one fold after training on the others."""
    labels = sorted(set(classes))
    examples = [
        LabelledFile(Clip(str(p), i), (label,)) for i, (p, label) in enumerate(zip(paths, classes, strict=True))
    ]
    settings = replace(RECIPES[arm], seed=seed)
    backbone = None
    if settings.scratch:  # the same network, so as narrow in the layers that the head does not see
        torch.manual_seed(seed)
        backbone = VGGish(VGGishConfig(fc_width=VGGish.from_pretrained("synthetic").config.fc_width))
        initialise(backbone)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        training = [example for example, f in zip(examples, folds, strict=True) if f != fold]
        train(training, [], labels, run, settings, backbone=backbone, options=RunOptions(device="cpu", cache="memory"))
        model = VGGishClassifier.from_pretrained(run)
        held_out = folds == fold
        found = [p.best for p in model.predict_iter([p for p, h in zip(paths, held_out, strict=True) if h])]
    return float(np.mean(np.array(found) == classes[held_out]))


def probe(layer: str, paths: list[Path], classes: np.ndarray, folds: np.ndarray) -> np.ndarray:
    model = VGGish.from_pretrained("synthetic")
    features = np.stack([result.values.mean(0).numpy() for result in model.embed(paths, layer=layer)])
    return accuracies(features, classes, folds)


def rows(results: Path) -> list[dict[str, str]]:
    if not results.exists():
        return []
    with results.open(newline="") as file:
        return list(csv.DictReader(file))


def append(results: Path, row: tuple[object, ...]) -> None:
    with FileLock(f"{results}.lock"), results.open("a", newline="") as file:
        writer = csv.writer(file)
        if file.tell() == 0:
            writer.writerow(COLUMNS)
        writer.writerow(row)


def open_work(args: argparse.Namespace) -> Iterator[tuple[str, int, int]]:
    """What is still to be measured: seed by seed and fold by fold, so that partial results can be compared."""
    for seed in args.seed:
        for fold in range(1, 6):
            for arm in args.arm or ARMS:
                if arm not in PROBES or seed == args.seed[0]:
                    yield arm, fold, seed if arm not in PROBES else 0


def report(results: Path) -> None:
    found: dict[str, dict[int, dict[int, float]]] = {}
    for row in rows(results):
        found.setdefault(row["arm"], {}).setdefault(int(row["seed"]), {})[int(row["fold"])] = float(row["accuracy"])
    table = []
    for arm in ARMS:
        seeds = {seed: by_fold for seed, by_fold in sorted(found.get(arm, {}).items()) if len(by_fold) == 5}
        if not seeds:
            continue
        folds = [np.mean([by_fold[fold] for by_fold in seeds.values()]) for fold in range(1, 6)]
        means = [np.mean(list(by_fold.values())) for by_fold in seeds.values()]
        later = [np.mean([by_fold[fold] for fold in (3, 4, 5)]) for by_fold in seeds.values()]
        spread = f"{min(means):.3f} to {max(means):.3f}" if len(means) > 1 else ""
        figures = [*folds, np.mean(means)]
        table.append([arm, len(seeds), *(f"{figure:.3f}" for figure in figures), spread, f"{np.mean(later):.3f}"])
    print_table(["", "seeds", "fold 1", "2", "3", "4", "5", "mean", "over seeds", "folds 3-5"], table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder for results.csv")
    parser.add_argument("--arm", action="append", choices=ARMS, help="left out: all")
    parser.add_argument("--seed", action="append", type=int, help="left out: 0, 1 and 2")
    parser.add_argument("--threads", type=int, help="of torch; left out: all cores")
    args = parser.parse_args()
    args.seed = args.seed or [0, 1, 2]
    if args.threads:
        torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    results = args.out / "results.csv"
    paths, classes, folds = clips(args.folder)
    probes: dict[str, np.ndarray] = {}
    for arm, fold, seed in open_work(args):
        if any((r["arm"], int(r["fold"]), int(r["seed"])) == (arm, fold, seed) for r in rows(results)):
            continue
        start = time.monotonic()
        if arm in PROBES:
            if arm not in probes:
                probes[arm] = probe(PROBES[arm], paths, classes, folds)
            accuracy = float(probes[arm][fold - 1])
        else:
            accuracy = measure(arm, fold, seed, paths, classes, folds)
        seconds = time.monotonic() - start
        append(results, (arm, fold, seed, f"{accuracy:.4f}", f"{seconds:.0f}"))
        print(f"{arm}, fold {fold}, seed {seed}: {accuracy:.3f} ({seconds:.0f} s)", flush=True)
    report(results)


if __name__ == "__main__":
    main()
