"""Overlapping events: several labels for a clip, in mixtures that the script makes itself.

    python benchmarks/multilabel.py

A clip has 4 s: quiet noise, and two or three sounds of different kinds (of eight), of 1 to 3 s each, from -12 to 0 dB,
which begin anywhere and mostly overlap. All is drawn from a seed. Trained on 480 clips, chosen by 120 others, tested on
400: heads on the frozen `synthetic` network, that network fine-tuned, and trained from scratch. Beside it, how well
events that are merged from windows every 0.24 s agree with the true ones, in segments of 0.5 s.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import soundfile
import torch
from common import print_machine, print_table

from vggish_pt.classify.config import HeadConfig
from vggish_pt.classify.data.examples import LabelledSet
from vggish_pt.classify.data.labelled import read_labelled
from vggish_pt.classify.evaluation.evaluate import Evaluation, evaluate, select_clips
from vggish_pt.classify.evaluation.events import EventSettings
from vggish_pt.classify.evaluation.predict import Classifier, load_classifier, predict_clips, prediction_events
from vggish_pt.classify.training.settings import AugmentSettings, RunOptions, TrainSettings
from vggish_pt.classify.training.train import train

RATE = 16_000
SECONDS = 4.0
COUNTS = {"train": 480, "validation": 120, "test": 400}
SEGMENT = 0.5

Rng = np.random.Generator
Sound = np.ndarray


def beep(time: Sound, rng: Rng) -> Sound:
    """A steady tone with a few harmonics."""
    pitch = rng.uniform(300, 1500)
    return sum(np.sin(2 * np.pi * pitch * k * time) * rng.uniform(0.1, 1) / k for k in (1, 2, 3))


def sweep(time: Sound, rng: Rng) -> Sound:
    """Tones that run upwards again and again."""
    low, octaves, period = rng.uniform(300, 1200), rng.uniform(1, 2.5), rng.uniform(0.2, 0.6)
    return np.sin(2 * np.pi * np.cumsum(low * 2 ** (octaves * (time % period) / period)) / RATE)


def siren(time: Sound, rng: Rng) -> Sound:
    """A tone that goes up and down."""
    pitch, rate, depth = rng.uniform(500, 1500), rng.uniform(1, 5), rng.uniform(0.1, 0.4)
    return np.sin(2 * np.pi * np.cumsum(pitch * 2 ** (depth * np.sin(2 * np.pi * rate * time))) / RATE)


def hiss(time: Sound, rng: Rng) -> Sound:
    """Noise above a few kilohertz."""
    return _band(rng.standard_normal(len(time)), rng.uniform(2000, 4500), 8000)


def rumble(time: Sound, rng: Rng) -> Sound:
    """Noise below a few hundred hertz."""
    return _band(rng.standard_normal(len(time)), 130, rng.uniform(250, 500))


def crackle(time: Sound, rng: Rng) -> Sound:
    """Clicks at random moments."""
    clicks = (rng.random(len(time)) < rng.uniform(10, 60) / RATE) * rng.uniform(0.3, 1, len(time))
    decay = np.exp(-np.arange(160) / rng.uniform(10, 40)) * rng.standard_normal(160)
    return np.convolve(clicks, decay)[: len(time)]


def knock(time: Sound, rng: Rng) -> Sound:
    """Dull strokes in a rhythm."""
    since = time % rng.uniform(0.15, 0.5)
    return np.sin(2 * np.pi * rng.uniform(130, 300) * since) * np.exp(-since / rng.uniform(0.02, 0.06))


def buzz(time: Sound, rng: Rng) -> Sound:
    """A low sawtooth."""
    return 2 * ((rng.uniform(80, 200) * time) % 1) - 1


KINDS = {kind.__name__: kind for kind in (beep, sweep, siren, hiss, rumble, crackle, knock, buzz)}


def _band(noise: Sound, low: float, high: float) -> Sound:
    spectrum = np.fft.rfft(noise)
    frequency = np.fft.rfftfreq(len(noise), 1 / RATE)
    spectrum[(frequency < low) | (frequency > high)] = 0
    return np.fft.irfft(spectrum, len(noise))


def mixture(rng: Rng) -> tuple[Sound, list[tuple[str, float, float]]]:
    """A clip, and its events: kind, onset and offset in seconds."""
    clip = rng.standard_normal(int(RATE * SECONDS)) * 0.003
    events = []
    for kind in rng.choice(list(KINDS), size=rng.integers(2, 4), replace=False):
        length = rng.uniform(1, 3)
        onset = rng.uniform(0, SECONDS - length)
        time = np.arange(int(length * RATE)) / RATE
        sound = KINDS[kind](time, rng)
        sound *= np.minimum(1, np.minimum(time, time[-1] - time) / 0.02)  # no clicks at its ends
        sound *= 0.1 * 10 ** (rng.uniform(-12, 0) / 20) / max(1e-6, np.sqrt(np.mean(sound**2)))
        first = int(onset * RATE)
        clip[first : first + len(sound)] += sound
        events.append((str(kind), onset, onset + length))
    return np.clip(clip, -1, 1), events


def make(folder: Path, seed: int) -> tuple[Path, dict[str, list[tuple[str, float, float]]]]:
    """Writes the clips; returns their manifest, and the true events of each."""
    truth = {}
    with (folder / "clips.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "labels", "split"])
        for part, (split, count) in enumerate(COUNTS.items()):
            for number in range(count):
                clip, events = mixture(np.random.default_rng([seed, part, number]))
                name = f"{split}{number:04}.wav"
                soundfile.write(folder / name, clip, RATE)
                table.writerow([name, ";".join(kind for kind, _, _ in events), split])
                truth[name] = events
    return folder / "clips.csv", truth


def segments(events: list[tuple[str, float, float]]) -> np.ndarray:
    """(kinds, segments) bool: where an event fills at least half of the segment."""
    found = np.zeros((len(KINDS), int(SECONDS / SEGMENT)))
    for kind, onset, offset in events:
        for place in range(found.shape[1]):
            overlap = min(offset, (place + 1) * SEGMENT) - max(onset, place * SEGMENT)
            found[list(KINDS).index(kind), place] += max(0.0, overlap)
    return found >= SEGMENT / 2


def segment_f1(classifier: Classifier, data: LabelledSet, truth: dict[str, list[tuple[str, float, float]]]) -> float:
    """F1 over all segments and kinds."""
    hits = wrong = 0
    settings = EventSettings(threshold=0.5, low=0.3, median=3, min_duration=0.5, max_gap=0.3)
    for item, prediction in predict_clips(classifier, data.items, hop=0.24):
        found = prediction_events(prediction, multilabel=True, settings=settings)
        ours = segments([(event.label, event.onset, event.offset) for event in found])
        theirs = segments(truth[item.path])
        hits += int((ours & theirs).sum())
        wrong += int((ours ^ theirs).sum())
    return 2 * hits / (2 * hits + wrong)


BASE = TrainSettings(
    weights="synthetic",
    head=HeadConfig("linear", features="fused:conv4", dropout=0.2),
    backbone="frozen",
    epochs=12,
    batch_size=8,
    windows=4,
    lr=2e-3,
    keep="best",
    augment=AugmentSettings(gain=6, random_crop=False),
)
ARMS = {
    "frozen, linear head": BASE,
    "frozen, attention over windows": replace(BASE, head=replace(BASE.head, kind="attention")),
    "frozen, linear head on the embedding": replace(BASE, head=replace(BASE.head, features="embedding")),
    "fine-tuned, linear head": replace(BASE, backbone="whole", frozen_blocks=2, lr=5e-4, epochs=6, precision="bf16"),
    "from scratch, linear head": replace(BASE, weights="none", backbone="whole", lr=5e-4, epochs=6, precision="bf16"),
}


def measure(arm: str, data: LabelledSet, out: Path, seed: int, device: str) -> tuple[Evaluation, Classifier, float]:
    start = time.perf_counter()
    train(
        select_clips(data, split="train").examples,
        select_clips(data, split="validation").examples,
        data.labels,
        out,
        replace(ARMS[arm], seed=seed),
        multilabel=True,
        options=RunOptions(device=device, cache="memory"),
    )
    seconds = time.perf_counter() - start
    classifier = load_classifier(out, device=None if device in ("auto", "cpu") else device)
    return evaluate(classifier, select_clips(data, split="test")), classifier, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--seeds", type=int, default=1, help="runs of each arm; the clips stay")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    print_machine()
    rows, classes = [], {}
    with TemporaryDirectory() as place:
        folder = Path(place)
        manifest, truth = make(folder, seed=1)
        data = read_labelled(manifest)
        for arm in args.arms:
            found, events, times = [], [], []
            for seed in range(args.seeds):
                out = folder / f"run {list(ARMS).index(arm)} {seed}"
                result, classifier, seconds = measure(arm, data, out, seed, args.device)
                found.append(result.metrics)
                events.append(segment_f1(classifier, select_clips(data, split="test"), truth))
                times.append(seconds)
                print(json.dumps({"arm": arm, "seed": seed, "mAP": found[-1].mean_average_precision}), flush=True)
            names = ("mean_average_precision", "auc", "d_prime", "macro_f1", "accuracy")
            figures = [_spread([getattr(one, name) for one in found]) for name in names]
            error = _spread([one.reliability.error for one in found])
            rows.append([arm, *figures, error, _spread(events), f"{np.mean(times):.0f}"])
            classes[arm] = [f"{one.average_precision:.3f}" for one in found[0].per_class]
    print()
    header = ["", "mAP", "AUC", "d-prime", "macro-F1", "all labels right", "calibration error", "events, F1", "s"]
    print_table(header, rows)
    print_table(["average precision", *data.labels], [[arm, *figures] for arm, figures in classes.items()])


def _spread(values: list[float]) -> str:
    mean = f"{np.mean(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):.3f}"


if __name__ == "__main__":
    main()
