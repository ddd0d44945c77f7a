"""Make the clips in examples/clips: four synthesised sounds, and speech if espeak-ng is installed.

    python examples/make_clips.py [FOLDER]

The sounds have different lengths, rates, channels and formats on purpose.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile as sf


def bell(rate: int = 44_100, seconds: float = 3.0) -> np.ndarray:
    """Return a struck bell: inharmonic partials; higher ones decay faster."""
    t = np.arange(round(rate * seconds)) / rate
    partials = [(440, 1.0, 1.2), (880, 0.6, 0.9), (1_056, 0.5, 0.8), (1_324, 0.4, 0.6), (2_390, 0.25, 0.3)]
    sound = sum(level * np.exp(-t / decay) * np.sin(2 * np.pi * f * t) for f, level, decay in partials)
    return 0.25 * sound


def rain(rng: np.random.Generator, rate: int = 48_000, seconds: float = 4.0) -> np.ndarray:
    """Return rain in stereo: soft noise and a few thousand drops."""
    count = round(rate * seconds)
    sound = 0.01 * rng.standard_normal((count, 2))
    drop = np.exp(-np.arange(400) / 60)
    for _ in range(2_000):
        at = rng.integers(0, count - len(drop))
        ring = np.sin(2 * np.pi * rng.uniform(2_000, 6_000) * np.arange(len(drop)) / rate)
        sound[at : at + len(drop)] += (0.08 * rng.random() * drop * ring)[:, None] * rng.random(2)
    return sound


def engine(rng: np.random.Generator, rate: int = 22_050, seconds: float = 5.0) -> np.ndarray:
    """Return an engine that speeds up: harmonics of its firing rate, and noise."""
    t = np.arange(round(rate * seconds)) / rate
    phase = 2 * np.pi * np.cumsum(30 + 8 * t) / rate
    sound = sum(np.sin(k * phase + rng.uniform(0, 6)) / k for k in range(1, 25))
    return 0.12 * sound * (1 + 0.3 * np.sin(phase / 2)) + 0.01 * rng.standard_normal(len(t))


def chirps(rate: int = 16_000, seconds: float = 2.5) -> np.ndarray:
    """Return rising chirps, like a bird's."""
    t = np.arange(round(rate * seconds)) / rate
    within = t % 0.25
    return 0.3 * np.sin(2 * np.pi * (2_500 * within + 6_000 * within**2)) * np.exp(-((within - 0.08) ** 2) / 0.001)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "clips"
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    sf.write(folder / "bell.ogg", bell(), 44_100)
    sf.write(folder / "rain.ogg", rain(rng), 48_000)
    sf.write(folder / "engine.flac", engine(rng), 22_050, subtype="PCM_16")
    sf.write(folder / "chirps.wav", chirps(), 16_000, subtype="PCM_16")
    if shutil.which("espeak-ng"):
        text = "Every window of sound becomes one hundred and twenty eight numbers."
        wav = subprocess.run(["espeak-ng", "--stdout", text], check=True, capture_output=True).stdout
        path = folder / "speech.wav"
        path.write_bytes(wav)
        speech, rate = sf.read(path)
        sf.write(folder / "speech.mp3", speech, rate)
        path.unlink()
    for path in sorted(folder.iterdir()):
        print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
