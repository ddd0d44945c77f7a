"""Windows of a clip: their number, their padding and their times, from the clip's length, the hop and the padding mode.

Lengths are whole numbers of samples at 16 kHz or of 10 ms frames; only arguments and results are in seconds.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np

from vggish_pt import constants as c
from vggish_pt.errors import SettingsError

Pad = Literal["short", "drop", "tail"]
"""Padding of audio that does not fill its last window.

``"short"`` pads with zeros only a clip shorter than one window, and drops an incomplete tail as the reference does.
``"drop"`` equals the reference: 0 windows below 15,600 samples. ``"tail"`` pads the tail too, so that windows cover
every sample.
"""

FRAMES_PER_SECOND = c.SAMPLE_RATE // c.FRAME_HOP
MAX_HOP_SECONDS = 3600.0


def hop_frames(hop: float) -> int:
    """Return a hop as a whole number of 10 ms frames.

    Args:
        hop: seconds, a positive multiple of 0.01.

    Raises:
        SettingsError: the hop is not a number, not positive, not a multiple of 0.01 (within 1e-6), or above an hour.
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
    """Return ``pad`` if it is a padding mode.

    Raises:
        SettingsError: it is not one.
    """
    if pad not in get_args(Pad):
        raise SettingsError(f"pad must be 'short', 'drop' or 'tail', not {pad!r}")
    return pad  # type: ignore[return-value]


def count_windows(samples: int, hop: float = c.DEFAULT_HOP_SECONDS, pad: Pad = "short") -> int:
    """Return the number of windows of a clip.

    Args:
        samples: length of the clip at 16 kHz.
        hop: seconds, a positive multiple of 0.01.
        pad: "short", "drop" or "tail".
    """
    return _count(samples + padding(samples, hop, pad), hop_frames(hop))


def _count(samples: int, step: int) -> int:
    if samples < c.EXAMPLE_SAMPLES:
        return 0
    return 1 + (samples - c.EXAMPLE_SAMPLES) // (step * c.FRAME_HOP)


def padding(samples: int, hop: float = c.DEFAULT_HOP_SECONDS, pad: Pad = "short") -> int:
    """Return the number of zero samples that ``pad`` appends to a clip.

    Args:
        samples: length of the clip at 16 kHz. An empty clip is not padded.
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
    # Index of the first window that reaches the clip's end, or, if the hop is longer than a window, of the last window
    # that starts before the clip's end.
    last = min(-(-(samples - c.EXAMPLE_SAMPLES) // step), (samples - 1) // step)
    return max(0, last * step + c.EXAMPLE_SAMPLES - samples)


def window_times(first: int, count: int, hop: float = c.DEFAULT_HOP_SECONDS) -> tuple[np.ndarray, np.ndarray]:
    """Return the start and end times of consecutive windows.

    Args:
        first: index of the first window.
        count: number of windows.
        hop: seconds, a positive multiple of 0.01.

    Returns:
        Start and end in seconds, each (count,) float64; ``start = i * hop``, ``end = start + 0.975``.
    """
    # The product of integers is exact and the division rounds once, so rounding errors do not add up.
    start = np.arange(first, first + count, dtype=np.int64) * hop_frames(hop) / FRAMES_PER_SECOND
    return start, start + c.EXAMPLE_SECONDS
