from __future__ import annotations

import json
import os
import struct

import numpy as np
import pytest

from vggish_pt import CheckpointError, OutputError, VGGishConfig
from vggish_pt.pretrained.folder import PCA_SHAPES, read_config, read_model, tensor_shapes, weights_digest, write_model

CONFIG = VGGishConfig(fc_width=2, name="tiny")


@pytest.fixture
def tensors(rng):
    shapes = tensor_shapes(CONFIG) | PCA_SHAPES
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture
def folder(tmp_path, tensors):
    write_model(tmp_path / "model", CONFIG, tensors, card="# A card\n")
    return tmp_path / "model"


def _rewrite_header(folder, change):
    path = folder / "model.safetensors"
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])


def test_round_trip(folder, tensors):
    config, read = read_model(folder)
    assert config == CONFIG == read_config(folder)
    assert read.keys() == tensors.keys()
    for name, array in tensors.items():
        np.testing.assert_array_equal(read[name].numpy(), array)
    assert sorted(os.listdir(folder)) == ["README.md", "config.json", "model.safetensors"]
    assert len(weights_digest(folder)) == 64
    assert os.listdir(folder.parent) == ["model"]  # nothing temporary stays


def test_replacing_keeps_foreign_files_and_card(folder, tensors):
    (folder / "notes.txt").write_text("mine")
    before = weights_digest(folder)
    tensors["network.conv1.bias"] += 1
    write_model(folder, CONFIG, tensors)
    assert weights_digest(folder) != before
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "README.md").read_text() == "# A card\n"


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_float_types(tmp_path, tensors, dtype):
    write_model(tmp_path / "model", CONFIG, {name: array.astype(dtype) for name, array in tensors.items()})
    assert {t.numpy().dtype for t in read_model(tmp_path / "model")[1].values()} == {np.dtype(dtype)}


def test_no_partial_model_after_a_failed_write(tmp_path, tensors, monkeypatch):
    import safetensors.numpy

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.numpy, "save_file", full)
    with pytest.raises(OutputError, match=r"model: cannot write .*No space left"):
        write_model(tmp_path / "model", CONFIG, tensors)
    assert os.listdir(tmp_path) == []


def test_a_file_in_the_way(tmp_path, tensors):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_model(tmp_path / "file" / "model", CONFIG, tensors)
    with pytest.raises(OutputError):
        write_model(tmp_path / "file", CONFIG, tensors)


def test_incomplete_tensors_are_not_written(tmp_path, tensors):
    del tensors["network.fc2.bias"]
    with pytest.raises(CheckpointError, match=r"missing: network\.fc2\.bias"):
        write_model(tmp_path / "model", CONFIG, tensors)


def test_missing_folder_and_files(tmp_path, folder):
    with pytest.raises(CheckpointError, match="not a model folder"):
        read_model(tmp_path / "none")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        read_model(folder)
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        weights_digest(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h.pop("network.fc1.weight"), "missing|cannot be read"),
        (lambda h: h["network.fc1.weight"].update(shape=[12288, 2]), "has shape"),
        (lambda h: h["network.fc1.weight"].update(shape=[1 << 62, 4]), "cannot be read|has shape"),
        (lambda h: h["network.fc1.weight"].update(data_offsets=[0, 1 << 60]), "cannot be read"),
        (lambda h: h["network.fc1.weight"].update(dtype="I32"), "not a float type"),
        (lambda h: h.update({"network.extra": h.pop("network.fc1.bias")}), "missing"),
        (lambda h: h.update({"network.fc1.weight": 3}), "cannot be read"),
    ],
)
def test_hostile_headers(folder, change, message):
    _rewrite_header(folder, change)
    with pytest.raises(CheckpointError, match=message):
        read_model(folder)


def test_configuration_and_tensors_must_agree(folder):
    (folder / "config.json").write_text(VGGishConfig(fc_width=3).to_json())
    with pytest.raises(CheckpointError, match="has shape"):
        read_model(folder)


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"\x80\x04pickle", struct.pack("<Q", 1 << 60) + b"{}"])
def test_damaged_weights(folder, content):
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: cannot be read"):
        read_model(folder)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"{" * 10, b" " * (1 << 21)])
def test_damaged_configuration(folder, content):
    (folder / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_model(folder)


def test_truncation_anywhere_is_noticed(folder):
    path = folder / "model.safetensors"
    raw = path.read_bytes()
    for size in (1, 7, 8, 100, len(raw) // 2, len(raw) - 1):
        path.write_bytes(raw[:size])
        with pytest.raises(CheckpointError):
            read_model(folder)
