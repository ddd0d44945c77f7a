"""How much a model's embeddings know: ESC-10, and tasks made here, beside spectra and random weights.

    python weights/synthetic/evaluate.py --weights FOLDER --esc10 FOLDER

Every figure is a logistic regression's (C=0.1, standardised features) on one vector for each clip: the mean over its
windows (of a convolutional layer, over time and frequency, too), or for spectra the mean and standard deviation over
time. ESC-10 by its five folds; folds 1 and 2 guided choices, so 3 to 5 stand apart. Classifiers are always fitted to
clean sound and then tested with it, with sound that is 20 dB quieter, and with noise added. Tasks are those of
:mod:`tasks`; of ``mixtures`` the figure is the mean average precision, of all else the accuracy.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score
from tasks import CONDITIONS, TASKS, Task, Wave

from vggish_pt import VGGish, VGGishConfig
from vggish_pt.classify.baselines import BASELINES, clip_statistics
from vggish_pt.classify.classifiers import make_classifier
from vggish_pt.constants import SAMPLE_RATE

Vectors = NDArray[np.float32]
Features = Callable[[Sequence[Wave]], Vectors]


def network_features(model: VGGish, layer: str, waves: Sequence[Wave]) -> Vectors:
    """(clips, d): the mean over windows, and of a convolutional layer over time and frequency."""
    rows = []
    for result in model.embed(list(waves), SAMPLE_RATE, layer=layer):
        values = result.values.float()
        rows.append(values.mean((0, 2, 3)) if values.ndim == 4 else values.mean(0))
    return torch.stack(rows).numpy()


def spectral_features(name: str, waves: Sequence[Wave]) -> Vectors:
    """(clips, d): mean and standard deviation over time."""
    return np.stack([clip_statistics(wave, name) for wave in waves])


def all_features(folders: Iterable[str], layers: Sequence[str], others: bool) -> dict[str, Features]:
    """What is compared, by the name it has in the tables."""
    out: dict[str, Features] = {}
    for folder in folders:
        model = VGGish.from_pretrained(folder)
        out |= {f"{Path(folder).name}, {layer}": partial(network_features, model, layer) for layer in layers}
    if others:
        torch.manual_seed(0)
        drawn = VGGish(VGGishConfig(fc_width=256)).eval()
        out |= {f"random weights, {layer}": partial(network_features, drawn, layer) for layer in layers}
        out |= {f"{name}, mean and std": partial(spectral_features, name) for name in BASELINES}
    return out


def changed(waves: Sequence[Wave], condition: str) -> list[Wave]:
    """The waves as a condition makes them; the noise depends on a wave's place alone."""
    change = CONDITIONS[condition]
    return [change(wave, np.random.default_rng(place)) for place, wave in enumerate(waves)]


def fitted(vectors: Vectors, labels: NDArray[Any]) -> Any:
    """A logistic regression, or one for each class where several may be right."""
    return make_classifier("logistic", multilabel=labels.ndim == 2).fit(vectors, labels)


def figure(classifier: Any, vectors: Vectors, labels: NDArray[Any]) -> float:
    """Accuracy, or where several classes may be right the mean average precision."""
    if labels.ndim == 2:
        return float(average_precision_score(labels, classifier.decision_function(vectors), average="macro"))
    return float(classifier.score(vectors, labels))


def on_task(task: Task, features: Features) -> list[float]:
    """The figure under each condition."""
    waves = [[wave for wave, t in zip(task.waves, task.tested, strict=True) if t == tested] for tested in (False, True)]
    classifier = fitted(features(waves[0]), task.labels[~task.tested])
    return [
        figure(classifier, features(changed(waves[1], condition)), task.labels[task.tested]) for condition in CONDITIONS
    ]


def on_esc10(folder: Path, features: Features, conditions: Iterable[str]) -> dict[str, NDArray[np.float64]]:
    """Of each condition the accuracy on each of the five folds."""
    paths = sorted(p for p in folder.glob("*/*") if p.name[:1] in "12345")
    if not paths:
        raise SystemExit(f"{folder}: no clips named CLASS/FOLD-....ogg")
    waves = [read(path) for path in paths]
    labels, folds = np.array([p.parent.name for p in paths]), np.array([int(p.name[0]) for p in paths])
    clean = features(waves)
    classifiers = {fold: fitted(clean[folds != fold], labels[folds != fold]) for fold in range(1, 6)}
    out = {}
    for condition in conditions:
        vectors = features(changed(waves, condition))
        out[condition] = np.array(
            [figure(classifiers[fold], vectors[folds == fold], labels[folds == fold]) for fold in range(1, 6)]
        )
    return out


def read(path: Path) -> Wave:
    """A mono waveform at 16 kHz."""
    import soxr

    wave, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return np.asarray(soxr.resample(wave.mean(axis=1), rate, SAMPLE_RATE), np.float32)


def row(cells: Iterable[object]) -> None:
    """Prints a row of a table."""
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measures what embeddings know.")
    parser.add_argument("--weights", action="append", help="a name or model folder; repeatable; default: synthetic")
    parser.add_argument("--layer", action="append", help="repeatable; default: embedding, conv4")
    parser.add_argument("--esc10", type=Path, help="a folder of folders of FOLD-....ogg; left out: tasks alone")
    parser.add_argument("--task", action="append", choices=[*TASKS, "none"], help="repeatable; default: all")
    parser.add_argument("--no-others", action="store_true", help="without spectra and random weights")
    parser.add_argument("--clean", action="store_true", help="ESC-10 as it is alone: not quieter, no noise")
    parser.add_argument("--seed", type=int, default=0, help="of the tasks")
    args = parser.parse_args()
    compared = all_features(args.weights or ["synthetic"], args.layer or ["embedding", "conv4"], not args.no_others)

    if args.esc10:
        conditions = list(CONDITIONS)[: 1 if args.clean else None]
        row(["ESC-10", *(f"fold {n}" for n in range(1, 6)), "mean", "folds 1-2", "folds 3-5", *conditions[1:]])
        row(["---"] * (9 + len(conditions) - 1))
        for name, features in compared.items():
            scores = on_esc10(args.esc10, features, conditions)
            clean = scores[conditions[0]]
            figures = [*clean, clean.mean(), clean[:2].mean(), clean[2:].mean()]
            row([name, *(f"{f:.3f}" for f in [*figures, *(scores[c].mean() for c in conditions[1:])])])
        print()
    chosen = [name for name in args.task or TASKS if name != "none"]
    made = {name: TASKS[name](np.random.default_rng(args.seed)) for name in chosen}
    for name, task in made.items():
        print(f"{name}: {len(task.waves)} clips, {int(task.tested.sum())} of them tested with", file=sys.stderr)
        row([name, *CONDITIONS])
        row(["---"] * (1 + len(CONDITIONS)))
        for label, features in compared.items():
            row([label, *(f"{f:.3f}" for f in on_task(task, features))])
        print()


if __name__ == "__main__":
    main()
