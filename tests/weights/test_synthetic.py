"""The embedded model, and the recipe that makes it."""

import io
import json
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from vggish_pt.model import VGGish
from vggish_pt.pretrained import folder as storage

sys.path.insert(0, str(Path(__file__).parents[2] / "weights" / "synthetic"))

import evaluate
import head
import pretrain as recipe
import sounds
import tasks
from recordings import Recordings
from trainee import Head, Trainee, fold, settle

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "weights" / "synthetic"


@pytest.fixture(scope="module")
def model():
    return VGGish.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def examples(model):
    generator = torch.Generator().manual_seed(987_654_321)  # no sound of the training run
    with torch.inference_mode():
        return model.frontend(sounds.render(sounds.draw(512, generator), generator))[:, 0]


@pytest.fixture(scope="module")
def embeddings(model, examples):
    return model.network.infer(examples)


def test_file_is_small_and_float16():
    assert (FOLDER / storage.WEIGHTS_NAME).stat().st_size <= 16_000_000
    _, tensors = storage.read_model(FOLDER)
    assert {t.dtype for name, t in tensors.items() if name.startswith("network.")} == {torch.float16}
    assert all(t.isfinite().all() for t in tensors.values())


def test_configuration_says_what_it_is():
    config = storage.read_config(FOLDER)
    assert config.name == "synthetic"
    assert config.license == "Apache-2.0"
    assert config.final_relu is False
    assert {"command", "data", "seed", "steps", "vggish_pt"} <= config.source.keys()


def test_card_says_how_it_was_made_and_when_to_use_another():
    card = (FOLDER / storage.CARD_NAME).read_text()
    assert "audioset" in card
    assert "no recording, no label" in card
    assert storage.read_config(FOLDER).source["command"] in " ".join(card.split())


def test_recordings_are_recognised_as_the_card_says(esc10_dir, model):
    recordings = Recordings.read(esc10_dir)
    features = partial(evaluate.network_features, model, "embedding")
    accuracies = evaluate.by_fold(recordings, evaluate.predictions(recordings, features, [tasks.CLEAN])[tasks.CLEAN])
    row = re.search(r"^\| \*\*`synthetic`, embedding\*\* \|(.*)\|$", (FOLDER / storage.CARD_NAME).read_text(), re.M)
    told = [float(cell.strip("* ")) for cell in row[1].split("|")]
    assert np.mean(accuracies) >= 0.9
    # Another processor's rounding may tip a clip or two of a fold's 80.
    assert np.abs(np.array(accuracies) - told[:5]).max() < 0.03
    assert abs(np.mean(accuracies) - told[5]) < 0.01


def test_different_sounds_get_different_embeddings(embeddings):
    assert embeddings.shape == (512, 128)
    assert embeddings.isfinite().all()
    assert embeddings.std(0).min() > 0.3  # no dead dimension
    distances = torch.cdist(embeddings, embeddings).fill_diagonal_(torch.inf)
    assert distances.min() > 0


def test_partners_are_nearer_than_strangers(model):
    generator = torch.Generator().manual_seed(123_456_789)
    first = sounds.draw(100, generator)
    second = sounds.perturb(first, 0.1, 0.3, generator)
    with torch.inference_mode():
        a, b = (model.network.infer(model.frontend(sounds.render(r, generator))[:, 0]) for r in (first, second))
    nearest = torch.cdist(a, b).argmin(1) == torch.arange(100)
    assert nearest.float().mean() > 0.2  # 0.01 by chance


def test_postprocessing_whitens(model, embeddings):
    # Without the clip: (x - mean) through the matrix alone.
    white = (embeddings.double() - model.postprocess.means) @ model.postprocess.eigen_vectors.T
    variance = white.var(0)
    assert 0.8 < variance.mean() < 1.25
    assert variance.min() > 0.5
    assert variance.max() < 2
    correlation = torch.corrcoef(white.T) - torch.eye(128)
    assert correlation.abs().mean() < 0.06  # 0.035 is what 512 samples of white noise show
    quantised = model.postprocess(embeddings, quantize=True)
    assert quantised.dtype == torch.uint8
    assert len(quantised.unique()) > 200


def test_silence_and_full_scale_noise_are_embedded(model):
    noise = torch.rand(15_600, generator=torch.Generator().manual_seed(0)) * 2 - 1
    values = model.network.infer(model.frontend(torch.stack([torch.zeros(15_600), noise]))[:, 0])
    assert values.isfinite().all()
    assert (values[0] - values[1]).abs().mean() > 0.3


