"""Log-mel windows of a waveform that arrives in blocks; they equal those of the whole waveform."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vggish_pt import constants as c
from vggish_pt.errors import SettingsError
from vggish_pt.nn.frontend import LogMel
from vggish_pt.nn.windows import Pad, check_pad, hop_frames, padding

Waveform = NDArray[np.float64]
"""Samples of one channel at 16 kHz: (T,) float64."""


class StreamingLogMel:
    """Cut a stream of samples into the log-mel windows of a clip.

    Between calls it holds less than one window of frames and less than one frame of samples.

    Args:
        frontend: computes the log-mel frames. Each frame is computed once, also where windows overlap.
        hop: seconds from the start of one window to the next, a multiple of 0.01.
        pad: padding of an incomplete window at the end; see :data:`vggish_pt.nn.windows.Pad`.
        device: where to compute.

    Attributes:
        samples: number of samples received.
        windows: number of windows returned.
    """

    def __init__(
        self,
        frontend: LogMel,
        hop: float = c.DEFAULT_HOP_SECONDS,
        pad: Pad = "short",
        device: torch.device | str = "cpu",
    ) -> None:
        self.samples = 0
        self.windows = 0
        self._frontend = frontend
        self._hop = hop
        self._step = hop_frames(hop)
        self._pad = check_pad(pad)
        self._device = torch.device(device)
        self._waveform: Waveform = np.zeros(0)
        self._frames = torch.zeros(0, c.MEL_BANDS, device=self._device)
        self._skip = 0  # frames to drop before the next window, if the hop is longer than a window

    def push(self, samples: Waveform) -> Tensor:
        """Return the windows that the next samples complete.

        Args:
            samples: (T,) float64 at 16 kHz.

        Returns:
            (n, 96, 64) float32, n from 0.
        """
        self.samples += len(samples)
        return self._advance(samples)

    def flush(self) -> Tensor:
        """End the clip: pad it and return the last windows, (n, 96, 64) float32, n from 0."""
        missing = padding(self.samples, self._hop, self._pad)
        return self._advance(np.zeros(missing))

    def state(self) -> tuple[Waveform, NDArray[np.float32]]:
        """Return copies of the samples of the incomplete frame, (T,), and frames of the incomplete window, (n, 64)."""
        return self._waveform.copy(), self._frames.cpu().numpy().copy()

    def resume(self, samples: int, waveform: Waveform, frames: NDArray[np.float32]) -> None:
        """Resume another stream of the same hop in this one, which has received nothing yet.

        Args:
            samples: number of samples that the other stream had received.
            waveform: samples of its :meth:`state`, (T,) float64.
            frames: frames of its :meth:`state`, (n, 64) float32.

        Raises:
            SettingsError: the shapes do not fit the number of samples.
        """
        computed = max(0, 1 + (samples - c.FRAME_LENGTH) // c.FRAME_HOP)
        windows = max(0, 1 + (computed - c.EXAMPLE_FRAMES) // self._step)
        position = windows * self._step
        if waveform.shape != (samples - computed * c.FRAME_HOP,) or frames.shape != (
            max(0, computed - position),
            c.MEL_BANDS,
        ):
            raise SettingsError("the stream's state does not fit together; it is damaged, or of another hop")
        self.samples, self.windows, self._skip = samples, windows, max(0, position - computed)
        self._waveform = waveform.copy()
        self._frames = torch.from_numpy(frames.copy()).to(self._device)

    def _advance(self, samples: Waveform) -> Tensor:
        waveform = np.concatenate([self._waveform, samples]) if len(self._waveform) else samples
        count = max(0, 1 + (len(waveform) - c.FRAME_LENGTH) // c.FRAME_HOP)
        if count == 0:
            self._waveform = waveform.copy()
            return self._frames.new_zeros(0, c.EXAMPLE_FRAMES, c.MEL_BANDS)
        used = torch.from_numpy(np.ascontiguousarray(waveform[: (count - 1) * c.FRAME_HOP + c.FRAME_LENGTH]))
        # A copy, as the caller may reuse the memory of the block.
        self._waveform = waveform[count * c.FRAME_HOP :].copy()
        if self._device.type != "cpu":
            used = used.float().to(self._device, non_blocking=True)
        frames = self._frontend.log_mel(used)
        skipped = min(self._skip, len(frames))
        self._skip -= skipped
        frames = torch.cat([self._frames, frames[skipped:]])
        windows = self._frontend.examples(frames, self._hop)
        consumed = len(windows) * self._step
        self._skip += max(0, consumed - len(frames))
        self._frames = frames[consumed:].clone()
        self.windows += len(windows)
        return windows
