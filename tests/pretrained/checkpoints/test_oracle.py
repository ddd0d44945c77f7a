"""Against TensorFlow itself, where it is installed: what it writes and reads, and what the tests' own writer writes."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_writer as w
from tensorflow_small import FORMATS, assert_reads_as_tensorflow

from vggish_pt.pretrained.checkpoints import open_checkpoint

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed"),
]

READ = """
import sys
import numpy as np
import tensorflow as tf
reader = tf.train.load_checkpoint(sys.argv[1])
np.savez(sys.argv[2], **{n.replace("/", "|"): reader.get_tensor(n) for n in reader.get_variable_to_shape_map()})
"""


def run(*arguments: str | Path) -> None:
    # In a process of its own: TensorFlow and torch do not always get on in one.
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


def read_with_tensorflow(checkpoint: Path, out: Path) -> dict[str, np.ndarray]:
    run("-c", READ, checkpoint, out)
    with np.load(out) as file:
        return {name.replace("|", "/"): file[name] for name in file.files}


def assert_agree(checkpoint: Path, expected: dict[str, np.ndarray]) -> None:
    with open_checkpoint(checkpoint) as ours:
        assert ours.variables.keys() == expected.keys()
        for name, value in expected.items():
            found = ours.read(name)
            assert (found.dtype, found.shape) == (value.dtype, value.shape)
            assert found.tobytes() == value.tobytes()


def test_what_tensorflow_writes_now(tmp_path: Path) -> None:
    run(Path(__file__).with_name("write_with_tensorflow.py"), tmp_path)
    for version in FORMATS:
        assert_reads_as_tensorflow(tmp_path, version)


@pytest.mark.parametrize("snappy", [False, True], ids=["plain", "snappy"])
def test_tensorflow_reads_what_the_tests_write(snappy: bool, tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    variables = {f"scope/{i}": random.standard_normal((i + 1, 300)).astype(np.float32) for i in range(12)}
    first = w.write_v1(tmp_path / "one.ckpt", variables, snappy=snappy)
    second = w.write_v2(tmp_path / "two.ckpt", variables, parts={"scope/9": 3, "scope/4": 2}, snappy=snappy, shards=3)
    for path in (first, second):
        values = read_with_tensorflow(path, tmp_path / "values.npz")
        assert values.keys() == variables.keys()
        assert all(np.array_equal(values[name], variables[name]) for name in variables)
        assert_agree(path, values)


@pytest.mark.parametrize("version", FORMATS)
def test_golden(version: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    checkpoint: Path = request.getfixturevalue(f"golden_{version}")
    assert_agree(checkpoint, read_with_tensorflow(checkpoint, tmp_path / "values.npz"))
