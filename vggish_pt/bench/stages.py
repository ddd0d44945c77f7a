"""Measurements of the stages from files to embeddings: decoding, front end, network, and all of them together."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vggish_pt import constants as c
from vggish_pt.audio.waveform import load_waveform
from vggish_pt.bench.report import Deviation, HostRate, NetworkRate
from vggish_pt.bench.timing import rounds, threads
from vggish_pt.inference.embeddings import raise_if_error
from vggish_pt.model import VGGish
from vggish_pt.nn.frontend import LogMel

_CLIP_SECONDS = 15.0
_CLIP_RATE = 44_100
_CHECKED_WINDOWS = 32  # enough for Winograd's convolutions


def generated_sound(seconds: float, seed: int = 0) -> np.ndarray:
    """Return tones, sweeps and bursts of noise, from loud to soft: (T, 2) float64 in [-1, 1] at 44.1 kHz."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * _CLIP_RATE)) / _CLIP_RATE
    sweep = np.sin(2 * np.pi * (rng.uniform(100, 400) * t + rng.uniform(50, 200) * t**2 % 1.0))
    tones = sum(np.sin(2 * np.pi * f * t) for f in rng.uniform(150, 6000, 4)) / 4
    bursts = rng.standard_normal((len(t), 2)) * (np.sin(2 * np.pi * rng.uniform(0.5, 2) * t) > 0)[:, None]
    loudness = np.interp(t, np.linspace(0, seconds, 9), rng.uniform(0.01, 1, 9))
    sound: np.ndarray = np.clip((0.5 * (sweep + tones)[:, None] + 0.2 * bursts) * loudness[:, None], -1, 1)
    return sound


def write_sound(folder: Path) -> list[Path]:
    """Write 15 s of generated audio as WAV and FLAC; return the paths."""
    import soundfile

    files = [folder / "generated.wav", folder / "generated.flac"]
    for path in files:
        soundfile.write(path, generated_sound(_CLIP_SECONDS), _CLIP_RATE, subtype="PCM_16")
    return files


def host_rates(model: VGGish, files: list[Path], seconds: float) -> tuple[list[HostRate], float]:
    """Measure the stages before the network; return them, and seconds of audio per second that one thread loads."""
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


def windows_of(model: VGGish, path: Path) -> Tensor:
    """Return log-mel windows of a file, repeated to 32 or more: (n, 96, 64) float32 on the model's device."""
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
    """Compute a batch as embedding does: copy it to the device, run the network, copy the values back."""
    weight = model.network.conv1.weight
    with _winograd(model, winograd):
        return model.network.infer(examples.to(weight.device, weight.dtype)).float().cpu()


def deviations(models: dict[str, VGGish], examples: Tensor) -> list[Deviation]:
    """Compare each precision, and Winograd's convolutions, with fp32 and direct convolutions."""
    exact = _run(models["fp32"], examples, False)

    def deviation(name: str, values: Tensor) -> Deviation:
        cosine = F.cosine_similarity(values.double(), exact.double()).min()
        return Deviation(name, float((values - exact).abs().max()), min(1.0, float(cosine)))

    found = [deviation("fp32, Winograd", _run(models["fp32"], examples, True))] if _on_cpu(models) else []
    return found + [deviation(name, _run(model, examples, True)) for name, model in models.items() if name != "fp32"]


def _on_cpu(models: dict[str, VGGish]) -> bool:
    return models["fp32"].device.type == "cpu"


def network_rates(
    models: dict[str, VGGish],
    examples: Tensor,
    sizes: list[int],
    peaks: dict[str, tuple[float, float]],
    seconds: float,
) -> tuple[list[NetworkRate], list[str]]:
    """Measure the network for each precision and batch size; return the rates, and notes on what was left out."""
    batches = {size: examples.repeat(math.ceil(size / len(examples)), 1, 1)[:size] for size in sizes}
    available = torch.get_num_threads()
    ways = [("fp32", True), ("fp32", False)] if _on_cpu(models) else [("fp32", True)]
    ways += [(name, True) for name in models if name != "fp32"]

    # A batch size is left out if its warm-up and one round would take longer than the time for all.
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
    operations = models["fp32"].network.operations()
    rates = []
    for (precision, winograd, size, used), found in times.items():
        rate = size / median(found)
        spread = (max(found) - min(found)) / median(found)
        share = rate * operations / max(peaks[precision]) if used == available else None
        rates.append(NetworkRate(precision, winograd, size, used, rate, spread, share))
    return rates, notes


def whole_rate(model: VGGish, path: Path, rate: NetworkRate, workers: int, seconds: float) -> float:
    """Return seconds of audio per second, from files to embeddings."""
    one = model.embed(path, batch_size=rate.batch_size)
    copies = max(2, math.ceil(rate.windows * seconds / len(one)))
    start = time.perf_counter()
    for result in model.embed_iter(repeat(path, copies), workers=workers, batch_size=rate.batch_size):
        raise_if_error(result)
    return one.duration * copies / (time.perf_counter() - start)
