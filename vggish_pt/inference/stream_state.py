"""Reader of a stream's saved state, whose numbers, strings and arrays may come from a damaged or foreign file."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any, TypeAlias
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from vggish_pt.errors import SettingsError

State: TypeAlias = Mapping[str, Any]
"""Numbers, strings and NumPy arrays by name. ``numpy.load`` returns numbers and strings as 0-dimensional arrays."""

_MAX_INTEGER = 1 << 62


class StateReader:
    """Read the items of a state, with checks.

    Args:
        state: a mapping, such as ``numpy.load`` returns.

    Raises:
        SettingsError: the state is not a mapping.
    """

    def __init__(self, state: State) -> None:
        if not isinstance(state, Mapping):
            raise SettingsError(f"a stream's state is a dict, as stream.state() gives it, not {type(state).__name__}")
        self._state = state

    def expect(self, name: str, value: int | str) -> None:
        """Check that an item has the value of the stream.

        Raises:
            SettingsError: the item has another value, or is missing.
        """
        found = self._item(name)
        if found.ndim or found.item() != value:
            text = repr(found.item()) if found.ndim == 0 else f"an array of shape {found.shape}"
            raise SettingsError(f"the stream's state has {name} {text:.100}, but the stream has {value!r}")

    def integer(self, name: str) -> int:
        """Return an item that is a whole number from 0.

        Raises:
            SettingsError: the item is something else, or missing.
        """
        found = self._item(name)
        if found.ndim or found.dtype.kind not in "iu" or not 0 <= found.item() < _MAX_INTEGER:
            raise SettingsError(f"the stream's state has no whole number from 0 as {name}; it is damaged")
        return int(found.item())

    def array(self, name: str, dtype: type[np.floating[Any]], dimensions: int = 1) -> NDArray[Any]:
        """Return an item that is an array of finite numbers.

        Raises:
            SettingsError: the item has another type, is not finite, or is missing.
        """
        found = self._item(name)
        if found.dtype != dtype or found.ndim != dimensions or not np.isfinite(found).all():
            raise SettingsError(f"the stream's state has no finite {np.dtype(dtype)} array as {name}; it is damaged")
        return found

    def _item(self, name: str) -> NDArray[Any]:
        try:
            found = np.asarray(self._state[name])
        except (KeyError, ValueError, OSError, BadZipFile, zlib.error) as error:  # missing, or in a damaged file
            raise SettingsError(f"the stream's state has no {name} that can be read; it is damaged") from error
        if found.dtype.kind not in "iufU":
            raise SettingsError(f"the stream's state has a {name} that is no number, text or array of numbers")
        return found
