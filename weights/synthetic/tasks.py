"""Generated tasks with known labels, to evaluate embeddings: pitch, tempo, spoken digits, mixtures.

The tasks use nothing of :mod:`sounds`, which the model was trained on. Test clips differ in kind from the clips that a
classifier is fitted to: other timbres, other drums, other voices, more sources at the same time. espeak-ng speaks the
digits; it must be installed.

Conditions change only test clips: ``quiet`` is 20 dB lower, ``noise 10 dB`` and ``noise 0 dB`` add white noise at that
signal-to-noise ratio.
"""

from __future__ import annotations

import io
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from vggish_pt.constants import SAMPLE_RATE

Wave = NDArray[np.float32]


@dataclass(frozen=True)
class Task:
    """Clips with labels.

    Attributes:
        waves: 16 kHz waveforms with peaks of 0.3.
        labels: (n,) classes, or (n, classes) of 0 and 1 if a clip may have several.
        tested: (n,) True for test clips, False for clips to fit to.
    """

    waves: list[Wave]
    labels: NDArray[np.int64]
    tested: NDArray[np.bool_]


def _level(wave: NDArray[np.float64]) -> Wave:
    return (0.3 * wave / max(1e-9, np.abs(wave).max())).astype(np.float32)


def _time(seconds: float) -> NDArray[np.float64]:
    return np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE


