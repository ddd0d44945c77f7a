"""Clips for training and validation: waveforms → batches of log-mel windows with their labels."""

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

_VALIDATION_WINDOWS = 512  # in a batch, those that only fill it up included


class TrainingExample(NamedTuple):
    """One clip: windows (w, 96, 64), target (classes,) from 0 to 1, and its number."""

    examples: Tensor
    target: Tensor
    number: int


class ClipBatch(NamedTuple):
    """Some clips: (b, w, 96, 64), which windows there are (b, w), targets (b, classes), numbers (b,)."""

    examples: Tensor
    mask: Tensor
    targets: Tensor
    numbers: Tensor


def fill_up(clips: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Windows of clips, each (w, ...) → (b, most, ...), zero where a clip has fewer, and which there are (b, most)."""
    filled: Tensor = nn.utils.rnn.pad_sequence(list(clips), batch_first=True)
    counts = torch.tensor([len(clip) for clip in clips])
    return filled, torch.arange(filled.shape[1]) < counts[:, None]


def collate(clips: Sequence[TrainingExample]) -> ClipBatch:
    """Clips of different lengths → a batch, filled up with zeros where the mask is False."""
    examples, mask = fill_up([clip.examples for clip in clips])
    targets = torch.stack([clip.target for clip in clips])
    return ClipBatch(examples, mask, targets, torch.tensor([clip.number for clip in clips]))


class ValidationClips(Dataset[TrainingExample]):
    """All windows of each clip, as prediction has them.

    Args:
        store: the waveforms.
        targets: (n, classes) float32.
        numbers: which of the store's waveforms these clips are.
        window: how audio becomes windows.

    Attributes:
        window: as given.
    """

    def __init__(self, store: WaveformStore, targets: Tensor, numbers: Sequence[int], window: WindowSettings) -> None:
        self._store = store
        self._targets = targets
        self._numbers = list(numbers)
        self.window = window
        self._frontend = LogMel()

    def with_window(self, window: WindowSettings) -> ValidationClips:
        """The same clips, cut otherwise."""
        return ValidationClips(self._store, self._targets, self._numbers, window)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, place: int) -> TrainingExample:
        number = self._numbers[place]
        examples = _examples(self._frontend, _padded(self._store[number], self.window), self.window.hop)
        return TrainingExample(examples, self._targets[place], number)

    def batches(self) -> list[list[int]]:
        """Places of clips that go into one batch, which is bounded in windows."""
        found: list[list[int]] = []
        most = 0
        for place, number in enumerate(self._numbers):
            windows = count_windows(self._store.lengths[number], self.window.hop, self.window.pad)
            most = max(most, windows)
            if not found or most * (len(found[-1]) + 1) > _VALIDATION_WINDOWS:
                found.append([])
                most = windows
            found[-1].append(place)
        return found


class TrainingClips(Dataset[TrainingExample]):
    """Some neighbouring windows of each clip, augmented. What is drawn depends on (seed, epoch, clip) alone.

    Args:
        store: the waveforms.
        targets: (n, classes) float32.
        numbers: which of the store's waveforms these clips are.
        settings: how many windows, and which augmentation.
        noise: recordings to mix in, or None.

    Raises:
        MissingDependencyError: SpecAugment is asked for, and torchaudio cannot be loaded.
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

    def __getitem__(self, place: tuple[int, int]) -> TrainingExample:
        """The clip of (epoch, place)."""
        epoch, index = place
        settings = self._settings
        rng = augment.derived(settings.seed, epoch, index)
        examples, target = self._windows(index, rng), self._targets[index]
        if settings.augment.mixup and len(self) > 1:
            share = augment.mixing_share(settings.augment.mixup, rng)
            other = (index + int(rng.integers(1, len(self)))) % len(self)
            partner = self._windows(other, rng)[: len(examples)]
            mixed = share * examples
            mixed[: len(partner)] += (1 - share) * partner
            mixed[len(partner) :] += (1 - share) * augment.SILENCE  # the shorter of the two has ended
            examples, target = mixed, share * target + (1 - share) * self._targets[other]
        return TrainingExample(examples, target, self._numbers[index])

    def _windows(self, index: int, rng: np.random.Generator) -> Tensor:
        chosen = self._settings.augment
        waveform = augment.time_shift(self._store[self._numbers[index]], chosen.time_shift, rng)
        waveform = self._crop(_padded(waveform, self._settings.window), rng)
        if self._noise is not None and rng.random() < chosen.noise_share:
            waveform = augment.add_noise(waveform, self._noise[int(rng.integers(len(self._noise)))], chosen.snr, rng)
        waveform = augment.gain(waveform, chosen.gain, rng)
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
    """Which clips make up each batch of an epoch: (epoch, place) pairs, in an order that (seed, epoch) decides.

    Args:
        count: how many clips there are.
        batch_size: clips in a batch; the last one may have fewer.
        seed: of the order.
        rank: which of the processes this is.
        world: how many processes share the clips, each with as many batches.
    """

    def __init__(self, count: int, batch_size: int, seed: int, rank: int = 0, world: int = 1) -> None:
        self._count, self._size, self._seed, self._rank, self._world = count, batch_size, seed, rank, world
        self._epoch = self._start = 0

    def go_to(self, epoch: int, start: int = 0) -> None:
        """What the next iteration gives: that epoch, from that batch on."""
        self._epoch, self._start = epoch, start

    def __len__(self) -> int:
        """Batches in a whole epoch."""
        return -(-(self._count // self._world) // self._size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch = self._epoch
        order = np.random.default_rng([self._seed, epoch]).permutation(self._count)
        share = order[self._rank :: self._world][: self._count // self._world]
        for batch in range(self._start, len(self)):
            yield [(epoch, int(place)) for place in share[batch * self._size : (batch + 1) * self._size]]


def _examples(frontend: LogMel, waveform: Samples, hop: float) -> Tensor:
    # A copy, in the front end's precision: the store's samples are not to be written to.
    examples: Tensor = frontend(torch.from_numpy(waveform.astype(np.float64)), hop)
    return examples


def _padded(waveform: Samples, window: WindowSettings) -> Samples:
    missing = padding(len(waveform), window.hop, window.pad)
    return np.concatenate([waveform, np.zeros(missing, np.float32)]) if missing else waveform
