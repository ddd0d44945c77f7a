"""State dicts of torch's, new and old, good and bad."""

from __future__ import annotations

import pickle
import random
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vggish_pt.errors import CheckpointError
from vggish_pt.pretrained.checkpoints import open_checkpoint


@pytest.fixture
def weights() -> OrderedDict[str, torch.Tensor]:
    torch.manual_seed(0)
    return OrderedDict(a=torch.randn(3, 4), b=torch.randn(5).half(), c=torch.randn(2, dtype=torch.float64))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_round_trip(weights: OrderedDict[str, torch.Tensor], zipped: bool, tmp_path: Path) -> None:
    parameters = {name: torch.nn.Parameter(tensor) for name, tensor in weights.items()}
    torch.save(
        {**parameters, "steps": torch.tensor(3), "epoch": 7, "brain": torch.ones(2).bfloat16()},
        tmp_path / "w.pth",
        _use_new_zipfile_serialization=zipped,
    )
    with open_checkpoint(tmp_path / "w.pth") as checkpoint:
        assert checkpoint.format == "torch"
        for name, tensor in weights.items():
            found = checkpoint.read(name)
            assert np.array_equal(found, tensor.numpy())
            assert found.dtype == tensor.numpy().dtype
            assert not found.flags.writeable
        for name, kind in (("steps", "int64"), ("epoch", "int"), ("brain", "bfloat16")):
            assert checkpoint.variables[name].type == kind
            with pytest.raises(CheckpointError, match=kind):
                checkpoint.read(name)
    with pytest.raises(CheckpointError, match="closed"):
        checkpoint.read("a")


@pytest.mark.parametrize("old_name", [False, True], ids=["numpy 2", "numpy 1"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_numpy_arrays(order: Any, old_name: bool, tmp_path: Path) -> None:
    # As torchvggish's PCA parameters may have been saved, long ago.
    expected = np.asarray(np.random.default_rng(0).standard_normal((4, 3)), order=order)
    path = tmp_path / "pca.pth"
    torch.save({"x": expected, "y": expected[0].astype(">f4")}, path, _use_new_zipfile_serialization=False)
    if old_name:
        path.write_bytes(path.read_bytes().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))
    with open_checkpoint(path) as checkpoint:
        assert np.array_equal(checkpoint.read("x"), expected)
        assert np.array_equal(checkpoint.read("y"), expected[0].astype(np.float32))
        assert checkpoint.variables["x"].shape == (4, 3)
        assert checkpoint.variables["x"].type == "float64"


class Malicious:
    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call[0], tuple(self.call[1:])


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_nothing_is_called(zipped: bool, tmp_path: Path) -> None:
    target = tmp_path / "made"
    bad = {"a": Malicious(Path.touch, target)}
    torch.save(bad, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"w\.pth"):
        open_checkpoint(tmp_path / "w.pth")
    assert not target.exists()


@pytest.mark.parametrize(
    "array",
    [np.array([None, "x"], dtype=object), np.array(["abc"]), np.arange(3), np.zeros(2, dtype=[("f", "f4")])],
    ids=["object", "string", "integer", "record"],
)
def test_numpy_arrays_of_other_types(array: np.ndarray, tmp_path: Path) -> None:
    torch.save({"x": array}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"w\.pth"):
        open_checkpoint(tmp_path / "w.pth")


def test_numpy_array_with_a_wrong_size(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"x": np.zeros((4, 3))}, path, _use_new_zipfile_serialization=False)
    # The shape (4, 3) in the pickle becomes (255, 3).
    changed = path.read_bytes().replace(b"K\x04K\x03\x86", b"K\xffK\x03\x86")
    assert changed != path.read_bytes()
    path.write_bytes(changed)
    with pytest.raises(CheckpointError, match="size"):
        open_checkpoint(path)


@pytest.mark.parametrize("content", [[1, 2], {1: torch.ones(1)}, torch.ones(3), None], ids=str)
def test_no_state_dict(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="no state dict"):
        open_checkpoint(tmp_path / "w.pth")


def test_expanded_tensor(tmp_path: Path) -> None:
    torch.save({"x": torch.ones(1).expand(1 << 40)}, tmp_path / "w.pth")
    with open_checkpoint(tmp_path / "w.pth") as checkpoint, pytest.raises(CheckpointError, match="contiguous"):
        checkpoint.read("x")


def test_compressed_members(weights: OrderedDict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save(weights, tmp_path / "w.pth")
    with (
        zipfile.ZipFile(tmp_path / "w.pth") as source,
        zipfile.ZipFile(tmp_path / "c.pth", "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for member in source.namelist():
            target.writestr(member, source.read(member))
    with pytest.raises(CheckpointError, match="compressed"):
        open_checkpoint(tmp_path / "c.pth")


def test_plain_pickles_and_zips_are_refused(tmp_path: Path) -> None:
    (tmp_path / "p.pth").write_bytes(pickle.dumps({"a": 1}, protocol=2))
    with zipfile.ZipFile(tmp_path / "z.pth", "w") as archive:
        archive.writestr("a.txt", "text")
    for name in ("p.pth", "z.pth"):
        with pytest.raises(CheckpointError, match=name):
            open_checkpoint(tmp_path / name)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_mutations(weights: OrderedDict[str, torch.Tensor], zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(weights, path, _use_new_zipfile_serialization=zipped)
    good = path.read_bytes()
    rng = random.Random(2)
    errors = 0
    for _ in range(250):
        bad = bytearray(good)
        at = rng.randrange(len(bad))
        if rng.random() < 0.3:
            del bad[at:]
        else:
            bad[at] ^= 1 << rng.randrange(8)
        path.write_bytes(bad)
        try:
            with open_checkpoint(path) as checkpoint:
                for name in weights.keys() & checkpoint.variables.keys():
                    found = checkpoint.read(name)
                    # The old format has no checksums; the new one's are verified.
                    assert not zipped or np.array_equal(found, weights[name].numpy())
        except CheckpointError as error:
            assert "w.pth" in str(error)
            assert "\n" not in str(error)
            errors += 1
    assert errors > 60
