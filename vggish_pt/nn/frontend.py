"""Front end: waveform at 16 kHz → log-mel windows, as in ``mel_features.py`` of Google's reference.

The reference cuts frames of 400 samples (25 ms) every 160 samples (10 ms) without padding, multiplies each with a
*periodic* Hann window, takes the magnitude of a 512-point FFT, sums it into 64 bands whose triangles are linear in mel,
and takes ``log(x + 0.01)``, all in float64. It then casts to float32 for the network. This module does the same,
differentiably and on any device.
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
    """Convert hertz to HTK's mel scale, ``1127 ln(1 + f / 700)``, as the reference does.

    Args:
        frequency: hertz, any shape.

    Returns:
        Mel, the same shape, float64.
    """
    mel: np.ndarray = 1127.0 * np.log(1.0 + np.asarray(frequency, dtype=np.float64) / 700.0)
    return mel


def mel_matrix() -> np.ndarray:
    """Return the weights that sum FFT magnitudes into mel bands.

    Band ``i`` is a triangle, linear in *mel*, from the ``i``-th to the ``i+2``-th of 66 points spaced evenly in mel
    from 125 to 7,500 Hz, with its peak of 1 at point ``i+1``. The bin of 0 Hz has weight 0.

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
    """Return the periodic Hann window of one frame: (400,) float64. (``np.hanning`` returns the symmetric one.)"""
    window: np.ndarray = 0.5 - 0.5 * np.cos(2 * np.pi / c.FRAME_LENGTH * np.arange(c.FRAME_LENGTH))
    return window


@lru_cache(maxsize=16)
def _tables(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    # Computed in float64 and rounded once for each device and dtype. As buffers, they would lose precision when a model
    # is cast to half precision and back.
    with torch.inference_mode(False):
        window = torch.from_numpy(hann_window()).to(device=device, dtype=dtype)
        matrix = torch.from_numpy(mel_matrix()).to(device=device, dtype=dtype)
    return window, matrix


def _magnitude(spectrum: Tensor) -> Tensor:
    # abs has a gradient at 0, but takes half of the front end's time. For samples in [-1, 1] the root is as exact.
    if spectrum.requires_grad:
        return spectrum.abs()
    real, imaginary = torch.view_as_real(spectrum).unbind(-1)
    return (real.square() + imaginary.square()).sqrt_()


class LogMel(nn.Module):
    """Compute log-mel windows of a waveform at 16 kHz. The module has no parameters; gradients flow to the waveform.

    Args:
        dtype: arithmetic of the front end. None (the default): float64 on the CPU, which equals the reference after the
            cast to float32, and float32 on other devices. Or ``torch.float32`` or ``torch.float64``.

    Raises:
        SettingsError: another dtype.
    """

    def __init__(self, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        if dtype not in (None, torch.float32, torch.float64):
            raise SettingsError(f"frontend dtype must be None, torch.float32 or torch.float64, not {dtype}")
        self.dtype = dtype

    def log_mel(self, waveform: Tensor) -> Tensor:
        """Compute a log-mel spectrogram.

        Args:
            waveform: (..., T) floating point at 16 kHz, in [-1, 1].

        Returns:
            (..., frames, 64) float32 with ``frames = 1 + (T - 400) // 160``, or 0 frames below 400 samples.

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
        """Cut a log-mel spectrogram into windows of 96 frames.

        Args:
            log_mel: (..., frames, 64).
            hop: seconds from the start of one window to the next, a multiple of 0.01.

        Returns:
            (..., n, 96, 64), a view of ``log_mel``. An incomplete window at the end is dropped.
        """
        step = hop_frames(hop)
        if log_mel.shape[-2] < c.EXAMPLE_FRAMES:
            return log_mel.new_zeros((*log_mel.shape[:-2], 0, c.EXAMPLE_FRAMES, c.MEL_BANDS))
        return log_mel.unfold(-2, c.EXAMPLE_FRAMES, step).transpose(-1, -2)

    def forward(self, waveform: Tensor, hop: float = c.DEFAULT_HOP_SECONDS) -> Tensor:
        """Compute the log-mel windows of a waveform.

        Args:
            waveform: (..., T) floating point at 16 kHz, in [-1, 1].
            hop: seconds from the start of one window to the next, a multiple of 0.01.

        Returns:
            (..., n, 96, 64) float32.

        Raises:
            SettingsError: a hop that is not a positive multiple of 0.01, or a waveform of another type.
        """
        return self.examples(self.log_mel(waveform), hop)

    def extra_repr(self) -> str:
        """Return the settings that are printed with the module."""
        return f"dtype={self.dtype}"
