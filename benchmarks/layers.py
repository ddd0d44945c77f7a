"""What each layer is good for: recordings of events, and spoken digits, with the embedding, every layer and fusions.

    python benchmarks/layers.py ESC10_FOLDER --weights synthetic

ESC-10: five folds as given; the first digit of a file's name is its fold. The digits are spoken by espeak-ng (apt-get
install espeak-ng) in 16 voices at two speeds; four groups of voices are held out in turn, so that no voice is both in
training and in test. Logistic regression on standardised features, C=0.1. A layer's vector for a clip: the mean over
its windows; of a convolutional layer also over time and frequency. Fusions keep frequencies apart.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
from pathlib import Path

import numpy as np
import torch
from sklearn.model_selection import GroupKFold, LeaveOneGroupOut, cross_val_score

from vggish_pt import VGGish
from vggish_pt.classify import read_labelled
from vggish_pt.classify.probe.estimators import make_classifier
from vggish_pt.inference.pooling import pool_windows
from vggish_pt.nn.layers import LAYERS

ACCENTS = ("en-us", "en-gb", "en-gb-scotland", "en-029")
VARIANTS = ("m1", "m3", "f2", "f4")
SPEEDS = (130, 180)
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
FUSIONS = ("fused:conv2+conv4", "fused:conv3+conv4+embedding")


def digits() -> tuple[list[bytes], np.ndarray, np.ndarray]:
    """Clips, digits and voices."""
    if not shutil.which("espeak-ng"):
        raise SystemExit("espeak-ng is not installed")
    sounds, labels, voices = [], [], []
    for accent in ACCENTS:
        for variant in VARIANTS:
            for speed in SPEEDS:
                for digit, word in enumerate(DIGITS):
                    command = ["espeak-ng", "-v", f"{accent}+{variant}", "-s", str(speed), "--stdout", word]
                    sounds.append(subprocess.run(command, check=True, capture_output=True).stdout)
                    labels.append(digit)
                    voices.append(f"{accent}+{variant}")
    return sounds, np.array(labels), np.array(voices)


def features(model: VGGish, sources: list, layer: str) -> np.ndarray:
    """(clips, d)."""
    return torch.stack([pool_windows(result.values) for result in model.embed(sources, layer=layer)]).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", default="synthetic")
    args = parser.parse_args()
    data = read_labelled(args.folder, fold_from=r"^(\d)-")
    paths, classes = [item.path for item in data.items], [example.labels[0] for example in data.examples]
    folds = [example.fold for example in data.examples]
    sounds, spoken, voices = digits()
    model = VGGish.from_pretrained(args.weights)
    print(f"{len(paths)} clips of ESC-10; {len(sounds)} spoken digits of {len(set(voices))} voices\n")
    print("| layer | numbers | ESC-10 | its folds 3 to 5 | digits, unseen voices | their spread over groups |")
    print("| --- | --- | --- | --- | --- | --- |")
    for layer in (*LAYERS, *FUSIONS):
        events = features(model, paths, layer)
        classifier = make_classifier("logistic")
        scores = cross_val_score(classifier, events, classes, groups=folds, cv=LeaveOneGroupOut())
        words = cross_val_score(classifier, features(model, sounds, layer), spoken, groups=voices, cv=GroupKFold(4))
        row = [f"{scores.mean():.3f}", f"{scores[2:].mean():.3f}", f"{words.mean():.3f}", f"{words.std():.3f}"]
        print(f"| `{layer}` | {events.shape[1]} | {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
