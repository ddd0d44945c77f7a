"""Model folder: ``config.json`` and ``model.safetensors``.

Reading never unpickles. The header of the tensors is compared with the file and the configuration before anything is
allocated. Tensors have the names of :meth:`vggish_pt.VGGish.state_dict`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vggish_pt import constants as c
from vggish_pt.errors import CheckpointError, OutputError
from vggish_pt.nn.config import VGGishConfig
from vggish_pt.utils.json_file import read_text
from vggish_pt.utils.text import error_reason

if TYPE_CHECKING:
    import torch

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
CARD_NAME = "README.md"

_MAX_CONFIG_BYTES = 1 << 20
_DTYPES = ("F16", "BF16", "F32", "F64")


def tensor_shapes(config: VGGishConfig) -> dict[str, tuple[int, ...]]:
    """Return name and shape of all tensors of the network, without PCA parameters, which a model may lack."""
    channels = {"conv1": (64, 1), "conv2": (128, 64), "conv3_1": (256, 128), "conv3_2": (256, 256)}
    channels |= {"conv4_1": (512, 256), "conv4_2": (512, 512)}
    shapes: dict[str, tuple[int, ...]] = {name: (*pair, 3, 3) for name, pair in channels.items()}
    width = config.fc_width
    flat = (c.EXAMPLE_FRAMES // 16) * (c.MEL_BANDS // 16) * 512
    shapes |= {"fc1": (width, flat), "fc2": (width, width), "embedding": (c.EMBEDDING_SIZE, width)}
    return {
        f"network.{layer}.{kind}": shape if kind == "weight" else shape[:1]
        for layer, shape in shapes.items()
        for kind in ("weight", "bias")
    }


PCA_SHAPES: dict[str, tuple[int, ...]] = {
    "postprocess.eigen_vectors": (c.EMBEDDING_SIZE, c.EMBEDDING_SIZE),
    "postprocess.means": (c.EMBEDDING_SIZE,),
}


def check_shapes(shapes: Mapping[str, tuple[int, ...]], config: VGGishConfig, *, origin: str) -> None:
    """Check that tensors are exactly those of a VGGish, with or without PCA parameters.

    Raises:
        CheckpointError: tensors are missing, unknown or of another shape; the message names them.
    """
    expected = tensor_shapes(config)
    if any(name in shapes for name in PCA_SHAPES):
        expected |= PCA_SHAPES
    if missing := sorted(expected.keys() - shapes.keys()):
        raise CheckpointError(f"{origin}: tensors are missing: {', '.join(missing)}; this is no complete VGGish model")
    if unknown := sorted(shapes.keys() - expected.keys()):
        raise CheckpointError(f"{origin}: unknown tensors: {', '.join(unknown[:5])}; this is no VGGish model")
    compare_shapes(shapes, expected, origin=origin)


def compare_shapes(
    shapes: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], *, origin: str
) -> None:
    """Check that tensors have the expected shapes.

    Raises:
        CheckpointError: a tensor has another shape; the message names the first.
    """
    for name, shape in expected.items():
        if tuple(shapes[name]) != shape:
            raise CheckpointError(
                f"{origin}: tensor {name} has shape {tuple(shapes[name])}, but {CONFIG_NAME} asks for {shape}"
            )


def read_config(folder: Path) -> VGGishConfig:
    """Read the configuration of a model folder.

    Raises:
        CheckpointError: the folder is no model folder, or damaged.
    """
    path = folder / CONFIG_NAME
    try:
        text = read_text(path, max_bytes=_MAX_CONFIG_BYTES)
    except OSError as error:
        raise CheckpointError(
            f"{folder}: not a model folder ({CONFIG_NAME}: {error_reason(error)}); a model folder holds "
            f"{CONFIG_NAME} and {WEIGHTS_NAME}; save_pretrained and 'vggish-pt convert' write them"
        ) from None
    return VGGishConfig.from_json(text, origin=str(path))


def read_model(folder: Path) -> tuple[VGGishConfig, dict[str, torch.Tensor]]:
    """Read a model folder.

    Args:
        folder: holds ``config.json`` and ``model.safetensors``.

    Returns:
        The configuration and the tensors as stored (float16, bfloat16, float32 or float64), memory-mapped.

    Raises:
        CheckpointError: a file is missing or damaged, or does not match the configuration.
    """
    from safetensors import SafetensorError

    config = read_config(folder)
    path = folder / WEIGHTS_NAME
    origin = str(path)
    try:
        return config, read_tensors(path, lambda shapes: check_shapes(shapes, config, origin=origin))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{origin}: cannot be read ({error}); download or convert the model again") from None


def read_tensors(path: Path, check: Callable[[Mapping[str, tuple[int, ...]]], None]) -> dict[str, torch.Tensor]:
    """Read a safetensors file of unknown origin.

    Args:
        path: the file.
        check: called with the shapes in the header before any tensor is made.

    Returns:
        The tensors as stored, memory-mapped.

    Raises:
        CheckpointError: ``check`` raised it, or a tensor is not of a float type.
        SafetensorError: the file is no safetensors file.
        OSError: the file cannot be read.
    """
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        # safe_open compares the header with the size of the file.
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        check({name: tuple(s.get_shape()) for name, s in slices.items()})
        for name, tensor in slices.items():
            if tensor.get_dtype() not in _DTYPES:
                raise CheckpointError(f"{path}: tensor {name} has type {tensor.get_dtype()}, not a float type")
        return {name: file.get_tensor(name) for name in slices}


def weights_digest(folder: Path) -> str:
    """Return the SHA-256 of a model folder's weights in hexadecimal digits, as outputs record it.

    Raises:
        CheckpointError: the file cannot be read.
    """
    try:
        with (folder / WEIGHTS_NAME).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{folder / WEIGHTS_NAME}: cannot be read ({error_reason(error)})") from None


def write_model(
    folder: Path,
    config: VGGishConfig,
    tensors: Mapping[str, np.ndarray[Any, Any]],
    *,
    card: str | None = None,
) -> None:
    """Write a model folder, whole or not at all.

    Args:
        folder: the folder, created if it does not exist. An existing model in it is replaced.
        config: the configuration.
        tensors: float16, float32 or float64 arrays by name.
        card: text of ``README.md``; None keeps an existing one.

    Raises:
        CheckpointError: the tensors do not match the configuration.
        OutputError: the folder cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    check_shapes({name: array.shape for name, array in tensors.items()}, config, origin=str(folder))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _sibling(folder) as staging:
            save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, staging / WEIGHTS_NAME)
            (staging / CONFIG_NAME).write_text(config.to_json(), encoding="utf-8")
            if card is not None:
                (staging / CARD_NAME).write_text(card, encoding="utf-8")
            for file in staging.iterdir():
                file.chmod(0o644)
            if folder.is_dir() and any(folder.iterdir()):
                # Weights first. If the process ends before the configuration is replaced, the reader finds any
                # difference of shapes.
                for name in (WEIGHTS_NAME, CONFIG_NAME, CARD_NAME):
                    if (staging / name).exists():
                        (staging / name).replace(folder / name)
            else:
                staging.chmod(0o755)
                staging.replace(folder)
    except (OSError, SafetensorError) as error:
        # safetensors raises SafetensorError for a full disk.
        raise OutputError(f"{folder}: cannot write the model there ({error_reason(error)})") from error


@contextlib.contextmanager
def _sibling(path: Path) -> Iterator[Path]:
    """Make a temporary folder next to ``path``, on the same file system; remove it afterwards if it still exists."""
    made = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    try:
        yield made
    finally:
        if os.path.lexists(made):
            shutil.rmtree(made, ignore_errors=True)
