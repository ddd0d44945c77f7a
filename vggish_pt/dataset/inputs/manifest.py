"""Manifests: tables (CSV, TSV, JSON lines, Parquet) that name audio files, parts of them, and what is known of them.

A column ``path`` is needed; ``start`` and ``end`` are seconds in the file; all other columns are carried along. A row
that cannot be used does not end the reading: it comes as a :class:`BadRow`.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from vggish_pt.audio import display_name
from vggish_pt.audio.segment import complain
from vggish_pt.dataset.inputs.columns import (
    MAX_COLUMNS,
    check_carried,
    is_number,
    is_text,
    one_line,
    open_parquet,
    plain_type,
    row_lists,
)
from vggish_pt.errors import AudioError, SettingsError
from vggish_pt.utils.remote import is_address, local_path, open_address, redacted

if TYPE_CHECKING:
    import pyarrow as pa

ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
MAX_LINE = 1 << 20
_BATCH_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a manifest.

    Attributes:
        line: where it stands: the line of a text, counted from 1, or the row of a Parquet, counted from 0.
        path: as it is written there.
        start: seconds; None for the beginning.
        end: seconds; None for the end.
        columns: what else it says, by name.
    """

    line: int
    path: str
    start: float | None
    end: float | None
    columns: dict[str, Any]


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be used.

    Attributes:
        line: where it stands, as in :class:`Row`.
        reason: why not.
    """

    line: int
    reason: str


class Manifest:
    """An opened manifest: a context manager.

    Args:
        name: its path or address.

    Attributes:
        name: how errors call it.
        schema: names and types of the columns that are carried along; None where rows tell (JSON lines).
        segments: whether it may name parts of files; of JSON lines, whether a row read so far does.

    Raises:
        AudioError: it cannot be opened.
        SettingsError: it is no manifest: no table, no column ``path``, a column that outputs have themselves.
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
        """Its rows in order, once."""
        return self._rows

    def _open(self) -> Iterator[Row | BadRow]:
        if self._ending in (".csv", ".tsv"):
            return self._open_csv("\t" if self._ending == ".tsv" else ",")
        if self._ending in (".jsonl", ".ndjson"):
            return self._json_rows()
        return self._open_parquet()

    def _refuse(self, what: str) -> SettingsError:
        return SettingsError(f"{self.name}: {what}")

    def _check_names(self, names: Iterable[str]) -> list[str]:
        """The columns to carry along."""
        names = list(names)
        listed = ", ".join(repr(display_name(name))[:40] for name in names[:8]) + (", …" if len(names) > 8 else "")
        if len(names) > MAX_COLUMNS:
            raise self._refuse(f"no manifest: {len(names)} columns; at most {MAX_COLUMNS}")
        if "path" not in names:
            raise self._refuse(f"no manifest: it needs a column 'path', and has {listed or 'none'}")
        return check_carried(self.name, (name for name in _without(names)))

    def _open_csv(self, delimiter: str) -> Iterator[Row | BadRow]:
        import pyarrow as pa

        lines = _Lines(self._file)
        reader: Any = csv.reader(lines, delimiter=delimiter, strict=True)
        try:
            header: list[str] = next(reader, [])
        except csv.Error as error:
            raise self._refuse(f"no manifest: its first line is no header ({error})") from None
        if complaint := lines.complaint():
            raise self._refuse(f"no manifest: its first line is {complaint}; it must be a header in UTF-8")
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
                lines.complaint()
                through = f"; lines {line} to {reader.line_num} are lost" if reader.line_num > line else ""
                yield BadRow(line, f"{error}{through}")
                continue
            except OSError as error:
                yield BadRow(line, f"cannot be read from here on ({error})")
                return
            complaint = lines.complaint()
            if complaint:
                yield BadRow(line, complaint)
            elif values and len(values) != len(header):
                yield BadRow(line, f"{len(values)} fields, and the header has {len(header)}")
            elif values:
                yield make_row(line, dict(zip(header, values, strict=True)))

    def _json_rows(self) -> Iterator[Row | BadRow]:
        lines, first, names = _Lines(self._file), True, set[str]()
        for line, text in enumerate(_readable(lines), 1):
            complaint = lines.complaint()
            if not complaint and not text.strip():
                continue
            values, complaint = ({}, complaint) if complaint else _parse(text)
            if first and (complaint or "path" not in values):
                raise self._refuse(f"no manifest: line {line} is {complaint or 'an object without path'}")
            first = False
            if complaint:
                yield BadRow(line, complaint)
                continue
            if not values.keys() <= names:
                names |= values.keys()
                if len(names) > MAX_COLUMNS:
                    raise self._refuse(f"no manifest: more than {MAX_COLUMNS} columns")
                check_carried(self.name, _without(names))
            self.segments = self.segments or "start" in values or "end" in values
            yield make_row(line, values)
        if first:
            raise self._refuse("no manifest: it is empty")

    def _open_parquet(self) -> Iterator[Row | BadRow]:
        import pyarrow as pa

        table, schema = open_parquet(self._file, self.name)
        carried = self._check_names(schema.names)
        if not is_text(schema.field("path").type):
            kind = plain_type(schema.field("path").type)
            raise self._refuse(f"no manifest: its column 'path' is {kind}; it must be text")
        for name in ("start", "end"):
            if name in schema.names and not is_number(schema.field(name).type):
                kind = plain_type(schema.field(name).type)
                raise self._refuse(f"its column {name!r} is {kind}; it must be numbers of seconds")
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
        except Exception as error:  # pyarrow raises many kinds for damage
            yield BadRow(line, f"cannot be read from here on ({one_line(error)})")


