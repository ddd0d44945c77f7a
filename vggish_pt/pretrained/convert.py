"""Conversion of a checkpoint to a model folder.

TensorFlow stores convolution kernels as (height, width, in, out) and matrices as (in, out), torch as
(out, in, height, width) and (out, in). The network flattens (height, width, channels) as TensorFlow does, so a
conversion only permutes axes.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vggish_pt.errors import CheckpointError, OutputError
from vggish_pt.nn.config import MAX_FC_WIDTH, VGGishConfig
from vggish_pt.pretrained.checkpoints import Checkpoint, open_checkpoint
from vggish_pt.pretrained.folder import PCA_SHAPES, WEIGHTS_NAME, tensor_shapes, weights_digest, write_model
from vggish_pt.utils.npy import NpyReader
from vggish_pt.utils.text import error_reason, joined_lines
from vggish_pt.version import __version__

Array = npt.NDArray[Any]

# For each layer: its scope in Google's graph, and its position in the two torch.nn.Sequential of the other ports.
_LAYERS = {
    "conv1": ("vggish/conv1", "features", 0),
    "conv2": ("vggish/conv2", "features", 3),
    "conv3_1": ("vggish/conv3/conv3_1", "features", 6),
    "conv3_2": ("vggish/conv3/conv3_2", "features", 8),
    "conv4_1": ("vggish/conv4/conv4_1", "features", 11),
    "conv4_2": ("vggish/conv4/conv4_2", "features", 13),
    "fc1": ("vggish/fc1/fc1_1", "embeddings", 0),
    "fc2": ("vggish/fc1/fc1_2", "embeddings", 2),
    "embedding": ("vggish/fc2", "embeddings", 4),
}
_TORCHAUDIO = {"features": "features_network", "embeddings": "embedding_network"}

# Names of the PCA parameters in Google's file and in torchvggish's models.
_PCA_NAMES = {
    "postprocess.eigen_vectors": ("pca_eigen_vectors", "pproc.pca_eigen_vectors", "pproc.pca_matrix"),
    "postprocess.means": ("pca_means", "pproc.pca_means"),
}
_MAX_PCA_BYTES = 1 << 20

# Permutation from TensorFlow's axes to torch's, by the number of axes.
_AXES = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}
_FLOATS = ("float16", "float32", "float64")
_BLOCK = 1 << 20
# Side of a tile in transpositions, so small that source and destination rows stay in the processor's cache.
_TILE = 128


@dataclass(frozen=True)
class ConversionReport:
    """Result of a conversion.

    Attributes:
        folder: the model folder.
        format: format of the checkpoint: "tensorflow-v1", "tensorflow-v2", "torchvggish" or "torchaudio".
        config: the model's configuration; its ``source`` records the inputs and their digests.
        taken: name of the variable that each tensor was converted from, by the name of the tensor.
        slots: ignored variables that belong to a converted one: slots of an optimizer, moving averages.
        ignored: all other variables that were ignored.
        sha256: digest of the written ``model.safetensors``.
        size: size of the written ``model.safetensors`` in bytes.
    """

    folder: Path
    format: str
    config: VGGishConfig
    taken: dict[str, str]
    slots: tuple[str, ...]
    ignored: tuple[str, ...]
    sha256: str
    size: int

    @property
    def has_pca(self) -> bool:
        """True if the model has PCA parameters."""
        return self.taken.keys() >= PCA_SHAPES.keys()


def convert(
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    pca: str | os.PathLike[str] | None = None,
    final_relu: bool = False,
    name: str | None = None,
    license: str | None = None,
    overwrite: bool = False,
) -> ConversionReport:
    """Convert a checkpoint to a model folder. TensorFlow is not needed, and torch only for torch's checkpoints.

    Args:
        checkpoint: TensorFlow V1 file, TensorFlow V2 prefix, or the weights of torchvggish or torchaudio.
        out: the model folder to write.
        pca: PCA parameters: ``vggish_pca_params.npz`` or torchvggish's ``.pth``, converted to float64. None takes
            those in the checkpoint, if it has any.
        final_relu: ``final_relu`` of the model's configuration (see :class:`vggish_pt.nn.config.VGGishConfig`). The
            weights are the same in both modes.
        name: name of the weights, for records; None: the checkpoint's file name.
        license: SPDX expression of the weights' licence; None: "unknown".
        overwrite: whether to write into a folder that is not empty.

    Returns:
        A report of converted and ignored variables.

    Raises:
        CheckpointError: an input is missing, damaged, or no VGGish; the message names the file and the variable.
        OutputError: the folder is not empty, or cannot be written.
    """
    out = Path(out)
    _check_output(out, overwrite)
    with open_checkpoint(checkpoint) as source, ThreadPoolExecutor() as pool:
        files = [*source.files, Path(pca)] if pca is not None else list(source.files)
        digests = pool.map(_describe_file, files)
        format, names = _names(source)
        fc_width = _fc_width(source, names)
        shapes = tensor_shapes(VGGishConfig(fc_width=fc_width))
        _check(source, names, shapes)
        pca_tensors, pca_names = _take_pca(source) if pca is None else read_pca(pca)
        tensors = {tensor: _take(source, names[tensor]) for tensor in shapes}
        record = {"format": format, "files": list(digests), "converted_by": f"vggish_pt {__version__}"}
        variables = tuple(source.variables)
    config = VGGishConfig(final_relu, fc_width, name or Path(checkpoint).name, license or "unknown", record)
    write_model(out, config, tensors | pca_tensors)
    taken = set(names.values()) | (set() if pca is not None else set(pca_names.values()))
    rest = [variable for variable in variables if variable not in taken]
    slots = tuple(variable for variable in rest if any(variable.startswith(t + "/") for t in taken))
    return ConversionReport(
        folder=out,
        format=format,
        config=config,
        taken=names | pca_names,
        slots=slots,
        ignored=tuple(sorted(set(rest) - set(slots))),
        sha256=weights_digest(out),
        size=(out / WEIGHTS_NAME).stat().st_size,
    )


def read_pca(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, str]]:
    """Read PCA parameters.

    Args:
        path: ``vggish_pca_params.npz``, or torchvggish's ``.pth`` file.

    Returns:
        ``postprocess.eigen_vectors`` (128, 128) and ``postprocess.means`` (128,), float64; and their names in the file.

    Raises:
        CheckpointError: the file is missing or damaged, or holds something else.
    """
    path = Path(path)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if any(member.endswith(".npy") for member in archive.namelist()):
                    names = {tensor: known[0] for tensor, known in _PCA_NAMES.items()}
                    return {tensor: _read_npy(archive, names[tensor], PCA_SHAPES[tensor]) for tensor in names}, names
    except (OSError, EOFError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        reason = joined_lines(error)
        raise CheckpointError(f"{path}: cannot be read as PCA parameters ({reason}); download it again") from None
    with open_checkpoint(path) as source:
        tensors, names = _take_pca(source)
    if not tensors:
        raise CheckpointError(f"{path}: has no PCA parameters (pca_eigen_vectors and pca_means)")
    return tensors, names


def _check_output(out: Path, overwrite: bool) -> None:
    try:
        folder, exists = out.is_dir(), out.exists()
        empty = not folder or next(out.iterdir(), None) is None
    except (OSError, ValueError) as error:
        raise OutputError(f"{out}: cannot be used as the model folder ({error_reason(error)})") from None
    if exists and not folder:
        raise OutputError(f"{out}: exists and is not a folder; choose another name")
    if not empty and not overwrite:
        raise OutputError(f"{out}: the folder is not empty; choose another, or overwrite it (--overwrite)")


def _names(source: Checkpoint) -> tuple[str, dict[str, str]]:
    """Return the checkpoint's format, and the name of the variable that holds each tensor of the network."""
    kinds = {"weight": "weights", "bias": "biases"}
    if source.format != "torch":
        return source.format, {
            f"network.{layer}.{kind}": f"{scope}/{kinds[kind]}"
            for layer, (scope, _, _) in _LAYERS.items()
            for kind in kinds
        }
    torchaudio = any(name.startswith(tuple(_TORCHAUDIO.values())) for name in source.variables)
    return "torchaudio" if torchaudio else "torchvggish", {
        f"network.{layer}.{kind}": f"{_TORCHAUDIO[part] if torchaudio else part}.{index}.{kind}"
        for layer, (_, part, index) in _LAYERS.items()
        for kind in kinds
    }


