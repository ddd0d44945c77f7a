"""Augmentation: what it does to clips, and that it depends on (seed, epoch, clip) alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from vggish_pt.classify.config import WindowSettings
from vggish_pt.classify.data import augment
from vggish_pt.classify.data.clips import EpochBatches, TrainingClips, ValidationClips, collate
from vggish_pt.classify.data.waveforms import WaveformStore
from vggish_pt.classify.training.settings import AugmentSettings, TrainSettings
from vggish_pt.errors import MissingDependencyError
from vggish_pt.nn.frontend import LogMel

EVERYTHING = AugmentSettings(gain=6, time_shift=0.5, mixup=0.4, noise="noise", noise_share=1.0)


def store(*seconds: float) -> WaveformStore:
    rng = np.random.default_rng(3)
    arrays = [(0.1 * rng.standard_normal(int(16_000 * s))).astype(np.float32) for s in seconds]
    return WaveformStore([len(a) for a in arrays], arrays)


def clips(settings: TrainSettings, *seconds: float) -> TrainingClips:
    kept = store(*seconds)
    noise = store(0.3, 4.0) if settings.augment.noise else None
    return TrainingClips(kept, torch.eye(len(kept)), range(len(kept)), settings, noise)


def test_time_shift_turns_the_clip():
    waveform = np.arange(100, dtype=np.float32)
    found = [augment.time_shift(waveform, 20 / 16_000, np.random.default_rng(i)) for i in range(50)]
    assert all(sorted(f) == sorted(waveform) for f in found)
    first = {int(f[0]) for f in found}
    assert len(first) > 10 and first <= {*range(21), *range(80, 100)}


def test_gain_stays_within_its_decibels():
    waveform = np.ones(10, np.float32)
    levels = [20 * np.log10(augment.gain(waveform, 6, np.random.default_rng(i))[0]) for i in range(200)]
    assert -6 <= min(levels) < -5 and 5 < max(levels) <= 6


@pytest.mark.parametrize("length", [100, 30_000])
def test_noise_has_the_level_asked_for(length):
    rng = np.random.default_rng(0)
    waveform = (0.3 * rng.standard_normal(16_000)).astype(np.float32)
    noise = (2.0 * rng.standard_normal(length)).astype(np.float32)
    mixed = augment.add_noise(waveform, noise, (10.0, 10.0), rng)
    snr = 10 * np.log10(np.mean(waveform**2) / np.mean((mixed - waveform) ** 2))
    assert abs(snr - 10) < 0.01
    np.testing.assert_array_equal(augment.add_noise(waveform, np.zeros(5, np.float32), (0, 0), rng), waveform)
    silent = np.zeros(50, np.float32)
    np.testing.assert_array_equal(augment.add_noise(silent, noise, (0, 0), rng), silent)


def test_mixup_mixes_windows_and_labels_alike():
    settings = TrainSettings(windows=1, augment=AugmentSettings(mixup=1.0, random_crop=False))
    plain = TrainSettings(windows=1, augment=AugmentSettings(random_crop=False))
    pure = [clips(plain, 0.975, 0.975, 0.975)[0, i].examples for i in range(3)]
    mixed = clips(settings, 0.975, 0.975, 0.975)
    shares = []
    for epoch in range(20):
        clip = mixed[epoch, 0]
        assert clip.target.sum() == pytest.approx(1) and clip.target[0] >= 0.5
        shares.append(float(clip.target[0]))
        expected = sum(share * examples for share, examples in zip(clip.target, pure, strict=True))
        torch.testing.assert_close(clip.examples, expected)
    assert min(shares) < 0.7 and max(shares) > 0.9


def test_a_shorter_partner_ends_in_silence():
    settings = TrainSettings(windows=3, augment=AugmentSettings(mixup=1.0, random_crop=False))
    clip = clips(settings, 3.0, 0.5)[0, 0]
    share = clip.target[0]
    whole = LogMel()(torch.from_numpy(store(3.0, 0.5)[0].astype(np.float64)))
    torch.testing.assert_close(clip.examples[2], share * whole[2] + (1 - share) * augment.SILENCE)


def test_crops_come_from_anywhere():
    settings = TrainSettings(windows=2)
    data = clips(settings, 5.0)
    found = [data[epoch, 0].examples for epoch in range(4)]
    assert all(f.shape == (2, 96, 64) for f in found)
    assert not any(torch.equal(found[0], other) for other in found[1:])
    assert clips(settings, 0.2)[0, 0].examples.shape == (1, 96, 64)  # a short clip has one window, filled up
    aligned = TrainSettings(windows=1, augment=AugmentSettings(random_crop=False))
    window = clips(aligned, 5.0)[7, 0].examples[0]
    whole = LogMel()(torch.from_numpy(store(5.0)[0].astype(np.float64)))
    assert any(torch.equal(window, one) for one in whole)


def epoch_of(data: TrainingClips, epoch: int, workers: int, start: int = 0) -> list[torch.Tensor]:
    sampler = EpochBatches(len(data), 2, seed=5)
    sampler.go_to(epoch, start)
    batches = DataLoader(data, batch_sampler=sampler, collate_fn=collate, num_workers=workers)
    return [tensor for batch in batches for tensor in batch]


def test_neither_workers_nor_resuming_change_what_is_drawn():
    data = clips(TrainSettings(windows=2, augment=EVERYTHING), 1.0, 2.5, 0.4, 3.1, 2.0)
    torch.manual_seed(1)
    whole = epoch_of(data, 3, 0)
    torch.manual_seed(2)
    for other in (epoch_of(data, 3, 2), [*whole[:4], *epoch_of(data, 3, 0, start=1)]):
        assert len(whole) == len(other) == 3 * 4
        assert all(torch.equal(a, b) for a, b in zip(whole, other, strict=True))
    assert not torch.equal(whole[0], epoch_of(data, 4, 0)[0])


def test_every_clip_once_in_an_epoch_and_shared_among_processes():
    sampler = EpochBatches(10, 3, seed=0)
    places = [place for batch in sampler for _, place in batch]
    assert sorted(places) == list(range(10)) and len(sampler) == 4
    shares = [[p for b in EpochBatches(10, 3, 0, rank, 2) for _, p in b] for rank in (0, 1)]
    assert sorted(shares[0] + shares[1]) == list(range(10))


def test_validation_has_all_windows_in_bounded_batches():
    kept = store(0.5, 3.0, 1.0, 600.0, 2.0)
    data = ValidationClips(kept, torch.eye(5), range(5), WindowSettings(pad="tail"))
    batches = data.batches()
    assert sorted(place for batch in batches for place in batch) == list(range(5))
    assert [3] in batches  # the long one stands alone
    batch = collate([data[0], data[1]])
    assert batch.mask.sum(dim=1).tolist() == [1, 4] and batch.examples.shape == (2, 4, 96, 64)


def test_spec_augment_masks_with_torchaudio_or_says_what_to_do():
    try:
        import torchaudio.functional  # noqa: F401
    except Exception:
        with pytest.raises(MissingDependencyError, match=r"SpecAugment needs torchaudio.*--spec-augment"):
            augment.SpecAugment(AugmentSettings(spec_augment=True))
        return
    masks = augment.SpecAugment(AugmentSettings(spec_augment=True, mask_bands=20, mask_frames=0))
    examples = torch.randn(3, 96, 64)
    state = torch.get_rng_state()
    found = masks(examples, np.random.default_rng(1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(found, masks(examples, np.random.default_rng(1)))
    changed = (found != examples).all(dim=1).sum(dim=1)
    assert (changed <= 20).all() and changed.any() and found.shape == examples.shape
