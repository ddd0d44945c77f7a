"""Path and format of an output, and writing of a single file.

A file is written to a temporary folder next to its path and renamed when it is complete. An interrupted run leaves no
incomplete file, and an existing file stays until the new one is complete. Dataset folders are written by
:mod:`vggish_pt.dataset.outputs.folder`.
"""

from __future__ import annotations

import contextlib
import csv
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, get_args

from vggish_pt.dataset.outputs.failures import ERRORS_NAME
from vggish_pt.dataset.outputs.plan import check_folder
from vggish_pt.dataset.outputs.staging import exists, identity, locked, output_errors, staging_folder, sync
from vggish_pt.dataset.outputs.store import open_store
from vggish_pt.dataset.schema import Failure, Rows, Schema, Writer
from vggish_pt.errors import OutputError, SettingsError
from vggish_pt.utils.remote import is_address, redacted

Format = Literal["parquet", "npz", "npy", "tfrecord"]


def choose_format(out: str | Path, given: str | None = None) -> Format | None:
    """Return the format of an output; None for a folder of Parquet parts.

    Args:
        out: the output.
        given: the format; None takes it from the ending of ``out``.

    Raises:
        SettingsError: format or ending is unknown, they contradict each other, or a single file is at an address.
    """
    known: tuple[Format, ...] = get_args(Format)
    ending = Path(out).suffix.lower().lstrip(".")
    if given is not None:
        if given not in known:
            raise SettingsError(f"format must be one of {', '.join(known)}, not {given!r}")
        if ending in known and ending != given:
            raise SettingsError(f"{out}: the ending is not that of format {given!r}; change one of them")
    elif ending in known:
        given = ending
    elif ending and not is_address(str(out)):
        raise SettingsError(
            f"{out}: unknown ending .{ending}; use .parquet, .npz, .npy or .tfrecord, give a format, or no ending for "
            "a folder"
        )
    if given is not None and is_address(str(out)):
        raise SettingsError(
            f"{out}: at an address there can be a folder of parts, but no single file; leave the ending out"
        )
    return given


def errors_path(out: str | Path, fmt: Format | None) -> str:
    """Return the path of the list of failures: next to a file, or in a folder."""
    if fmt is None:
        return f"{redacted(str(out)).rstrip('/')}/{ERRORS_NAME}"
    return str(_errors_file(_resolved(Path(out))))


def _errors_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.errors.csv")


def _resolved(path: Path) -> Path:
    # Renaming a file to a link would replace the link, not its target.
    return path.resolve() if path.is_symlink() else path


def check_output(out: str | Path, fmt: Format | None, *, overwrite: bool = False) -> None:
    """Check, before any work is done, that an output can be written.

    Raises:
        OutputError: a file exists and may not be replaced, a folder contains other files, or there is no permission.
    """
    if is_address(str(out)):
        check_folder(open_store(str(out)))
        return
    path = Path(out)
    with output_errors(path):
        parent = path if fmt is None else path.parent
        while not exists(parent):
            parent = parent.parent
        if not parent.is_dir():
            if parent == path:
                raise OutputError(f"{path}: is a file, but an output without an ending is a folder; choose another")
            raise OutputError(f"{path}: cannot be written, as {parent} is a file, not a folder")
        if not os.access(parent, os.W_OK | os.X_OK):
            raise OutputError(f"{path}: cannot be written, as the folder {parent} may not be written to")
        if fmt is None:
            check_folder(open_store(str(out)))
            return
        if path.is_dir():
            raise OutputError(f"{path}: is a folder; name a file in it")
        if not overwrite and any(exists(file) for file in (path, *_companions(path, fmt))):
            raise OutputError(f"{path}: exists already; choose another output, or allow to overwrite it (--overwrite)")


def _companions(path: Path, fmt: Format) -> tuple[Path, ...]:
    from vggish_pt.dataset.outputs.numpy_files import npy_companions

    if fmt == "tfrecord":
        return (npy_companions(path)[1],)
    return npy_companions(path) if fmt == "npy" else ()


