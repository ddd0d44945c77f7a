"""Contents of a dataset folder, and the inputs that a run still has to embed.

Nothing is embedded twice: an input is done if its key is in the footer of a part, or if it is in the list of failures.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vggish_pt.dataset.outputs.failures import ERRORS_NAME, NO_INPUT, OLD_ERRORS_NAME, errors_name, read_failures
from vggish_pt.dataset.outputs.lock import LOCK_NAME
from vggish_pt.dataset.outputs.parquet import stored_columns
from vggish_pt.dataset.outputs.part import KEY, Part, part_number, read_part
from vggish_pt.dataset.outputs.record import RUN_NAME, column_types, differences, read_record
from vggish_pt.dataset.outputs.store import FolderStore
from vggish_pt.dataset.schema import Failure, Schema
from vggish_pt.errors import OutputError, SettingsError

if TYPE_CHECKING:
    from vggish_pt.audio.clip import Clip

_READERS = 8  # threads that read footers
_OWN_NAMES = (ERRORS_NAME, OLD_ERRORS_NAME, RUN_NAME, LOCK_NAME)


class Inputs(Protocol):
    """Inputs of a run. They can be iterated repeatedly, always in the same order."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Clip]: ...


class Pending:
    """Inputs that are not embedded yet, in their order; can be iterated repeatedly."""

    def __init__(self, items: Inputs, pending: NDArray[np.bool_]) -> None:
        self._items, self._pending = items, pending

    def __len__(self) -> int:
        return int(np.count_nonzero(self._pending))

    def __iter__(self) -> Iterator[Clip]:
        return (item for item, pending in zip(self._items, self._pending.tolist(), strict=True) if pending)


@dataclass
class FolderContents:
    """Contents of a dataset folder.

    Attributes:
        record: the contents of ``_run.json``; None if there is none.
        parts: the footers of the parts.
        failures: inputs that failed, by key.
        unmatched: names that matched no input.
        next_part: number of the next part.
        old_list: True if there is a list of failures under the name that earlier versions gave it.
    """

    record: dict[str, Any] | None = None
    parts: list[Part] = field(default_factory=list)
    failures: dict[bytes, Failure] = field(default_factory=dict)
    unmatched: list[Failure] = field(default_factory=list)
    next_part: int = 0
    old_list: bool = False

    def part_keys(self) -> NDArray[Any]:
        """Return the keys of all inputs in parts, of type ``S16``."""
        return np.concatenate([np.zeros(0, KEY), *(part.keys for part in self.parts)])


def check_folder(store: FolderStore) -> None:
    """Check that a folder is empty or a dataset folder.

    Raises:
        OutputError: it contains other files, or cannot be read.
    """
    names = store.names()
    if RUN_NAME not in names and (others := [name for name in names if not _is_own(name)]):
        raise OutputError(f"{store.name}: a folder with other things in it ({others[0]}); choose another output")


def _is_own(name: str) -> bool:
    return name in _OWN_NAMES or part_number(name) is not None or (name.startswith(".") and name.endswith(".tmp"))


def remove_contents(store: FolderStore) -> None:
    """Remove parts, list of failures and record; other files stay.

    Raises:
        OutputError: a file cannot be removed.
    """
    for name in store.names():
        if name != LOCK_NAME and (name in _OWN_NAMES or part_number(name) is not None):
            store.remove(name)


def read_contents(store: FolderStore, schema: Schema) -> FolderContents:
    """Read a dataset folder.

    Args:
        store: the folder.
        schema: the schema of this run's rows.

    Raises:
        OutputError: a file is damaged or was not written by this package, or two parts contain the same input.
        SettingsError: the folder was written with different settings.
    """
    names = store.names()
    contents = FolderContents()
    if RUN_NAME in names:
        with store.open(RUN_NAME) as file:
            contents.record = read_record(file.read(), store.name)
    part_names = [name for name in names if part_number(name) is not None]

    def read(name: str) -> Part:
        with store.open(name) as file:
            return read_part(file, name, store.name)

    with ThreadPoolExecutor(_READERS) as pool:
        contents.parts = list(pool.map(read, part_names))
    contents.next_part = 1 + max((part_number(name) or 0 for name in part_names), default=-1)
    _check_settings(contents, schema, store.name)
    _check_parts(contents, store.name)
    contents.old_list = OLD_ERRORS_NAME in names
    if (list_name := errors_name(names)) is not None:
        with store.open(list_name) as file:
            for key, failure in read_failures(file, f"{store.name.rstrip('/')}/{list_name}"):
                if key == NO_INPUT:
                    contents.unmatched.append(failure)
                else:
                    contents.failures[key] = failure
    return contents


def _check_settings(contents: FolderContents, schema: Schema, name: str) -> None:
    # Parquet changes some types, such as the names of list items: parts have the changed types, the record has not.
    now = {**schema.metadata, "columns": column_types(schema.columns)}
    in_parquet = {**now, "columns": column_types(stored_columns(schema.columns))}
    compared = [({**part.metadata, "columns": part.columns}, in_parquet) for part in contents.parts]
    for written, new in [*compared, *([(contents.record, now)] if contents.record else [])]:
        if different := differences(written, new):
            raise SettingsError(
                f"{name}: was written with different settings: {'; '.join(different)}; use the same settings, choose "
                "another output, or start again (--overwrite)"
            )


def _check_parts(contents: FolderContents, name: str) -> None:
    keys = contents.part_keys()
    if len(np.unique(keys)) == len(keys):
        return
    seen: dict[bytes, str] = {}
    for part in contents.parts:
        for key in part.keys.tolist():
            if key in seen:
                raise OutputError(f"{name}: {seen[key]} and {part.name} hold the same input; remove one of them")
            seen[key] = part.name


def select_pending(contents: FolderContents, items: Inputs, *, retry_errors: bool) -> tuple[NDArray[np.bool_], int]:
    """Select the inputs that are in no part and in no failure, and update the failures of the folder.

    Args:
        contents: contents of the folder. Failures of inputs that are in a part are removed.
        items: all inputs.
        retry_errors: True removes the failures of these inputs too, so that they are embedded again.

    Returns:
        (inputs,) True for each input to embed; and the number of inputs that repeat an earlier one.
    """
    keys = np.fromiter((item.key for item in items), KEY, len(items))
    first = np.zeros(len(keys), np.bool_)
    first[np.unique(keys, return_index=True)[1]] = True
    done = contents.part_keys()
    failed = np.array(list(contents.failures), KEY)
    for key in failed[np.isin(failed, done)].tolist():  # a part takes precedence over the list of failures
        del contents.failures[_padded(key)]
    if retry_errors:
        for key in keys.tolist():
            contents.failures.pop(_padded(key), None)
    pending = first & ~np.isin(keys, done) & ~np.isin(keys, np.array(list(contents.failures), KEY))
    return pending, int(len(keys) - np.count_nonzero(first))


def _padded(key: bytes) -> bytes:
    return key.ljust(KEY.itemsize, b"\0")  # NumPy drops zeros at the end of a key
