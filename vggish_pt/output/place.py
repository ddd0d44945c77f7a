"""Where an output goes, and how it gets there: through a temporary folder in the same place, by renaming, at the end.

So a stop half-way leaves nothing that looks finished, and what was there before stays until the new output is complete.
"""

from __future__ import annotations

import contextlib
import csv
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, get_args

from vggish_pt.errors import OutputError, SettingsError
from vggish_pt.output.rows import Failure, Layout, Rows, Writer

Format = Literal["parquet", "npz", "npy"]

_STAGING = (".vggish-pt-", ".tmp")  # how names of temporary folders begin and end


def choose_format(path: Path, given: str | None = None) -> Format | None:
    """The format of an output: as given, else by the path's ending; None for a folder of Parquet parts.

    Raises:
        SettingsError: an unknown format or ending, or two that contradict each other.
    """
    known: tuple[Format, ...] = get_args(Format)
    ending = path.suffix.lower().lstrip(".")
    if given is not None:
        if given not in known:
            raise SettingsError(f"format must be one of {', '.join(known)}, not {given!r}")
        if ending in known and ending != given:
            raise SettingsError(f"{path}: the ending is not that of format {given!r}; change one of them")
        return given
    if ending in known:
        return ending
    if ending:
        raise SettingsError(
            f"{path}: unknown ending .{ending}; use .parquet, .npz or .npy, name a format, or none for a folder"
        )
    return None


def errors_path(path: Path, fmt: Format | None) -> Path:
    """Where the list of failed inputs goes: beside a file; in a folder, where readers pass over names with ``_``."""
    path = _followed(path)
    return path / "_errors.csv" if fmt is None else path.with_name(f"{path.name}.errors.csv")


def _followed(path: Path) -> Path:
    # Renaming onto a link would replace the link, not what it points to.
    return path.resolve() if path.is_symlink() else path


def check_output(path: Path, fmt: Format | None, *, overwrite: bool = False) -> None:
    """Finds out early what would prevent an output.

    Raises:
        OutputError: it exists and may not be replaced or is of another kind, or its folder cannot be written.
    """
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
            occupied = _check_folder(path) if parent == path else False
        elif path.is_dir():
            raise OutputError(f"{path}: is a folder; name a file in it")
        else:
            occupied = any(_exists(file) for file in (path, *_companions(path, fmt)))
        if occupied and not overwrite:
            raise OutputError(f"{path}: exists already; choose another output, or allow to overwrite it (--overwrite)")


def _exists(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _check_folder(path: Path) -> bool:
    """Whether the folder holds an output, and nothing else."""
    from vggish_pt.output.parquet import is_part

    parts = 0
    for file in path.iterdir():
        if is_part(file):
            parts += 1
        elif file.name != "_errors.csv" and not (file.name.startswith(_STAGING[0]) and file.suffix == _STAGING[1]):
            raise OutputError(f"{path}: a folder with other things in it ({file.name}); choose another output")
    return parts > 0


def _companions(path: Path, fmt: Format) -> tuple[Path, ...]:
    from vggish_pt.output.arrays import npy_companions

    return npy_companions(path) if fmt == "npy" else ()


class Output:
    """An output that is being written; made by :func:`open_output`."""

    def __init__(self, path: Path, fmt: Format | None, layout: Layout, staging: Path) -> None:
        self._path, self._fmt, self._staging = path, fmt, staging
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
            _place_errors(errors, errors_path(self._path, self._fmt))

    def _publish(self) -> None:
        folder = self._path if self._fmt is None else self._path.parent
        ready = sorted(self._ready.iterdir())
        for file in ready:
            _sync(file)
        old = [folder / file.name for file in ready if _exists(folder / file.name)]
        if self._fmt is None:
            from vggish_pt.output.parquet import is_part

            old = [file for file in folder.iterdir() if is_part(file)]
        if len(ready) == 1 and {folder / ready[0].name}.issuperset(old):  # one step, with nothing in between
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
def open_output(path: Path, fmt: Format | None, layout: Layout, *, overwrite: bool = False) -> Iterator[Output]:
    """Opens an output; leaving the block without :meth:`Output.finish` leaves nothing behind.

    Args:
        path: file or, where ``fmt`` is None, folder to write; folders that are missing are made. Links are followed.
        fmt: the format; None for a folder of ``part-*.parquet``.
        layout: what the rows are.
        overwrite: whether to replace an output that is there.

    Raises:
        OutputError: it exists already, or cannot be written.
    """
    check_output(path, fmt, overwrite=overwrite)
    path = _followed(path)
    with _staging(path, fmt) as staging:
        with _errors_named(path):
            output = Output(path, fmt, layout, staging)
        try:
            yield output
        finally:
            output.close()


def write_errors(path: Path, fmt: Format | None, failures: Sequence[Failure]) -> None:
    """Writes only the list of failed inputs of an output: a CSV file with the columns path, reason and type.

    Args:
        path: the output.
        fmt: its format.
        failures: the inputs; without any, a list that is there is removed.

    Raises:
        OutputError: it cannot be written.
    """
    path = _followed(path)
    with _staging(path, fmt) as staging, _errors_named(path):
        _place_errors(_stage_errors(staging, failures), errors_path(path, fmt))


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
def _staging(path: Path, fmt: Format | None) -> Iterator[Path]:
    """A temporary folder where the output will be; of the folders that are made for it, none stays empty."""
    folder = path if fmt is None else path.parent
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


def _make_writer(folder: Path, name: str, fmt: Format | None, layout: Layout) -> Writer:
    from vggish_pt.output.arrays import NpyWriter, NpzWriter
    from vggish_pt.output.parquet import DatasetWriter, ParquetWriter

    if fmt is None:
        return DatasetWriter(folder, layout)
    kinds: dict[Format, Callable[[Path, Layout], Writer]] = {
        "parquet": ParquetWriter,
        "npz": NpzWriter,
        "npy": NpyWriter,
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
