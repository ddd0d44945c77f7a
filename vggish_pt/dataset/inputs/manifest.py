"""Reader of manifests: tables (CSV, TSV, JSON lines, Parquet) of audio files, or parts of them, with other columns.

The column ``path`` is required; ``start`` and ``end`` are seconds in the file. A row that cannot be used is returned as
a :class:`BadRow`, and reading continues. The CSV readers of pyarrow and pandas were tried: bytes that are not UTF-8 end
both, and after an unclosed quote pandas ends and pyarrow returns the rest of the file as one value
(``test_bad_rows_of_a_csv_do_not_end_it``, ``test_a_quote_that_is_never_closed``).
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

from vggish_pt.dataset.inputs.columns import (
    MAX_COLUMNS,
    check_carried,
    is_number,
    is_text,
    open_parquet,
    plain_type,
    row_lists,
)
from vggish_pt.dataset.inputs.locations import open_file
from vggish_pt.dataset.inputs.rows import BadRow, Row, make_row
from vggish_pt.errors import SettingsError
from vggish_pt.utils.remote import is_address, redacted
from vggish_pt.utils.text import display_name, first_line

if TYPE_CHECKING:
    import pyarrow as pa

ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
MAX_LINE = 1 << 20
_BATCH_ROWS = 1024


class Manifest:
    """Open manifest; a context manager.

    Args:
        name: path or address of the manifest.

    Attributes:
        name: name of the manifest in errors.
        schema: names and types of the other columns; None for JSON lines, whose rows define them.
        segments: True if the manifest may name parts of files; for JSON lines, if a row read so far does.

    Raises:
        AudioError: the manifest cannot be opened.
        SettingsError: the file is no manifest: it is no table, has no column ``path``, or has a column of a name that
            outputs use.
    """

    def __init__(self, name: str) -> None:
        self.name = display_name(redacted(name))
        self.schema: pa.Schema | None = None
        self.segments = False
        self._ending = os.path.splitext(name.partition("?")[0] if is_address(name) else name)[1].lower()  # noqa: PTH122
        self._file = open_file(name)
        try:
            self._rows = self._open()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Manifest:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()

    def rows(self) -> Iterator[Row | BadRow]:
        """Return an iterator over the rows in order; it can be used once."""
        return self._rows

    def _open(self) -> Iterator[Row | BadRow]:
        if self._ending in (".csv", ".tsv"):
            return self._open_csv("\t" if self._ending == ".tsv" else ",")
        if self._ending in (".jsonl", ".ndjson"):
            return self._json_rows()
        return self._open_parquet()

    def _error(self, problem: str) -> SettingsError:
        return SettingsError(f"{self.name}: {problem}")

    def _check_names(self, names: Iterable[str]) -> list[str]:
        """Return the names of the columns to carry."""
        names = list(names)
        listed = ", ".join(repr(display_name(name))[:40] for name in names[:8]) + (", …" if len(names) > 8 else "")
        if len(names) > MAX_COLUMNS:
            raise self._error(f"no manifest: {len(names)} columns; at most {MAX_COLUMNS}")
        if "path" not in names:
            raise self._error(f"no manifest: it needs a column 'path', and has {listed or 'none'}")
        return check_carried(self.name, _other_names(names))

    def _open_csv(self, delimiter: str) -> Iterator[Row | BadRow]:
        import pyarrow as pa

        lines = _Lines(self._file)
        reader: Any = csv.reader(lines, delimiter=delimiter, strict=True)
        try:
            header: list[str] = next(reader, [])
        except csv.Error as error:
            raise self._error(f"no manifest: its first line is no header ({error})") from None
        if problem := lines.take_problem():
            raise self._error(f"no manifest: its first line is {problem}; it must be a header in UTF-8")
        header = [name.strip() for name in header]
        carried = self._check_names(header)
        self.schema = pa.schema([(name, pa.string()) for name in carried])
        self.segments = "start" in header or "end" in header
        return self._csv_rows(lines, reader, header)

    def _csv_rows(self, lines: _Lines, reader: Any, header: list[str]) -> Iterator[Row | BadRow]:
        while True:
            line = reader.line_num + 1
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                lines.take_problem()
                lost = f"; lines {line} to {reader.line_num} are lost" if reader.line_num > line else ""
                yield BadRow(line, f"{error}{lost}")
                continue
            except OSError as error:
                yield BadRow(line, f"cannot be read from here on ({error})")
                return
            problem = lines.take_problem()
            if problem:
                yield BadRow(line, problem)
            elif values and len(values) != len(header):
                yield BadRow(line, f"{len(values)} fields, and the header has {len(header)}")
            elif values:
                yield make_row(line, dict(zip(header, values, strict=True)))

    def _json_rows(self) -> Iterator[Row | BadRow]:
        lines, first, names = _Lines(self._file), True, set[str]()
        for line, text in enumerate(_readable(lines), 1):
            problem = lines.take_problem()
            if not problem and not text.strip():
                continue
            values, problem = ({}, problem) if problem else _parse(text)
            if first and (problem or "path" not in values):
                raise self._error(f"no manifest: line {line} is {problem or 'an object without path'}")
            first = False
            if problem:
                yield BadRow(line, problem)
                continue
            if not values.keys() <= names:
                names |= values.keys()
                if len(names) > MAX_COLUMNS:
                    raise self._error(f"no manifest: more than {MAX_COLUMNS} columns")
                check_carried(self.name, _other_names(names))
            self.segments = self.segments or "start" in values or "end" in values
            yield make_row(line, values)
        if first:
            raise self._error("no manifest: it is empty")

    def _open_parquet(self) -> Iterator[Row | BadRow]:
        import pyarrow as pa

        table, schema = open_parquet(self._file, self.name)
        carried = self._check_names(schema.names)
        if not is_text(schema.field("path").type):
            kind = plain_type(schema.field("path").type)
            raise self._error(f"no manifest: its column 'path' is {kind}; it must be text")
        for name in ("start", "end"):
            if name in schema.names and not is_number(schema.field(name).type):
                kind = plain_type(schema.field(name).type)
                raise self._error(f"its column {name!r} is {kind}; it must be numbers of seconds")
        self.schema = pa.schema([pa.field(name, plain_type(schema.field(name).type)) for name in carried])
        self.segments = "start" in schema.names or "end" in schema.names
        return self._parquet_rows(table)

    def _parquet_rows(self, table: Any) -> Iterator[Row | BadRow]:
        line = 0
        try:
            for batch in table.iter_batches(batch_size=_BATCH_ROWS):
                for columns in row_lists(batch):
                    for values in zip(*columns.values(), strict=True):
                        yield make_row(line, dict(zip(columns, values, strict=True)))
                        line += 1
        except GeneratorExit:
            raise
        except Exception as error:  # pyarrow raises errors of many types for damaged files
            yield BadRow(line, f"cannot be read from here on ({first_line(error)})")


def is_manifest(name: str) -> bool:
    """Return True if a path or address has the ending of a manifest."""
    return (name.partition("?")[0] if is_address(name) else name).lower().endswith(ENDINGS)


def _other_names(names: Iterable[str]) -> list[str]:
    """Return column names without the first "path", "start" and "end"; :func:`check_carried` refuses a second one."""
    others = list(names)
    for name in ("path", "start", "end"):
        if name in others:
            others.remove(name)
    return others


class _Lines:
    """Lines of a text, of bounded length, in UTF-8.

    A line that cannot be used is replaced by an empty one, and :meth:`take_problem` returns the reason, since a
    ``csv.reader`` cannot pass it on.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._first = True
        self._problem: str | None = None

    def set_problem(self, problem: str) -> None:
        """Set the reason why the next line cannot be used."""
        self._problem = problem

    def take_problem(self) -> str | None:
        """Return what was wrong with the lines since the last call; None if nothing."""
        problem, self._problem = self._problem, None
        return problem

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._file.readline(MAX_LINE + 1)
        if not line:
            raise StopIteration
        if len(line) > MAX_LINE:
            while line and not line.endswith(b"\n"):
                line = self._file.readline(MAX_LINE)
            self._problem = f"longer than {MAX_LINE >> 20} MB"
            return "\n"
        try:
            text = line.decode("utf-8-sig" if self._first else "utf-8")
        except UnicodeDecodeError:
            self._problem = "no UTF-8"
            return "\n"
        finally:
            self._first = False
        return text


def _readable(lines: _Lines) -> Iterator[str]:
    try:
        yield from lines
    except OSError as error:
        lines.set_problem(f"cannot be read from here on ({error})")
        yield "\n"


def _parse(text: str) -> tuple[dict[str, Any], str | None]:
    """Return the object in a line of JSON, and the reason if it cannot be used."""
    try:
        values = json.loads(text, parse_int=_small_int)
        if "\\u" in text:
            json.dumps(values, ensure_ascii=False).encode()  # fails for half of a surrogate pair
    except (ValueError, RecursionError) as error:
        return {}, f"no JSON that can be used ({first_line(error)})"
    return (values, None) if isinstance(values, dict) else ({}, "no JSON object")


def _small_int(digits: str) -> int:
    value = int(digits)
    if not -(1 << 63) <= value < 1 << 63:
        raise ValueError("a number beyond 64 bits")
    return value
