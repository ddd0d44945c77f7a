"""Fréchet audio distance against exact cases, SciPy and mpmath; extrapolation, bootstrap, and what sound does to it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.linalg
import scipy.signal

from vggish_pt import AudioError, AudioWarning, SettingsError, VGGish
from vggish_pt.fad import bootstrap, extrapolate, frechet_audio_distance, frechet_distance, per_file, statistics_of
from vggish_pt.fad.statistics import Statistics

Array = np.ndarray[Any, Any]


def with_variances(variances: Array, shift: float = 0.0) -> Array:
    """Rows whose sample covariance is exactly diagonal, with these values."""
    d = len(variances)
    rows = np.diag(np.sqrt(variances * (2 * d - 1) / 2))
    return np.vstack([rows, -rows]) + shift


def gaussian(rng: np.random.Generator, windows: int, dimensions: int, decay: float = 1.0) -> Array:
    """Rows of correlated values whose variances fall over two orders of magnitude."""
    mixing = rng.standard_normal((dimensions, dimensions)) * np.logspace(0, -decay, dimensions)[:, None]
    return rng.standard_normal((windows, dimensions)) @ mixing + rng.standard_normal(dimensions)


def by_sqrtm(a: Array, b: Array) -> float:
    """The formula as frechet-audio-distance and older fadtk compute it: SciPy's root of the product of covariances."""
    c1, c2 = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(c1 @ c2)
    shift = a.mean(axis=0) - b.mean(axis=0)
    return float(shift @ shift + np.trace(c1) + np.trace(c2) - 2 * np.trace(root).real)


def by_eigenvalues(a: Array, b: Array) -> float:
    """The formula as fadtk computes it now: from the eigenvalues of the product of covariances."""
    c1, c2 = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    roots = np.sqrt(scipy.linalg.eigvals(c1 @ c2).astype(complex))
    shift = a.mean(axis=0) - b.mean(axis=0)
    return float(shift @ shift + np.trace(c1) + np.trace(c2) - 2 * roots.sum().real)


