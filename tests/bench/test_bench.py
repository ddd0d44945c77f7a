"""Measuring a machine: what is covered, what is recommended; never how fast it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from vggish_pt import VGGish
from vggish_pt.bench import Deviation, NetworkRate, Report, _choose, bench, generated_sound, machine
from vggish_pt.errors import AudioError, SettingsError

QUICK = {"seconds": 1e-3, "batch_sizes": (1,)}
PEAK = 1e12


@pytest.fixture(autouse=True, scope="module")
def peak() -> Iterator[None]:
    """The peak takes seconds to measure; tests/test_machine.py does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "peak", lambda *_: (PEAK / 2, PEAK))
        yield


@pytest.fixture(scope="module")
def report(small_model: VGGish) -> Report:
    return bench(small_model, seconds=4.0, batch_sizes=(2, 1, 2))


def test_everything_is_measured(small_model: VGGish, report: Report) -> None:
    precisions = ["fp32", "bf16"] if machine.has_bfloat16(torch.device("cpu")) else ["fp32"]
    assert list(report.peak) == precisions
    assert [rate.name for rate in report.host] == [
        "decode and resample, WAV",
        "decode and resample, FLAC",
        "front end, float64",
        "front end, float32",
    ]
    assert all(rate.real_time > 0 for rate in report.host)
    threads = torch.get_num_threads()
    sizes = (1,) if any("batch size 2 was left out" in note for note in report.notes) else (1, 2)  # on a slow machine
    assert {(r.precision, r.winograd, r.batch_size) for r in report.network if r.threads == threads} == {
        *((precision, True, size) for precision in precisions for size in sizes),
        *(("fp32", False, size) for size in sizes),
    }
    assert {r.threads for r in report.network} == {1, threads}
    operations = small_model.network.operations()
    for rate in report.network:
        assert rate.windows > 0
        assert rate.spread >= 0
        assert rate.share == (pytest.approx(rate.windows * operations / PEAK) if rate.threads == threads else None)
    assert report.weights == "small"
    assert report.recommended.device == "cpu"
    assert report.recommended.batch_size in (1, 2)
    assert 1 <= report.recommended.workers <= machine.cores()
    assert report.recommended.real_time > 0


def test_deviations_are_those_of_the_sound(small_model: VGGish, tmp_path: Path) -> None:
    clip = tmp_path / "clip.flac"
    soundfile.write(clip, generated_sound(3.0), 44_100)
    report = bench(small_model, clip, **QUICK)
    assert report.host[0].name == "decode and resample, FLAC"
    found = {deviation.name: deviation for deviation in report.deviations}
    assert 0 < found["fp32, Winograd"].largest < 2e-5
    if "bf16" in report.peak:
        values = small_model.embed(clip).values
        half = VGGish(small_model.config)
        half.load_state_dict(small_model.state_dict())
        rough = half.to(torch.bfloat16).embed(clip).values
        assert found["bf16"].largest == pytest.approx(float((values - rough).abs().max()), rel=0.05)
        assert found["bf16"].cosine == pytest.approx(float(torch.cosine_similarity(values, rough).min()), abs=1e-5)


def test_the_model_stays_as_it_was(small_model: VGGish) -> None:
    before, values = torch.get_num_threads(), small_model.network.infer(torch.ones(1, 96, 64))
    bench(small_model, **QUICK)
    assert torch.get_num_threads() == before
    assert torch.equal(small_model.network.infer(torch.ones(1, 96, 64)), values)
    assert small_model.network.winograd
    assert {parameter.dtype for parameter in small_model.parameters()} == {torch.float32}


def test_without_bfloat16(small_model: VGGish, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "has_bfloat16", lambda device: False)
    report = bench(small_model, **QUICK)
    assert {rate.precision for rate in report.network} == {"fp32"}
    assert report.recommended.precision == "fp32"
    assert report.notes == ["bf16 was not measured: the processor does not support it"]


def test_batches_that_take_too_long_are_left_out(small_model: VGGish) -> None:
    report = bench(small_model, seconds=1e-3, batch_sizes=(1, 2000))
    assert {rate.batch_size for rate in report.network} == {1}
    assert report.notes[-1] == "batch size 2000 was left out, as it would take too long"


def test_a_clip_shorter_than_a_window(small_model: VGGish, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "short.wav", generated_sound(0.1), 44_100)
    assert bench(small_model, tmp_path / "short.wav", **QUICK).recommended.batch_size == 1


@pytest.mark.parametrize(
    "wrong",
    [
        *({"batch_sizes": sizes} for sizes in [(), (0, 16), (1 << 17,)]),
        *({"seconds": seconds} for seconds in [0.0, float("nan"), float("inf")]),
    ],
)
def test_wrong_settings(small_model: VGGish, wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        bench(small_model, **wrong)  # type: ignore[arg-type]


def test_audio_that_cannot_be_read(small_model: VGGish, tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"missing\.wav"):
        bench(small_model, tmp_path / "missing.wav", **QUICK)


def _rates(**windows: float) -> list[NetworkRate]:
    """Such as fp32_16=100."""
    found = []
    for name, rate in windows.items():
        precision, size = name.split("_")
        found.append(NetworkRate(precision, True, int(size), 4, rate, 0.0, 0.5))
    return found


def _deviation(cosine: float) -> list[Deviation]:
    return [Deviation("tf32", 0.001, max(cosine, 0.9999)), Deviation("bf16", 0.01, cosine)]


@pytest.mark.parametrize(
    ("windows", "cosine", "expected"),
    [
        ({"fp32_16": 100, "fp32_64": 102, "fp32_256": 101}, 1.0, ("fp32", 16)),  # 2 % are not worth the memory
        ({"fp32_16": 100, "fp32_64": 110, "fp32_256": 112}, 1.0, ("fp32", 64)),
        ({"fp32_16": 100, "bf16_16": 119}, 1.0, ("fp32", 16)),
        ({"fp32_16": 100, "bf16_16": 121}, 1.0, ("bf16", 16)),
        ({"fp32_16": 100, "bf16_16": 300}, 0.9998, ("fp32", 16)),
        ({"fp32_16": 100, "bf16_16": 150, "bf16_64": 190}, 0.9999, ("bf16", 64)),
        ({"fp32_16": 100, "tf32_16": 200, "bf16_16": 300}, 0.9998, ("tf32", 16)),
        ({"fp32_16": 100, "tf32_16": 200, "bf16_16": 300}, 0.9999, ("bf16", 16)),
    ],
)
def test_choice(windows: dict[str, float], cosine: float, expected: tuple[str, int]) -> None:
    rates = _rates(**windows)
    # Neither what users cannot set nor a part of the threads is chosen.
    rates += [NetworkRate("fp32", False, 1, 4, 999.0, 0.0, 0.5), NetworkRate("fp32", True, 1, 1, 999.0, 0.0, None)]
    chosen = _choose(rates, _deviation(cosine))
    assert (chosen.precision, chosen.batch_size) == expected


def test_generated_sound() -> None:
    sound = generated_sound(2.0)
    assert sound.shape == (88_200, 2)
    assert 0.1 < np.abs(sound).max() <= 1
    assert np.array_equal(sound, generated_sound(2.0))
    assert not np.array_equal(sound, generated_sound(2.0, seed=1))
