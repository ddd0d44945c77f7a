"""Datasets and batches of clips for training and validation: waveforms → log-mel windows with their labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler

from vggish_pt import constants as c
from vggish_pt.classify.config import WindowSettings
from vggish_pt.classify.data import augment
from vggish_pt.classify.data.augment import Samples
from vggish_pt.classify.data.waveforms import WaveformStore
from vggish_pt.classify.training.settings import TrainSettings
from vggish_pt.nn.frontend import LogMel
from vggish_pt.nn.windows import count_windows, hop_frames, padding

_VALIDATION_WINDOWS = 512  # in a batch, with those that only pad it


class TrainingExample(NamedTuple):
    """One clip: windows (w, 96, 64), target (classes,) from 0 to 1, and the clip's number."""

    examples: Tensor
    target: Tensor
    number: int


class ClipBatch(NamedTuple):
    """Batch of clips: windows (b, w, 96, 64), mask of existing windows (b, w), targets (b, classes), numbers (b,)."""

    examples: Tensor
    mask: Tensor
    targets: Tensor
    numbers: Tensor


def pad_clips(clips: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Pad the windows (w, ...) of clips with zeros to (b, max w, ...), and return the mask (b, max w) of windows."""
    padded: Tensor = nn.utils.rnn.pad_sequence(list(clips), batch_first=True)
    counts = torch.tensor([len(clip) for clip in clips])
    return padded, torch.arange(padded.shape[1]) < counts[:, None]


def collate(clips: Sequence[TrainingExample]) -> ClipBatch:
    """Return a batch of clips of different lengths, padded with zeros where the mask is False."""
    examples, mask = pad_clips([clip.examples for clip in clips])
    targets = torch.stack([clip.target for clip in clips])
    return ClipBatch(examples, mask, targets, torch.tensor([clip.number for clip in clips]))


class ValidationClips(Dataset[TrainingExample]):
    """Dataset of clips with all their windows, as in prediction.

    Args:
        store: the waveforms.
        targets: (n, classes) float32.
        numbers: number of each clip's waveform in the store.
        window: division of the audio into windows.

    Attributes:
        window: division of the audio into windows.
    """

    def __init__(self, store: WaveformStore, targets: Tensor, numbers: Sequence[int], window: WindowSettings) -> None:
        self._store = store
        self._targets = targets
        self._numbers = list(numbers)
        self.window = window
        self._frontend = LogMel()

    def with_window(self, window: WindowSettings) -> ValidationClips:
        """Return the same clips with another division into windows."""
        return ValidationClips(self._store, self._targets, self._numbers, window)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> TrainingExample:
        number = self._numbers[index]
        examples = _examples(self._frontend, _padded(self._store[number], self.window), self.window.hop)
        return TrainingExample(examples, self._targets[index], number)

    def batches(self) -> list[list[int]]:
        """Return the indices of the clips of each batch; the number of windows in a batch is limited."""
        batches: list[list[int]] = []
        longest = 0
        for index, number in enumerate(self._numbers):
            windows = count_windows(self._store.lengths[number], self.window.hop, self.window.pad)
            longest = max(longest, windows)
            if not batches or longest * (len(batches[-1]) + 1) > _VALIDATION_WINDOWS:
                batches.append([])
                longest = windows
            batches[-1].append(index)
        return batches


class TrainingClips(Dataset[TrainingExample]):
    """Dataset of clips with some neighbouring windows, augmented. Random numbers depend only on (seed, epoch, clip).

    Args:
        store: the waveforms.
        targets: (n, classes) float32.
        numbers: number of each clip's waveform in the store.
        settings: number of windows, and augmentation.
        noise: recordings to mix in, or None.

    Raises:
        MissingDependencyError: the settings ask for SpecAugment, and torchaudio cannot be imported.
    """

    def __init__(
        self,
        store: WaveformStore,
        targets: Tensor,
        numbers: Sequence[int],
        settings: TrainSettings,
        noise: WaveformStore | None = None,
    ) -> None:
        self._store = store
        self._targets = targets
        self._numbers = list(numbers)
        self._settings = settings
        self._noise = noise
        self._frontend = LogMel()
        self._masks = augment.SpecAugment(settings.augment) if settings.augment.spec_augment else None

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, key: tuple[int, int]) -> TrainingExample:
        """Return the clip of (epoch, index)."""
        epoch, index = key
        settings = self._settings
        rng = augment.derived(settings.seed, epoch, index)
        examples, target = self._windows(index, rng), self._targets[index]
        if settings.augment.mixup and len(self) > 1:
            share = augment.mixing_share(settings.augment.mixup, rng)
            other = (index + int(rng.integers(1, len(self)))) % len(self)
            partner = self._windows(other, rng)[: len(examples)]
            mixed = share * examples
            mixed[: len(partner)] += (1 - share) * partner
            mixed[len(partner) :] += (1 - share) * augment.SILENCE  # beyond the end of the shorter clip
            examples, target = mixed, share * target + (1 - share) * self._targets[other]
        return TrainingExample(examples, target, self._numbers[index])

    def _windows(self, index: int, rng: np.random.Generator) -> Tensor:
        settings = self._settings.augment
        waveform = augment.time_shift(self._store[self._numbers[index]], settings.time_shift, rng)
        waveform = self._crop(_padded(waveform, self._settings.window), rng)
        if self._noise is not None and rng.random() < settings.noise_share:
            waveform = augment.add_noise(waveform, self._noise[int(rng.integers(len(self._noise)))], settings.snr, rng)
        waveform = augment.gain(waveform, settings.gain, rng)
        examples = _examples(self._frontend, waveform, self._settings.window.hop)
        return examples if self._masks is None else self._masks(examples, rng)

    def _crop(self, waveform: Samples, rng: np.random.Generator) -> Samples:
        step = hop_frames(self._settings.window.hop) * c.FRAME_HOP
        needed = c.EXAMPLE_SAMPLES + (self._settings.windows - 1) * step
        room = len(waveform) - needed
        if room <= 0:
            return waveform
        if self._settings.augment.random_crop:
            start = int(rng.integers(room + 1))
        else:
            start = step * int(rng.integers(room // step + 1))
        return waveform[start : start + needed]


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """Sampler of an epoch's batches: lists of (epoch, index), in a random order that depends on (seed, epoch).

    Args:
        count: number of clips.
        batch_size: clips in a batch; the last batch may have fewer.
        seed: random seed of the order.
        rank: number of this process.
        world: number of processes that share the clips; each gets the same number of batches.
    """

    def __init__(self, count: int, batch_size: int, seed: int, rank: int = 0, world: int = 1) -> None:
        self._count, self._size, self._seed, self._rank, self._world = count, batch_size, seed, rank, world
        self._epoch = self._start = 0

    def go_to(self, epoch: int, start: int = 0) -> None:
        """Set the epoch of the next iteration, and its first batch."""
        self._epoch, self._start = epoch, start

    def __len__(self) -> int:
        """Return the number of batches in a whole epoch."""
        return -(-(self._count // self._world) // self._size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch = self._epoch
        order = np.random.default_rng([self._seed, epoch]).permutation(self._count)
        share = order[self._rank :: self._world][: self._count // self._world]
        for batch in range(self._start, len(self)):
            yield [(epoch, int(index)) for index in share[batch * self._size : (batch + 1) * self._size]]


def _examples(frontend: LogMel, waveform: Samples, hop: float) -> Tensor:
    # The copy has the front end's precision, and leaves the store's samples unchanged.
    examples: Tensor = frontend(torch.from_numpy(waveform.astype(np.float64)), hop)
    return examples


def _padded(waveform: Samples, window: WindowSettings) -> Samples:
    missing = padding(len(waveform), window.hop, window.pad)
    return np.concatenate([waveform, np.zeros(missing, np.float32)]) if missing else waveform
