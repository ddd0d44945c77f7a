from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vggish_pt.errors import SettingsError
from vggish_pt.nn.windows import check_pad, count_windows, hop_frames, padding, window_times

HOPS = st.integers(1, 500).map(lambda frames: frames / 100)
SAMPLES = st.integers(0, 200_000)


@given(frames=st.integers(1, 360_000))
@settings(deadline=None)
def test_every_hundredth_is_a_hop(frames: int) -> None:
    assert hop_frames(frames / 100) == frames
    assert hop_frames(frames * 0.01) == frames  # not the same float


@pytest.mark.parametrize(
    "hop",
    [0, -0.96, 0.005, 0.965, 0.9601, 3600.01, math.nan, math.inf, -math.inf, 10**400, "fast", None, 1j, [0.96]],
)
def test_no_hop(hop: Any) -> None:
    with pytest.raises(SettingsError, match="hop must be"):
        hop_frames(hop)


@pytest.mark.parametrize("pad", ["", "SHORT", None, 0, "none"])
def test_no_pad(pad: Any) -> None:
    with pytest.raises(SettingsError, match="pad must be 'short', 'drop' or 'tail'"):
        check_pad(pad)
    with pytest.raises(SettingsError):
        count_windows(16000, 0.96, pad)


@given(samples=SAMPLES, hop=HOPS)
@settings(deadline=None)
def test_drop_is_the_reference(samples: int, hop: float) -> None:
    """Its two framings: 400 samples every 160 into frames, 96 frames every hop into windows."""
    frames = 1 + (samples - 400) // 160 if samples >= 400 else 0
    windows = 1 + (frames - 96) // round(hop * 100) if frames >= 96 else 0
    assert count_windows(samples, hop, "drop") == windows
    assert padding(samples, hop, "drop") == 0


@given(samples=SAMPLES, hop=HOPS)
@settings(deadline=None)
def test_short_pads_short_clips_only(samples: int, hop: float) -> None:
    windows = count_windows(samples, hop, "short")
    assert windows == max(min(samples, 1), count_windows(samples, hop, "drop"))
    assert padding(samples, hop, "short") == (max(0, 15_600 - samples) if samples else 0)


@given(samples=SAMPLES, hop=HOPS)
@settings(deadline=None)
def test_tail_covers_every_sample(samples: int, hop: float) -> None:
    step = round(hop * 16_000)
    windows, pad = count_windows(samples, hop, "tail"), padding(samples, hop, "tail")
    if samples == 0:
        assert windows == pad == 0
        return
    covered = np.zeros(samples, bool)
    for i in range(windows):
        assert i * step < samples, "a window of nothing but padding"
        covered[i * step : i * step + 15_600] = True
    assert (windows - 1) * step + 15_600 >= samples or step > 15_600
    gaps = np.array([i % step >= 15_600 for i in range(samples)])  # where the hop is longer than a window
    assert (covered | gaps).all()
    # No more than needed, and nothing beyond the last window.
    assert pad == max(0, (windows - 1) * step + 15_600 - samples)
    assert windows == 1 or (windows - 2) * step + 15_600 < samples


@given(samples=SAMPLES, hop=HOPS)
@settings(deadline=None)
def test_paddings_are_ordered(samples: int, hop: float) -> None:
    drop, short, tail = (count_windows(samples, hop, pad) for pad in ("drop", "short", "tail"))
    assert drop <= short <= tail <= max(short, drop + 1)


def test_times() -> None:
    start, end = window_times(0, 3)
    np.testing.assert_array_equal(start, [0, 0.96, 1.92])
    np.testing.assert_array_equal(end, start + 0.975)
    assert start.dtype == end.dtype == np.float64
    assert window_times(5, 0)[0].shape == (0,)


def test_times_do_not_drift() -> None:
    first = 10_000_000  # days
    assert window_times(first, 1, 0.01)[0][0] == first / 100
    np.testing.assert_array_equal(window_times(first, 4, 0.48)[0], window_times(0, first + 4, 0.48)[0][first:])
