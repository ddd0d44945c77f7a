"""Store of decoded audio, so that training decodes each file once and not in every epoch."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggish_pt.audio import open_audio
from vggish_pt.audio.clip import Clip
from vggish_pt.audio.resample import ResamplerName, require_resampler
from vggish_pt.audio.waveform import waveform_chunks
from vggish_pt.errors import AudioError, OutputError, VGGishError
from vggish_pt.utils.prefetch import prefetch
from vggish_pt.utils.text import error_reason

Samples = NDArray[np.float32]

_SAMPLES_NAME = "waveforms.f32"
_INDEX_NAME = "waveforms.json"


class WaveformStore:
    """Waveforms at 16 kHz by number, in memory or in a memory-mapped file.

    Args:
        lengths: number of samples of each waveform.
        arrays: the waveforms, or None if ``path`` holds them.
        path: file of the waveforms, one after another, as float32.
    """

    def __init__(self, lengths: Sequence[int], arrays: list[Samples] | None, path: Path | None = None) -> None:
        self.lengths = list(lengths)
        self._arrays = arrays
        self._path = path
        self._offsets = np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)])
        self._mapped: Samples | None = None

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, number: int) -> Samples:
        """Return a waveform (T,) float32, which must not be changed."""
        if self._arrays is not None:
            return self._arrays[number]
        if self._mapped is None:
            self._mapped = np.memmap(self._path or "", dtype=np.float32, mode="r")
        return self._mapped[self._offsets[number] : self._offsets[number + 1]]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_mapped": None}  # each worker process maps the file itself


def decode(item: Clip, resampler: ResamplerName = "soxr") -> Samples:
    """Return the waveform of a clip at 16 kHz, (T,) float32.

    Raises:
        AudioError: the clip is missing, empty, damaged or non-finite.
    """
    name = item.name
    try:
        with open_audio(item.audio_source, name=name, start=item.start, end=item.end) as audio:
            return np.concatenate(list(waveform_chunks(audio, resampler))).astype(np.float32)
    except (OSError, MemoryError, RuntimeError) as error:
        if isinstance(error, VGGishError):
            raise
        raise AudioError(f"{name}: cannot be read ({type(error).__name__}: {error})", name) from None


def load(
    items: Sequence[Clip],
    folder: Path | None,
    *,
    resampler: ResamplerName = "soxr",
    workers: int = 1,
    watch: Callable[[int, int], None] | None = None,
) -> tuple[WaveformStore, dict[int, AudioError]]:
    """Decode a data set.

    Args:
        items: clips to decode.
        folder: folder for a file of samples, which a later call with the same clips reuses; None keeps the samples in
            memory. A minute of audio takes 3.8 MB.
        resampler: library that resamples.
        workers: threads that decode.
        watch: function called with the number of decoded clips and of all clips.

    Returns:
        The waveforms, of length 0 for clips that cannot be read, and the errors of these clips by index.

    Raises:
        MissingDependencyError: the resampler's library is not installed.
        OutputError: the folder cannot be written.
    """
    require_resampler(resampler)
    digest = hashlib.blake2b(resampler.encode() + b"".join(item.key for item in items), digest_size=16).hexdigest()
    if folder is not None and (found := _reopen(folder, digest)) is not None:
        return found, {}
    failures: dict[int, AudioError] = {}

    def decoded(index: int) -> Generator[Samples | AudioError]:
        try:
            yield decode(items[index], resampler)
        except AudioError as error:
            yield error

    def arrays() -> Generator[Samples]:
        with closing(prefetch(range(len(items)), decoded, workers)) as results:
            for index, result in enumerate(results):
                if isinstance(result, AudioError):
                    failures[index] = result
                    yield np.zeros(0, np.float32)
                else:
                    yield result
                if watch is not None:
                    watch(index + 1, len(items))

    if folder is None:
        found_arrays = list(arrays())
        return WaveformStore([len(array) for array in found_arrays], found_arrays), failures
    with _writing(folder), closing(arrays()) as waveforms:
        lengths = _write_samples(folder, waveforms)
        if not failures:
            index = json.dumps({"digest": digest, "lengths": lengths})
            (folder / _INDEX_NAME).write_text(index, encoding="ascii")
    if sum(lengths) == 0:  # an empty file cannot be mapped
        return WaveformStore(lengths, [np.zeros(0, np.float32)] * len(lengths)), failures
    return WaveformStore(lengths, None, folder / _SAMPLES_NAME), failures


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if isinstance(error, VGGishError):
            raise
        raise OutputError(f"{folder}: decoded audio cannot be written there ({error_reason(error)})") from error


def _write_samples(folder: Path, waveforms: Iterable[Samples]) -> list[int]:
    lengths = []
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _INDEX_NAME).unlink(missing_ok=True)
    with (folder / _SAMPLES_NAME).open("wb") as file:
        for waveform in waveforms:
            file.write(waveform.tobytes())
            lengths.append(len(waveform))
    return lengths


def remove(folder: Path) -> None:
    """Remove the files that :func:`load` wrote into a folder."""
    shutil.rmtree(folder, ignore_errors=True)


def _reopen(folder: Path, digest: str) -> WaveformStore | None:
    try:
        index = json.loads((folder / _INDEX_NAME).read_text(encoding="ascii"))
        lengths = [int(length) for length in index["lengths"]]
        size = (folder / _SAMPLES_NAME).stat().st_size
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if index["digest"] != digest or size != 4 * sum(lengths) or size == 0 or min(lengths) < 0:
        return None
    return WaveformStore(lengths, None, folder / _SAMPLES_NAME)
