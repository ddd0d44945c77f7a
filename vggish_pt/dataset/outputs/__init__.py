"""Outputs: Parquet, NPZ, NPY or TFRecord files, written whole or not at all, with a list of the inputs that failed.

:func:`open_output` writes a single file at the end of a run. :func:`open_run` writes a folder of Parquet parts during
the run, so that the run can be interrupted and resumed.

>>> with open_output(Path("x.parquet"), "parquet", schema) as out:    # doctest: +SKIP
...     out.write(rows)
...     out.finish(failures)
"""

from vggish_pt.dataset.outputs.file import (
    Format,
    Output,
    check_output,
    choose_format,
    errors_path,
    open_output,
    write_errors,
)
from vggish_pt.dataset.outputs.folder import DatasetFolder, open_run, write_folder_errors
from vggish_pt.dataset.outputs.record import Session
from vggish_pt.dataset.outputs.store import FolderStore, open_store
from vggish_pt.dataset.schema import Failure, Rows, Schema

__all__ = [
    "DatasetFolder",
    "Failure",
    "FolderStore",
    "Format",
    "Output",
    "Rows",
    "Schema",
    "Session",
    "check_output",
    "choose_format",
    "errors_path",
    "open_output",
    "open_run",
    "open_store",
    "write_errors",
    "write_folder_errors",
]
