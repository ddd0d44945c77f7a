"""The small checkpoint of ``checkpoints/write_with_tensorflow.py``, held against what TensorFlow read from it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from vggish_pt.pretrained.checkpoints import Checkpoint, open_checkpoint

FORMATS = ("v1", "v2")


def read_all(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    return {name: checkpoint.read(name) for name, v in checkpoint.variables.items() if v.type != "string"}


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    assert found.tobytes() == expected.tobytes()


def expected_values(folder: Path, name: str) -> dict[str, np.ndarray]:
    with np.load(folder / f"{name}.npz") as file:
        return {key.replace("|", "/"): file[key] for key in file.files}


def assert_reads_as_tensorflow(folder: Path, version: str) -> None:
    name = f"small_{version}.ckpt"
    # What TensorFlow's reader cannot get out of a V1 file is in the V2 file too.
    expected = {**expected_values(folder, "small_v2.ckpt"), **expected_values(folder, name)}
    with open_checkpoint(folder / name) as checkpoint:
        described = {key: [list(v.shape), v.type] for key, v in checkpoint.variables.items()}
        assert described == json.loads((folder / f"{name}.json").read_text())
        values = read_all(checkpoint)
    assert values.keys() == expected.keys() >= {"rows", "columns", "net/half", "global_step", "net/plain/Adam"}
    for key, value in values.items():
        assert_same(value, expected[key])
        assert not value.flags.writeable
