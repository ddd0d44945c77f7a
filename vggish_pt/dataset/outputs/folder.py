"""A dataset folder that is being filled: parts, ``errors.parquet`` and ``_run.json``; a run can stop and go on.

Nothing has its name before it is whole and on the disk. A part comes before the list of errors, and that before
``_run.json``; so at every moment each input is in at most one of parts and errors, and an input that is in neither is
still to do. What is done is read from the files themselves: see :mod:`vggish_pt.dataset.outputs.part`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from vggish_pt.dataset.outputs.failures import ERRORS_NAME, NO_INPUT, read_failures, write_failures
from vggish_pt.dataset.outputs.lock import LOCK_NAME
from vggish_pt.dataset.outputs.part import KEY, Part, part_name, part_number, read_part, write_part
from vggish_pt.dataset.outputs.record import RUN_NAME, RunRecord, Session, column_types, differences, read_record
from vggish_pt.dataset.outputs.store import FolderStore
from vggish_pt.dataset.schema import Failure, Schema
from vggish_pt.errors import OutputError, SettingsError

if TYPE_CHECKING:
    from vggish_pt.audio.clip import Clip
    from vggish_pt.dataset.outcomes import EmbeddedClip, Outcome

DEFAULT_CHECKPOINT = 60.0
_PART_BYTES = 1 << 26
_OURS = (ERRORS_NAME, RUN_NAME, LOCK_NAME)


class Inputs(Protocol):
    """What a run is about; it can be iterated again and again, always in the same order."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Clip]: ...


class Pending:
    """The inputs that are still to do, in their order; it can be iterated again."""

    def __init__(self, items: Inputs, wanted: NDArray[np.bool_]) -> None:
        self._items, self._wanted = items, wanted

    def __len__(self) -> int:
        return int(np.count_nonzero(self._wanted))

    def __iter__(self) -> Iterator[Clip]:
        return (item for item, wanted in zip(self._items, self._wanted.tolist(), strict=True) if wanted)


def check_folder(store: FolderStore) -> None:
    """Makes sure that a folder is empty, or one of ours.

    Raises:
        OutputError: there are other things in it, or it cannot be read.
    """
    names = store.names()
    if RUN_NAME not in names and (others := [name for name in names if not _is_ours(name)]):
        raise OutputError(f"{store.name}: a folder with other things in it ({others[0]}); choose another output")


def _is_ours(name: str) -> bool:
    return name in _OURS or part_number(name) is not None or (name.startswith(".") and name.endswith(".tmp"))


