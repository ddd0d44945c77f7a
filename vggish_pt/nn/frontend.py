"""The front end: waveform at 16 kHz → log-mel examples, as in ``mel_features.py`` of Google's reference.

The reference frames without padding, applies a *periodic* Hann window, takes the magnitude of a 512-point FFT,
sums it into 64 bands whose triangles are linear in mel, and takes ``log(x + 0.01)``, all in float64. It then casts to
float32 for the network. This module does the same, differentiably and on any device.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from vggish_pt import constants as c
from vggish_pt.errors import SettingsError
from vggish_pt.nn.windows import hop_frames

# Frames per FFT call: 256 float64 frames and their spectra stay within a CPU's second-level cache.
_BLOCK_FRAMES = 256


def hertz_to_mel(frequency: np.ndarray | float) -> np.ndarray:
    """HTK's mel scale, ``1127 ln(1 + f / 700)``, as the reference has it.

    Args:
        frequency: hertz, any shape.

    Returns:
        mel, the same shape, float64.
    """
    mel: np.ndarray = 1127.0 * np.log(1.0 + np.asarray(frequency, dtype=np.float64) / 700.0)
    return mel


def mel_matrix() -> np.ndarray:
    """Weights that sum FFT magnitudes into mel bands.

    Band ``i`` is a triangle, linear in *mel*, between the ``i``-th and ``i+2``-th of 66 points spaced evenly in mel
    from 125 to 7,500 Hz, with its peak of 1 at the point between. The constant bin gets no weight.

    Returns:
        (257, 64) float64.
    """
    bins = hertz_to_mel(np.linspace(0.0, c.SAMPLE_RATE / 2, c.FFT_LENGTH // 2 + 1))
    edges = np.linspace(hertz_to_mel(c.MEL_MIN_HZ), hertz_to_mel(c.MEL_MAX_HZ), c.MEL_BANDS + 2)
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    rising = (bins[:, None] - lower) / (centre - lower)
    falling = (upper - bins[:, None]) / (upper - centre)
    weights: np.ndarray = np.maximum(0.0, np.minimum(rising, falling))
    weights[0, :] = 0.0
    return weights


def hann_window() -> np.ndarray:
    """The periodic Hann window of one frame: (400,) float64. (``np.hanning`` is the symmetric one.)"""
    window: np.ndarray = 0.5 - 0.5 * np.cos(2 * np.pi / c.FRAME_LENGTH * np.arange(c.FRAME_LENGTH))
    return window


@lru_cache(maxsize=16)
def _tables(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    # Computed in float64 and rounded once for each device and dtype, so that a model that was cast to
    # half precision and back has lost nothing. Not buffers for the same reason.
    with torch.inference_mode(False):
        window = torch.from_numpy(hann_window()).to(device=device, dtype=dtype)
        matrix = torch.from_numpy(mel_matrix()).to(device=device, dtype=dtype)
    return window, matrix


def _magnitude(spectrum: Tensor) -> Tensor:
    # abs has a gradient at 0, and takes half the front end's time; the root is as exact where samples are in [-1, 1].
    if spectrum.requires_grad:
        return spectrum.abs()
    real, imaginary = torch.view_as_real(spectrum).unbind(-1)
    return (real.square() + imaginary.square()).sqrt_()


class LogMel(nn.Module):
    """Waveform at 16 kHz → log-mel examples.

    Args:
        dtype: the precision in which to compute. None (the default): float64 on the CPU, which equals the reference
            after the cast to float32, and float32 on other devices.

    There are no parameters. Gradients flow to the waveform.
    """

    def __init__(self, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        if dtype not in (None, torch.float32, torch.float64):
            raise SettingsError(f"frontend dtype must be None, torch.float32 or torch.float64, not {dtype}")
        self.dtype = dtype

    def log_mel(self, waveform: Tensor) -> Tensor:
        """Log-mel spectrogram.

        Args:
            waveform: (..., T) floating point at 16 kHz, in [-1, 1].

        Returns:
            (..., frames, 64) float32, where ``frames = 1 + (T - 400) // 160``, or 0 below 400 samples.

        Raises:
            SettingsError: the waveform is not a floating-point tensor with at least one dimension.
        """
        if not isinstance(waveform, Tensor) or not waveform.is_floating_point() or waveform.ndim == 0:
            what = (
                f"{waveform.dtype} of shape {tuple(waveform.shape)}"
                if isinstance(waveform, Tensor)
                else type(waveform).__name__
            )
            raise SettingsError(f"the front end takes a floating-point tensor (..., T) at 16 kHz, not {what}")
        dtype = self.dtype or (torch.float64 if waveform.device.type == "cpu" else torch.float32)
        leading = waveform.shape[:-1]
        count = max(0, 1 + (waveform.shape[-1] - c.FRAME_LENGTH) // c.FRAME_HOP)
        if count == 0 or 0 in leading:
            return waveform.new_zeros((*leading, count, c.MEL_BANDS), dtype=torch.float32)
        window, matrix = _tables(waveform.device, dtype)
        frames = waveform.to(dtype).unfold(-1, c.FRAME_LENGTH, c.FRAME_HOP)
        blocks = [
            torch.log(_magnitude(torch.fft.rfft(block * window, n=c.FFT_LENGTH)) @ matrix + c.LOG_OFFSET)
            for block in torch.split(frames, _BLOCK_FRAMES, dim=-2)
        ]
        spectrogram = blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=-2)
        return spectrogram.to(torch.float32)

    def examples(self, log_mel: Tensor, hop: float = c.DEFAULT_HOP_SECONDS) -> Tensor:
        """Cuts a log-mel spectrogram into windows of 96 frames.

        Args:
            log_mel: (..., frames, 64).
            hop: seconds from the start of one window to the next, a multiple of 0.01.

        Returns:
            (..., n, 96, 64), a view where windows overlap; an incomplete window at the end is left out.
        """
        step = hop_frames(hop)
        if log_mel.shape[-2] < c.EXAMPLE_FRAMES:
            return log_mel.new_zeros((*log_mel.shape[:-2], 0, c.EXAMPLE_FRAMES, c.MEL_BANDS))
        return log_mel.unfold(-2, c.EXAMPLE_FRAMES, step).transpose(-1, -2)

    def forward(self, waveform: Tensor, hop: float = c.DEFAULT_HOP_SECONDS) -> Tensor:
        """Waveform → log-mel examples.

        Args:
            waveform: (..., T) floating point at 16 kHz, in [-1, 1].
            hop: seconds from the start of one window to the next, a multiple of 0.01.

        Returns:
            (..., n, 96, 64) float32.

        Raises:
            SettingsError: a hop that is no positive multiple of 0.01, or a waveform of another type.
        """
        return self.examples(self.log_mel(waveform), hop)

    def extra_repr(self) -> str:
        """Shown when the module is printed."""
        return f"dtype={self.dtype}"