def run_script(name: str, *options: str) -> str:
    """What a script of the model's folder prints."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command, env = [sys.executable, str(FOLDER / name), *options], {**os.environ, "PYTHONPATH": path}
    return subprocess.run(command, check=True, env=env, capture_output=True, text=True).stdout


def run_pretrain(folder: Path, *options: str) -> None:
    tiny = ("--steps", "4", "--pairs", "4", "--fc-width", "8", "--pca-batches", "3", "--threads", "1", "--seed", "5")
    tiny += ("--head-pairs", "10", "--head-batch", "5", "--head-epochs", "2")
    tiny += ("--precision", "fp32")  # bf16 takes minutes on processors without it
    run_script("pretrain.py", "--out", str(folder), *tiny, *options)


def test_interrupted_pretraining_ends_as_an_undisturbed_run(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run_pretrain(whole)
    run_pretrain(parts, "--stop-at", "2")
    assert not parts.exists()  # nothing half-trained is written
    run_pretrain(parts)

    config, expected = storage.read_model(whole)
    resumed_config, tensors = storage.read_model(parts)
    assert config == resumed_config
    assert config.source["steps"] == 4
    assert json.dumps(config.source)
    for name, tensor in expected.items():
        assert torch.equal(tensor, tensors[name]), name

    curves = [(tmp_path / f"{name}.run" / "pretrain.csv").read_text().splitlines() for name in ("whole", "parts")]
    without_time = [[line.rsplit(",", 1)[0] for line in curve] for curve in curves]
    assert without_time[0] == without_time[1]
    assert len(curves[0]) == 5

    network = VGGish.from_pretrained(whole).network
    initial = storage.read_model(whole)[1]["network.fc2.weight"]
    assert network.fc2.weight.shape == initial.shape == (8, 8)


def test_resuming_with_other_settings_is_refused(tmp_path):
    run_pretrain(tmp_path / "model", "--stop-at", "1")
    with pytest.raises(subprocess.CalledProcessError) as failure:
        run_pretrain(tmp_path / "model", "--lr", "0.5")
    assert "other settings" in failure.value.stderr


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04junk"])
def test_a_state_that_is_damaged_and_a_place_that_cannot_be_written_are_one_line(tmp_path, content):
    (tmp_path / "model.run").mkdir()
    state = tmp_path / "model.run" / "state.pt"
    state.write_bytes(content)
    for out, named in ((tmp_path / "model", state), (state / "model", "pretrain.py")):
        with pytest.raises(subprocess.CalledProcessError) as failure:
            run_pretrain(out)
        assert failure.value.returncode == 1
        assert failure.value.stderr.startswith(f"{named}: ")
        assert len(failure.value.stderr.splitlines()) == 1
    assert state.read_bytes() == content


def test_precisions_of_computing_and_of_the_file(tmp_path):
    run_pretrain(tmp_path / "wide", "--dtype", "float32", "--steps", "2")
    run_pretrain(tmp_path / "narrow", "--precision", "bf16", "--steps", "2")
    wide, narrow = (storage.read_model(tmp_path / name)[1] for name in ("wide", "narrow"))
    for name in wide:
        if name.startswith("network."):
            assert (wide[name].dtype, narrow[name].dtype) == (torch.float32, torch.float16)
            # Values of bfloat16, but for the first layer, which is always computed in float32.
            rounded = narrow[name].float().bfloat16().float()
            assert torch.equal(rounded, narrow[name].float()) == (not name.startswith("network.conv1"))


def test_families_left_out_are_part_of_the_recipe(tmp_path):
    run_pretrain(tmp_path / "model", "--without", "voice,engine", "--steps", "2")
    config = storage.read_config(tmp_path / "model")
    assert config.source["without"] == "voice,engine"
    assert "--without voice,engine" in config.source["command"]
    for wrong, word in (("choir", "choir"), (",".join(sounds.FAMILIES), "no family")):
        with pytest.raises(subprocess.CalledProcessError) as failure:
            run_pretrain(tmp_path / "other", "--without", wrong)
        assert failure.value.returncode == 2
        assert word in failure.value.stderr


def test_second_stage_changes_the_fully_connected_layers_alone(tmp_path):
    """It begins anew over a complete state, so its own settings may change."""
    run_pretrain(tmp_path / "without", "--head-epochs", "0")
    state = ("--state", str(tmp_path / "without.run"))
    run_pretrain(tmp_path / "with", *state)
    run_pretrain(tmp_path / "again", *state)
    run_pretrain(tmp_path / "other", *state, "--head-seed", "1")
    read = {path.name: storage.read_model(path)[1] for path in tmp_path.iterdir() if path.suffix != ".run"}
    differ = {
        name: {key.split(".")[1] for key in tensors if not torch.equal(tensors[key], read["with"][key])}
        for name, tensors in read.items()
    }
    connected = {"fc1", "fc2", "embedding"}
    assert differ.pop("with") == differ.pop("again") == set()
    for layers in differ.values():
        assert layers == {*connected, "eigen_vectors", "means"}
    curve = (tmp_path / "without.run" / "head.csv").read_text().splitlines()
    assert len(curve) == 1 + 2 * 2  # of 12 pairs two batches of 5, twice


def test_a_head_learns_to_find_partners(tmp_path):
    options = ["--head-batch", "50", "--head-epochs", "12", "--head-lr", "0.002"]
    args = recipe.make_parser().parse_args(["--out", "-", *options])
    torch.manual_seed(0)
    learner = Head(512, 32)
    clips = torch.randn(200, 1, 2048, generator=torch.Generator().manual_seed(0))
    views = clips + 1.5 * torch.randn(200, 2, 2048, generator=torch.Generator().manual_seed(1))
    head.train_head(learner, views.bfloat16(), args, tmp_path / "head.csv", io.StringIO())
    hits = [float(line.split(",")[2]) for line in (tmp_path / "head.csv").read_text().splitlines()[1:]]
    assert len(hits) == 12 * 4
    assert hits[0] < 0.5
    assert hits[-1] > 0.9
    assert learner(views[:, 0]).shape == (200, 128)


def test_the_first_connected_layer_sees_the_mean_over_time():
    torch.manual_seed(0)
    trainee = Trainee(16).eval()
    network = fold(trainee.trunk, trainee.head)
    conv4 = torch.rand(3, 512, 6, 4)
    with torch.inference_mode():
        expected = dict(network.fully_connected(conv4))["embedding"]
        moved = dict(network.fully_connected(conv4.roll(2, dims=2)))["embedding"]
        higher = dict(network.fully_connected(conv4.roll(1, dims=3)))["embedding"]
        torch.testing.assert_close(trainee.head(Head.over_time(conv4)), expected)
    torch.testing.assert_close(moved, expected, atol=1e-5, rtol=1e-5)
    assert (higher - expected).abs().max() > 0.01


@pytest.mark.parametrize("projection", ["none", "mlp"])
def test_what_the_loss_compares(projection):
    torch.manual_seed(0)
    trainee = Trainee(16, projection).eval()
    examples = torch.randn(5, 96, 64)
    with torch.inference_mode():
        same = torch.equal(trainee(examples), trainee.embed(examples))
    assert same == (projection == "none")
    assert trainee(examples).shape == (5, 128)


def test_stand_ins_are_compared_by_recordings(tmp_path):
    rng = np.random.default_rng(0)
    for label, low in (("high", 2000), ("low", 200)):
        (tmp_path / "clips" / label).mkdir(parents=True)
        for number in range(10):
            wave = 0.1 * np.sin(2 * np.pi * low * rng.uniform(1, 2) * np.arange(20_000) / 16_000)
            soundfile.write(tmp_path / "clips" / label / f"{number % 5 + 1}-{number}.wav", wave, 16_000)
    small = ("--steps", "2", "--divisor", "32", "--threads", "1")
    changes = ("--change", "pairs=4", "--change", "pairs=4 temperature=0.3 without=voice")
    _, _, first, second = run_script("ablate.py", str(tmp_path / "clips"), *small, *changes).strip().splitlines()
    assert first.startswith("| pairs=4 | 0 | ")
    assert second.startswith("| pairs=4 temperature=0.3 without=voice | 0 | ")
    assert first.split("|")[3:] != second.split("|")[3:]
    accuracies = [float(cell.split(",")[0]) for cell in second.strip("| ").split(" | ")[2:]]
    assert accuracies[-1] > 0.5  # of conv4; a low tone and a high one are easy


def test_folding_the_normalisation_changes_nothing():
    torch.manual_seed(0)
    trainee = Trainee(16)
    batches = recipe.Sounds(8, 0, torch.device("cpu"), 0.1, 0.3)
    settle(trainee, [batches[number] for number in range(3)], "fp32")
    with torch.inference_mode():
        expected = trainee.embed(batches[9])
        torch.testing.assert_close(fold(trainee.trunk, trainee.head)(batches[9]), expected, atol=1e-3, rtol=1e-3)
    assert expected.std(0).min() > 0.01
