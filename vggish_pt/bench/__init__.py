"""What this machine does: how fast each stage runs here, and which settings suit it.

All is measured on the spot, in rounds that go through the candidates in turn, so that whatever else the machine does
meets all of them alike. Figures are medians over the rounds.
"""

from __future__ import annotations

import copy
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vggish_pt import constants as c
from vggish_pt.audio.waveform import load_waveform
from vggish_pt.bench import machine
from vggish_pt.bench.timing import rounds, threads
from vggish_pt.errors import SettingsError, VGGishError
from vggish_pt.inference.devices import set_precision
from vggish_pt.inference.settings import MAX_BATCH_SIZE
from vggish_pt.model import VGGish
from vggish_pt.nn.frontend import LogMel
from vggish_pt.nn.precision import float32_products

BATCH_SIZES = (16, 64, 256)

# A larger batch, or the less exact precision, is recommended only where it is so many times as fast.
_WORTH_BATCH = 1.03
_WORTH_PRECISION = 1.2
_MIN_COSINE = 0.9999

_CLIP_SECONDS = 15.0
_CLIP_RATE = 44_100
_CHECKED_WINDOWS = 32  # enough for Winograd's convolutions

_TYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}

# Shares of the time for host, network and whole; the rest goes to loading and warming up.
_HOST_SHARE, _NETWORK_SHARE, _WHOLE_SHARE = 0.1, 0.4, 0.1


@dataclass(frozen=True)
class HostRate:
    """A stage before the network, on one thread.

    Attributes:
        name: the stage.
        real_time: seconds of audio per second.
    """

    name: str
    real_time: float


@dataclass(frozen=True)
class NetworkRate:
    """The network with one choice of settings.

    Attributes:
        precision: "fp32", "tf32" (on CUDA devices) or "bf16".
        winograd: whether Winograd's convolutions were allowed.
        batch_size: windows per pass.
        threads: torch's, on the CPU.
        windows: per second, median.
        spread: (largest - smallest) / median over the rounds.
        share: of the peak measured for the precision, with operations counted as of direct convolutions; None where
            fewer threads were used than for the peak.
    """

    precision: str
    winograd: bool
    batch_size: int
    threads: int
    windows: float
    spread: float
    share: float | None


@dataclass(frozen=True)
class Deviation:
    """How far one way to compute is from fp32 with direct convolutions, on the sound measured.

    Attributes:
        name: "fp32, Winograd", "tf32" or "bf16".
        largest: largest difference of a value.
        cosine: lowest cosine similarity of an embedding.
    """

    name: str
    largest: float
    cosine: float


@dataclass(frozen=True)
class Recommendation:
    """Settings for ``vggish-pt embed`` on this machine.

    Attributes:
        device: as measured.
        precision: the fastest; other than "fp32" only where it is at least 1.2 times as fast as that, with a cosine of
            at least 0.9999.
        batch_size: the smallest that is within 3 % of the fastest.
        workers: threads that read ahead, enough for the network not to wait.
        real_time: seconds of audio per second, files to embeddings, measured with these settings.
    """

    device: str
    precision: str
    batch_size: int
    workers: int
    real_time: float


@dataclass(frozen=True)
class Report:
    """What :func:`bench` found.

    Attributes:
        machine: its description.
        weights: name of the weights.
        peak: precision → (matrix product, convolution), floating-point operations per second.
        host: stages before the network.
        network: the network.
        deviations: what faster ways to compute change.
        recommended: settings.
        notes: what was not measured, and why.
    """

    machine: dict[str, str]
    weights: str
    peak: dict[str, tuple[float, float]]
    host: list[HostRate]
    network: list[NetworkRate]
    deviations: list[Deviation]
    recommended: Recommendation
    notes: list[str]


