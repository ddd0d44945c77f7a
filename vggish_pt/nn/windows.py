"""Windows: how hop and padding turn a number of samples into windows with a start and an end.

All counts are of samples at 16 kHz and are exact integers; seconds appear only at the surface.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np

from vggish_pt import constants as c
from vggish_pt.errors import SettingsError

Pad = Literal["short", "drop", "tail"]
"""What to do with audio that does not fill a window.

``"short"`` pads with zeros only a clip shorter than one window, and drops an incomplete tail as the reference does;
``"drop"`` is the reference exactly: 0 windows below 15,600 samples; ``"tail"`` pads the tail too, so that every sample
is covered.
"""

FRAMES_PER_SECOND = c.SAMPLE_RATE // c.FRAME_HOP
MAX_HOP_SECONDS = 3600.0


def hop_frames(hop: float) -> int:
    """The hop as a whole number of 10 ms frames.

    Args:
        hop: seconds, a positive multiple of 0.01.

    Raises:
        SettingsError: not a number, not positive, not a multiple of 0.01 (within 1e-6), or above an hour.
    """
    try:
        exact = float(hop) * FRAMES_PER_SECOND
    except (TypeError, ValueError, OverflowError):
        raise SettingsError(f"hop must be a number of seconds, not {hop!r}") from None
    if not math.isfinite(exact) or exact > MAX_HOP_SECONDS * FRAMES_PER_SECOND:
        raise SettingsError(f"hop must be from 0.01 to {MAX_HOP_SECONDS:g} seconds, not {hop!r}")
    frames = round(exact)
    if frames < 1 or abs(exact - frames) > 1e-4:
        raise SettingsError(f"hop must be a positive multiple of 0.01 seconds (the frame hop), not {hop!r}")
    return frames


def check_pad(pad: str) -> Pad:
    """Returns ``pad`` if it is one of the three modes.

    Raises:
        SettingsError: it is not.
    """
    if pad not in get_args(Pad):
        raise SettingsError(f"pad must be 'short', 'drop' or 'tail', not {pad!r}")
    return pad  # type: ignore[return-value]


def count_windows(samples: int, hop: float = c.DEFAULT_HOP_SECONDS, pad: Pad = "short") -> int:
    """How many windows a clip gives.

    Args:
        samples: the clip's length at 16 kHz.
        hop: seconds, a positive multiple of 0.01.
        pad: "short", "drop" or "tail".
    """
    return _count(samples + padding(samples, hop, pad), hop_frames(hop))


def _count(samples: int, step: int) -> int:
    if samples < c.EXAMPLE_SAMPLES:
        return 0
    return 1 + (samples - c.EXAMPLE_SAMPLES) // (step * c.FRAME_HOP)


def padding(samples: int, hop: float = c.DEFAULT_HOP_SECONDS, pad: Pad = "short") -> int:
    """How many zero samples ``pad`` appends to a clip of that length.

    Args:
        samples: the clip's length at 16 kHz; of an empty clip nothing is padded.
        hop: seconds, a positive multiple of 0.01.
        pad: "short", "drop" or "tail".
    """
    step = hop_frames(hop) * c.FRAME_HOP
    pad = check_pad(pad)
    if samples <= 0 or pad == "drop":
        return 0
    if samples <= c.EXAMPLE_SAMPLES:
        return c.EXAMPLE_SAMPLES - samples
    if pad == "short":
        return 0
    # The first window that reaches the end; with hops longer than a window, the last that starts before it.
    last = min(-(-(samples - c.EXAMPLE_SAMPLES) // step), (samples - 1) // step)
    return max(0, last * step + c.EXAMPLE_SAMPLES - samples)


def window_times(first: int, count: int, hop: float = c.DEFAULT_HOP_SECONDS) -> tuple[np.ndarray, np.ndarray]:
    """When windows start and end.

    Args:
        first: index of the first window.
        count: how many windows.
        hop: seconds, a positive multiple of 0.01.

    Returns:
        start and end in seconds, each (count,) float64; ``start = i * hop``, ``end = start + 0.975``.
    """
    # i * frames is exact, and the division rounds once, so that times do not drift over days.
    start = np.arange(first, first + count, dtype=np.int64) * hop_frames(hop) / FRAMES_PER_SECOND
    return start, start + c.EXAMPLE_SECONDS
