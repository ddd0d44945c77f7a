"""Base class of all checkpoint formats: named variables that can be read one at a time."""

from __future__ import annotations

import contextlib
import mmap
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy.typing as npt

from vggish_pt.errors import CheckpointError
from vggish_pt.utils.text import error_reason

Array = npt.NDArray[Any]

MAX_VARIABLES = 100_000
"""Largest number of variables in a checkpoint; a file that lists more is damaged or hostile."""


@dataclass(frozen=True)
class Variable:
    """Description of a variable in the header of a checkpoint.

    Attributes:
        name: name in the checkpoint.
        shape: shape according to the header; it is compared with the data when the variable is read.
        type: name of the type: NumPy's ("float32"), or the checkpoint's if NumPy has no such type ("string").
    """

    name: str
    shape: tuple[int, ...]
    type: str


class Checkpoint(ABC):
    """Open checkpoint, a context manager that reads variables by name.

    Opening reads only the descriptions of the variables. Each variable is verified when it is read.

    Attributes:
        path: path of the checkpoint as given.
        format: name of the format, such as "tensorflow-v1".
        files: all files of the checkpoint.
        variables: descriptions of the variables, by name.
    """

    format: str

    def __init__(self, path: Path, files: tuple[Path, ...], variables: Mapping[str, Variable]) -> None:
        self.path = path
        self.files = files
        self.variables = variables
        self._closed = False

    def read(self, name: str) -> Array:
        """Read one variable and verify its checksum, if the format has one.

        Args:
            name: a key of :attr:`variables`.

        Returns:
            A read-only array of the variable's shape and type, in native byte order. It may be an
            unaligned view of the mapped file, which stays mapped as long as the view exists; ``np.array`` copies it.

        Raises:
            CheckpointError: the variable is unknown or damaged, or its type cannot be read.
        """
        if self._closed:
            raise CheckpointError(f"{self.path}: the checkpoint has been closed; open it again to read {name}")
        if name not in self.variables:
            raise CheckpointError(f"{self.path}: has no variable {name}")
        with naming(self.path, f"variable {name}"):
            array = self._read(self.variables[name])
        if not array.dtype.isnative:
            array = array.astype(array.dtype.newbyteorder("="))
        array.flags.writeable = False
        return array

    @abstractmethod
    def _read(self, variable: Variable) -> Array: ...

    def close(self) -> None:
        """Close the files. Arrays that were read before stay valid."""
        if not self._closed:
            self._closed = True
            self._release()

    @abstractmethod
    def _release(self) -> None: ...

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextlib.contextmanager
def naming(path: Path, part: str | None = None) -> Iterator[None]:
    """Prefix the message of a CheckpointError with the path of the file and the name of the part of it."""
    try:
        yield
    except CheckpointError as error:
        where = f"{path}: {part}" if part else str(path)
        raise CheckpointError(f"{where}: {error} (if the file should be whole, download it again)") from None


def map_file(path: Path) -> memoryview:
    """Map a file into memory, read-only; it stays mapped as long as a view of it exists.

    Raises:
        CheckpointError: the file is missing, empty, unreadable or no regular file.
    """
    try:
        if path.exists() and not path.is_file():
            raise CheckpointError(f"{path}: not a file")
        with path.open("rb") as file:
            if not file.seek(0, 2):
                raise CheckpointError(f"{path}: the file is empty")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:
        # ValueError: a path with a zero byte.
        raise CheckpointError(f"{path}: cannot be read ({error_reason(error)})") from None
