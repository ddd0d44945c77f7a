"""Embeddings → Parquet, NPZ or NPY, written whole or not at all, with a list of the inputs that failed.

>>> with open_output(Path("x.parquet"), "parquet", layout) as out:    # doctest: +SKIP
...     out.write(rows)
...     out.finish(failures)
"""

from vggish_pt.output.place import Format, Output, check_output, choose_format, errors_path, open_output, write_errors
from vggish_pt.output.rows import Failure, Layout, Rows

__all__ = [
    "Failure",
    "Format",
    "Layout",
    "Output",
    "Rows",
    "check_output",
    "choose_format",
    "errors_path",
    "open_output",
    "write_errors",
]
