"""Comparison of pretraining settings on small models: a quarter of the channels, an eighth of the steps, one stage.

    python weights/synthetic/ablate.py ESC10 --change "" --change "temperature=0.2" --change "without=voice" --seeds 0 1

A change names options of pretrain.py. The small models are evaluated on ESC-10's folds 1 and 2, which may guide
choices: a logistic regression (C=0.1, standardised) on the mean over a clip's windows, fitted to the other folds.
Seeds change the accuracy by two points and the log loss (the finer measure) by 0.02, so compare several seeds. A
change that helps a short run may not help a long one, and a harder task looks worse at first.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from pretrain import make_parser, make_sounds, train
from recordings import Recordings
from sklearn.metrics import log_loss
from trainee import Trainee

from vggish_pt.classify.probe.estimators import make_classifier
from vggish_pt.classify.training.memory import keep_freed_memory
from vggish_pt.errors import VGGishError
from vggish_pt.inference.pooling import pool_windows
from vggish_pt.nn.frontend import LogMel

LAYERS = ("embedding", "fc2", "conv4")


class Judge:
    """Evaluation of small models on recordings.

    Args:
        recordings: recordings in five folds; folds 1 and 2 are used.
    """

    def __init__(self, recordings: Recordings) -> None:
        self._recordings = recordings
        frontend = LogMel(torch.float32)
        self._examples = [frontend(torch.from_numpy(wave)[None])[0] for wave in recordings.waves]

    @torch.no_grad()
    def vectors(self, trainee: Trainee) -> dict[str, np.ndarray]:
        """Return the vectors of each layer, (clips, d)."""
        rows: dict[str, list[np.ndarray]] = {name: [] for name in LAYERS}
        trainee.eval()
        for examples in self._examples:
            for name, values in trainee.stages(examples):
                if name in rows:
                    rows[name].append(pool_windows(values).numpy())
        return {name: np.stack(found) for name, found in rows.items()}

    def figures(self, vectors: np.ndarray) -> tuple[float, float]:
        """Return accuracy and log loss, means of folds 1 and 2."""
        found = []
        for number in (1, 2):
            known, labels, vectors_out, labels_out = self._recordings.fold(number, vectors)
            classifier = make_classifier("logistic").fit(known, labels)
            chances = classifier.predict_proba(vectors_out)
            accuracy = classifier.score(vectors_out, labels_out)
            found.append((accuracy, log_loss(labels_out, chances, labels=classifier.classes_)))
        return tuple(np.mean(found, axis=0))


def settings_of(change: str, seed: int, args: argparse.Namespace, folder: Path) -> argparse.Namespace:
    """Return pretrain.py's settings with a change, such as ``temperature=0.2 without=voice``."""
    options = [f"--{pair}" for pair in change.split()]
    fixed = ["--out", str(folder / "model"), "--state", str(folder / "state"), "--seed", str(seed)]
    base = ["--steps", str(args.steps), "--pairs", "128", "--threads", str(args.threads)]
    return make_parser().parse_args([*base, *options, *fixed])


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description="Compare pretraining settings on small models.")
    parser.add_argument("esc10", type=Path)
    parser.add_argument("--change", action="append", help="options of pretrain.py as name=value ...; repeatable")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--divisor", type=int, default=4, help="divisor of the number of channels (default: 4)")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(args.threads)
    try:
        judge = Judge(Recordings.read(args.esc10))
    except VGGishError as error:
        raise SystemExit(f"ablate.py: {error}") from None
    print("| change | seed | " + " | ".join(f"{name}: accuracy, log loss" for name in LAYERS) + " |")
    print("| --- | --- |" + " --- |" * len(LAYERS))
    for change in args.change or [""]:
        for seed in args.seeds:
            with tempfile.TemporaryDirectory() as folder:
                settings = settings_of(change, seed, args, Path(folder))
                torch.manual_seed(seed)
                device = torch.device("cpu")
                trainee = Trainee(settings.fc_width, settings.projection, args.divisor)
                train(trainee, make_sounds(settings, device), settings, device, report=sys.stderr)
            vectors = judge.vectors(trainee)
            figures = [f"{a:.3f}, {loss:.3f}" for a, loss in (judge.figures(vectors[name]) for name in LAYERS)]
            print(f"| {change or 'none'} | {seed} | " + " | ".join(figures) + " |", flush=True)


if __name__ == "__main__":
    main()
