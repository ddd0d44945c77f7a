"""Reader of other PyTorch ports' weights: state dicts that ``torch.save`` wrote.

torch's restricted unpickler (``weights_only``) reads them. It builds tensors and containers and calls nothing else. The
stand-ins below build NumPy arrays, which torchvggish's PCA parameters may be.
"""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from vggish_pt.errors import CheckpointError
from vggish_pt.pretrained.checkpoints.base import Array, Checkpoint, Variable
from vggish_pt.utils.text import first_line

ZIP_MAGIC = b"PK\x03\x04"
LEGACY_MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e"
"""First bytes of a file that torch before 1.6 wrote: its pickled magic number. Such files have no checksums."""

_FLOATS = ("float16", "float32", "float64")


class StateDict(Checkpoint):
    """State dict in a file of torch.

    Args:
        path: the file.

    Raises:
        CheckpointError: the file is missing or damaged, or holds more than tensors.
    """

    format = "torch"

    def __init__(self, path: Path) -> None:
        loaded = _load(path)
        if not isinstance(loaded, dict) or not all(isinstance(key, str) for key in loaded):
            raise CheckpointError(f"{path}: holds no state dict (a mapping from names to tensors)")
        self._tensors: dict[str, Any] = loaded
        super().__init__(path, (path,), {name: _describe(name, value) for name, value in loaded.items()})

    def _read(self, variable: Variable) -> Array:
        if variable.type not in _FLOATS:
            raise CheckpointError(f"is of type {variable.type}, which is no float type")
        value = self._tensors[variable.name]
        if isinstance(value, _PickledArray):
            return value.array
        # With strides of 0, a large tensor can have a small storage.
        if not value.is_contiguous():
            raise CheckpointError("is not contiguous")
        array: Array = value.detach().numpy()
        return array

    def _release(self) -> None:
        del self._tensors


def _describe(name: str, value: Any) -> Variable:
    import torch

    if isinstance(value, _PickledArray):
        return Variable(name, value.array.shape, value.array.dtype.name)
    if isinstance(value, torch.Tensor) and value.layout == torch.strided and value.device.type == "cpu":
        return Variable(name, tuple(value.shape), str(value.dtype).removeprefix("torch."))
    return Variable(name, (), type(value).__name__)


def _load(path: Path) -> Any:
    import torch

    try:
        with path.open("rb") as file:
            zipped = file.read(len(ZIP_MAGIC)) == ZIP_MAGIC
        if zipped:
            _check_zip(path)
        with torch.serialization.safe_globals(_STAND_INS):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except CheckpointError:
        raise
    except Exception as error:
        # torch raises errors of many types for damaged files: UnpicklingError, RuntimeError, KeyError, EOFError, ...
        reason = first_line(error)
        raise CheckpointError(f"{path}: cannot be loaded as a PyTorch file of weights ({reason})") from None


def _check_zip(path: Path) -> None:
    # torch does not compress members. A compressed member is foreign and could unpack to any size.
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if any(m.compress_type != zipfile.ZIP_STORED for m in members) or sum(m.file_size for m in members) > size:
            raise CheckpointError(f"{path}: has compressed members, which torch does not write")
        # torch does not verify the checksums of mapped members.
        if damaged := archive.testzip():
            raise CheckpointError(f"{path}: the checksum of {damaged} does not match; download the file again")


class _PickledDType:
    """Stand-in for ``numpy.dtype`` during unpickling."""

    def __init__(self, name: str, *_: Any) -> None:
        self.name = str(name)
        self.order = "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = str(state[1])


class _PickledArray:
    """Stand-in for ``numpy.ndarray`` during unpickling; accepts floating-point arrays only."""

    array: Array

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, _PickledDType) or dtype.name not in ("f2", "f4", "f8") or not isinstance(data, bytes):
            raise ValueError("holds a NumPy array of a type other than float")
        kind = np.dtype(dtype.name).newbyteorder(">" if dtype.order == ">" else "<")
        if any(size < 0 for size in shape) or math.prod(shape) * kind.itemsize != len(data):
            raise ValueError("holds a NumPy array whose size does not match its shape")
        stored = np.frombuffer(data, kind).reshape(shape, order="F" if fortran else "C")
        self.array = stored.astype(kind.newbyteorder("="), order="C")


def _reconstruct(*_: Any) -> _PickledArray:
    made = _PickledArray()
    made.array = np.empty(0, np.float32)
    return made


def _reconstruct_since_numpy_2(*_: Any) -> _PickledArray:
    return _reconstruct()


def _named(stand_in: Any, name: str) -> Any:
    # torch looks up the objects that a file may call by module and name.
    stand_in.__module__, stand_in.__name__ = name.rsplit(".", 1)
    stand_in.__qualname__ = stand_in.__name__
    return stand_in


_STAND_INS = [
    _named(_PickledDType, "numpy.dtype"),
    _named(_PickledArray, "numpy.ndarray"),
    _named(_reconstruct, "numpy.core.multiarray._reconstruct"),
    _named(_reconstruct_since_numpy_2, "numpy._core.multiarray._reconstruct"),
]