def is_manifest(name: str) -> bool:
    """Whether a path or address is called like a manifest."""
    return (name.partition("?")[0] if is_address(name) else name).lower().endswith(ENDINGS)


def open_file(name: str) -> BinaryIO:
    """Opens a file at a path or address.

    Raises:
        AudioError: it cannot be opened.
        MissingDependencyError: the library for such addresses is not installed.
    """
    if is_address(name):
        return open_address(name)
    label = display_name(name)
    try:
        return open(local_path(name), "rb")  # noqa: PTH123 (any bytes; the caller closes it)
    except FileNotFoundError:
        raise AudioError(f"{label}: no such file", label) from None
    except (OSError, ValueError) as error:
        raise AudioError(f"{label}: cannot be opened ({getattr(error, 'strerror', None) or error})", label) from None


def _without(names: Iterable[str]) -> list[str]:
    """The names but one of each that is read here; a second one is the caller's mistake, and is found."""
    left = list(names)
    for name in ("path", "start", "end"):
        if name in left:
            left.remove(name)
    return left


def make_row(line: int, values: dict[str, Any]) -> Row | BadRow:
    """A row from its values by column name, if they make sense.

    Args:
        line: where it stands.
        values: path, start and end, taken out, and what else there is.
    """
    path = values.pop("path", None)
    if not isinstance(path, str) or not path or "\0" in path:
        what = "no path" if path in (None, "") else f"{path!r:.40} is no path"
        return BadRow(line, what)
    try:
        start, end = seconds(values.pop("start", None)), seconds(values.pop("end", None))
    except ValueError as error:
        return BadRow(line, f"{display_name(path)}: {error}")
    complaint = complain(start, end)
    return BadRow(line, f"{display_name(path)}: {complaint}") if complaint else Row(line, path, start, end, values)


def seconds(value: object) -> float | None:
    """A time of a manifest: a number, its text, or nothing.

    Raises:
        ValueError: it is something else.
    """
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        raise ValueError(f"{value} is no number of seconds")
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{value!r:.40} is no number of seconds") from None


class _Lines:
    """Lines of a text, of bounded length; what is wrong with one is said aside, as a csv.reader cannot pass it on."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._first = True
        self._complaint: str | None = None

    def complain(self, what: str) -> None:
        """Says what is wrong with the line that comes next."""
        self._complaint = what

    def complaint(self) -> str | None:
        """What was wrong with the lines since it was asked last; None if nothing."""
        complaint, self._complaint = self._complaint, None
        return complaint

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._file.readline(MAX_LINE + 1)
        if not line:
            raise StopIteration
        if len(line) > MAX_LINE:
            while line and not line.endswith(b"\n"):
                line = self._file.readline(MAX_LINE)
            self._complaint = f"longer than {MAX_LINE >> 20} MB"
            return "\n"
        try:
            text = line.decode("utf-8-sig" if self._first else "utf-8")
        except UnicodeDecodeError:
            self._complaint = "no UTF-8"
            return "\n"
        finally:
            self._first = False
        return text


def _readable(lines: _Lines) -> Iterator[str]:
    try:
        yield from lines
    except OSError as error:
        lines.complain(f"cannot be read from here on ({error})")
        yield "\n"


def _parse(text: str) -> tuple[dict[str, Any], str | None]:
    """An object of a line of JSON, and what is wrong with it."""
    try:
        values = json.loads(text, parse_int=_small_int)
        if "\\u" in text:
            json.dumps(values, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError) as error:
        return {}, f"no JSON that can be used ({one_line(error)})"
    return (values, None) if isinstance(values, dict) else ({}, "no JSON object")


def _small_int(digits: str) -> int:
    value = int(digits)
    if not -(1 << 63) <= value < 1 << 63:
        raise ValueError("a number beyond 64 bits")
    return value