def bench(
    model: VGGish,
    audio: str | os.PathLike[str] | None = None,
    *,
    seconds: float = 20.0,
    batch_sizes: Sequence[int] = BATCH_SIZES,
) -> Report:
    """Measures this machine.

    Args:
        model: any weights, float32, on the device to measure.
        audio: the file that is decoded, and whose embeddings are compared; None: 15 s of generated stereo sound at
            44.1 kHz.
        seconds: roughly how long to take; every candidate is measured at least once.
        batch_sizes: windows per pass through the network.

    Raises:
        SettingsError: batch sizes or a time that cannot be.
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
        files = [Path(audio)] if audio is not None else _generated(Path(folder))
        examples = _examples(model, files[0])  # first of all, as the file may be unreadable
        models = {"fp32": model}
        if device.type == "cuda":
            models["tf32"] = set_precision(copy.deepcopy(model), "tf32")
        if machine.has_bfloat16(device):
            models["bf16"] = set_precision(copy.deepcopy(model), "bf16")
        else:
            notes.append("bf16 was not measured: the processor does not support it")
        peaks = {precision: _peak(precision, device) for precision in models}
        host, per_reader = _host(model, files, seconds * _HOST_SHARE)
        deviations = _deviations(models, examples)
        network, left_out = _network(models, examples, sizes, peaks, seconds * _NETWORK_SHARE)
        notes += left_out
        best = _choose(network, deviations)
        needed = best.windows * c.DEFAULT_HOP_SECONDS / per_reader
        workers = max(1, min(machine.cores(), math.ceil(needed)))
        whole = _whole(models[best.precision], files[0], best, workers, seconds * _WHOLE_SHARE)
    recommended = Recommendation(str(device), best.precision, best.batch_size, workers, whole)
    return Report(facts, model.config.name, peaks, host, network, deviations, recommended, notes)


def _peak(precision: str, device: torch.device) -> tuple[float, float]:
    with float32_products(device, tf32=precision == "tf32"):
        return machine.peak(_TYPES[precision], device)


def generated_sound(seconds: float, seed: int = 0) -> np.ndarray:
    """Sound to measure with: tones, sweeps and bursts of noise, from loud to soft; (T, 2) in [-1, 1] at 44.1 kHz."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * _CLIP_RATE)) / _CLIP_RATE
    sweep = np.sin(2 * np.pi * (rng.uniform(100, 400) * t + rng.uniform(50, 200) * t**2 % 1.0))
    tones = sum(np.sin(2 * np.pi * f * t) for f in rng.uniform(150, 6000, 4)) / 4
    bursts = rng.standard_normal((len(t), 2)) * (np.sin(2 * np.pi * rng.uniform(0.5, 2) * t) > 0)[:, None]
    loudness = np.interp(t, np.linspace(0, seconds, 9), rng.uniform(0.01, 1, 9))
    sound: np.ndarray = np.clip((0.5 * (sweep + tones)[:, None] + 0.2 * bursts) * loudness[:, None], -1, 1)
    return sound


def _generated(folder: Path) -> list[Path]:
    import soundfile

    files = [folder / "generated.wav", folder / "generated.flac"]
    for path in files:
        soundfile.write(path, generated_sound(_CLIP_SECONDS), _CLIP_RATE, subtype="PCM_16")
    return files


def _host(model: VGGish, files: list[Path], seconds: float) -> tuple[list[HostRate], float]:
    """The stages before the network, and seconds of audio per second that one reading thread gets ready."""
    waveform = load_waveform(files[0])
    duration = len(waveform) / c.SAMPLE_RATE
    device = model.device
    candidates: dict[str, Callable[[], object]] = {}
    for path in files:
        name = f"decode and resample, {path.suffix.removeprefix('.').upper()}"
        candidates[name] = lambda path=path: load_waveform(path)  # type: ignore[misc]
    reading = next(iter(candidates))

    def front_end(dtype: torch.dtype) -> str:
        samples = waveform.float().to(device) if device.type != "cpu" else waveform
        frontend = LogMel(dtype)
        name = f"front end, {str(dtype).removeprefix('torch.')}"
        candidates[name] = lambda: frontend(samples).cpu()
        return name

    usual = front_end(model.frontend.dtype or (torch.float64 if device.type == "cpu" else torch.float32))
    front_end(torch.float32)
    with threads(1):
        times = {name: median(found) for name, found in rounds(candidates, seconds).items()}
    rates = [HostRate(name, duration / time) for name, time in times.items()]
    return rates, duration / (times[reading] + times[usual])


