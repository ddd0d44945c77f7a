"""Checks of settings: bounds are exact, and the error names the setting, the range and the value."""

import math
import re

import pytest

from vggish_pt.errors import SettingsError
from vggish_pt.utils import checks


def test_values_in_range_pass():
    checks.choice("keep", "best", ("best", "last"))
    for value in (1, 5, 10):
        checks.whole("windows", value, 1, 10)
    checks.whole("folds", 10**9, 2)
    for value in (0, 0.5, 1.0):
        checks.number("share", value, 0, 1)
    checks.number("lr", 1e-9, 0, 1, above=True)
    checks.number("swa", 0, 0, 1, below=True)
    checks.number("seconds", 1e300, 0)


@pytest.mark.parametrize("value", ["bets", "", None, 1, ["best"]])
def test_choice(value):
    with pytest.raises(SettingsError, match=f"keep must be one of best, last, not {re.escape(repr(value))}$"):
        checks.choice("keep", value, ("best", "last"))


@pytest.mark.parametrize("value", [0, 11, -1, 1.0, True, "3", None, math.nan])
def test_whole(value):
    with pytest.raises(SettingsError, match=f"windows must be a whole number from 1 to 10, not {value!r}$"):
        checks.whole("windows", value, 1, 10)


def test_whole_without_an_upper_bound():
    with pytest.raises(SettingsError, match=r"folds must be a whole number from 2, not 1$"):
        checks.whole("folds", 1, 2)


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, math.inf, -math.inf, True, "0.5", None, 10**400])
def test_number(value):
    with pytest.raises(SettingsError, match=f"share must be a number from 0 to 1, not {value!r}$"):
        checks.number("share", value, 0, 1)


def test_excluded_bounds():
    with pytest.raises(SettingsError, match=r"lr must be a number above 0 up to 10, not 0$"):
        checks.number("lr", 0, 0, 10, above=True)
    with pytest.raises(SettingsError, match=r"swa must be a number from 0 to below 1, not 1\.0$"):
        checks.number("swa", 1.0, 0, 1, below=True)
    with pytest.raises(SettingsError, match=r"seconds must be a number from 0, not inf$"):
        checks.number("seconds", math.inf, 0)