class DatasetFolder:
    """A folder that this run may write to; made by :func:`open_run`.

    Attributes:
        record: what ``_run.json`` says.
        notes: what the user may want to know of the runs before.
    """

    def __init__(self, store: FolderStore, layout: Schema, session: Session, checkpoint: float) -> None:
        self._store, self._layout, self._session, self._checkpoint = store, layout, session, checkpoint
        self._lock = store.lock()
        self._parts: list[Part] = []
        self._errors: dict[bytes, Failure] = {}
        self._unnamed: list[Failure] = []
        self._waiting: NDArray[np.bool_] = np.zeros(0, np.bool_)
        self._done: list[EmbeddedClip] = []
        self._failed: list[Failure] = []
        self._bytes = 0
        self._next = 0
        self._state: str | None = None
        self._begun = self._last = time.monotonic()
        self.record = RunRecord(layout)
        self.notes: list[str] = []

    @property
    def failed_before(self) -> list[Failure]:
        """The inputs that failed in runs before, and are not to be tried again."""
        return list(self._errors.values())

    # What is there

    def open(self, *, overwrite: bool) -> None:
        """Locks the folder and reads what it holds.

        Raises:
            OutputError: another run writes there, or the folder is damaged or not ours.
            SettingsError: what it holds was made otherwise.
        """
        check_folder(self._store)
        self._store.create()
        self._lock.acquire()
        self._store.tidy()
        names = self._store.names()
        if overwrite:
            self._clear(names)
            names = []
        earlier = None
        if RUN_NAME in names:
            with self._store.open(RUN_NAME) as file:
                earlier = read_record(file.read(), self._store.name)
            self._state = earlier.get("state")
        parts = [name for name in names if part_number(name) is not None]
        with ThreadPoolExecutor(8) as pool:
            self._parts = list(pool.map(self._read_part, parts))
        self._next = 1 + max((part_number(name) or 0 for name in parts), default=-1)
        self._check_settings(earlier)
        self._check_parts()
        if ERRORS_NAME in names:
            with self._store.open(ERRORS_NAME) as file:
                for key, failure in read_failures(file, self._store.name):
                    if key == NO_INPUT:
                        self._unnamed.append(failure)
                    else:
                        self._errors[key] = failure
        self.record = RunRecord(self._layout, earlier)
        before = self.record.last_versions()
        if before is not None:
            changed = {name: now for name, now in self._session.versions.items() if before.get(name) != now}
            self.notes += [f"{name} {now} now, {before.get(name)} in the run before" for name, now in changed.items()]
        self._count()

    def _clear(self, names: Sequence[str]) -> None:
        for name in names:
            if name != LOCK_NAME and (name in _OURS or part_number(name) is not None):
                self._store.remove(name)

    def _read_part(self, name: str) -> Part:
        with self._store.open(name) as file:
            return read_part(file, name, self._store.name)

    def _check_settings(self, earlier: dict[str, object] | None) -> None:
        now = {**self._layout.metadata, "columns": column_types(self._layout)}
        there = [{**part.metadata, "columns": part.columns} for part in self._parts]
        for old in [*there, *([earlier] if earlier else [])]:
            if different := differences(old, now):
                raise SettingsError(
                    f"{self._store.name}: was made otherwise: {'; '.join(different)}; do as before, choose another "
                    "output, or start afresh (--overwrite)"
                )

    def _check_parts(self) -> None:
        keys = np.concatenate([np.zeros(0, KEY), *(part.keys for part in self._parts)])
        if len(np.unique(keys)) == len(keys):
            return
        seen: dict[bytes, str] = {}
        for part in self._parts:
            for key in part.keys.tolist():
                if key in seen:
                    raise OutputError(
                        f"{self._store.name}: {seen[key]} and {part.name} hold the same input; remove one of them"
                    )
                seen[key] = part.name

    # What is to do

    def plan(
        self,
        items: Inputs,
        failures: Sequence[Failure] = (),
        *,
        repeated: int = 0,
        passed_over: int = 0,
        retry_errors: bool = False,
    ) -> Pending:
        """What is to do: the inputs that are in no part and, unless they are to be tried again, in no error.

        Args:
            items: all inputs, each with its place as ``index``.
            failures: names that led to no input; they take the place of the earlier runs'.
            repeated: how many inputs were named again.
            passed_over: how many files were not taken for audio.
            retry_errors: whether to try again what failed; it is struck off the list first.

        Raises:
            OutputError: the folder cannot be written.
        """
        keys = np.fromiter((item.key for item in items), KEY, len(items))
        first = np.zeros(len(keys), np.bool_)
        first[np.unique(keys, return_index=True)[1]] = True
        done = np.concatenate([np.zeros(0, KEY), *(part.keys for part in self._parts)])
        undone = first & ~np.isin(keys, done)
        failed = np.array(list(self._errors), KEY)
        for key in failed[np.isin(failed, done)].tolist():  # a part says more than a list
            del self._errors[_full(key)]
        if retry_errors:
            for key in keys.tolist():
                self._errors.pop(_full(key), None)
        self._waiting = undone & ~np.isin(keys, np.array(list(self._errors), KEY))
        unnamed_before, self._unnamed = self._unnamed, list(failures)
        counts = self.record.counts
        counts.repeated = repeated + int(len(keys) - np.count_nonzero(first))
        counts.passed_over = passed_over
        self._count()
        pending = Pending(items, self._waiting.copy())
        if len(pending) or self._state != "complete" or unnamed_before != self._unnamed:
            self._state = "running"
            self._write_record()
            if retry_errors:
                self._write_errors()
        self._last = time.monotonic()
        return pending

    # What becomes of it

    def add(self, outcome: Outcome) -> None:
        """Takes what became of an input; writes when there is enough, or some time has gone by.

        An input that came before, as an engine may compute it twice, is passed over.

        Raises:
            OutputError: it cannot be written.
        """
        item = outcome.item
        if item is None or not self._waiting[item.index]:
            return
        self._waiting[item.index] = False
        if isinstance(outcome, Failure):
            self._failed.append(outcome)
        else:
            self._done.append(outcome)
            self._bytes += outcome.rows.embedding.nbytes
        if self._bytes >= _PART_BYTES or time.monotonic() - self._last >= self._checkpoint:
            self.commit()

    def commit(self) -> None:
        """Writes what has come since the last time.

        Raises:
            OutputError: it cannot be written; what was committed before stays.
        """
        if not self._done and not self._failed:
            return
        self._lock.check()
        if self._done:
            done = sorted(self._done, key=lambda each: each.item.index)
            name = part_name(self._next)
            self._store.write(name, lambda file: write_part(file, self._layout, done), new=True)
            self._next += 1
            keys = np.array([each.item.key for each in done], KEY)
            windows, seconds = sum(each.windows for each in done), sum(each.duration for each in done)
            self._parts.append(Part(name, {}, {}, keys, windows, seconds))
            self._session.files += len(done)
            self._done, self._bytes = [], 0
        if self._failed:
            self._errors.update({failure.item.key: failure for failure in self._failed if failure.item is not None})
            self._session.errors += len(self._failed)
            self._failed = []
            self._write_errors()
        self._count()
        self._write_record(sample=True)
        self._last = time.monotonic()

    def finish(self) -> None:
        """Writes what is left, and that the folder is complete.

        Raises:
            OutputError: it cannot be written, or inputs got no result.
        """
        self.commit()
        if lost := int(np.count_nonzero(self._waiting)):
            raise OutputError(f"{self._store.name}: {lost} inputs got no result; run the same command again")
        if self._state != "complete":
            self._lock.check()
            self._write_errors()
            self._state = "complete"
            self._write_record()

    def close(self) -> None:
        """Gives the folder free."""
        self._lock.release()

    def _count(self) -> None:
        counts = self.record.counts
        counts.files = sum(len(part.keys) for part in self._parts)
        counts.windows = sum(part.windows for part in self._parts)
        counts.seconds = sum(part.seconds for part in self._parts)
        counts.errors = len(self._errors) + len(self._unnamed)
        counts.inputs = counts.files + counts.errors + int(np.count_nonzero(self._waiting))

    def _write_errors(self) -> None:
        rows = [*self._errors.items(), *((NO_INPUT, failure) for failure in self._unnamed)]
        segments = any(field.name == "segment_start" for field in self._layout.extra)
        self._store.write(ERRORS_NAME, lambda file: write_failures(file, rows, segments=segments))

    def _write_record(self, *, sample: bool = False) -> None:
        self._session.ended = time.time()
        self._session.elapsed = time.monotonic() - self._begun
        if sample:
            self.record.sample(self._session)
        text = self.record.text(self._session, complete=self._state == "complete")
        self._store.write(RUN_NAME, lambda file: _put(file, text))


