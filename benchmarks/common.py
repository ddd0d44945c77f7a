"""What the benchmarks share: weights and audio to measure with, and tables."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import nn

from vggish_pt import VGGish
from vggish_pt.bench import generated_sound
from vggish_pt.bench.machine import describe

RATE = 44_100


def add_weights_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--weights", help="name or folder; left out: random numbers in Google's architecture, which are as fast"
    )


def load_model(weights: str | None) -> VGGish:
    """The model, or one with random weights whose outputs are about as large at every layer."""
    if weights is not None:
        return VGGish.from_pretrained(weights)
    torch.manual_seed(0)
    model = VGGish()
    for layer in model.network.children():
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.uniform_(layer.bias, -0.1, 0.1)
    return model.eval()


def write_clips(folder: Path, count: int, seconds: float) -> list[str]:
    """Generated mono WAV files, 44.1 kHz, 16 bit."""
    import soundfile

    paths = []
    for number in range(count):
        path = folder / f"{number:04}.wav"
        soundfile.write(path, generated_sound(seconds, seed=number)[:, 0], RATE, subtype="PCM_16")
        paths.append(str(path))
    return paths


def find_clips(folder: Path, count: int) -> list[str]:
    """So many audio files of a folder, spread evenly over all."""
    endings = {".wav", ".flac", ".ogg", ".mp3"}
    found = sorted(str(path) for path in folder.rglob("*") if path.suffix.lower() in endings)
    if not found:
        raise SystemExit(f"no audio in {folder}")
    return [found[i] for i in np.linspace(0, len(found) - 1, min(count, len(found))).round().astype(int)]


def print_machine() -> None:
    print(", ".join(f"{name} {fact}" for name, fact in describe().items()) + "\n")


def print_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    print("| " + " | ".join(header) + " |")
    print("| " + " | ".join("---" for _ in header) + " |")
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |", flush=True)
    print()


def spread(values: Sequence[float], form: str = ".0f") -> str:
    """Median and, in brackets, the smallest and largest."""
    if len(values) == 1:
        return f"{values[0]:{form}}"
    return f"{median(values):{form}} ({min(values):{form}} to {max(values):{form}})"
