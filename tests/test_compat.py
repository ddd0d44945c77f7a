"""torchvggish's calls: its numbers, its names, its shapes."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
import torch
import torchvggish_case as case

from vggish_pt import AudioError, CheckpointError, SettingsError, WeightsError, compat


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Weights and PCA parameters as torchvggish's release has them."""
    folder = tmp_path_factory.mktemp("torchvggish")
    torch.save({name: torch.from_numpy(tensor) for name, tensor in case.state_dict().items()}, folder / "vggish.pth")
    torch.save(case.pca(), folder / "pca.pth")
    return folder


@pytest.fixture(scope="module")
def hub_model(files):
    return compat.VGGish("cpu", weights=files / "vggish.pth", pca=files / "pca.pth")


@pytest.fixture(scope="module")
def pypi_model(files):
    return compat.vggish(weights=str(files / "vggish.pth"), pca=str(files / "pca.pth"))


@pytest.fixture(scope="module")
def expected():
    """What torchvggish 0.2 gave; see torchvggish_case."""
    with np.load(case.OUTPUTS) as archive:
        return dict(archive)


@pytest.mark.parametrize("name", case.waveforms())
def test_numbers_of_torchvggish(name, pypi_model, expected):
    waveform, rate = case.waveforms()[name]
    if rate != 16_000:
        pytest.importorskip("resampy")
    examples = compat.vggish_input.waveform_to_examples(waveform, rate)
    with torch.no_grad():
        pypi_model.postprocess = False
        embeddings = pypi_model(examples)
        pypi_model.postprocess = True
        postprocessed = pypi_model(examples)
    assert embeddings.dtype == postprocessed.dtype == torch.float32
    np.testing.assert_allclose(embeddings, expected[f"{name}/embedding"], rtol=0, atol=1e-4)
    assert postprocessed.shape == expected[f"{name}/postprocessed"].shape  # (128,) for one window
    # Rounded from values that may differ in their last bits from one machine to the next.
    off = np.abs(postprocessed.numpy() - expected[f"{name}/postprocessed"])
    assert off.max() <= 1
    assert (off > 0).mean() < 0.01


def test_the_fixture_can_tell_modes_apart(expected):
    embeddings = np.concatenate([expected[f"{name}/embedding"] for name in case.waveforms()])
    assert embeddings.min() == 0.0  # the ReLU
    assert (embeddings > 0).mean() > 0.2
    values = np.concatenate([np.atleast_2d(expected[f"{name}/postprocessed"]) for name in case.waveforms()])
    assert len(np.unique(values)) > 50


def test_hub_call_takes_arrays_and_files(hub_model, expected, tmp_path):
    waveform, rate = case.waveforms()["mono_16k"]
    with torch.no_grad():
        from_array = hub_model(waveform, fs=rate)
        soundfile.write(tmp_path / "x.wav", waveform, rate, subtype="PCM_16")
        from_file = hub_model.forward(str(tmp_path / "x.wav"))
    np.testing.assert_allclose(from_array, expected["mono_16k/postprocessed"], atol=1)
    assert ((from_file - from_array).abs() <= 2).float().mean() > 0.9  # 16 bits


def test_hub_switches(hub_model):
    waveform, rate = case.waveforms()["one_window"]
    assert hub_model(waveform, rate).shape == (128,)
    hub_model.postprocess = False
    try:
        embeddings = hub_model(waveform, rate)
        assert embeddings.shape == (1, 128)
        assert embeddings.requires_grad
        hub_model.preprocess = False
        assert torch.equal(hub_model(compat.waveform_to_examples(waveform, rate)), embeddings)
    finally:
        hub_model.preprocess = hub_model.postprocess = True


def test_the_last_relu_can_be_cut_off_as_others_do(files):
    model = compat.VGGish("cpu", postprocess=False, weights=files / "vggish.pth")
    waveform, rate = case.waveforms()["mono_16k"]
    with torch.no_grad():
        rectified = model(waveform, rate)
        model.embeddings = torch.nn.Sequential(*list(model.embeddings.children())[:-1])
        raw = model(waveform, rate)
    assert raw.min() < 0
    assert torch.equal(raw.relu(), rectified)


def test_state_dict_has_torchvggishs_names(files, hub_model, pypi_model):
    names = set(case.state_dict())
    assert set(pypi_model.state_dict()) == names
    assert set(hub_model.state_dict()) == names | {"pproc.pca_eigen_vectors", "pproc.pca_means"}
    fresh = compat.vggish(weights=files / "vggish.pth", postprocess=False)
    fresh.load_state_dict(torch.load(files / "vggish.pth", weights_only=True))


