"""Windows from a stream are the windows of the whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vggish_pt.errors import SettingsError
from vggish_pt.nn.frontend import LogMel
from vggish_pt.nn.streaming import StreamingLogMel
from vggish_pt.nn.windows import Pad, count_windows, padding

HOPS = (0.01, 0.1, 0.48, 0.96, 0.97, 1.5, 3.0)
NOISE = np.random.default_rng(0).standard_normal(100_000) * 0.1


def stream(pieces: list[np.ndarray], hop: float, pad: Pad) -> torch.Tensor:
    examples = StreamingLogMel(LogMel(), hop, pad)
    windows = [examples.push(piece) for piece in pieces]
    assert examples.samples == sum(map(len, pieces))
    return torch.cat([*windows, examples.flush()])


@pytest.mark.parametrize("hop", HOPS)
@pytest.mark.parametrize("pad", ["short", "drop", "tail"])
@given(length=st.integers(0, 80_000), cuts=st.lists(st.integers(0, 80_000), max_size=8))
@settings(deadline=None, max_examples=12)
def test_any_cutting_equals_the_whole(hop: float, pad: Pad, length: int, cuts: list[int]) -> None:
    waveform = NOISE[:length]
    windows = stream(np.split(waveform, sorted(min(cut, length) for cut in cuts)), hop, pad)
    whole = np.concatenate([waveform, np.zeros(padding(length, hop, pad))])
    expected = LogMel()(torch.from_numpy(whole), hop)
    assert windows.shape == expected.shape == (count_windows(length, hop, pad), 96, 64)
    assert windows.dtype == torch.float32
    torch.testing.assert_close(windows, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [1, 159, 160, 399, 400, 401, 15_600])
def test_pieces_of_one_size(size: int) -> None:
    length = 17_000 if size < 10 else 60_000
    pieces = [NOISE[start : min(start + size, length)] for start in range(0, length, size)]
    expected = LogMel()(torch.from_numpy(NOISE[:length]), 0.1)
    torch.testing.assert_close(stream(pieces, 0.1, "drop"), expected, rtol=0, atol=1e-6)


def test_a_buffer_may_be_used_again() -> None:
    """What is kept is a copy, even of a piece that is shorter than a frame."""
    buffer = np.zeros(300)
    examples = StreamingLogMel(LogMel(), 0.96, "short")
    windows = []
    for start in range(0, 60_000, 300):
        buffer[:] = NOISE[start : start + 300]
        windows.append(examples.push(buffer))
    buffer[:] = 99.0
    windows.append(examples.flush())
    torch.testing.assert_close(torch.cat(windows), LogMel()(torch.from_numpy(NOISE[:60_000])), rtol=0, atol=1e-6)


def kept_values(examples: Any) -> int:
    tensors = [v for v in vars(examples).values() if isinstance(v, torch.Tensor)]
    arrays = [v for v in vars(examples).values() if isinstance(v, np.ndarray)]
    storage = sum(t.untyped_storage().nbytes() // t.element_size() for t in tensors)
    return storage + sum((a if a.base is None else a.base).size for a in arrays)


@pytest.mark.parametrize("hop", HOPS)
def test_kept_state_is_bounded(hop: float) -> None:
    examples = StreamingLogMel(LogMel(), hop, "tail")
    for start in range(0, 96_000, 4000):
        examples.push(NOISE[start : start + 4000].repeat(4))
        assert kept_values(examples) <= 96 * 64 + 400


def test_settings_are_checked() -> None:
    with pytest.raises(SettingsError, match="hop"):
        StreamingLogMel(LogMel(), 0.965)
    with pytest.raises(SettingsError, match="pad"):
        StreamingLogMel(LogMel(), 0.96, "zero")  # type: ignore[arg-type]
