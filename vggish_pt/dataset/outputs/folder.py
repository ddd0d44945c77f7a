"""Dataset folder: parts, a list of failures and ``_run.json``. A run can stop at any moment and resume later.

A file gets its name when it is complete and on the disk. A part is written before the list of failures, and that before
``_run.json``. So at every moment an input is in at most one of parts and failures, and an input that is in neither is
embedded by the next run. The files themselves decide which inputs are done: see :mod:`vggish_pt.dataset.outputs.plan`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vggish_pt.dataset.outputs.failures import ERRORS_NAME, NO_INPUT, OLD_ERRORS_NAME, write_failures
from vggish_pt.dataset.outputs.part import KEY, Part, part_name, part_number, write_part
from vggish_pt.dataset.outputs.plan import (
    FolderContents,
    Inputs,
    Pending,
    check_folder,
    read_contents,
    remove_contents,
    select_pending,
)
from vggish_pt.dataset.outputs.record import RUN_NAME, RunRecord, Session
from vggish_pt.dataset.outputs.store import FolderStore
from vggish_pt.dataset.schema import Failure, Schema
from vggish_pt.errors import OutputError

if TYPE_CHECKING:
    from vggish_pt.dataset.outcomes import EmbeddedClip, Outcome

DEFAULT_CHECKPOINT = 60.0
_PART_BYTES = 1 << 26


class DatasetFolder:
    """A dataset folder that this run writes to; made by :func:`open_run`.

    Attributes:
        record: the contents of ``_run.json``.
        notes: lines for the user about the earlier runs.
    """

    def __init__(self, store: FolderStore, schema: Schema, session: Session, checkpoint: float) -> None:
        self._store, self._schema, self._session, self._checkpoint = store, schema, session, checkpoint
        self._lock = store.lock()
        self._contents = FolderContents()
        self._waiting: NDArray[np.bool_] = np.zeros(0, np.bool_)
        self._done: list[EmbeddedClip] = []
        self._failed: list[Failure] = []
        self._bytes = 0
        self._state: str | None = None
        self._begun = self._last = time.monotonic()
        self.record = RunRecord(schema)
        self.notes: list[str] = []

    @property
    def earlier_failures(self) -> list[Failure]:
        """Inputs that failed in earlier runs and are not embedded again."""
        return list(self._contents.failures.values())

    def open(self, *, overwrite: bool) -> None:
        """Lock the folder and read its contents.

        Raises:
            OutputError: another run writes to the folder, or it is damaged or not a dataset folder.
            SettingsError: the folder was written with different settings.
        """
        check_folder(self._store)
        self._store.create()
        self._lock.acquire()
        self._store.clean_up()
        if overwrite:
            remove_contents(self._store)
        self._contents = read_contents(self._store, self._schema)
        earlier = self._contents.record
        self._state = None if earlier is None else earlier.get("state")
        self.record = RunRecord(self._schema, earlier)
        before = self.record.last_versions()
        if before is not None:
            changed = {name: now for name, now in self._session.versions.items() if before.get(name) != now}
            self.notes += [f"{name} {now} now, {before.get(name)} in the run before" for name, now in changed.items()]
        self._count()

    def plan(
        self,
        items: Inputs,
        failures: Sequence[Failure] = (),
        *,
        duplicates: int = 0,
        skipped: int = 0,
        retry_errors: bool = False,
    ) -> Pending:
        """Select the inputs to embed: those in no part and, unless they are retried, in no failure.

        Args:
            items: all inputs, each with its position as ``index``.
            failures: names that match no input; they replace those of earlier runs.
            duplicates: number of inputs that were named more than once.
            skipped: number of files that are not audio.
            retry_errors: True embeds failed inputs again; they are removed from the list of failures first.

        Raises:
            OutputError: the folder cannot be written.
        """
        contents = self._contents
        self._waiting, repeated = select_pending(contents, items, retry_errors=retry_errors)
        unmatched_before, contents.unmatched = contents.unmatched, list(failures)
        self.record.counts.repeated = duplicates + repeated
        self.record.counts.passed_over = skipped
        self._count()
        pending = Pending(items, self._waiting.copy())
        if len(pending) or self._state != "complete" or unmatched_before != contents.unmatched:
            self._state = "running"
            self._write_record()
            if retry_errors:
                self._write_failures()
        if contents.old_list:
            self._write_failures()
        self._last = time.monotonic()
        return pending

    def add(self, outcome: Outcome) -> None:
        """Add the outcome of an input, and commit when there is enough, or when the checkpoint is due.

        A second outcome of the same input is ignored, as an engine may compute an input twice.

        Raises:
            OutputError: the folder cannot be written.
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
        """Write the outcomes that were added since the last commit.

        Raises:
            OutputError: the folder cannot be written; earlier commits stay.
        """
        if not self._done and not self._failed:
            return
        self._lock.check()
        if self._done:
            self._write_part()
        if self._failed:
            failures = {failure.item.key: failure for failure in self._failed if failure.item is not None}
            self._contents.failures.update(failures)
            self._session.errors += len(self._failed)
            self._failed = []
            self._write_failures()
        self._count()
        self._write_record(sample=True)
        self._last = time.monotonic()

    def finish(self) -> None:
        """Write the rest, and mark the folder as complete.

        Raises:
            OutputError: the folder cannot be written, or an input has no outcome.
        """
        self.commit()
        if lost := int(np.count_nonzero(self._waiting)):
            raise OutputError(f"{self._store.name}: {lost} inputs got no result; run the same command again")
        if self._state != "complete":
            self._lock.check()
            self._write_failures()
            self._state = "complete"
            self._write_record()

    def close(self) -> None:
        """Release the lock."""
        self._lock.release()

    def _count(self) -> None:
        counts, contents = self.record.counts, self._contents
        counts.files = sum(len(part.keys) for part in contents.parts)
        counts.windows = sum(part.windows for part in contents.parts)
        counts.seconds = sum(part.seconds for part in contents.parts)
        counts.errors = len(contents.failures) + len(contents.unmatched)
        counts.inputs = counts.files + counts.errors + int(np.count_nonzero(self._waiting))

    def _write_part(self) -> None:
        done = sorted(self._done, key=lambda clip: clip.item.index)
        name = part_name(self._contents.next_part)
        self._store.write(name, lambda file: write_part(file, self._schema, done), new=True)
        self._contents.next_part += 1
        keys = np.array([clip.item.key for clip in done], KEY)
        windows, seconds = sum(clip.windows for clip in done), sum(clip.duration for clip in done)
        self._contents.parts.append(Part(name, {}, {}, keys, windows, seconds))
        self._session.files += len(done)
        self._done, self._bytes = [], 0

    def _write_failures(self) -> None:
        contents = self._contents
        rows = [*contents.failures.items(), *((NO_INPUT, failure) for failure in contents.unmatched)]
        segments = any(field.name == "segment_start" for field in self._schema.extra)
        self._store.write(ERRORS_NAME, lambda file: write_failures(file, rows, segments=segments))
        if contents.old_list:
            self._store.remove(OLD_ERRORS_NAME)
            contents.old_list = False

    def _write_record(self, *, sample: bool = False) -> None:
        self._session.ended = time.time()
        self._session.elapsed = time.monotonic() - self._begun
        if sample:
            self.record.sample(self._session)
        data = self.record.text(self._session, complete=self._state == "complete").encode()
        self._store.write(RUN_NAME, lambda file: file.write(data))


@contextlib.contextmanager
def open_run(
    store: FolderStore,
    schema: Schema,
    session: Session,
    *,
    overwrite: bool = False,
    checkpoint: float = DEFAULT_CHECKPOINT,
) -> Iterator[DatasetFolder]:
    """Open a dataset folder for writing. When the block ends, also by an exception, added outcomes are committed.

    Args:
        store: the folder; created if it does not exist.
        schema: the schema of the rows.
        session: this run, for the record.
        overwrite: True removes the contents that earlier runs wrote, and nothing else.
        checkpoint: seconds between two commits.

    Raises:
        OutputError: another run writes to the folder, or it is damaged, not a dataset folder, or cannot be written.
        SettingsError: the folder was written with different settings.
    """
    folder = DatasetFolder(store, schema, session, checkpoint)
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
    """Write the list of failures of a run without any input. A folder that has contents is left unchanged.

    Raises:
        OutputError: the folder cannot be written, or contains other files.
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
        store.remove(OLD_ERRORS_NAME)
    finally:
        lock.release()
