"""Versions for the records that outputs carry."""

from __future__ import annotations

import platform

import numpy as np

import vggish_pt
from vggish_pt.utils.versions import NUMERIC_LIBRARIES, versions


def test_package_python_and_libraries() -> None:
    found = versions("numpy", "no-such-library", "scikit-learn")
    assert list(found) == ["vggish_pt", "python", "numpy", "scikit-learn"]
    assert found["vggish_pt"] == vggish_pt.__version__
    assert found["python"] == platform.python_version()
    assert found["numpy"] == np.__version__


def test_libraries_by_default() -> None:
    assert list(versions()) == ["vggish_pt", "python", *NUMERIC_LIBRARIES]