@pytest.mark.parametrize("dimensions", [1, 2, 30, 128])
@pytest.mark.parametrize("windows", [(300, 1000), (1000, 400)])
def test_equals_scipy(rng: np.random.Generator, dimensions: int, windows: tuple[int, int]) -> None:
    a = gaussian(rng, windows[0], dimensions)
    b = gaussian(rng, windows[1], dimensions) * 1.3
    result = frechet_audio_distance(a, b)
    if dimensions == 1:
        expected = (a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2
        assert result == pytest.approx(expected, rel=1e-12)
        return
    assert result == pytest.approx(by_sqrtm(a, b), rel=1e-6)
    assert result == pytest.approx(by_eigenvalues(a, b), rel=1e-6)


def test_exact_cases(rng: np.random.Generator) -> None:
    first, second = np.logspace(0, -6, 20), rng.uniform(0.1, 2, 20)
    expected = np.square(np.sqrt(first) - np.sqrt(second)).sum()
    assert frechet_audio_distance(with_variances(first), with_variances(second)) == pytest.approx(expected, rel=1e-13)
    assert frechet_audio_distance(with_variances(first), with_variances(second, 3.0)) == pytest.approx(
        expected + 20 * 9, rel=1e-13
    )
    x = gaussian(rng, 500, 40)
    trace = np.trace(np.cov(x, rowvar=False))
    assert 0 <= frechet_audio_distance(x, x) < 1e-13 * trace
    assert frechet_audio_distance(x, x + 2.0) == pytest.approx(4.0 * 40, rel=1e-12)
    assert frechet_audio_distance(x, rng.permutation(x)) < 1e-13 * trace
    assert frechet_audio_distance(x - x.mean(0), 3 * (x - x.mean(0))) == pytest.approx(4 * trace, rel=1e-12)


@pytest.mark.filterwarnings("ignore::vggish_pt.errors.AudioWarning")
def test_fewer_windows_than_dimensions_is_exact(rng: np.random.Generator) -> None:
    x = rng.standard_normal((7, 128))
    centred = x - x.mean(axis=0)
    trace = np.square(centred).sum() / 6
    assert frechet_audio_distance(x, x) < 1e-13 * trace
    assert frechet_audio_distance(centred, 2 * centred) == pytest.approx(trace, rel=1e-13)
    # Covariances without a direction in common: the root of their product is zero.
    a, b = np.zeros((5, 128)), np.zeros((9, 128))
    a[:, :60], b[:, 60:] = rng.standard_normal((5, 60)), rng.standard_normal((9, 68))
    shift = np.square(a.mean(0) - b.mean(0)).sum()
    expected = shift + a.var(0, ddof=1).sum() + b.var(0, ddof=1).sum()
    assert frechet_audio_distance(a, b) == pytest.approx(expected, rel=1e-13)


@pytest.mark.filterwarnings("ignore::vggish_pt.errors.AudioWarning")
@pytest.mark.parametrize("windows", [(3, 4), (2, 40), (40, 40)])
def test_equals_mpmath(rng: np.random.Generator, windows: tuple[int, int]) -> None:
    mpmath = pytest.importorskip("mpmath")
    a, b = rng.standard_normal((windows[0], 8)), rng.standard_normal((windows[1], 8)) * np.logspace(0, -5, 8)
    with mpmath.workdps(60):
        moments = []
        for rows in (a, b):
            x = mpmath.matrix(rows.tolist())
            mean = [mpmath.fsum(x[:, j]) / x.rows for j in range(8)]
            centred = mpmath.matrix([[x[i, j] - mean[j] for j in range(8)] for i in range(x.rows)])
            moments.append((mpmath.matrix(mean), centred.T * centred / (x.rows - 1)))
        (m1, c1), (m2, c2) = moments
        values, vectors = mpmath.eigsy(c1)
        root = vectors * mpmath.diag([mpmath.sqrt(max(v, 0)) for v in values]) * vectors.T
        between = mpmath.fsum(mpmath.sqrt(max(v, 0)) for v in mpmath.eigsy(root * c2 * root, eigvals_only=True))
        shift = m1 - m2
        expected = (shift.T * shift)[0] + mpmath.fsum(c1[i, i] + c2[i, i] for i in range(8)) - 2 * between
        assert frechet_audio_distance(a, b) == pytest.approx(float(expected), rel=1e-12)


def test_what_may_be_compared(rng: np.random.Generator, small_model: VGGish) -> None:
    import torch

    x, y = gaussian(rng, 60, 8), gaussian(rng, 70, 8)
    expected = frechet_audio_distance(x, y)
    assert frechet_audio_distance(torch.from_numpy(x), [y[:20], torch.from_numpy(y[20:])]) == pytest.approx(expected)
    assert frechet_audio_distance(statistics_of(x), (part for part in np.split(y, 7))) == pytest.approx(expected)

    clips = [rng.standard_normal(16_000 * 2) * 0.1 for _ in range(3)]
    results = small_model.embed(clips, sample_rate=16_000)
    together = np.concatenate([r.values for r in results])
    statistics = statistics_of(small_model.embed_iter(clips, sample_rate=16_000))
    assert (statistics.windows, statistics.files) == (6, 3)
    np.testing.assert_allclose(statistics.mean, together.mean(0), rtol=1e-4, atol=1e-6)
    assert statistics_of(results[0]).windows == 2
    with pytest.raises(AudioError, match="no such file"):
        frechet_audio_distance(small_model.embed_iter(["nothing.wav"]), x)
    with pytest.raises(AudioError, match=r"nothing\.npz: no such file"):
        frechet_audio_distance("nothing.npz", x)
    with pytest.raises(SettingsError, match="not int"):
        frechet_audio_distance(3, x)


def test_what_cannot_be_compared(rng: np.random.Generator) -> None:
    x = rng.standard_normal((50, 4))
    with pytest.raises(SettingsError, match="reference: FAD needs at least two windows, not 1"):
        frechet_audio_distance(x[:1], x)
    with pytest.raises(SettingsError, match="evaluation: FAD needs at least two windows, not 0"):
        frechet_audio_distance(x, [])
    with pytest.raises(SettingsError, match="reference and evaluation have embeddings of 4 and 3 values"):
        frechet_audio_distance(x, x[:, :3])
    with pytest.raises(AudioWarning, match=r"evaluation: 4 windows are fewer than 5 \(4 dimensions \+ 1\)"):
        frechet_audio_distance(x, x[:4])
    assert frechet_audio_distance(x, x[:5]) > 0  # without a warning
    for bad in (np.nan, np.inf, -1e200):
        y = x.copy()
        y[33, 2] = bad
        with pytest.raises(AudioError, match="row 33 has NaN or infinite"):
            frechet_audio_distance(x, y)
    a = Statistics({"weights": {"sha256": "a" * 64}, "settings": {"hop": 0.96, "pad": "short"}})
    b = Statistics({"weights": {"sha256": "b" * 64}, "settings": {"hop": 0.5, "pad": "short"}})
    with pytest.raises(
        SettingsError,
        match=r"reference and evaluation have different settings: hop 0\.96 and 0\.5, weights a{12} and b{12}; ",
    ):
        frechet_distance(a, b)


def test_extrapolation_takes_the_bias_away(rng: np.random.Generator) -> None:
    d = 16
    reference = Statistics()
    reference.update(rng.standard_normal((200_000, d)))
    for files in (1, 100):
        plain, extrapolated = [], []
        for seed in range(8):
            parts = np.split(rng.standard_normal((300, d)), files)
            plain.append(frechet_audio_distance(reference, parts))
            result = extrapolate(reference, parts, seed=seed)
            extrapolated.append(result.value)
            assert result.unit == ("files" if files == 100 else "windows")
            assert result.points[-1] == pytest.approx([300, plain[-1]])
            assert result.points[0, 0] == 150
            assert result.slope > 0
            assert result.r2 > 0.8
        assert np.mean(plain) > 0.05
        assert abs(np.mean(extrapolated)) < np.mean(plain) / 5
    again = extrapolate(reference, parts, seed=seed)
    assert (again.value, again.slope) == (result.value, result.slope)
    assert extrapolate(reference, parts, seed=seed + 1).value != result.value
    with pytest.raises(SettingsError, match=r"needs at least 34 in the evaluation set .*, not 33"):
        extrapolate(reference, [np.zeros((33, d))])


def test_bootstrap_says_how_far_another_set_would_move(rng: np.random.Generator) -> None:
    """Sets of 40 files of 5 alike windows each: the interval's width is that of FAD over such sets, bias left out."""
    d = 6
    reference = Statistics()
    reference.update(rng.standard_normal((100_000, d)))

    def files() -> list[Array]:
        level = rng.standard_normal((40, 1, d))
        return list(0.5 + level + 0.2 * rng.standard_normal((40, 5, d)))

    fads = np.array([frechet_audio_distance(reference, files()) for _ in range(200)])
    intervals = [bootstrap(reference, files(), 100, seed=i) for i in range(30)]
    assert {(i.unit, i.samples, i.level) for i in intervals} == {("files", 100, 0.95)}
    covered = np.mean([[i.low <= fad <= i.high for i in intervals] for fad in [np.median(fads)]])
    assert covered >= 0.75
    widths = np.mean([i.high - i.low for i in intervals])
    assert widths == pytest.approx(np.subtract(*np.quantile(fads, [0.975, 0.025])), rel=0.35)

    parts = files()
    assert bootstrap(reference, parts, 20, seed=1) == bootstrap(reference, parts, 20, seed=1)
    assert bootstrap(reference, parts, 20, seed=1) != bootstrap(reference, parts, 20, seed=2)
    assert bootstrap(reference, parts[:9], 20).unit == "windows"
    with pytest.raises(SettingsError, match="at least 10 samples"):
        bootstrap(reference, parts, 9)


def test_each_file_by_itself(rng: np.random.Generator) -> None:
    reference = statistics_of(rng.standard_normal((500, 4)))
    files = [rng.standard_normal((n, 4)) for n in (20, 2, 1)]
    first, second, third = per_file(reference, files)
    assert first == pytest.approx(frechet_audio_distance(reference, files[0]))
    with pytest.warns(AudioWarning, match="2 windows"):
        assert second == pytest.approx(frechet_audio_distance(reference, files[1]))
    assert third is None


@pytest.fixture(scope="module")
def sounds() -> list[Array]:
    """Ten clips of 7 s at 16 kHz: pulsing tones with partials up to 7 kHz, in a little noise."""
    rng = np.random.default_rng(5)
    time = np.arange(16_000 * 7) / 16_000
    clips = []
    for _ in range(10):
        clip = 0.002 * rng.standard_normal(len(time))
        for pitch, rate in rng.uniform((100, 0.5), (500, 6), (3, 2)):
            pulses = (0.5 + 0.5 * np.sin(2 * np.pi * rate * time)) ** 2
            clip += (
                0.1
                * pulses
                * scipy.signal.sosfilt(scipy.signal.butter(2, 7000, fs=16_000, output="sos"), (pitch * time) % 1 - 0.5)
            )
        clips.append(clip)
    return clips


def test_rises_with_noise_and_with_low_pass_filtering(sounds: list[Array]) -> None:
    model = VGGish.from_pretrained("synthetic")

    def statistics(clips: list[Array]) -> Statistics:
        return statistics_of(model.embed(clips, sample_rate=16_000, hop=0.48))

    clean = statistics(sounds)
    assert clean.windows > 129
    rng = np.random.default_rng(6)
    noise = [rng.standard_normal(len(clip)) for clip in sounds]
    noisy = [
        [clip + n * np.sqrt(np.mean(clip**2) / 10 ** (snr / 10)) for clip, n in zip(sounds, noise, strict=True)]
        for snr in (40, 25, 10)
    ]
    filters = [scipy.signal.butter(8, cutoff, fs=16_000, output="sos") for cutoff in (4000, 2000, 800)]
    dull = [[scipy.signal.sosfilt(sos, clip) for clip in sounds] for sos in filters]
    for series in (noisy, dull):
        distances = [frechet_distance(clean, clean), *(frechet_distance(clean, statistics(clips)) for clips in series)]
        assert distances[0] < 1e-9
        assert (np.diff(distances) > 0).all(), distances
