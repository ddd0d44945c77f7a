"""Shared fixtures. Golden data and ESC-10 lie outside the project; tests that need them are skipped without them."""

from __future__ import annotations

import lzma
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# One process for each core, and one core for each process: torch would start threads for all cores in every process.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

REPOSITORY = Path(__file__).resolve().parent.parent

# A shell lets what it starts in the background ignore Ctrl-C; so would all processes that tests start and interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _shared(name: str, variable: str) -> Path:
    folder = Path(os.environ.get(variable, REPOSITORY.parent / "shared" / name))
    if not folder.is_dir():
        pytest.skip(f"no {name} data (set {variable} to its folder)")
    return folder


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Outputs of Google's own code."""
    return _shared("golden", "VGGISH_PT_GOLDEN")


@pytest.fixture(scope="session")
def esc10_dir() -> Path:
    """400 real recordings in ten folders."""
    return _shared("esc10", "VGGISH_PT_ESC10")


@pytest.fixture(scope="session")
def golden(golden_dir: Path) -> dict[str, dict[str, np.ndarray]]:
    """Case name → waveform, sample_rate, log_mel, embedding, postprocessed."""
    cases: dict[str, dict[str, np.ndarray]] = {}
    with np.load(golden_dir / "golden.npz", allow_pickle=False) as archive:
        for key in archive.files:
            case, field = key.split("/")
            cases.setdefault(case, {})[field] = archive[key]
    return cases


def _unpack(packed: Path, folder: Path) -> Path:
    unpacked = folder / packed.stem
    with lzma.open(packed) as source, unpacked.open("wb") as target:
        shutil.copyfileobj(source, target, 1 << 22)
    return unpacked


@pytest.fixture(scope="session")
def golden_v1(golden_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden weights as a TensorFlow V1 checkpoint."""
    return _unpack(golden_dir / "vggish_v1.ckpt.xz", tmp_path_factory.mktemp("golden_v1"))


@pytest.fixture(scope="session")
def golden_v2(golden_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden weights as a TensorFlow V2 checkpoint: the prefix of its files."""
    folder = tmp_path_factory.mktemp("golden_v2")
    shutil.copy(golden_dir / "vggish_v2.ckpt.index", folder)
    _unpack(golden_dir / "vggish_v2.ckpt.data-00000-of-00001.xz", folder)
    return folder / "vggish_v2.ckpt"


@pytest.fixture(scope="session")
def golden_folder(golden_v1: Path, golden_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden weights as a model folder."""
    from vggish_pt.pretrained.convert import convert

    folder = tmp_path_factory.mktemp("golden_model") / "model"
    convert(golden_v1, folder, pca=golden_dir / "vggish_pca_params.npz", name="golden")
    return folder


@pytest.fixture(scope="session")
def golden_model(golden_folder: Path) -> Any:
    """The golden weights, loaded."""
    from vggish_pt import VGGish

    return VGGish.from_pretrained(golden_folder)


@pytest.fixture(scope="session")
def small_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with random weights, narrow fully connected layers and PCA parameters."""
    import torch

    from vggish_pt import VGGish, VGGishConfig
    from vggish_pt.nn.postprocess import Postprocessor

    torch.manual_seed(7)
    model = VGGish(VGGishConfig(fc_width=16, name="small", license="Apache-2.0"))
    rotation, _ = torch.linalg.qr(torch.randn(128, 128, dtype=torch.float64))
    model.postprocess = Postprocessor(rotation * 30, torch.zeros(128))
    folder = tmp_path_factory.mktemp("small_model") / "model"
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def small_model(small_folder: Path) -> Any:
    """That model, loaded. Tests must not change it."""
    from vggish_pt import VGGish

    return VGGish.from_pretrained(small_folder)


@pytest.fixture(scope="session")
def classifier_folder(small_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Saves a classifier on that model with a random head; returns its folder."""
    import torch

    from vggish_pt import VGGish
    from vggish_pt.classify import HeadConfig, VGGishClassifier

    def make(labels: list[str], *, multilabel: bool = False, kind: Any = "linear", seed: int = 3) -> Path:
        torch.manual_seed(seed)
        head = HeadConfig(kind=kind, features="embedding", hidden=8)
        model = VGGishClassifier(VGGish.from_pretrained(small_folder), labels, multilabel=multilabel, head=head)
        with torch.no_grad():
            model.head.output.weight.mul_(20)  # scores that differ
        folder = tmp_path_factory.mktemp("classifier") / "run"
        model.save_pretrained(folder)
        return folder

    return make


@pytest.fixture
def rng() -> np.random.Generator:
    """Seeded randomness."""
    return np.random.default_rng(20)


RunCli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run_cli(tmp_path: Path) -> RunCli:
    """Runs ``vggish-pt`` as a process, in an empty folder unless told otherwise."""

    def run(*args: object, cwd: Path | None = None, env: dict[str, str] | None = None, **options: Any) -> Any:
        code = "import sys; sys.argv[0] = 'vggish-pt'; from vggish_pt.cli import main; main()"
        paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "COLUMNS": "200", **(env or {})}
        return subprocess.run(
            [sys.executable, "-c", code, *map(str, args)],
            cwd=cwd or tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            **options,
        )

    return run


@pytest.fixture(scope="session")
def _warm() -> Any:
    if not hasattr(os, "fork"):
        yield None
        return
    from warm import WarmCli

    cli = WarmCli()
    yield cli
    cli.close()


@pytest.fixture
def warm_cli(_warm: Any, run_cli: RunCli, tmp_path: Path) -> RunCli:
    """Like ``run_cli``, for commands that load torch: it is loaded once for all of them."""
    if _warm is None:
        return run_cli

    def run(*args: object, cwd: Path | None = None, **options: Any) -> Any:
        return _warm.run(*args, cwd=cwd or tmp_path, **options)

    return run
