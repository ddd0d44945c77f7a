"""The generator of synthetic sound: what holds for every clip, and that each source sounds where its knobs say."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from vggish_pt.constants import EXAMPLE_SAMPLES, SAMPLE_RATE
from vggish_pt.nn.frontend import LogMel

sys.path.insert(0, str(Path(__file__).parents[2] / "weights" / "synthetic"))

import sounds

SECOND = SAMPLE_RATE


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def recipe_of(family: str, clips: int = 12, seed: int = 0) -> sounds.Recipe:
    """Clips of one layer each, of one family; the first two with every knob at its end."""
    drawn = sounds.draw(clips, generator(seed))
    drawn.family[:] = -1
    drawn.family[:, 0] = list(sounds.FAMILIES).index(family)
    for row, value in ((0, 0.0), (1, 1.0)):
        drawn.layers[row] = value
        drawn.clips[row] = value
    return drawn


def play(source, *knobs: float, event: float = 1.0) -> np.ndarray:
    """One second of a source with the given knobs in [0, 1] (0.5 for the rest), with one event at its start."""
    unit = torch.full((1, sounds.LAYER_KNOBS), 0.5)
    unit[0, : len(knobs)] = torch.tensor(knobs)
    since = torch.arange(SECOND)[None] / SAMPLE_RATE
    clock = sounds.Clock(since, torch.ones_like(since), torch.full((1, 1), event), generator())
    return source(sounds.Knobs(unit), clock)[0].double().numpy()


def spectrum(wave: np.ndarray) -> np.ndarray:
    """Energy per hertz of one second, as shares of the whole."""
    energy = np.abs(np.fft.rfft(wave * np.hanning(len(wave)))) ** 2
    return energy / energy.sum()


def near(energy: np.ndarray, frequencies: list[float], width: int = 4) -> float:
    """The share of energy within ``width`` hertz of any of the frequencies."""
    bins = np.arange(len(energy))
    return float(energy[np.any([np.abs(bins - f) <= width for f in frequencies], axis=0)].sum())


def log_knob(value: float, low: float, high: float) -> float:
    return float(np.log(value / low) / np.log(high / low))


@pytest.mark.parametrize("family", sounds.FAMILIES)
def test_every_family_is_finite_unclipped_and_audible(family):
    waves = sounds.render(recipe_of(family), generator(1))
    assert waves.shape == (12, EXAMPLE_SAMPLES)
    assert waves.dtype == torch.float32
    peaks = waves.abs().amax(1)
    assert waves.isfinite().all()
    assert peaks.max() <= 0.951
    assert peaks.min() >= 0.003


def test_mixtures_are_finite_unclipped_and_differ():
    waves = sounds.render(sounds.draw(64, generator()), generator(1))
    assert waves.isfinite().all()
    assert waves.abs().amax() <= 0.951
    spread = LogMel(torch.float32)(waves)[:, 0].mean(1).std(0)
    assert spread.min() > 0.5  # every mel band is loud in some clips and quiet in others


@pytest.mark.parametrize("samples", [400, 16_000, 80_000])
def test_length_is_as_asked(samples):
    waves = sounds.render(sounds.draw(5, generator()), generator(), samples)
    assert waves.shape == (5, samples)
    assert waves.isfinite().all()


def test_same_seed_same_sound():
    first, again, other = (sounds.render(sounds.draw(6, generator(s)), generator(s)) for s in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_only_the_families_asked_for_are_drawn():
    recipe = sounds.draw(200, generator(), ("engine", "voice"))
    names = list(sounds.FAMILIES)
    assert set(recipe.family.unique().tolist()) == {-1, names.index("engine"), names.index("voice")}
    every, same = sounds.draw(50, generator()), sounds.draw(50, generator(), tuple(sounds.FAMILIES))
    assert torch.equal(every.family, same.family)
    assert set(every.family.unique().tolist()) == {-1, *range(len(names))}


def test_perturbing_stays_in_range_and_keeps_the_families():
    recipe = sounds.draw(200, generator())
    moved = sounds.perturb(recipe, 0.1, 0.6, generator(1))
    assert torch.equal(moved.family, recipe.family)
    for before, after, amount in ((recipe.layers, moved.layers, 0.1), (recipe.clips, moved.clips, 0.6)):
        assert after.min() >= 0
        assert after.max() <= 1
        assert 0.5 * amount < (after - before).square().mean().sqrt() <= amount


def test_perturbing_by_nothing_changes_nothing():
    recipe = sounds.draw(20, generator())
    same = sounds.perturb(recipe, 0.0, 0.0, generator(1))
    torch.testing.assert_close(same.layers, recipe.layers, atol=1e-6, rtol=0)
    torch.testing.assert_close(same.clips, recipe.clips, atol=1e-6, rtol=0)


def test_partners_are_more_alike_than_strangers():
    recipe = sounds.draw(96, generator())
    moved = sounds.perturb(recipe, 0.1, 0.1, generator(1))
    waves = [sounds.render(r, generator(seed)) for seed, r in enumerate((recipe, moved))]
    a, b = (LogMel(torch.float32)(wave)[:, 0].mean(1) for wave in waves)
    distances = torch.cdist(a, b)
    nearer = (distances.diagonal()[:, None] < distances).float().mean()
    assert nearer > 0.85  # half, if they were strangers


def test_harmonic_has_its_energy_at_multiples_of_the_pitch():
    wave = play(sounds.harmonic, log_knob(300, 60, 2500), 0.5, 0.5, 0, 0.5, 0, 0.8, 0, 0)
    energy = spectrum(wave)
    assert near(energy, [300 * k for k in range(1, 27)]) > 0.99
    assert near(energy, [300]) < 0.9  # more than the fundamental


def test_hollow_harmonic_lacks_even_multiples():
    wave = play(sounds.harmonic, log_knob(300, 60, 2500), 0.5, 0.5, 0, 0.5, 0, 0.8, 1, 0)
    energy = spectrum(wave)
    assert near(energy, [300 * k for k in range(2, 26, 2)]) < 1e-3


def test_modulated_has_sidebands_of_the_carrier():
    wave = play(
        sounds.modulated, log_knob(1000, 60, 3000), 0.5, 0.5, 0, 0.5, 0, log_knob(0.25, 0.1, 8), log_knob(2, 0.1, 12), 0
    )
    energy = spectrum(wave)
    assert near(energy, [1000 + 250 * k for k in range(-10, 11)]) > 0.99
    assert near(energy, [1000]) < 0.5


def test_struck_string_rings_at_its_modes_and_decays():
    wave = play(sounds.struck, log_knob(200, 80, 3000), 0, log_knob(0.2, 0.005, 1.0), 0, 1, 0)
    assert near(spectrum(wave), [200 * k for k in range(1, 7)], width=12) > 0.97
    assert np.square(wave[: SECOND // 4]).sum() > 50 * np.square(wave[SECOND // 2 :]).sum()


def test_voice_has_its_energy_at_harmonics_under_its_formants():
    formants = [log_knob(700, 250, 1100)] * 2 + [log_knob(1200, 700, 2600)] * 2 + [log_knob(2600, 2200, 4500)] * 2
    wave = play(sounds.voice, log_knob(100, 70, 1000), 0.5, 0.5, 0, 0.5, 0, 0, 0, *formants)
    energy = spectrum(wave)
    assert near(energy, [100 * k for k in range(1, 80)]) > 0.99
    assert near(energy, [700, 1200, 2600], width=150) > 0.8
    assert near(energy, [1900], width=200) < 0.05


def test_noise_is_flat():
    wave = play(sounds.noise, 0.5, 0)
    quarters = spectrum(wave)[:-1].reshape(4, -1).sum(1)
    assert np.all(np.abs(quarters - 0.25) < 0.03)


def test_engine_fires_at_its_rate():
    wave = play(sounds.engine, log_knob(50, 5, 250), 0, 1, 0, 0)  # noise alone, in puffs
    loudness = spectrum(np.square(wave) - np.square(wave).mean())
    strongest = 20 + int(loudness[20:200].argmax())
    assert abs(strongest - 50) <= 1


@pytest.mark.parametrize(("run", "rises"), [(0.9, True), (0.1, False)])
def test_drops_run_up_and_down(run, rises):
    wave = play(sounds.drops, log_knob(1200, 300, 5500), run, log_knob(0.1, 0.003, 0.2), 0)
    early, late = (spectrum(wave[a : a + 1024]).argmax() for a in (160, 3200))
    assert (late > 1.2 * early) == rises
    assert (late < 0.8 * early) != rises


def test_grains_are_as_dense_as_asked():
    sparse, dense = (play(sounds.grains, log_knob(rate, 2, 4000), 0, 0, 0.5, 1) for rate in (5, 2000))
    silent = [np.mean(np.abs(wave) < 1e-3) for wave in (sparse, dense)]
    assert silent[0] > 0.9
    assert silent[1] < 0.5


def test_weather_swells():
    calm, stormy = (play(sounds.weather, swell, 0, 0.5, 0, 0) for swell in (0, 1))
    variation = [np.std(np.log(np.square(w).reshape(50, -1).mean(1))) for w in (calm, stormy)]
    assert variation[1] > 2 * variation[0]


def test_filter_cuts_below_and_above_its_corners():
    unit = torch.full((1, sounds.LAYER_KNOBS), 0.5)
    unit[0, :9] = torch.tensor([0.75, 0.5, 0.5, 12 / 42, 0.5, 0.5, 12 / 42, 4 / 6.5, 1.5 / 4])  # 0.5 and 2 kHz
    gains = sounds._filter(sounds.Knobs(unit), torch.tensor([125.0, 1000.0, 8000.0]))[0]
    assert gains[1] == pytest.approx(1, abs=0.05)
    assert gains[0] < 0.03
    assert gains[2] < 0.03


def test_lowest_level_knob_means_full_level_whatever_the_layers():
    recipe = sounds.draw(40, generator())
    recipe.clips[:] = 0
    peaks = sounds.render(recipe, generator()).abs().amax(1)
    torch.testing.assert_close(peaks, torch.full_like(peaks, 0.95), atol=1e-4, rtol=0)


def test_gallery_draws_and_writes_or_says_why_not(tmp_path):
    script = Path(__file__).parents[2] / "weights" / "synthetic" / "gallery.py"

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, str(script), *options], capture_output=True, text=True)

    done = run("--out", str(tmp_path / "sounds.png"), "--wav", str(tmp_path / "clips"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "sounds.png").read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "clips").glob("*.wav"))) == 6 * (len(sounds.FAMILIES) + 2)
    (tmp_path / "file").touch()
    for place in (tmp_path / "missing" / "a.png", tmp_path / "file" / "a.png"):
        failed = run("--out", str(place))
        assert failed.returncode == 1
        assert failed.stderr.startswith("gallery.py: ")
        assert len(failed.stderr.splitlines()) == 1
