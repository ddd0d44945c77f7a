"""Evaluation of a model's embeddings on ESC-10 and generated tasks, compared with spectra and random weights.

    python weights/synthetic/evaluate.py --weights FOLDER --esc10 FOLDER

Each figure belongs to a logistic regression (C=0.1, standardised features) on one vector for each clip: the mean over
its windows (for a convolutional layer also over time and frequency), or for spectra the mean and standard deviation
over time. ESC-10 is evaluated by its five folds; folds 1 and 2 guided choices, so the mean of folds 3 to 5 is given
separately. Classifiers are fitted to clean sound and tested with clean sound, with sound that is 20 dB quieter, and
with added noise. The tasks are those of :mod:`tasks`. The figure of ``mixtures`` is the mean average precision, all
others are accuracies.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from recordings import Recordings
from sklearn.metrics import average_precision_score
from tasks import CLEAN, CONDITIONS, TASKS, Task, Wave

from vggish_pt import VGGish
from vggish_pt.classify.probe.baselines import BASELINES, clip_statistics
from vggish_pt.classify.probe.estimators import make_classifier
from vggish_pt.classify.probe.features import RANDOM, FeatureSettings, load_model
from vggish_pt.constants import SAMPLE_RATE
from vggish_pt.errors import VGGishError
from vggish_pt.inference.pooling import clip_vector

Vectors = NDArray[np.float32]
Features = Callable[[Sequence[Wave]], Vectors]


def network_features(model: VGGish, layer: str, waves: Sequence[Wave]) -> Vectors:
    """Return (clips, d): the mean over windows, and for a convolutional layer also over time and frequency."""
    return np.stack([clip_vector(result) for result in model.embed(list(waves), SAMPLE_RATE, layer=layer)])


def spectral_features(name: str, waves: Sequence[Wave]) -> Vectors:
    """Return (clips, d): mean and standard deviation over time."""
    return np.stack([clip_statistics(wave, name) for wave in waves])


def all_features(names: Iterable[str], layers: Sequence[str], half: bool, others: bool) -> dict[str, Features]:
    """Return the features to compare, by their names in the tables."""
    models: dict[str, VGGish] = {}
    for name in names:
        models[name] = VGGish.from_pretrained(name)
        if half:
            # Weights rounded to float16, computed in float32: the cost of a float16 file.
            rounded = models[f"{name} in float16"] = VGGish.from_pretrained(name)
            for parameter in rounded.network.parameters():  # half() does not change the first layer
                parameter.data = parameter.data.half().float()
    if others:
        models["random weights"] = load_model(FeatureSettings(weights=RANDOM))
    out: dict[str, Features] = {
        f"{name}, {layer}": partial(network_features, model, layer)
        for name, model in models.items()
        for layer in layers
    }
    if others:
        out |= {f"{name}, mean and std": partial(spectral_features, name) for name in BASELINES}
    return out


def changed(waves: Sequence[Wave], condition: str) -> list[Wave]:
    """Apply a condition to the waves; the noise depends only on a wave's index."""
    change = CONDITIONS[condition]
    return [change(wave, np.random.default_rng(index)) for index, wave in enumerate(waves)]


def fitted(vectors: Vectors, labels: NDArray[Any]) -> Any:
    """Fit a logistic regression, or one for each class if a clip may have several."""
    return make_classifier("logistic", multilabel=labels.ndim == 2).fit(vectors, labels)


def figure(classifier: Any, vectors: Vectors, labels: NDArray[Any]) -> float:
    """Return the accuracy, or the mean average precision if a clip may have several classes."""
    if labels.ndim == 2:
        return float(average_precision_score(labels, classifier.decision_function(vectors), average="macro"))
    return float(classifier.score(vectors, labels))


def on_task(task: Task, features: Features) -> list[float]:
    """Return the figure under each condition."""
    waves = [[wave for wave, t in zip(task.waves, task.tested, strict=True) if t == tested] for tested in (False, True)]
    classifier = fitted(features(waves[0]), task.labels[~task.tested])
    return [
        figure(classifier, features(changed(waves[1], condition)), task.labels[task.tested]) for condition in CONDITIONS
    ]


def predictions(recordings: Recordings, features: Features, conditions: Iterable[str]) -> dict[str, NDArray[np.str_]]:
    """Return the predicted classes (n,) for each condition, by classifiers fitted to the other folds' clean clips."""
    clean = features(recordings.waves)
    classifiers = {number: fitted(*recordings.fold(number, clean)[:2]) for number in range(1, 6)}
    out = {}
    for condition in conditions:
        vectors = clean if condition == CLEAN else features(changed(recordings.waves, condition))
        out[condition] = np.empty_like(recordings.labels)
        for number, classifier in classifiers.items():
            out[condition][recordings.folds == number] = classifier.predict(recordings.fold(number, vectors)[2])
    return out


