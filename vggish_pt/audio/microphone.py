"""Recording from a microphone with the extra ``mic`` (sounddevice, which uses PortAudio)."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggish_pt.errors import AudioError
from vggish_pt.utils.optional import require

# Limit of recorded audio that waits to be embedded. Beyond it, audio would be lost and all later times would be wrong,
# so this is an error.
_MAX_WAITING_SECONDS = 30.0
_BLOCK_SECONDS = 0.02
_POLL_SECONDS = 0.1


class Microphone:
    """Default input device: a context manager from which audio is read as it arrives.

    Args:
        sample_rate: hertz; None for the device's own.
        channels: number of channels.

    Attributes:
        sample_rate: hertz.

    Raises:
        AudioError: there is no microphone, or it does not support the rate or the number of channels.
        MissingDependencyError: sounddevice is not installed.
    """

    def __init__(self, sample_rate: int | None = None, channels: int = 1) -> None:
        self._library = require("sounddevice", "the microphone")
        self._waiting: queue.Queue[NDArray[np.float32]] = queue.Queue(int(_MAX_WAITING_SECONDS / _BLOCK_SECONDS))
        self._lost: str | None = None
        try:
            own = self._library.query_devices(kind="input")["default_samplerate"]
            self.sample_rate = int(own) if sample_rate is None else sample_rate
            self._stream = self._library.InputStream(
                samplerate=self.sample_rate,
                channels=channels,
                dtype="float32",
                blocksize=int(self.sample_rate * _BLOCK_SECONDS),
                callback=self._receive,
            )
        except (self._library.PortAudioError, ValueError) as error:
            raise AudioError(f"microphone: cannot be opened ({error})", "microphone") from error

    def _receive(self, block: NDArray[np.float32], _frames: int, _time: Any, status: Any) -> None:
        if status.input_overflow:
            self._lost = "the system lost audio"
        try:
            self._waiting.put_nowait(block.T.copy())  # PortAudio reuses the memory of the block
        except queue.Full:
            self._lost = "embedding is slower than the recording; use a longer hop"

    def read(self) -> NDArray[np.float32]:
        """Wait for the next block of audio and return it.

        Returns:
            (channels, n) float32.

        Raises:
            AudioError: audio was lost.
        """
        while True:
            if self._lost is not None:
                raise AudioError(f"microphone: {self._lost}", "microphone")
            try:
                return self._waiting.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                continue

    def rest(self) -> Iterator[NDArray[np.float32]]:
        """Stop recording, and yield the blocks that were recorded but not read."""
        self._stream.close()
        while not self._waiting.empty():
            yield self._waiting.get()

    def __enter__(self) -> Microphone:
        self._stream.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stream.close()
