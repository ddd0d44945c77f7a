"""Versions of this package, of Python and of libraries, for the records that outputs carry."""

from __future__ import annotations

import platform
from importlib import metadata

from vggish_pt.version import __version__

NUMERIC_LIBRARIES = ("torch", "numpy", "soxr", "soundfile", "pyarrow")
"""Distributions that decode, resample, compute or store numbers."""


def versions(*libraries: str) -> dict[str, str]:
    """Return the versions of vggish_pt, Python and libraries.

    Args:
        libraries: names of distributions, as pip knows them; none for :data:`NUMERIC_LIBRARIES`.

    Returns:
        Name to version, in the order given. A library that is not installed is left out.
    """
    found = {"vggish_pt": __version__, "python": platform.python_version()}
    for name in libraries or NUMERIC_LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