def by_fold(recordings: Recordings, predicted: NDArray[np.str_]) -> list[float]:
    """Return the accuracy on each of the five folds."""
    right = predicted == recordings.labels
    return [float(right[recordings.folds == number].mean()) for number in range(1, 6)]


def confusions(recordings: Recordings, predicted: NDArray[np.str_]) -> dict[str, Counter[str]]:
    """Return the counts of predicted classes for each class."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for label, other in zip(recordings.labels, predicted, strict=True):
        counts[str(label)][str(other)] += 1
    return counts


def row(cells: Iterable[object]) -> None:
    """Print a row of a table."""
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def print_esc10(recordings: Recordings, predicted: dict[str, dict[str, NDArray[np.str_]]]) -> None:
    """Print the table of ESC-10 from predictions by features and condition, :data:`~tasks.CLEAN` first."""
    changes = list(next(iter(predicted.values())))[1:]
    row(["ESC-10", *(f"fold {n}" for n in range(1, 6)), "mean", "folds 1-2", "folds 3-5", *changes])
    row(["---"] * (9 + len(changes)))
    for name, of_condition in predicted.items():
        scores = {condition: by_fold(recordings, found) for condition, found in of_condition.items()}
        clean = scores[CLEAN]
        figures = [*clean, *map(np.mean, (clean, clean[:2], clean[2:], *(scores[change] for change in changes)))]
        row([name, *(f"{f:.3f}" for f in figures)])
    print()


def print_classes(recordings: Recordings, name: str, predicted: NDArray[np.str_]) -> None:
    """Print the recognised clips of each class, and wrong classes predicted for two or more of its clips."""
    row([f"{name}: class", "clips", "recognised", "taken for"])
    row(["---"] * 4)
    confused = confusions(recordings, predicted)
    for label in sorted(confused, key=lambda label: -confused[label][label]):
        counts = confused[label]
        others = [f"{other} {count}" for other, count in counts.most_common() if other != label and count > 1]
        row([label, counts.total(), counts[label], ", ".join(others)])
    print()


def print_tasks(names: Iterable[str], compared: dict[str, Features], seed: int) -> None:
    """Print a table for each task."""
    for name in names:
        task = TASKS[name](np.random.default_rng(seed))
        print(f"{name}: {len(task.waves)} clips, {int(task.tested.sum())} of them tested with", file=sys.stderr)
        row([name, *CONDITIONS])
        row(["---"] * (1 + len(CONDITIONS)))
        for label, features in compared.items():
            row([label, *(f"{f:.3f}" for f in on_task(task, features))])
        print()


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description="Evaluate embeddings on ESC-10 and generated tasks.")
    parser.add_argument("--weights", action="append", help="name or model folder; repeatable (default: synthetic)")
    parser.add_argument("--layer", action="append", help="layer to read; repeatable (default: embedding and conv4)")
    parser.add_argument(
        "--esc10", type=Path, help="folder with a folder of FOLD-*.ogg for each class (default: tasks only)"
    )
    parser.add_argument(
        "--task", action="append", choices=[*TASKS, "none"], help="generated task; repeatable (default: all)"
    )
    parser.add_argument("--no-others", action="store_true", help="leave out spectra and random weights")
    parser.add_argument("--half", action="store_true", help="evaluate weights rounded to float16 too")
    parser.add_argument("--clean", action="store_true", help="test ESC-10 with clean sound only")
    parser.add_argument("--classes", action="store_true", help="print a table of ESC-10's classes too")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the tasks (default: 0)")
    args = parser.parse_args()
    try:
        compared = all_features(
            args.weights or ["synthetic"], args.layer or ["embedding", "conv4"], args.half, not args.no_others
        )
        if args.esc10:
            recordings = Recordings.read(args.esc10)
            conditions = [CLEAN] if args.clean else list(CONDITIONS)
            predicted = {name: predictions(recordings, of, conditions) for name, of in compared.items()}
            print_esc10(recordings, predicted)
            for name in predicted if args.classes else ():
                print_classes(recordings, name, predicted[name][CLEAN])
        print_tasks([name for name in args.task or TASKS if name != "none"], compared, args.seed)
    except VGGishError as error:
        raise SystemExit(f"evaluate.py: {error}") from None


if __name__ == "__main__":
    main()
