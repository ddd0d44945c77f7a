"""Conversion: every layout gives the same model, every fault an error that names it, and nothing is left half done."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_writer as w
import torch
from typer.testing import CliRunner

from vggish_pt.cli.main import app
from vggish_pt.errors import CheckpointError, OutputError
from vggish_pt.nn.network import Network
from vggish_pt.pretrained.convert import convert, read_pca
from vggish_pt.pretrained.folder import read_model
from vggish_pt.version import __version__

WIDTH = 5
SHAPES = {
    "vggish/conv1": (3, 3, 1, 64),
    "vggish/conv2": (3, 3, 64, 128),
    "vggish/conv3/conv3_1": (3, 3, 128, 256),
    "vggish/conv3/conv3_2": (3, 3, 256, 256),
    "vggish/conv4/conv4_1": (3, 3, 256, 512),
    "vggish/conv4/conv4_2": (3, 3, 512, 512),
    "vggish/fc1/fc1_1": (12288, WIDTH),
    "vggish/fc1/fc1_2": (WIDTH, WIDTH),
    "vggish/fc2": (WIDTH, 128),
}
PORT_PLACES = [("features", i) for i in (0, 3, 6, 8, 11, 13)] + [("embeddings", i) for i in (0, 2, 4)]


@pytest.fixture(scope="module")
def variables() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    values = {}
    for scope, shape in SHAPES.items():
        values[f"{scope}/weights"] = random.standard_normal(shape, dtype=np.float32)
        values[f"{scope}/biases"] = random.standard_normal(shape[-1:], dtype=np.float32)
    return values


@pytest.fixture(scope="module")
def v1(variables: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return w.write_v1(tmp_path_factory.mktemp("v1") / "model.ckpt", variables)


@pytest.fixture(scope="module")
def pca() -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    return {"pca_eigen_vectors": random.standard_normal((128, 128)), "pca_means": random.standard_normal(128)}


def in_torch_layout(array: np.ndarray) -> np.ndarray:
    """Written index by index, unlike the conversion."""
    if array.ndim == 4:
        return np.einsum("hwio->oihw", array)
    return np.einsum("io->oi", array) if array.ndim == 2 else array


def state_dict(variables: dict[str, np.ndarray], names: dict[str, str] | None = None) -> dict[str, torch.Tensor]:
    state = {}
    for (part, place), scope in zip(PORT_PLACES, SHAPES, strict=True):
        part = (names or {}).get(part, part)
        for kind, ending in (("weight", "weights"), ("bias", "biases")):
            array = np.ascontiguousarray(in_torch_layout(variables[f"{scope}/{ending}"]))
            state[f"{part}.{place}.{kind}"] = torch.from_numpy(array)
    return state


def assert_model(folder: Path, variables: dict[str, np.ndarray]) -> None:
    config, tensors = read_model(folder)
    network = Network(config.fc_width, config.final_relu)
    layers = {scope.rsplit("/", 1)[-1]: scope for scope in SHAPES} | {"fc2": "vggish/fc1/fc1_2"}
    layers |= {"fc1": "vggish/fc1/fc1_1", "embedding": "vggish/fc2"}
    for name in network.state_dict():
        layer, kind = name.split(".")
        expected = in_torch_layout(variables[f"{layers[layer]}/{'weights' if kind == 'weight' else 'biases'}"])
        assert tensors[f"network.{name}"].numpy().tobytes() == expected.tobytes()
    network.load_state_dict({n.removeprefix("network."): t for n, t in tensors.items() if n.startswith("network.")})


@pytest.mark.parametrize("layout", ["v1", "v1 snappy", "v2", "v2 sliced", "torchvggish", "legacy", "torchaudio"])
def test_every_layout_gives_the_same_model(layout: str, variables: dict[str, np.ndarray], tmp_path: Path) -> None:
    path = tmp_path / "weights"
    if layout.startswith("v1"):
        w.write_v1(path, variables, snappy="snappy" in layout)
    elif layout.startswith("v2"):
        parts = {"vggish/fc1/fc1_1/weights": 5, "vggish/conv2/weights": 2} if "sliced" in layout else {}
        w.write_v2(path, variables, parts=parts, shards=2)
    else:
        audio = {"features": "features_network", "embeddings": "embedding_network"}
        state = state_dict(variables, audio if layout == "torchaudio" else None)
        torch.save(state, path, _use_new_zipfile_serialization=layout != "legacy")
    report = convert(path, tmp_path / "out")
    assert_model(tmp_path / "out", variables)
    kind = {"v1": "tensorflow-v1", "v2": "tensorflow-v2"}.get(layout[:2])
    assert report.format == kind or (layout, report.format) in {
        ("torchvggish", "torchvggish"),
        ("legacy", "torchvggish"),
        ("torchaudio", "torchaudio"),
    }
    assert len(report.taken) == 18
    assert not report.has_pca
    assert report.slots == report.ignored == ()
    assert report.config.fc_width == WIDTH
    assert report.sha256 == hashlib.sha256((tmp_path / "out" / "model.safetensors").read_bytes()).hexdigest()


def test_the_record(v1: Path, pca: dict[str, np.ndarray], tmp_path: Path) -> None:
    np.savez(tmp_path / "pca.npz", **pca)
    convert(v1, tmp_path / "out", pca=tmp_path / "pca.npz", final_relu=True, name="mine", license="CC-BY-4.0")
    config, tensors = read_model(tmp_path / "out")
    assert (config.final_relu, config.name, config.license) == (True, "mine", "CC-BY-4.0")
    assert config.source["format"] == "tensorflow-v1"
    assert config.source["converted_by"] == f"vggish_pt {__version__}"
    assert config.source["files"] == [
        {
            "name": path.name,
            "bytes": path.stat().st_size,
            "md5": hashlib.md5(path.read_bytes()).hexdigest(),
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in (v1, tmp_path / "pca.npz")
    ]
    for name in ("eigen_vectors", "means"):
        found = tensors[f"postprocess.{name}"].numpy()
        assert found.dtype == np.float64
        assert np.array_equal(found, pca[f"pca_{name}"])


def test_others_are_ignored_and_counted(variables: dict[str, np.ndarray], tmp_path: Path) -> None:
    more = {
        "vggish/conv1/weights/Adam": np.ones((3, 3, 1, 64), np.float32),
        "vggish/fc2/biases/Momentum": np.ones(128, np.float32),
        "beta1_power": np.float32(0.9).reshape(()),
        "global_step": np.array(7, np.int64),
        "mymodel/logits/weights": np.ones((128, 2), np.float32),
    }
    report = convert(w.write_v1(tmp_path / "m.ckpt", variables | more), tmp_path / "out")
    assert set(report.slots) == {"vggish/conv1/weights/Adam", "vggish/fc2/biases/Momentum"}
    assert report.ignored == ("beta1_power", "global_step", "mymodel/logits/weights")
    assert_model(tmp_path / "out", variables)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_float_types_are_kept(dtype: Any, variables: dict[str, np.ndarray], tmp_path: Path) -> None:
    cast = {name: value.astype(dtype) for name, value in variables.items()}
    convert(w.write_v2(tmp_path / "m.ckpt", cast), tmp_path / "out")
    assert_model(tmp_path / "out", cast)


def changed(variables: dict[str, np.ndarray], **changes: np.ndarray | None) -> dict[str, np.ndarray]:
    out = dict(variables)
    for name, value in changes.items():
        name = "vggish/" + name.replace("__", "/")
        if value is None:
            del out[name]
        else:
            out[name] = value
    return out


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"conv3__conv3_1__weights": None}, "vggish/conv3/conv3_1/weights"),
        ({"fc1__fc1_1__biases": None}, "vggish/fc1/fc1_1/biases"),
        ({"conv1__weights": np.ones((3, 3, 2, 64), np.float32)}, "vggish/conv1/weights"),
        ({"fc1__fc1_2__weights": np.ones((WIDTH, WIDTH + 1), np.float32)}, "vggish/fc1/fc1_2/weights"),
        ({"fc1__fc1_1__biases": np.ones((WIDTH, 1), np.float32)}, "vggish/fc1/fc1_1/biases"),
        ({"fc1__fc1_1__biases": np.ones(0, np.float32)}, "vggish/fc1/fc1_1/biases"),
        ({"fc2__biases": np.ones(128, np.int64)}, "vggish/fc2/biases"),
        ({"conv4__conv4_2__biases": np.ones(512, np.bool_)}, "vggish/conv4/conv4_2/biases"),
    ],
)
def test_missing_and_misshapen(
    changes: dict[str, Any], named: str, variables: dict[str, np.ndarray], tmp_path: Path
) -> None:
    path = w.write_v2(tmp_path / "m.ckpt", changed(variables, **changes))
    with pytest.raises(CheckpointError, match=named) as caught:
        convert(path, tmp_path / "out")
    assert str(path) in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_another_network(tmp_path: Path) -> None:
    path = w.write_v1(tmp_path / "m.ckpt", {"dense/kernel": np.ones((2, 2), np.float32)})
    with pytest.raises(CheckpointError, match=r"no VGGish.*vggish/conv1/weights.*and 15 more"):
        convert(path, tmp_path / "out")
    torch.save({"conv.weight": torch.ones(2)}, tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match=r"no VGGish.*features\.0\.weight"):
        convert(tmp_path / "m.pth", tmp_path / "out")


def test_damage_found_midway_leaves_nothing(variables: dict[str, np.ndarray], tmp_path: Path) -> None:
    path = w.write_v2(tmp_path / "m.ckpt", variables)
    data = tmp_path / "m.ckpt.data-00000-of-00001"
    raw = bytearray(data.read_bytes())
    raw[-1] ^= 1
    data.write_bytes(raw)
    with pytest.raises(CheckpointError, match="vggish/fc2/biases: its checksum"):
        convert(path, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.ckpt.data-00000-of-00001", "m.ckpt.index"]


def test_output_folder(v1: Path, variables: dict[str, np.ndarray], tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    convert(v1, out)
    (out / "notes.txt").write_text("kept")
    before = (out / "model.safetensors").stat().st_ino
    with pytest.raises(OutputError, match="not empty"):
        convert(v1, out)
    assert (out / "model.safetensors").stat().st_ino == before
    convert(v1, out, overwrite=True, name="second")
    assert (out / "notes.txt").read_text() == "kept"
    assert json.loads((out / "config.json").read_text())["name"] == "second"
    assert_model(out, variables)
    with pytest.raises(OutputError, match="not a folder"):
        convert(v1, out / "notes.txt", overwrite=True)
    with pytest.raises(OutputError):
        convert(v1, out / "notes.txt" / "below")


def test_full_disk(v1: Path, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    code = (
        "import resource, sys; from vggish_pt.pretrained.convert import convert\n"
        "from vggish_pt.errors import OutputError\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, {resource.RLIM_INFINITY}))\n"
        "try: convert(sys.argv[1], sys.argv[2])\n"
        "except OutputError as error: print(error)"
    )
    command = [sys.executable, "-c", code, str(v1), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "out") in done.stdout
    assert list(tmp_path.iterdir()) == []


# PCA parameters


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def npy(header: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()


GOOD = {"pca_eigen_vectors": np.eye(128), "pca_means": np.zeros(128)}
HUGE = npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776, 128)}\n")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>",
        npz(**GOOD)[:-30],
        npz(pca_means=np.zeros(128)),
        npz(**GOOD | {"pca_means": np.zeros(127)}),
        npz(**GOOD | {"pca_eigen_vectors": np.eye(128, dtype=np.int64)}),
        npz(**GOOD | {"pca_means": np.array([None] * 128, dtype=object)}),
        npz(**GOOD | {"pca_means": np.array(["x"] * 128)}),
        zipped({"pca_eigen_vectors.npy": b"\0" * (64 << 20), "pca_means.npy": b""}),
        zipped({"pca_eigen_vectors.npy": HUGE, "pca_means.npy": HUGE}),
        zipped({"pca_eigen_vectors.npy": npy("{'descr': __import__('os')}\n"), "pca_means.npy": b"x"}),
        zipped({"other.npy": b""}),
        zipped({"other.txt": b""}),
    ],
    ids=[
        "empty",
        "page",
        "cut",
        "half",
        "misshapen",
        "integer",
        "object",
        "string",
        "bomb",
        "huge",
        "code",
        "other",
        "zip",
    ],
)
def test_bad_pca(content: bytes, v1: Path, tmp_path: Path) -> None:
    path = tmp_path / "pca.npz"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"pca\.npz") as caught:
        convert(v1, tmp_path / "out", pca=path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_pca_in_column_major_order(pca: dict[str, np.ndarray], tmp_path: Path) -> None:
    np.savez(tmp_path / "pca.npz", **{name: np.asfortranarray(value) for name, value in pca.items()})
    tensors, _ = read_pca(tmp_path / "pca.npz")
    assert all(np.array_equal(tensors[f"postprocess.{name[4:]}"], value) for name, value in pca.items())


def test_mutated_pca(pca: dict[str, np.ndarray], tmp_path: Path) -> None:
    good = npz(**pca)
    random = np.random.default_rng(5)
    path = tmp_path / "pca.npz"
    errors = 0
    for _ in range(200):
        bad = bytearray(good)
        # Half of them where the structure is rather than the numbers.
        at = int(random.integers(len(bad))) if random.random() < 0.5 else -int(random.integers(1, 250))
        bad[at] ^= 1 << int(random.integers(8))
        path.write_bytes(bad)
        try:
            tensors, _ = read_pca(path)
            assert all(np.array_equal(tensors[f"postprocess.{n[4:]}"], value) for n, value in pca.items())
        except CheckpointError:
            errors += 1
    assert errors > 100


def test_pca_of_torchvggish(
    v1: Path, variables: dict[str, np.ndarray], pca: dict[str, np.ndarray], tmp_path: Path
) -> None:
    tensors = {name: torch.from_numpy(value) for name, value in pca.items()}
    torch.save(tensors, tmp_path / "tensors.pth")
    torch.save(pca, tmp_path / "arrays.pth", _use_new_zipfile_serialization=False)
    own = {"pproc.pca_eigen_vectors": tensors["pca_eigen_vectors"], "pproc.pca_means": tensors["pca_means"][:, None]}
    torch.save(state_dict(variables) | own, tmp_path / "whole.pth")
    convert(v1, tmp_path / "a", pca=tmp_path / "tensors.pth")
    convert(v1, tmp_path / "b", pca=tmp_path / "arrays.pth")
    report = convert(tmp_path / "whole.pth", tmp_path / "c")
    assert report.has_pca
    assert report.ignored == ()
    for folder in "abc":
        _, found = read_model(tmp_path / folder)
        assert np.array_equal(found["postprocess.eigen_vectors"].numpy(), pca["pca_eigen_vectors"])
        assert np.array_equal(found["postprocess.means"].numpy(), pca["pca_means"])
    torch.save(state_dict(variables) | {"pproc.pca_means": torch.ones(128, 1)}, tmp_path / "half.pth")
    with pytest.raises(CheckpointError, match="without the other"):
        convert(tmp_path / "half.pth", tmp_path / "d")
    torch.save({"x": torch.ones(1)}, tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match="no PCA parameters"):
        convert(v1, tmp_path / "d", pca=tmp_path / "none.pth")


# Command line


def test_command(v1: Path, pca: dict[str, np.ndarray], tmp_path: Path) -> None:
    np.savez(tmp_path / "pca.npz", **pca)
    arguments = ["convert", str(v1), "--pca", str(tmp_path / "pca.npz"), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*arguments, "--final-relu", "--name", "mine", "--license", "MIT"])
    assert done.exit_code == 0, done.output
    digest = hashlib.sha256((tmp_path / "out" / "model.safetensors").read_bytes()).hexdigest()
    for part in ("tensorflow-v1", "20 taken", "with PCA", "0 slots", digest):
        assert part in done.output
    config, _ = read_model(tmp_path / "out")
    assert (config.final_relu, config.name, config.license) == (True, "mine", "MIT")
    assert isinstance(CliRunner().invoke(app, arguments).exception, OutputError)
    assert CliRunner().invoke(app, [*arguments, "--overwrite"]).exit_code == 0
    missing = CliRunner().invoke(app, ["convert", str(tmp_path / "none.ckpt"), "--out", str(tmp_path / "no")])
    assert isinstance(missing.exception, CheckpointError)


MEASURED = """
import sys
from pathlib import Path
from vggish_pt.pretrained.convert import convert
convert(sys.argv[1], sys.argv[2], pca=sys.argv[3] or None)
assert not {"torch", "tensorflow"} & sys.modules.keys()
status = Path("/proc/self/status")
lines = status.read_text().splitlines() if status.exists() else ["VmHWM: 0 kB"]
print(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
"""


def convert_in_process(checkpoint: Path, out: Path, pca: Path | str = "") -> int:
    """Converts where neither torch nor TensorFlow may be imported; returns the peak of memory in KiB."""
    command = [sys.executable, "-c", MEASURED, str(checkpoint), str(out), str(pca)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_needs_neither_torch_nor_tensorflow(v1: Path, variables: dict[str, np.ndarray], tmp_path: Path) -> None:
    convert_in_process(v1, tmp_path / "out")
    assert_model(tmp_path / "out", variables)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_golden(
    version: str,
    golden: dict[str, dict[str, np.ndarray]],
    golden_dir: Path,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    checkpoint: Path = request.getfixturevalue(f"golden_{version}")
    peak = convert_in_process(checkpoint, tmp_path / "out", golden_dir / "vggish_pca_params.npz")
    assert peak < 1_000_000
    config, tensors = read_model(tmp_path / "out")
    assert config.fc_width == 4096
    pca = config.source["files"][-1]
    assert (pca["name"], pca["md5"]) == ("vggish_pca_params.npz", "c80cae691033abe7c7ecd11ea39fc834")
    network = Network()
    network.load_state_dict({n.removeprefix("network."): t for n, t in tensors.items() if n.startswith("network.")})
    cases = [case for case in golden.values() if len(case["log_mel"])]
    examples = torch.from_numpy(np.concatenate([case["log_mel"] for case in cases]))
    expected = np.concatenate([case["embedding"] for case in cases])
    with torch.inference_mode():
        found = torch.cat([network(block) for block in examples.split(16)]).numpy()
    assert np.abs(found - expected).max() < 5e-5