def _string(frequency: float, seconds: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a plucked string: the plucking position sets the harmonics' strengths; higher ones decay faster."""
    time, position, damping = _time(seconds), rng.uniform(0.08, 0.5), rng.uniform(0.4, 1.2)
    out = np.zeros_like(time)
    for k in range(1, int(7000 / frequency) + 1):
        strength = np.sin(np.pi * k * position) / k**1.2
        out += strength * np.exp(-time * damping * (1 + 0.5 * k)) * np.sin(2 * np.pi * k * frequency * time)
    return out


def _organ(frequency: float, seconds: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a steady tone: harmonics of random strength, and a tremolo."""
    time, slope = _time(seconds), rng.uniform(0.6, 2)
    out = np.zeros_like(time)
    for k in range(1, min(12, int(7000 / frequency)) + 1):
        out += rng.uniform(0, 1) / k**slope * np.sin(2 * np.pi * k * frequency * time + rng.uniform(0, 6))
    return out * (1 + 0.3 * np.sin(2 * np.pi * rng.uniform(3, 7) * time))


def _reed(frequency: float, seconds: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return odd harmonics with vibrato and a soft start."""
    time = _time(seconds)
    phase = 2 * np.pi * frequency * (time + 0.0002 * np.sin(2 * np.pi * rng.uniform(4, 7) * time))
    out = np.zeros_like(time)
    for k in range(1, min(15, int(7000 / frequency)) + 1, 2):
        out += np.sin(k * phase) / k ** rng.uniform(0.7, 1.5)
    return out * np.minimum(1, time / rng.uniform(0.02, 0.2))


def pitch(rng: np.random.Generator) -> Task:
    """Return a task of 16 notes, a quarter octave apart, C3 to A6; fit to strings and organs, test with reeds."""
    waves, labels, tested = [], [], []
    for note in range(16):
        for number in range(36):
            held_out = number >= 24
            source = _reed if held_out else (_string, _organ)[number % 2]
            frequency = 130.81 * 2 ** ((note + rng.uniform(-0.2, 0.2)) / 4)
            waves.append(_level(source(frequency, 1.5, rng)))
            labels.append(note)
            tested.append(held_out)
    return Task(waves, np.array(labels), np.array(tested))


def tempo(rng: np.random.Generator) -> Task:
    """Return a task of 8 tempos, 60 to 240 beats a minute; fit to noises and tones, test with chirps and knocks."""
    waves, labels, tested = [], [], []
    for number, bpm in enumerate(np.geomspace(60, 240, 8)):
        for clip in range(60):
            held_out = clip >= 40
            length = rng.uniform(0.03, 0.15)
            time = _time(0.25)
            fall, frequency = np.exp(-time / length), rng.uniform(200, 3000)
            if held_out:
                run = rng.uniform(-1, 1) * np.minimum(time, 0.2) / 0.2
                hit = np.sin(2 * np.pi * frequency * 2 ** (run * (clip % 2)) * time) * fall
                hit += (1 - clip % 2) * np.sin(2 * np.pi * 2.76 * frequency * time) * fall**2
            else:
                tone = np.sin(2 * np.pi * frequency * time)
                hit = (rng.standard_normal(len(time)) if clip % 2 else tone) * fall
            wave, beat = np.zeros(5 * SAMPLE_RATE), 60 / (bpm * rng.uniform(0.96, 1.04))
            for moment in np.arange(rng.uniform(0, beat), 4.7, beat):
                start = int(moment * SAMPLE_RATE)
                wave[start : start + len(hit)] += rng.uniform(0.5, 1) * hit
            waves.append(_level(wave))
            labels.append(number)
            tested.append(held_out)
    return Task(waves, np.array(labels), np.array(tested))


def speak(text: str, voice: str, speed: int, pitch: int) -> Wave:
    """Return ``text`` spoken by espeak-ng, at 16 kHz."""
    command = ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "--stdout", text]
    try:
        spoken = subprocess.run(command, capture_output=True, check=True).stdout
    except FileNotFoundError:
        raise SystemExit("espeak-ng is not installed; it speaks the digits (apt install espeak-ng)") from None
    except subprocess.CalledProcessError as error:
        raise SystemExit(
            f"espeak-ng cannot speak as {voice}: {error.stderr.decode(errors='replace').strip()}"
        ) from None
    wave, rate = soundfile.read(io.BytesIO(spoken), dtype="float32")
    return _level(np.asarray(soxr.resample(wave, rate, SAMPLE_RATE), np.float64))


_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_HEARD = ("en-gb+m1", "en-us+m3", "en-gb+m5", "en-us+m7", "en-gb+f1", "en-us+f3", "en-gb+f5", "en-us+klatt")
_UNHEARD = ("en-us+m2", "en-gb+m4", "en-us+m6", "en-gb+f2", "en-us+f4", "en-gb-scotland+klatt2")


def digits(rng: np.random.Generator) -> Task:
    """Return a task of ten spoken digits; fit to eight voices, test with six others."""
    waves, labels, tested = [], [], []
    for voices, held_out in ((_HEARD, False), (_UNHEARD, True)):
        for voice in voices:
            for digit, word in enumerate(_DIGITS):
                for _ in range(4):
                    wave = speak(word, voice, int(rng.integers(120, 200)), int(rng.integers(25, 75)))
                    waves.append(np.pad(wave, (int(rng.integers(0, 3200)), 800)))
                    labels.append(digit)
                    tested.append(held_out)
    return Task(waves, np.array(labels), np.array(tested))


def _rain(rng: np.random.Generator) -> NDArray[np.float64]:
    hits = (rng.random(3 * SAMPLE_RATE) < 0.01) * rng.standard_normal(3 * SAMPLE_RATE)
    return np.convolve(hits, np.exp(-_time(0.004) / 0.0007))[: 3 * SAMPLE_RATE]


def _hum(rng: np.random.Generator) -> NDArray[np.float64]:
    time, base = _time(3), rng.uniform(45, 65)
    return np.sum([rng.uniform(0.2, 1) / k * np.sin(2 * np.pi * base * k * time) for k in range(1, 12)], axis=0)


def _siren(rng: np.random.Generator) -> NDArray[np.float64]:
    time, rate = _time(3), rng.uniform(0.5, 3)
    sweep = np.cumsum(900 * 2 ** (0.6 * np.sin(2 * np.pi * rate * time + rng.uniform(0, 6))))
    return np.sin(2 * np.pi * sweep / SAMPLE_RATE)


def _bell(rng: np.random.Generator) -> NDArray[np.float64]:
    wave, base = np.zeros(3 * SAMPLE_RATE), rng.uniform(400, 1500)
    for start in rng.integers(0, 2 * SAMPLE_RATE, 3):
        time = _time(3)[: len(wave) - start]
        for ratio, fall in ((1, 0.8), (2.0, 0.5), (2.76, 0.3), (5.4, 0.15)):
            wave[start:] += np.exp(-time / fall) * np.sin(2 * np.pi * base * ratio * time)
    return wave


def _speech(rng: np.random.Generator) -> NDArray[np.float64]:
    words = " ".join(rng.permutation(_DIGITS)[:6])
    wave = speak(words, str(rng.choice(_HEARD + _UNHEARD)), 170, int(rng.integers(25, 75))).astype(np.float64)
    return np.resize(wave, 3 * SAMPLE_RATE)


_SOURCES: tuple[Callable[[np.random.Generator], NDArray[np.float64]], ...] = (_rain, _hum, _siren, _bell, _speech)


def mixtures(rng: np.random.Generator) -> Task:
    """Return a task of five simultaneous sources; fit to one or two at a time, test with two or three, 10 dB apart."""
    waves, labels, tested = [], [], []
    for clip in range(360):
        held_out = clip >= 240
        count = int(rng.integers(2, 4)) if held_out else int(rng.integers(1, 3))
        chosen = rng.permutation(len(_SOURCES))[:count]
        wave = np.zeros(3 * SAMPLE_RATE)
        for source in chosen:
            part = _SOURCES[source](rng)
            wave += part / np.sqrt(np.mean(part**2)) * 10 ** (-rng.uniform(0, 10) / 20)
        waves.append(_level(wave))
        labels.append(np.isin(np.arange(len(_SOURCES)), chosen).astype(np.int64))
        tested.append(held_out)
    return Task(waves, np.array(labels), np.array(tested))


TASKS: dict[str, Callable[[np.random.Generator], Task]] = {f.__name__: f for f in (pitch, tempo, digits, mixtures)}
"""Functions that generate a task, by name."""


def _as_it_is(wave: Wave, _: np.random.Generator) -> Wave:
    return wave


def _quiet(wave: Wave, _: np.random.Generator) -> Wave:
    return 0.1 * wave


def _noisy(wave: Wave, rng: np.random.Generator, decibels: float) -> Wave:
    power = np.sqrt(np.mean(np.square(wave)) * 10 ** (-decibels / 10))
    return (wave + power * rng.standard_normal(len(wave))).astype(np.float32)


CLEAN = "as it is"

CONDITIONS: dict[str, Callable[[Wave, np.random.Generator], Wave]] = {
    CLEAN: _as_it_is,
    "quiet": _quiet,
    "noise 10 dB": partial(_noisy, decibels=10),
    "noise 0 dB": partial(_noisy, decibels=0),
}
"""Changes of test clips, by name of the condition."""
