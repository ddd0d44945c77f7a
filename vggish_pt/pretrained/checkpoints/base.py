"""What all checkpoint formats have in common: named variables that can be read one at a time."""

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

Array = npt.NDArray[Any]

MAX_VARIABLES = 100_000
"""More variables than this are taken for a sign of a damaged or hostile file."""


@dataclass(frozen=True)
class Variable:
    """A variable of a checkpoint, as its header describes it.

    Attributes:
        name: its name in the checkpoint.
        shape: its shape; the header's word, which reading checks against the data.
        type: the name of its type: NumPy's where NumPy has it ("float32"), else the checkpoint's ("string").
    """

    name: str
    shape: tuple[int, ...]
    type: str


class Checkpoint(ABC):
    """An open checkpoint: a context manager that gives variables by name.

    Opening reads only what describes the variables. Each variable is verified when it is read.

    Attributes:
        path: the checkpoint, as it was given.
        format: what wrote it, such as "tensorflow-v1".
        files: the files it consists of.
        variables: name → description.
    """

    format: str

    def __init__(self, path: Path, files: tuple[Path, ...], variables: Mapping[str, Variable]) -> None:
        self.path = path
        self.files = files
        self.variables = variables
        self._closed = False

    def read(self, name: str) -> Array:
        """Reads one variable and verifies its checksum, if the format has one.

        Args:
            name: a key of :attr:`variables`.

        Returns:
            A read-only array of the variable's shape and type, in native byte order. It may be a view of the mapped
            file, which it keeps mapped, and need not be aligned; ``np.array`` makes an ordinary copy.

        Raises:
            CheckpointError: there is no such variable, its data are damaged, or its type cannot be read.
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
        """Lets go of the files. Arrays read before stay valid."""
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
def naming(path: Path, what: str | None = None) -> Iterator[None]:
    """Puts the file's name, and what in it, before the message of a CheckpointError that has neither."""
    try:
        yield
    except CheckpointError as error:
        where = f"{path}: {what}" if what else str(path)
        raise CheckpointError(f"{where}: {error} (fetch the file again if it should be whole)") from None


def map_file(path: Path) -> memoryview:
    """Maps a file into memory, read-only, for as long as a view of it lives.

    Raises:
        CheckpointError: missing, empty, no regular file, or unreadable.
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
        raise CheckpointError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
