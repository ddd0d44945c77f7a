"""Augmentation of training clips.

The random numbers of every change come from a generator that the caller derives from (seed, epoch, clip). They depend
neither on the number of worker processes nor on interruptions of the training.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vggish_pt import constants as c
from vggish_pt.classify.training.settings import AugmentSettings
from vggish_pt.utils.optional import require

Samples = NDArray[np.float32]

SILENCE = math.log(c.LOG_OFFSET)
"""The log-mel of digital silence."""


def derived(seed: int, epoch: int, index: int, purpose: int = 0) -> np.random.Generator:
    """Return the random generator of one clip in one epoch."""
    return np.random.default_rng([seed, epoch, index, purpose])


def time_shift(waveform: Samples, seconds: float, rng: np.random.Generator) -> Samples:
    """Rotate a waveform (T,) at 16 kHz by a random time of up to ``seconds``, in either direction."""
    limit = min(len(waveform) - 1, round(seconds * c.SAMPLE_RATE))
    return np.roll(waveform, int(rng.integers(-limit, limit + 1))) if limit > 0 else waveform


def gain(waveform: Samples, decibels: float, rng: np.random.Generator) -> Samples:
    """Change the level by a random amount of up to ``decibels``, up or down."""
    if decibels == 0:
        return waveform
    return waveform * np.float32(10 ** (rng.uniform(-decibels, decibels) / 20))


def add_noise(waveform: Samples, noise: Samples, snr: tuple[float, float], rng: np.random.Generator) -> Samples:
    """Mix noise into a waveform.

    Args:
        waveform: (T,).
        noise: samples of any length from 1; a random part is used, repeated if it is too short.
        snr: lowest and highest level of the waveform above the noise, in decibels.
        rng: random generator.

    Returns:
        (T,), unchanged if the waveform or the noise is silent.
    """
    start = int(rng.integers(len(noise)))
    decibels = rng.uniform(*snr)
    part = np.resize(np.roll(noise, -start), len(waveform)) if len(noise) < len(waveform) + start else noise[start:]
    part = part[: len(waveform)]
    power, noise_power = float(np.mean(np.square(waveform))), float(np.mean(np.square(part)))
    if power == 0 or noise_power == 0:
        return waveform
    return waveform + part * np.float32(math.sqrt(power / noise_power / 10 ** (decibels / 10)))


def mixing_share(alpha: float, rng: np.random.Generator) -> float:
    """Return a clip's share in a mix, from 0.5 to 1: the larger of x and 1 - x for x from Beta(alpha, alpha)."""
    share = float(rng.beta(alpha, alpha))
    return max(share, 1 - share)


class SpecAugment:
    """Masking of mel bands and times, by torchaudio.

    Args:
        settings: largest sizes of the masks.

    Raises:
        MissingDependencyError: torchaudio cannot be imported.
    """

    def __init__(self, settings: AugmentSettings) -> None:
        functional: Any = require_masks()
        self._mask = functional.mask_along_axis_iid
        self._bands, self._frames = settings.mask_bands, settings.mask_frames

    def __call__(self, examples: Tensor, rng: np.random.Generator) -> Tensor:
        """Return windows (w, 96, 64), each with its own masks, filled with the mean of all values."""
        # torchaudio draws from torch's global generator, whose state is restored afterwards.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(1 << 62)))
            mean = float(examples.mean())
            x = examples.unsqueeze(1)  # (w, 1, 96, 64)
            if self._bands:
                x = self._mask(x, self._bands, mean, 3)
            if self._frames:
                x = self._mask(x, self._frames, mean, 2)
        return x.squeeze(1)


def require_masks() -> Any:
    """Return torchaudio's functional module.

    Raises:
        MissingDependencyError: torchaudio cannot be imported; the message says what to do.
    """
    from vggish_pt.errors import MissingDependencyError

    try:
        return require("torchaudio.functional", "SpecAugment")
    except MissingDependencyError as error:
        text = str(error).replace('(resampler="soxr")', "(leave out --spec-augment)")
        raise MissingDependencyError(text) from error