def _fc_width(source: Checkpoint, names: dict[str, str]) -> int:
    if missing := [name for name in names.values() if name not in source.variables]:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise CheckpointError(f"{source.path}: is no VGGish: has no variable {', '.join(missing[:3])}{more}")
    bias = source.variables[names["network.fc1.bias"]]
    if len(bias.shape) != 1 or not 1 <= bias.shape[0] <= MAX_FC_WIDTH:
        raise CheckpointError(f"{source.path}: variable {bias.name} has shape {bias.shape}, which no VGGish has")
    return bias.shape[0]


def _check(source: Checkpoint, names: dict[str, str], shapes: dict[str, tuple[int, ...]]) -> None:
    for tensor, name in names.items():
        variable, expected = source.variables[name], shapes[tensor]
        if source.format != "torch":
            expected = tuple(expected[axis] for axis in np.argsort(_AXES[len(expected)]))
        if variable.shape != expected:
            raise CheckpointError(
                f"{source.path}: variable {name} has shape {variable.shape} where a VGGish has {expected}"
            )
        if variable.type not in _FLOATS:
            raise CheckpointError(f"{source.path}: variable {name} is of type {variable.type}, not float")


def _take(source: Checkpoint, name: str) -> Array:
    """Return a variable as a contiguous array in the network's layout."""
    array = source.read(name)
    if source.format == "torch":
        return array
    if array.ndim != 2:
        return np.array(array.transpose(_AXES[array.ndim]), order="C")
    transposed = np.empty(array.shape[::-1], array.dtype)
    for row in range(0, array.shape[0], _TILE):
        for column in range(0, array.shape[1], _TILE):
            tile = array[row : row + _TILE, column : column + _TILE]
            transposed[column : column + _TILE, row : row + _TILE] = tile.T
    return transposed


