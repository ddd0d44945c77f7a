"""Benchmark of this machine: the speed of each stage, and the settings that suit the machine.

Candidates are measured in rounds, one run of each in every round, so that other load affects all of them alike. Figures
are medians over the rounds.
"""

from __future__ import annotations

import copy
import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from vggish_pt import constants as c
from vggish_pt.bench import machine, stages
from vggish_pt.bench.report import Deviation, HostRate, NetworkRate, Recommendation, Report
from vggish_pt.bench.stages import generated_sound
from vggish_pt.errors import SettingsError
from vggish_pt.inference.devices import set_precision
from vggish_pt.inference.settings import MAX_BATCH_SIZE
from vggish_pt.model import VGGish
from vggish_pt.nn.precision import float32_products

__all__ = [
    "BATCH_SIZES",
    "Deviation",
    "HostRate",
    "NetworkRate",
    "Recommendation",
    "Report",
    "bench",
    "generated_sound",
]

BATCH_SIZES = (16, 64, 256)

# Speed-up from which a larger batch, or a less exact precision, is recommended, and lowest cosine of that precision.
_WORTH_BATCH = 1.03
_WORTH_PRECISION = 1.2
_MIN_COSINE = 0.9999

_TYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}

# Shares of the time for host, network and whole; the rest is for loading and warming up.
_HOST_SHARE, _NETWORK_SHARE, _WHOLE_SHARE = 0.1, 0.4, 0.1


def bench(
    model: VGGish,
    audio: str | os.PathLike[str] | None = None,
    *,
    seconds: float = 20.0,
    batch_sizes: Sequence[int] = BATCH_SIZES,
) -> Report:
    """Measure this machine.

    Args:
        model: any weights, float32, on the device to measure.
        audio: the file to decode and embed; None for 15 s of generated stereo audio at 44.1 kHz.
        seconds: approximate duration; every candidate is measured at least once.
        batch_sizes: windows per batch of the network.

    Raises:
        SettingsError: batch sizes or a duration outside their range.
        AudioError: the file cannot be read.
    """
    sizes = sorted(set(batch_sizes))
    if not sizes or sizes[0] < 1 or sizes[-1] > MAX_BATCH_SIZE:
        raise SettingsError(f"batch sizes must be whole numbers from 1 to {MAX_BATCH_SIZE}, not {list(batch_sizes)}")
    if not 0 < seconds < math.inf:
        raise SettingsError(f"seconds must be above 0, not {seconds!r}")
    device = model.device
    notes = []
    facts = machine.describe(device)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(audio)] if audio is not None else stages.write_sound(Path(folder))
        examples = stages.windows_of(model, files[0])  # first, as the file may be unreadable
        models = {"fp32": model}
        if device.type == "cuda":
            models["tf32"] = set_precision(copy.deepcopy(model), "tf32")
        if machine.has_bfloat16(device):
            models["bf16"] = set_precision(copy.deepcopy(model), "bf16")
        else:
            notes.append("bf16 was not measured: the processor does not support it")
        peaks = {precision: _peak(precision, device) for precision in models}
        host, per_reader = stages.host_rates(model, files, seconds * _HOST_SHARE)
        deviations = stages.deviations(models, examples)
        network, left_out = stages.network_rates(models, examples, sizes, peaks, seconds * _NETWORK_SHARE)
        notes += left_out
        best = _choose(network, deviations)
        needed = best.windows * c.DEFAULT_HOP_SECONDS / per_reader
        workers = max(1, min(machine.cores(), math.ceil(needed)))
        whole = stages.whole_rate(models[best.precision], files[0], best, workers, seconds * _WHOLE_SHARE)
    recommended = Recommendation(str(device), best.precision, best.batch_size, workers, whole)
    return Report(facts, model.config.name, peaks, host, network, deviations, recommended, notes)


def _peak(precision: str, device: torch.device) -> tuple[float, float]:
    with float32_products(device, tf32=precision == "tf32"):
        return machine.peak(_TYPES[precision], device)


def _choose(network: list[NetworkRate], deviations: list[Deviation]) -> NetworkRate:
    most = max(rate.threads for rate in network)
    cosines = {deviation.name: deviation.cosine for deviation in deviations}

    def best(precision: str) -> NetworkRate | None:
        rates = [r for r in network if r.precision == precision and r.winograd and r.threads == most]
        top = max((rate.windows for rate in rates), default=0.0)
        return next((rate for rate in rates if rate.windows * _WORTH_BATCH >= top), None)

    exact = best("fp32")
    assert exact is not None
    others = [best(precision) for precision in _TYPES if precision != "fp32"]
    worth = [
        rate
        for rate in others
        if rate is not None
        and rate.windows >= _WORTH_PRECISION * exact.windows
        and cosines[rate.precision] >= _MIN_COSINE
    ]
    return max(worth, key=lambda rate: rate.windows, default=exact)