class Output:
    """A single file that is being written; made by :func:`open_output`."""

    def __init__(self, path: Path, fmt: Format, schema: Schema, staging: Path) -> None:
        self._path, self._staging = path, staging
        self._before = {file: identity(file) for file in (path, *_companions(path, fmt))}
        self._ready = staging / "ready"
        self._ready.mkdir()
        self._writer = _make_writer(self._ready, path.name, fmt, schema)
        self._rows = 0

    def write(self, rows: Rows) -> None:
        """Add the rows of one input.

        Raises:
            OutputError: the rows cannot be written.
        """
        with output_errors(self._path):
            self._writer.write(rows)
        self._rows += len(rows)

    def finish(self, failures: Sequence[Failure] = ()) -> None:
        """Complete the output, and rename it and the list of failures to their final names.

        Without any row only the list is written, and an existing output stays.

        Raises:
            OutputError: the files cannot be written, or another run has written them since this one began; existing
                files stay.
        """
        with output_errors(self._path):
            errors = _stage_errors(self._staging, failures)
            if self._rows:
                self._writer.complete()
                self._publish()
            _move_errors(errors, _errors_file(self._path))

    def _publish(self) -> None:
        folder = self._path.parent
        ready = sorted(self._ready.iterdir())
        for file in ready:
            sync(file)
        if any(identity(file) != before for file, before in self._before.items()):
            raise OutputError(f"{self._path}: another run has written it since this one began; choose another output")
        old = [folder / file.name for file in ready if exists(folder / file.name)]
        if len(ready) == 1:  # a single rename is atomic
            ready[0].replace(folder / ready[0].name)
            return
        replaced = self._staging / "replaced"
        replaced.mkdir()
        with contextlib.ExitStack() as undo:  # several files: all are replaced, or none
            for file in old:
                file.replace(replaced / file.name)
                undo.callback((replaced / file.name).replace, file)
            for file in ready:
                file.replace(folder / file.name)
                undo.callback((folder / file.name).replace, file)
            undo.pop_all()

    def close(self) -> None:
        """Close the files, complete or not."""
        self._writer.close()


@contextlib.contextmanager
def open_output(path: Path, fmt: Format, schema: Schema, *, overwrite: bool = False) -> Iterator[Output]:
    """Open an output for writing. If the block ends without :meth:`Output.finish`, nothing is written.

    Args:
        path: the file; missing folders are created. Links are followed.
        fmt: the format.
        schema: the schema of the rows.
        overwrite: True replaces an existing output.

    Raises:
        OutputError: the output exists, another run is writing it, or it cannot be written.
    """
    check_output(path, fmt, overwrite=overwrite)
    path = _resolved(path)
    with staging_folder(path) as staging, locked(path):
        check_output(path, fmt, overwrite=overwrite)  # another run may have ended meanwhile
        with output_errors(path):
            output = Output(path, fmt, schema, staging)
        try:
            yield output
        finally:
            output.close()


def write_errors(path: Path, failures: Sequence[Failure]) -> None:
    """Write only the list of failures of a single file: a CSV file with the columns path, reason and type.

    Args:
        path: the output.
        failures: the failures; without any, an existing list is removed.

    Raises:
        OutputError: the list cannot be written.
    """
    path = _resolved(path)
    with staging_folder(path) as staging, output_errors(path):
        _move_errors(_stage_errors(staging, failures), _errors_file(path))


def _stage_errors(staging: Path, failures: Sequence[Failure]) -> Path | None:
    if not failures:
        return None
    staged = staging / "errors.csv"
    with staged.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["path", "reason", "type"])
        table.writerows((failure.path, failure.reason, failure.type) for failure in failures)
    return staged


def _move_errors(staged: Path | None, path: Path) -> None:
    if staged is None:
        path.unlink(missing_ok=True)  # list of an earlier run
    else:
        staged.replace(path)


def _make_writer(folder: Path, name: str, fmt: Format, schema: Schema) -> Writer:
    from vggish_pt.dataset.outputs.numpy_files import NpyWriter, NpzWriter
    from vggish_pt.dataset.outputs.parquet import ParquetWriter
    from vggish_pt.dataset.outputs.tfrecord import TFRecordWriter

    writers: dict[Format, Callable[[Path, Schema], Writer]] = {
        "parquet": ParquetWriter,
        "npz": NpzWriter,
        "npy": NpyWriter,
        "tfrecord": TFRecordWriter,
    }
    return writers[fmt](folder / name, schema)
