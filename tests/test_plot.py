from __future__ import annotations

import sys

import numpy as np
import pytest

from vggish_pt import AudioError, MissingDependencyError, OutputError, SettingsError
from vggish_pt.utils.figures import save

pytest.importorskip("matplotlib")


@pytest.fixture
def waveform(rng):
    time = np.arange(40_000) / 16_000
    return 0.3 * np.sin(2 * np.pi * 1_000 * time) + 0.001 * rng.standard_normal(40_000)


@pytest.mark.parametrize("layer", [None, "conv2", "fc1", "fused"])
def test_what_is_drawn(small_model, waveform, layer):
    from vggish_pt.plot import plot_clip

    figure = plot_clip(small_model, waveform, 16_000, layer=layer, hop=0.5, title="a tone")
    assert figure.get_suptitle() == "a tone"
    axes = figure.get_axes()
    assert len(axes) == (3 if layer is None else 4)
    log_mel, embedding = (axis.images[0].get_array() for axis in axes[1:3])
    assert log_mel.shape == (64, 248)
    tone = np.asarray(log_mel).mean(axis=1).argmax()
    assert tone in (19, 20)  # 1 kHz is 1000 mel; (1000 - 185) / 39.8 mel per band = 20.5 edges, the first at its foot
    expected = small_model.embed(waveform, 16_000, hop=0.5).values.numpy().T
    np.testing.assert_allclose(np.asarray(embedding), expected, atol=1e-5)
    if layer == "conv2":
        assert len(axes[3].images) == expected.shape[1]  # a picture for each window
        assert axes[3].images[0].get_array().shape == (16, 24)


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_files(small_model, waveform, tmp_path, ending):
    from vggish_pt.plot import plot_clip

    magic = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
    path = tmp_path / f"picture.{ending}"
    save(plot_clip(small_model, waveform[:1_000], 16_000), path)
    assert path.read_bytes().startswith(magic[ending])
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_errors(small_model, tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    from vggish_pt.plot import plot_clip

    with pytest.raises(AudioError, match="too long"):
        plot_clip(small_model, np.zeros(601 * 1_000), 1_000)
    with pytest.raises(SettingsError, match="layer"):
        plot_clip(small_model, np.zeros(1_000), 16_000, layer="conv7")
    with pytest.raises(SettingsError, match=r"\.png"):
        save(Figure(), tmp_path / "picture.gif")
    with pytest.raises(OutputError):
        save(Figure(), tmp_path / "missing" / "picture.png")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=r"vggish_pt\[plot\]"):
        plot_clip(small_model, np.zeros(1_000), 16_000)


def test_command(run_cli, tmp_path, small_folder, waveform):
    import soundfile as sf

    sf.write(tmp_path / "tone.wav", waveform, 16_000)
    result = run_cli("plot", "tone.wav", "--weights", small_folder, "--layer", "conv3")
    assert (result.returncode, result.stdout.strip()) == (0, "tone.png")
    assert (tmp_path / "tone.png").stat().st_size > 10_000
    again = run_cli("plot", "tone.wav", "--weights", small_folder)
    assert again.returncode == 1
    assert "exists already" in again.stderr
    wrong = run_cli("plot", "tone.wav", "--out", "tone.gif")
    assert wrong.returncode == 2
    assert len(wrong.stderr.strip().splitlines()) == 1
    (tmp_path / "file").touch()
    nowhere = run_cli("plot", "tone.wav", "--weights", small_folder, "--out", "file/tone.png")
    assert nowhere.returncode == 1
    assert "file/tone.png: cannot be written" in nowhere.stderr
    assert len(nowhere.stderr.strip().splitlines()) == 1
