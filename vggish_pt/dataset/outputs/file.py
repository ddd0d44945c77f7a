"""Where an output goes. A single file gets there through a temporary folder in the same place, by renaming, at the end.

So a stop half-way leaves nothing that looks finished, and what was there before stays until the new output is complete.
How a folder is filled, :mod:`vggish_pt.dataset.outputs.folder` says.
"""

from __future__ import annotations

import contextlib
import csv
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, get_args

from vggish_pt.dataset.outputs.failures import ERRORS_NAME
from vggish_pt.dataset.outputs.folder import check_folder
from vggish_pt.dataset.outputs.store import open_store
from vggish_pt.dataset.schema import Failure, Rows, Schema, Writer
from vggish_pt.errors import OutputError, SettingsError
from vggish_pt.utils.remote import is_address, redacted

Format = Literal["parquet", "npz", "npy", "tfrecord"]

_STAGING = (".vggish-pt-", ".tmp")  # how names of temporary folders begin and end


def choose_format(out: str | Path, given: str | None = None) -> Format | None:
    """The format of an output: as given, else by the name's ending; None for a folder of Parquet parts.

    Raises:
        SettingsError: an unknown format or ending, two that contradict each other, or a single file at an address.
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
            f"{out}: unknown ending .{ending}; use .parquet, .npz, .npy or .tfrecord, name a format, or none for a "
            "folder"
        )
    if given is not None and is_address(str(out)):
        raise SettingsError(
            f"{out}: at an address there can be a folder of parts, but no single file; leave the ending out"
        )
    return given


def errors_path(out: str | Path, fmt: Format | None) -> str:
    """Where the list of failed inputs goes: beside a file, or into the folder."""
    if fmt is None:
        return f"{redacted(str(out)).rstrip('/')}/{ERRORS_NAME}"
    return str(_errors_file(_followed(Path(out))))


def _errors_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.errors.csv")


def _followed(path: Path) -> Path:
    # Renaming onto a link would replace the link, not what it points to.
    return path.resolve() if path.is_symlink() else path


def check_output(out: str | Path, fmt: Format | None, *, overwrite: bool = False) -> None:
    """Finds out early what would prevent an output.

    Raises:
        OutputError: a file exists and may not be replaced, there are other things in a folder, or the place cannot be
            written to.
    """
    if is_address(str(out)):
        check_folder(open_store(str(out)))
        return
    path = Path(out)
    with _errors_named(path):
        parent = path if fmt is None else path.parent
        while not _exists(parent):
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
        if not overwrite and any(_exists(file) for file in (path, *_companions(path, fmt))):
            raise OutputError(f"{path}: exists already; choose another output, or allow to overwrite it (--overwrite)")


def _exists(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _companions(path: Path, fmt: Format) -> tuple[Path, ...]:
    from vggish_pt.dataset.outputs.numpy_files import npy_companions

    if fmt == "tfrecord":
        return (npy_companions(path)[1],)
    return npy_companions(path) if fmt == "npy" else ()


class Output:
    """An output that is being written; made by :func:`open_output`."""

    def __init__(self, path: Path, fmt: Format, layout: Schema, staging: Path) -> None:
        self._path, self._staging = path, staging
        self._ready = staging / "ready"
        self._ready.mkdir()
        self._writer = _make_writer(self._ready, path.name, fmt, layout)
        self._rows = 0

    def write(self, rows: Rows) -> None:
        """Adds rows of one input.

        Raises:
            OutputError: they cannot be written.
        """
        with _errors_named(self._path):
            self._writer.write(rows)
        self._rows += len(rows)

    def finish(self, failures: Sequence[Failure] = ()) -> None:
        """Completes the output and puts it and the list of failed inputs in their places.

        Without a row there is no output: only the list is written, and what was there before stays.

        Raises:
            OutputError: they cannot be written; what was there before stays.
        """
        with _errors_named(self._path):
            errors = _stage_errors(self._staging, failures)
            if self._rows:
                self._writer.complete()
                self._publish()
            _place_errors(errors, _errors_file(self._path))

    def _publish(self) -> None:
        folder = self._path.parent
        ready = sorted(self._ready.iterdir())
        for file in ready:
            _sync(file)
        old = [folder / file.name for file in ready if _exists(folder / file.name)]
        if len(ready) == 1:  # one step, with nothing in between
            ready[0].replace(folder / ready[0].name)
            return
        replaced = self._staging / "replaced"
        replaced.mkdir()
        with contextlib.ExitStack() as undo:  # several files: all of them, or as it was
            for file in old:
                file.replace(replaced / file.name)
                undo.callback((replaced / file.name).replace, file)
            for file in ready:
                file.replace(folder / file.name)
                undo.callback((folder / file.name).replace, file)
            undo.pop_all()

    def close(self) -> None:
        """Closes the files, finished or not."""
        self._writer.close()


@contextlib.contextmanager
def open_output(path: Path, fmt: Format, layout: Schema, *, overwrite: bool = False) -> Iterator[Output]:
    """Opens an output; leaving the block without :meth:`Output.finish` leaves nothing behind.

    Args:
        path: the file; folders that are missing are made. Links are followed.
        fmt: the format.
        layout: what the rows are.
        overwrite: whether to replace an output that is there.

    Raises:
        OutputError: it exists already, or cannot be written.
    """
    check_output(path, fmt, overwrite=overwrite)
    path = _followed(path)
    with _staging(path) as staging:
        with _errors_named(path):
            output = Output(path, fmt, layout, staging)
        try:
            yield output
        finally:
            output.close()


def write_errors(path: Path, failures: Sequence[Failure]) -> None:
    """Writes only the list of failed inputs of a file: a CSV file with the columns path, reason and type.

    Args:
        path: the output.
        failures: the inputs; without any, a list that is there is removed.

    Raises:
        OutputError: it cannot be written.
    """
    path = _followed(path)
    with _staging(path) as staging, _errors_named(path):
        _place_errors(_stage_errors(staging, failures), _errors_file(path))


def _stage_errors(staging: Path, failures: Sequence[Failure]) -> Path | None:
    if not failures:
        return None
    staged = staging / "errors.csv"
    with staged.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["path", "reason", "type"])
        table.writerows((failure.path, failure.reason, failure.type) for failure in failures)
    return staged


def _place_errors(staged: Path | None, path: Path) -> None:
    if staged is None:
        path.unlink(missing_ok=True)  # of an earlier run
    else:
        staged.replace(path)


@contextlib.contextmanager
def _staging(path: Path) -> Iterator[Path]:
    """A temporary folder where the output will be; of the folders that are made for it, none stays empty."""
    folder = path.parent
    with contextlib.ExitStack() as stack:
        with _errors_named(path):
            for missing in reversed([f for f in (folder, *folder.parents) if not f.exists()]):
                missing.mkdir(exist_ok=True)
                stack.callback(_remove_if_empty, missing)
            prefix, suffix = _STAGING
            staging = stack.enter_context(tempfile.TemporaryDirectory(prefix=prefix, suffix=suffix, dir=folder))
        yield Path(staging)


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def _make_writer(folder: Path, name: str, fmt: Format, layout: Schema) -> Writer:
    from vggish_pt.dataset.outputs.numpy_files import NpyWriter, NpzWriter
    from vggish_pt.dataset.outputs.parquet import ParquetWriter
    from vggish_pt.dataset.outputs.tfrecord import TFRecordWriter

    kinds: dict[Format, Callable[[Path, Schema], Writer]] = {
        "parquet": ParquetWriter,
        "npz": NpzWriter,
        "npy": NpyWriter,
        "tfrecord": TFRecordWriter,
    }
    return kinds[fmt](folder / name, layout)


def _sync(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


@contextlib.contextmanager
def _errors_named(path: Path) -> Iterator[None]:
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise OutputError(f"{path}: cannot be written ({reason})") from error