def _examples(model: VGGish, path: Path) -> Tensor:
    """Windows of the file, repeated until there are enough: (n, 96, 64) float32 on the model's device."""
    waveform = load_waveform(path)
    found: Tensor = LogMel()(F.pad(waveform, (0, max(0, c.EXAMPLE_SAMPLES - len(waveform)))))
    return found.repeat(math.ceil(_CHECKED_WINDOWS / len(found)), 1, 1).to(model.device)


@contextmanager
def _winograd(model: VGGish, allowed: bool) -> Iterator[None]:
    before = model.network.winograd
    model.network.winograd = allowed
    try:
        yield
    finally:
        model.network.winograd = before


def _run(model: VGGish, examples: Tensor, winograd: bool) -> Tensor:
    """What embedding does with a batch: to the device, through the network, back."""
    weight = model.network.conv1.weight
    with _winograd(model, winograd):
        return model.network.infer(examples.to(weight.device, weight.dtype)).float().cpu()


def _deviations(models: dict[str, VGGish], examples: Tensor) -> list[Deviation]:
    exact = _run(models["fp32"], examples, False)

    def deviation(name: str, values: Tensor) -> Deviation:
        cosine = F.cosine_similarity(values.double(), exact.double()).min()
        return Deviation(name, float((values - exact).abs().max()), min(1.0, float(cosine)))

    found = [deviation("fp32, Winograd", _run(models["fp32"], examples, True))] if _on_cpu(models) else []
    return found + [deviation(name, _run(model, examples, True)) for name, model in models.items() if name != "fp32"]


def _on_cpu(models: dict[str, VGGish]) -> bool:
    return models["fp32"].device.type == "cpu"


def _network(
    models: dict[str, VGGish],
    examples: Tensor,
    sizes: list[int],
    peaks: dict[str, tuple[float, float]],
    seconds: float,
) -> tuple[list[NetworkRate], list[str]]:
    batches = {size: examples.repeat(math.ceil(size / len(examples)), 1, 1)[:size] for size in sizes}
    available = torch.get_num_threads()
    ways = [("fp32", True), ("fp32", False)] if _on_cpu(models) else [("fp32", True)]
    ways += [(name, True) for name in models if name != "fp32"]

    # A batch size is left out if warming up and one round of it would take longer than all should.
    smallest = rounds({0: lambda: _run(models["fp32"], batches[sizes[0]], True)}, 0.0)[0][0] / sizes[0]
    affordable = [size for size in sizes if size == sizes[0] or smallest * size * len(ways) <= seconds]
    notes = [f"batch size {size} was left out, as it would take too long" for size in sizes[len(affordable) :]]

    keys = [(precision, winograd, size, available) for size in affordable for precision, winograd in ways]
    if _on_cpu(models) and available > 1:
        keys.append(("fp32", True, affordable[len(affordable) // 2], 1))

    def candidate(key: tuple[str, bool, int, int]) -> Callable[[], object]:
        def run() -> None:
            with threads(key[3]):
                _run(models[key[0]], batches[key[2]], key[1])

        return run

    times = rounds({key: candidate(key) for key in keys}, seconds)
    operations = machine.operations(models["fp32"].network)
    rates = []
    for (precision, winograd, size, used), found in times.items():
        rate = size / median(found)
        spread = (max(found) - min(found)) / median(found)
        share = rate * operations / max(peaks[precision]) if used == available else None
        rates.append(NetworkRate(precision, winograd, size, used, rate, spread, share))
    return rates, notes


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


def _whole(model: VGGish, path: Path, rate: NetworkRate, workers: int, seconds: float) -> float:
    """Seconds of audio per second, from files to embeddings."""
    one = model.embed(path, batch_size=rate.batch_size)
    copies = max(2, math.ceil(rate.windows * seconds / len(one)))
    start = time.perf_counter()
    for result in model.embed_iter(repeat(path, copies), workers=workers, batch_size=rate.batch_size):
        if isinstance(result, VGGishError):
            raise result
    return one.duration * copies / (time.perf_counter() - start)