def test_blocks_do_not_change_numbers(pypi_model, rng):
    examples = torch.from_numpy(rng.standard_normal((37, 1, 96, 64))).float()
    whole = pypi_model(examples).detach()
    with torch.no_grad():
        assert torch.equal(pypi_model(examples), whole)


def test_random_weights():
    model = compat.VGGish("cpu", pretrained=False)
    assert sum(p.numel() for p in model.features.parameters()) == 4_499_712
    assert model(np.zeros(16_000), 16_000).shape == (128,)


def test_without_pca_parameters(files):
    with pytest.raises(WeightsError, match="pass pca="):
        compat.vggish(weights=files / "vggish.pth")
    with pytest.raises(SettingsError, match="pca is for checkpoint files; named weights and model folders contain"):
        compat.vggish(weights="audioset", pca=files / "pca.pth")


def test_model_folder_as_weights(small_folder, small_model, rng):
    model = compat.vggish(postprocess=False, weights=small_folder)
    waveform = rng.standard_normal(40_000) * 0.1
    with torch.no_grad():
        embeddings = model(compat.waveform_to_examples(waveform, 16_000))
    torch.testing.assert_close(embeddings, small_model.embed(waveform, 16_000).values.relu(), atol=1e-5, rtol=1e-5)


def test_files(tmp_path, rng):
    sound = (rng.standard_normal((20_000, 2)) * 0.1).clip(-1, 1)
    examples = {}
    for subtype in ("PCM_16", "PCM_24", "FLOAT"):
        soundfile.write(tmp_path / f"{subtype}.wav", sound, 16_000, subtype=subtype)
        examples[subtype] = compat.wavfile_to_examples(tmp_path / f"{subtype}.wav")
        assert examples[subtype].shape == (1, 1, 96, 64)
    torch.testing.assert_close(examples["FLOAT"], examples["PCM_16"], atol=0.01, rtol=0)
    read = soundfile.read(tmp_path / "PCM_24.wav", dtype="int16")[0] / 32768.0
    assert torch.equal(examples["PCM_24"], compat.waveform_to_examples(read, 16_000))
    with (tmp_path / "PCM_16.wav").open("rb") as file:
        assert torch.equal(compat.wavfile_to_examples(file), examples["PCM_16"])
    array = compat.wavfile_to_examples(str(tmp_path / "PCM_16.wav"), return_tensor=False)
    assert isinstance(array, np.ndarray)
    assert array.shape == (1, 96, 64)


def test_too_short_is_no_window():
    assert compat.waveform_to_examples(np.zeros(15_599), 16_000).shape == (0, 1, 96, 64)
    assert compat.waveform_to_examples(np.zeros(100), 16_000).shape == (0, 1, 96, 64)


def test_errors_are_typed(hub_model, tmp_path):
    with pytest.raises(AudioError, match="no such file"):
        hub_model(str(tmp_path / "missing.wav"))
    (tmp_path / "text.wav").write_text("no audio")
    with pytest.raises(AudioError, match=r"text\.wav"):
        hub_model(tmp_path / "text.wav")
    with pytest.raises(AudioError):
        compat.wavfile_to_examples(io.BytesIO(b"no audio"))
    with pytest.raises(SettingsError, match="sample rate"):
        hub_model(np.zeros(16_000))
    with pytest.raises(SettingsError, match=r"\(T,\) or \(T, channels\)"):
        hub_model(np.zeros((2, 2, 2)), 16_000)
    with pytest.raises(SettingsError, match="path"):
        hub_model(3)
    with pytest.raises(CheckpointError):
        compat.vggish(weights=tmp_path / "text.wav")


@pytest.mark.parametrize("name", ["stereo_44k1_resampy", "esc_1-17367-A", "sine_1khz_3s", "noise_len_15600"])
def test_google_weights(name, golden, golden_folder):
    """Google's embeddings with a ReLU, from waveforms as they are."""
    reference = golden[name]
    if reference["sample_rate"] != 16_000:
        pytest.importorskip("resampy")
    model = compat.vggish(postprocess=False, weights=golden_folder)
    waveform = reference["waveform"] / 32768.0 if reference["waveform"].dtype == np.int16 else reference["waveform"]
    with torch.no_grad():
        embeddings = model(compat.waveform_to_examples(waveform, int(reference["sample_rate"])))
    np.testing.assert_allclose(embeddings, reference["embedding"].clip(0), rtol=0, atol=1e-4)
