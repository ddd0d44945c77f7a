"""Predictions keep what they need of windows, not the windows' features."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vggish_pt.audio.clip import Clip
from vggish_pt.classify import HeadConfig, VGGishClassifier
from vggish_pt.inference.pipeline import embed_clips
from vggish_pt.inference.settings import EmbedSettings


@pytest.mark.parametrize("kind", ["linear", "mlp", "attention"])
@pytest.mark.parametrize("features", ["embedding", "conv3", "fused:conv4+embedding"])
def test_prediction_is_the_forward_pass(small_model, rng, kind, features):
    torch.manual_seed(3)
    head = HeadConfig(kind=kind, features=features, hidden=8, dropout=0.5)
    model = VGGishClassifier(small_model, ["a", "b", "c"], head=head).eval()
    if model.head.attention is not None:
        torch.nn.init.normal_(model.head.attention.score.weight)
    waveform = rng.standard_normal(80_000) * 0.1
    examples = model.backbone.frontend(torch.from_numpy(waveform), 0.5)
    with torch.no_grad():
        clip = model(examples.unsqueeze(0))[0].softmax(dim=0)
        windows = model.window_logits(examples).softmax(dim=1)
    model.train()  # prediction has no dropout all the same, and leaves the state as it is
    for batch_size in (3, 256):
        found = model.predict(waveform, 16_000, hop=0.5, batch_size=batch_size)
        torch.testing.assert_close(found.scores, clip, atol=1e-5, rtol=0)
        torch.testing.assert_close(found.window_scores, windows, atol=1e-5, rtol=0)
    assert model.head.training
    model.backbone.eval()


def test_items_are_reduced_as_they_come(small_model, rng, tmp_path):
    import soundfile

    soundfile.write(tmp_path / "a.wav", rng.standard_normal(80_000) * 0.1, 16_000)
    seen = []

    def reduce(values):
        seen.append(len(values))
        return values[:, :2]

    settings = EmbedSettings(batch_size=2)
    ((_, found),) = embed_clips(small_model, [Clip(str(tmp_path / "a.wav"))], settings, reduce=reduce)
    expected = small_model.embed(tmp_path / "a.wav").values
    assert seen == [2, 2, 1]
    np.testing.assert_allclose(found.values, expected[:, :2], atol=1e-5)
