"""What each layer is good for: recordings of events, and spoken digits, with the embedding, every layer and fusions.

    python benchmarks/layers.py ESC10_FOLDER --weights synthetic

ESC-10 as in esc10.py: five folds as given. The digits are spoken by espeak-ng (apt-get install espeak-ng) in 16 voices
at two speeds; four groups of voices are held out in turn, so that no voice is both in training and in test. Logistic
regression on standardised features, C=0.1. A layer's vector for a clip: the mean over its windows; of a convolutional
layer also over time and frequency. Fusions keep frequencies apart.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
from pathlib import Path

import numpy as np
import torch
from esc10 import accuracies, clips
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from vggish_pt import VGGish
from vggish_pt.layers import LAYERS
from vggish_pt.pooling import pool_windows

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
    paths, classes, folds = clips(args.folder)
    sounds, spoken, voices = digits()
    model = VGGish.from_pretrained(args.weights)
    print(f"{len(paths)} clips of ESC-10; {len(sounds)} spoken digits of {len(set(voices))} voices\n")
    print("| layer | numbers | ESC-10 | its folds 3 to 5 | digits, unseen voices | their spread over groups |")
    print("| --- | --- | --- | --- | --- | --- |")
    for layer in (*LAYERS, *FUSIONS):
        events = features(model, paths, layer)
        scores = accuracies(events, classes, folds)
        classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=5000))
        words = cross_val_score(classifier, features(model, sounds, layer), spoken, groups=voices, cv=GroupKFold(4))
        row = [f"{scores.mean():.3f}", f"{scores[2:].mean():.3f}", f"{words.mean():.3f}", f"{words.std():.3f}"]
        print(f"| `{layer}` | {events.shape[1]} | {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
