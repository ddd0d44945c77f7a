"""Sources that do to a worker what hostile files might; in a module of their own, as workers import it."""

from __future__ import annotations

import io
import os
import signal
import time
import warnings
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile as sf

from vggish_pt.errors import AudioWarning


def wav(seconds: float, seed: int = 0, rate: int = 16_000) -> bytes:
    """Noise as the bytes of a WAV file."""
    file = io.BytesIO()
    samples = np.random.default_rng(seed).standard_normal(round(seconds * rate)) * 0.1
    sf.write(file, samples, rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


@dataclass
class Sound:
    """A sound file."""

    data: bytes

    def open(self) -> AbstractContextManager[BinaryIO]:
        return io.BytesIO(self.data)


@dataclass
class Deadly(Sound):
    """Ends its process by a signal (SIGSEGV, SIGKILL) or ``os._exit``, ``times`` times, ``after`` so many reads."""

    log: Path
    how: str = "SIGSEGV"
    times: int = 99
    after: int = 0

    def open(self) -> AbstractContextManager[BinaryIO]:
        with self.log.open("a") as log:
            log.write(f"{os.getpid()}\n")
        deaths = len(self.log.read_text().split())
        return _Bomb(self.data, None if deaths > self.times else self.how, self.after)


class _Bomb(io.BytesIO):
    def __init__(self, data: bytes, how: str | None, after: int) -> None:
        super().__init__(data)
        self._how = how
        self._after = after

    def read(self, size: int | None = -1) -> bytes:
        self._blow(self.tell())
        return super().read(size)

    def readinto(self, buffer: object) -> int:
        self._blow(self.tell())
        return super().readinto(buffer)  # type: ignore[arg-type]

    def _blow(self, position: int) -> None:
        if self._how is None or position < self._after:
            return
        if self._how == "exit":
            os._exit(7)
        time.sleep(0.2)  # what was read so far goes out
        os.kill(os.getpid(), getattr(signal, self._how))


@dataclass
class Failing:
    """Raises what no audio file would."""

    def open(self) -> AbstractContextManager[BinaryIO]:
        raise KeyError("no such object\nin the store")


@dataclass
class Warning_(Sound):
    """Warns about its audio, and prints."""

    def open(self) -> AbstractContextManager[BinaryIO]:
        print("a library's chatter", flush=True)
        os.write(1, b"and that of a library in C\n")
        warnings.warn("loud", AudioWarning, stacklevel=1)
        return io.BytesIO(self.data)


@dataclass
class Waiting(Sound):
    """Says its process, and waits until a file is there."""

    here: Path
    until: Path

    def open(self) -> AbstractContextManager[BinaryIO]:
        self.here.write_text(str(os.getpid()))
        while not self.until.exists():
            time.sleep(0.02)
        return io.BytesIO(self.data)


@dataclass
class Counting(Sound):
    """Notes that it was opened."""

    log: Path
    columns: dict[str, str] = field(default_factory=dict)

    def open(self) -> AbstractContextManager[BinaryIO]:
        with self.log.open("a") as log:
            log.write("x")
        return io.BytesIO(self.data)