def _full(key: bytes) -> bytes:
    # NumPy drops zeros at the end of a text.
    return key.ljust(KEY.itemsize, b"\0")


def _put(file: object, text: str) -> None:
    file.write(text.encode())  # type: ignore[attr-defined]


@contextlib.contextmanager
def open_run(
    store: FolderStore,
    layout: Schema,
    session: Session,
    *,
    overwrite: bool = False,
    checkpoint: float = DEFAULT_CHECKPOINT,
) -> Iterator[DatasetFolder]:
    """Opens a dataset folder to fill it. Whatever ends the block, what was taken by then is written, if it can be.

    Args:
        store: the folder; made if it is not there.
        layout: what the rows are.
        session: of this run, for the record.
        overwrite: whether to remove first what runs before wrote there, and only that.
        checkpoint: seconds after which what has come is written.

    Raises:
        OutputError: another run writes there, or the folder is damaged, not ours, or cannot be written.
        SettingsError: what it holds was made otherwise.
    """
    folder = DatasetFolder(store, layout, session, checkpoint)
    try:
        folder.open(overwrite=overwrite)
        try:
            yield folder
        except OutputError:
            raise
        except BaseException:
            with contextlib.suppress(OutputError):
                folder.commit()
            raise
    finally:
        folder.close()


def write_folder_errors(store: FolderStore, failures: Sequence[Failure]) -> None:
    """Lists names of which none led to an input. A folder in which there is something already stays as it is.

    Raises:
        OutputError: the folder cannot be written, or there are other things in it.
    """
    check_folder(store)
    if any(name == RUN_NAME or part_number(name) is not None for name in store.names()):
        return
    store.create()
    lock = store.lock()
    lock.acquire()
    try:
        rows = [(NO_INPUT, failure) for failure in failures]
        store.write(ERRORS_NAME, lambda file: write_failures(file, rows, segments=False))
    finally:
        lock.release()