def _take_pca(source: Checkpoint) -> tuple[dict[str, Array], dict[str, str]]:
    names = {tensor: name for tensor, known in _PCA_NAMES.items() for name in known if name in source.variables}
    if names and names.keys() != _PCA_NAMES.keys():
        raise CheckpointError(f"{source.path}: has {', '.join(names.values())} without the other PCA parameter")
    tensors = {}
    for tensor, name in names.items():
        shape = PCA_SHAPES[tensor]
        # torchvggish stores the means as a column.
        if source.variables[name].shape not in (shape, (*shape, 1)):
            raise CheckpointError(f"{source.path}: {name} has shape {source.variables[name].shape}, not {shape}")
        tensors[tensor] = source.read(name).reshape(shape).astype(np.float64)
    return tensors, names


def _read_npy(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...]) -> Array:
    with archive.open(f"{name}.npy") as file:
        reader = NpyReader(file)
        if reader.shape != shape or reader.dtype.kind != "f":
            raise ValueError(f"{name} is {reader.dtype} of shape {reader.shape}, not floating point of shape {shape}")
        return reader.whole(_MAX_PCA_BYTES, column_major=True).astype(np.float64)


def _describe_file(path: Path) -> dict[str, Any]:
    # MD5 is known of Google's files; SHA-256 cannot be forged.
    digests = {"md5": hashlib.md5(usedforsecurity=False), "sha256": hashlib.sha256()}
    size = 0
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                size += len(block)
                for digest in digests.values():
                    digest.update(block)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error_reason(error)})") from None
    return {"name": path.name, "bytes": size, **{name: digest.hexdigest() for name, digest in digests.items()}}
