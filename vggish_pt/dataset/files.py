"""Files of a dataset: the parts of a folder, or a single file; on a disk or at an address."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vggish_pt.dataset.formats import ENDINGS, DumpFile, damage, open_dump_file
from vggish_pt.dataset.outputs.failures import errors_name
from vggish_pt.dataset.outputs.part import part_number
from vggish_pt.dataset.outputs.record import RUN_NAME, read_record
from vggish_pt.dataset.outputs.store import FolderStore, open_store
from vggish_pt.errors import OutputError, SettingsError
from vggish_pt.utils.remote import file_system, is_address, local_path, redacted
from vggish_pt.utils.text import error_reason

_ERROR_COLUMNS = ("path", "reason", "type")
_READERS = 8  # threads that read footers


@dataclass(frozen=True)
class Footer:
    """Contents of a file's footer or header.

    Attributes:
        schema: a ``pyarrow.Schema`` of the columns.
        rows: number of rows.
        metadata: weights, settings and version; empty if unknown.
        digest: a digest that changes when the rows do, as the footers of parts contain the keys of their inputs.
    """

    schema: Any
    rows: int
    metadata: dict[str, Any]
    digest: bytes


class DatasetFiles:
    """Files of a dataset.

    Args:
        address: a folder or a file, as a path or an address.

    Attributes:
        name: the folder or file as given by the user, without credentials.
        single: True for a single file.
        parts: names of the files with rows.
        run: the contents of ``_run.json``; None if there is none.

    Raises:
        OutputError: there are no embeddings, or the folder cannot be read.
    """

    def __init__(self, address: str) -> None:
        self.name, self._address = redacted(address), address
        path = None if is_address(address) else Path(local_path(address))
        self.single = Path(address).suffix.lower() in ENDINGS and not (path is not None and path.is_dir())
        folder, _, last = address.rpartition("/")
        self._folder = path.parent if path is not None and self.single else path
        self._store: FolderStore = open_store(
            address if not self.single else folder if path is None else str(path.parent)
        )
        if self.single:
            names = [last if path is None else path.name]
        else:
            names = [] if path is not None and path.is_file() else self._store.names()
        self.run: dict[str, Any] | None = None
        if not self.single and RUN_NAME in names:
            with self._store.open(RUN_NAME) as file:
                self.run = read_record(file.read(), self.name)
        self._errors_name = None if self.single else errors_name(names)
        self.parts = names if self.single else [name for name in names if part_number(name) is not None]
        if not self.parts and self.run is None and self._errors_name is None:
            raise OutputError(f"{self.name}: holds no embeddings; give a folder or file that 'vggish-pt embed' wrote")

    @contextmanager
    def open(self, part: str) -> Iterator[DumpFile]:
        """Open one of the files.

        Raises:
            OutputError: the file cannot be read as embeddings, also while the block reads it.
        """
        name = self.name if self.single else f"{self.name.rstrip('/')}/{part}"
        try:
            if self._folder is not None:
                with open_dump_file(self._folder / part) as file:
                    yield file
            else:
                with self._store.open(part) as raw, open_dump_file(part, raw) as file:
                    yield file
        except (OutputError, SettingsError):
            raise
        except damage() as error:
            raise OutputError(f"{name}: cannot be read as embeddings ({error_reason(error)})") from error

    def footers(self) -> list[Footer]:
        """Return the footer of each file.

        Raises:
            OutputError: a file is damaged.
        """
        with ThreadPoolExecutor(_READERS) as pool:
            return list(pool.map(self._footer, self.parts))

    def _footer(self, part: str) -> Footer:
        with self.open(part) as file:
            metadata = file.schema.metadata or {}
            text = repr((part, file.rows, str(file.schema.types), sorted(metadata.items())))
            own = {name: value for name, value in metadata.items() if name == b"vggish_pt"}  # without the keys
            digest = hashlib.blake2b(text.encode()).digest()
            return Footer(file.schema.with_metadata(own or None), file.rows, file.metadata or {}, digest)

    def arrow(self, schema: Any) -> Any:
        """Return the parts as a ``pyarrow.dataset.Dataset``.

        Raises:
            OutputError: the files are not Parquet.
        """
        import pyarrow.dataset as ds

        if not self.parts or not self.parts[0].endswith(".parquet"):
            raise OutputError(f"{self.name}: holds no Parquet; use table() or batches()")
        if self._folder is not None:
            return ds.dataset([str(self._folder / part) for part in self.parts], schema=schema)
        fs, root = file_system(self._address.rpartition("/")[0] if self.single else self._address.rstrip("/"))
        return ds.dataset([f"{root}/{part}" for part in self.parts], schema=schema, filesystem=fs)

    def errors(self) -> Any:
        """Return the list of failures as a ``pyarrow.Table``; without rows if there is no list.

        Raises:
            OutputError: the list is damaged.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            if self._errors_name is not None:
                with self._store.open(self._errors_name) as file:
                    return pq.read_table(file).replace_schema_metadata()
            lines: list[dict[str, str]] = []
            if self.single and self._folder is not None:
                listed = self._folder / f"{self.parts[0]}.errors.csv"
                if listed.is_file():
                    with listed.open(newline="", encoding="utf-8") as text:
                        lines = list(csv.DictReader(text))
            return pa.table({name: pa.array([line[name] for line in lines], pa.string()) for name in _ERROR_COLUMNS})
        except damage() as error:
            raise OutputError(f"{self.name}: its list of errors is damaged ({error_reason(error)})") from error
