"""Helpers of the tests of training: clips, an error that kills a run, and the contents of a run folder."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from vggish_pt.audio.clip import Clip


@dataclass(frozen=True)
class LabelledFile:
    item: Clip
    labels: tuple[str, ...]


class Killed(Exception):
    pass


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def history(folder: Path) -> list[dict[str, str]]:
    with (folder / "logs" / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]
