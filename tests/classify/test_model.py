"""The classifier as a module, saved and loaded, and from a Hub repository."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from loopback_hub import Hub
from safetensors.torch import load_file, save_file

from vggish_pt import VGGish
from vggish_pt.classify import HeadConfig, VGGishClassifier, WindowSettings
from vggish_pt.classify.config import ClassifierConfig
from vggish_pt.errors import AudioError, CheckpointError, SettingsError, WeightsError

LABELS = ["bark", "rain", "rooster; near"]


@pytest.fixture
def classifier(small_folder) -> VGGishClassifier:
    torch.manual_seed(1)
    backbone = VGGish.from_pretrained(small_folder)
    return VGGishClassifier(backbone, LABELS, head=HeadConfig("attention", hidden=8)).eval()


@pytest.fixture
def sound(rng) -> np.ndarray:
    return 0.1 * rng.standard_normal(40_000)


@pytest.mark.parametrize("features", ["embedding", "fc2", "conv4", "fused:conv4", "fused:conv3+embedding"])
@pytest.mark.parametrize("multilabel", [False, True])
def test_saved_and_loaded(small_folder, tmp_path, sound, features, multilabel):
    head = HeadConfig("mlp", features=features, hidden=4)
    settings = WindowSettings(hop=0.48, pad="tail")
    model = VGGishClassifier(
        VGGish.from_pretrained(small_folder), LABELS, multilabel=multilabel, head=head, settings=settings
    )
    model.head.fit_standardize(torch.randn(20, model.head.standardize.mean.shape[0]))
    model.save_pretrained(tmp_path / "saved")
    again = VGGishClassifier.from_pretrained(tmp_path / "saved")
    assert not again.training and again.labels == LABELS and again.multilabel == multilabel
    assert again.config == model.config and again.settings == settings
    before, after = model.predict(sound, sample_rate=16_000), again.predict(sound, sample_rate=16_000)
    torch.testing.assert_close(before.scores, after.scores)
    torch.testing.assert_close(before.window_scores, after.window_scores)
    assert after.window_scores.shape == (len(after.start), 3) and len(after.start) == 5
    assert torch.equal(model.backbone.postprocess.means, again.backbone.postprocess.means)


def test_scores_of_the_two_tasks(classifier, small_folder, sound):
    one = classifier.predict(sound, sample_rate=16_000)
    assert one.scores.sum() == pytest.approx(1) and one.best in LABELS
    torch.testing.assert_close(one.window_scores.sum(dim=1), torch.ones(2))
    several = VGGishClassifier(VGGish.from_pretrained(small_folder), ["only"], multilabel=True)
    assert 0 < float(several.predict(sound, sample_rate=16_000).scores) < 1


def test_prediction_is_the_modules_own(classifier, sound):
    examples = classifier.backbone.frontend(torch.from_numpy(sound))
    prediction = classifier.predict(sound, sample_rate=16_000)
    with torch.no_grad():
        torch.testing.assert_close(prediction.scores, classifier.scores(classifier(examples[None]))[0])
        torch.testing.assert_close(prediction.window_scores, classifier.scores(classifier.window_logits(examples)))


def test_a_mask_leaves_windows_out(classifier):
    examples = torch.randn(2, 3, 96, 64)
    mask = torch.tensor([[True, True, True], [True, False, False]])
    found = classifier(examples, mask)
    torch.testing.assert_close(found[:1], classifier(examples[:1]))
    torch.testing.assert_close(found[1:], classifier(examples[1, :1]))
    classifier(examples, mask).sum().backward()
    assert classifier.backbone.network.conv1.weight.grad.abs().sum() > 0


def test_gradients_reach_what_is_trained_only(classifier):
    classifier.backbone.requires_grad_(False)
    classifier.train()(torch.randn(2, 96, 64)).sum().backward()
    assert classifier.head.output.weight.grad is not None
    assert all(p.grad is None for p in classifier.backbone.parameters())
    examples = torch.randn(1, 2, 96, 64, requires_grad=True)  # and the windows themselves, as for saliency
    classifier(examples).sum().backward()
    assert examples.grad.abs().sum() > 0


def test_predicting_while_training_has_no_dropout(classifier, sound):
    expected = classifier.predict(sound, sample_rate=16_000).scores
    classifier.train()
    assert torch.equal(classifier.predict(sound, sample_rate=16_000).scores, expected) and classifier.head.training


def test_many_sources_with_errors_in_place(classifier, sound):
    found = list(classifier.predict_iter([sound, sound[:0], sound[:9000]], sample_rate=16_000))
    assert isinstance(found[1], AudioError)
    assert torch.equal(found[0].scores, classifier.predict(sound, sample_rate=16_000).scores)
    assert len(found[2].start) == 1
    with pytest.raises(AudioError, match="pad='short'"):
        classifier.predict(sound[:9000], sample_rate=16_000, pad="drop")


@pytest.mark.parametrize("shape", [(96, 64), (2, 3, 64, 96), (2, 3, 1, 96, 64)])
def test_examples_of_another_shape(classifier, shape):
    with pytest.raises(SettingsError, match=r"\(clips, windows, 96, 64\)"):
        classifier(torch.zeros(shape))


def test_other_wrong_arguments(classifier, small_folder, sound):
    with pytest.raises(SettingsError, match="mask"):
        classifier(torch.zeros(2, 3, 96, 64), torch.ones(2, 2, dtype=torch.bool))
    with pytest.raises(SettingsError, match="layer"):
        classifier.predict(sound, sample_rate=16_000, layer="fc1")
    backbone = VGGish.from_pretrained(small_folder)
    for labels, message in ((["a"], "at least 2"), (["a", "a"], "differ"), (["a", ""], "empty")):
        with pytest.raises(SettingsError, match=message):
            VGGishClassifier(backbone, labels)


def damage(folder, **changes) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 2}, "newer vggish_pt"),
        ({"model_type": "bert"}, "not a classifier"),
        ({"model_type": "vggish"}, "vggish-pt train"),
        ({"labels": ["a", "b"]}, r"head\.\S+ has shape"),
        ({"labels": "abc"}, "labels"),
        ({"task": "regression"}, "task"),
        ({"head": {"kind": "linear"}}, "unknown tensors: head.attention"),
        ({"head": {"hidden": 10**9}}, "hidden"),
        ({"settings": {"hop": "fast"}}, "hop"),
        ({"backbone": None}, "backbone"),
    ],
)
def test_damaged_folders(classifier, tmp_path, changes, message):
    classifier.save_pretrained(tmp_path)
    damage(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=message):
        VGGishClassifier.from_pretrained(tmp_path)


def test_folders_that_are_none(classifier, small_folder, tmp_path):
    with pytest.raises(CheckpointError, match="vggish-pt train"):
        VGGishClassifier.from_pretrained(small_folder)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        VGGishClassifier.from_pretrained(tmp_path)
    with pytest.raises(WeightsError, match="no such run folder"):
        VGGishClassifier.from_pretrained(tmp_path / "nowhere")
    classifier.save_pretrained(tmp_path / "saved")
    weights = tmp_path / "saved" / "model.safetensors"
    tensors = load_file(weights)
    save_file({**tensors, "head.output.bias": torch.zeros(3, dtype=torch.int64)}, weights)
    with pytest.raises(CheckpointError, match="not a float type"):
        VGGishClassifier.from_pretrained(tmp_path / "saved")
    weights.unlink()
    with pytest.raises(CheckpointError, match="--resume"):
        VGGishClassifier.from_pretrained(tmp_path / "saved")


def test_configuration_comes_back():
    config = ClassifierConfig(
        ("ä", "b"), True, HeadConfig("mlp"), WindowSettings(0.1), training={"settings": {"lr": 1}}
    )
    assert ClassifierConfig.from_json(config.to_json()) == config


def test_hub(classifier, tmp_path, sound):
    """Pushed to a Hub repository and loaded from it, in processes that see the stand-in."""
    classifier.save_pretrained(tmp_path / "model")
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "VGGISH_PT_"))}
    with Hub().running() as hub:
        variables |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}

        def run(code: str) -> str:
            script = f"from vggish_pt.classify import VGGishClassifier as C\nprint({code})"
            done = subprocess.run([sys.executable, "-c", script], env=variables, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            return done.stdout.strip()

        path = str(tmp_path / "model")
        assert run(f"C.from_pretrained({path!r}).push_to_hub('user/name', token='hf_x')").startswith(hub.url)
        assert set(hub.committed) == {"config.json", "model.safetensors", "labels.txt", "README.md"}
        hub.files = dict(hub.committed)
        assert run("C.from_pretrained('user/name').labels") == str(LABELS)
