"""From sources to embeddings: decode → resample → examples → network → postprocess, batched across sources.

Threads decode, resample and run the front end ahead; the caller's thread runs the network. Results come in the order
of the sources, and neither the length of a source nor their number adds to memory, embeddings aside.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor

from vggish_pt import constants as c
from vggish_pt.audio import AudioLike, display_name, open_audio
from vggish_pt.errors import AudioError, SettingsError, VGGishError
from vggish_pt.examples import ExampleStream
from vggish_pt.prefetch import prefetch
from vggish_pt.resample import require_resampler
from vggish_pt.settings import EmbedSettings
from vggish_pt.waveform import waveform_pieces
from vggish_pt.windows import window_times

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

    from vggish_pt.item import Item, Opener
    from vggish_pt.model import VGGish

DEFAULT_BATCH_SIZE = 256


@dataclass(frozen=True)
class Embeddings:
    """The embeddings of one source.

    Attributes:
        values: (n, 128) float32, or uint8 if quantised; of an earlier layer, its shape behind n. On the CPU.
        start: (n,) float64, when each window starts, in seconds.
        end: (n,) float64, when it ends: ``start + 0.975``. Where audio was padded, later than the audio's end.
        source: name of the source.
        duration: seconds of audio that the source held.
    """

    values: Tensor
    start: Tensor
    end: Tensor
    source: str = field(default="", compare=False)
    duration: float = field(default=0.0, compare=False)

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        return (
            f"Embeddings(values={tuple(self.values.shape)} {self.values.dtype}, "
            f"source={self.source!r}, duration={self.duration:.3f} s)"
        )


@dataclass
class _Opened:
    """A source has been opened: how results call it."""

    name: str


@dataclass
class _Ended:
    """A source has been read to its end: so many seconds."""

    duration: float


_Piece: TypeAlias = "_Opened | Tensor | _Ended | VGGishError"


@dataclass
class _Task:
    source: AudioLike | Opener
    name: str | None
    sample_rate: float | None = None


def is_many(source: object) -> bool:
    """Whether ``embed`` was given many sources, not one."""
    one = (str, bytes, bytearray, memoryview, os.PathLike, np.ndarray, Tensor)
    return isinstance(source, Iterable) and not isinstance(source, one) and not hasattr(source, "read")


def embed_sources(
    model: VGGish,
    sources: Iterable[AudioLike],
    sample_rate: float | None,
    settings: EmbedSettings,
    *,
    workers: int = 1,
    numbered: bool = True,
) -> Generator[Embeddings | VGGishError]:
    """Embeds sources one after the other; see :meth:`vggish_pt.VGGish.embed_iter`.

    Args:
        model: the model.
        sources: any iterable.
        sample_rate: hertz, for arrays.
        settings: what decides the numbers.
        workers: threads that read ahead; 0 for none.
        numbered: whether sources without a name of their own are called by their number.

    Raises:
        SettingsError: settings that do not fit the model, or no iterable.
    """
    if isinstance(workers, bool) or not isinstance(workers, int) or not 0 <= workers <= 256:
        raise SettingsError(f"workers must be a whole number from 0 to 256, not {workers!r}")
    check_model(model, settings)
    if not is_many(sources):
        raise SettingsError(f"embed_iter takes many sources; put the {type(sources).__name__} in a list")
    tasks = (
        _Task(source, f"input {i}" if numbered and not _has_name(source) else None, sample_rate)
        for i, source in enumerate(sources)
    )
    return _run(model, tasks, settings, workers)


def embed_items(
    model: VGGish, items: Iterable[Item], settings: EmbedSettings, *, workers: int = 1
) -> Generator[tuple[Item, Embeddings | VGGishError]]:
    """Embeds the inputs of a data set; closing the iterator early stops its threads.

    Args:
        model: the model.
        items: any iterable; it is read as far ahead as needed to fill batches.
        settings: what decides the numbers.
        workers: threads that read ahead; 0 for none.

    Yields:
        Each input with its embeddings, or the error that says why there are none.

    Raises:
        SettingsError: settings that do not fit the model.
    """
    check_model(model, settings)
    taken: deque[Item] = deque()

    def tasks() -> Generator[_Task]:
        for item in items:
            taken.append(item)
            yield _Task(item.path if item.source is None else item.source, display_name(item.path))

    with closing(_run(model, tasks(), settings, workers)) as results:
        for result in results:
            yield taken.popleft(), result


def check_model(model: VGGish, settings: EmbedSettings) -> None:
    """Makes sure, before any work is done, that the model and this machine can do what the settings ask.

    Raises:
        MissingDependencyError: the resampler's library is not there.
        WeightsError: the model has no PCA parameters.
    """
    require_resampler(settings.resampler)
    if settings.postprocess is not None and not model.postprocess.available:
        model.postprocess(torch.zeros(0, c.EMBEDDING_SIZE))  # says what is missing


def _run(
    model: VGGish, tasks: Iterable[_Task], settings: EmbedSettings, workers: int
) -> Generator[Embeddings | VGGishError]:
    batch = Batch(model, settings)
    open_records: deque[_Record] = deque()
    record: _Record | None = None
    pieces = prefetch(tasks, lambda task: _examples(model, task, settings), workers, prepare=_use_one_thread)
    with closing(pieces):  # whatever happens here, its threads stop at once
        for piece in pieces:
            if record is None or record.ended:  # a source begins: it was opened, or could not be
                record = _Record(piece.name if isinstance(piece, _Opened) else "")
                open_records.append(record)
            if isinstance(piece, Tensor):
                batch.add(record, piece)
            elif isinstance(piece, _Ended):
                record.end(piece.duration)
            elif isinstance(piece, VGGishError):
                record.fail(piece)
            while open_records and open_records[0].complete:
                yield open_records.popleft().result(batch, settings.hop)
    batch.run_all()
    for record in open_records:
        yield record.result(batch, settings.hop)


def _has_name(source: object) -> bool:
    return isinstance(source, str | os.PathLike) or isinstance(getattr(source, "name", None), str)


def _use_one_thread() -> None:
    """Keeps torch in this thread from sharing its small operations out to others: waiting for them costs more."""
    torch.get_num_threads()  # the first call in a thread sets torch's own number, so it must come first
    _openmp().limit(limits=1, user_api="openmp")


@cache
def _openmp() -> ThreadpoolController:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def _examples(model: VGGish, task: _Task, settings: EmbedSettings) -> Generator[_Piece]:
    """One source as log-mel windows between marks of its beginning and end, or up to an error."""
    try:
        with open_audio(
            task.source, task.sample_rate, name=task.name, allow_truncated=settings.allow_truncated
        ) as audio:
            yield _Opened(audio.name)
            stream = ExampleStream(model.frontend, settings.hop, settings.pad, model.device)
            for samples in waveform_pieces(audio, settings.resampler):
                yield stream.push(samples)
            yield stream.flush()
            yield _Ended(audio.decoded / audio.sample_rate)
    except VGGishError as error:
        yield error
    except (OSError, MemoryError, RuntimeError) as error:
        name = task.name or display_name(task.source)
        yield AudioError(f"{name}: cannot be read ({type(error).__name__}: {error})", name)


class _Record:
    """A source whose results are being gathered."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ended = False
        self.error: VGGishError | None = None
        self.pending = 0
        self._duration = 0.0
        self._values: list[Tensor] = []

    @property
    def complete(self) -> bool:
        return self.error is not None or (self.ended and self.pending == 0)

    def fail(self, error: VGGishError) -> None:
        self.error = error
        self.end(0.0)
        self._values.clear()

    def end(self, duration: float) -> None:
        self.ended = True
        self._duration = duration

    def take(self, values: Tensor) -> None:
        self.pending -= len(values)
        if self.error is None:
            self._values.append(values)

    def result(self, batch: Batch, hop: float) -> Embeddings | VGGishError:
        if self.error is not None:
            return self.error
        values = torch.cat(self._values) if self._values else batch.empty()
        start, end = window_times(0, len(values), hop)
        return Embeddings(values, torch.from_numpy(start), torch.from_numpy(end), self.name, self._duration)


class Receiver(Protocol):
    """Who gets the values of windows that were added to a batch."""

    pending: int
    """How many of its windows are still to be computed."""

    def take(self, values: Tensor) -> None:
        """Takes the values of its next windows."""


class Batch:
    """Gathers windows of any sources until there are enough for a pass through the network.

    Args:
        model: the model.
        settings: what decides the numbers, and the size of a pass.
    """

    def __init__(self, model: VGGish, settings: EmbedSettings) -> None:
        self._model = model
        self._settings = settings
        self._size = settings.batch_size or DEFAULT_BATCH_SIZE
        self._waiting: deque[tuple[Receiver, Tensor]] = deque()
        self._count = 0

    def add(self, record: Receiver, examples: Tensor) -> None:
        """Adds windows, (n, 96, 64); runs the network as often as there are enough."""
        if len(examples) == 0:
            return
        record.pending += len(examples)
        self._count += len(examples)
        self._waiting.append((record, examples))
        while self._count >= self._size:
            self._run_one()

    def run_all(self) -> None:
        """Runs the network on what is left."""
        while self._count:
            self._run_one()

    def empty(self) -> Tensor:
        """The values of a clip without windows: none, of the right shape and type."""
        return self._compute(torch.zeros(0, c.EXAMPLE_FRAMES, c.MEL_BANDS))

    def _run_one(self) -> None:
        taken: list[tuple[Receiver, Tensor]] = []
        room = self._size
        while room and self._waiting:
            record, examples = self._waiting.popleft()
            if len(examples) > room:
                self._waiting.appendleft((record, examples[room:]))
                examples = examples[:room]
            taken.append((record, examples))
            room -= len(examples)
        values = self._compute(torch.cat([examples for _, examples in taken]))
        self._count -= len(values)
        for (record, _), part in zip(taken, torch.split(values, [len(e) for _, e in taken]), strict=True):
            record.take(part)

    @torch.inference_mode()
    def _compute(self, examples: Tensor) -> Tensor:
        network = self._model.network
        weight = network.conv1.weight
        values = network.infer(examples.to(weight.device, weight.dtype), self._settings.layer).float()
        if self._settings.postprocess is not None:
            values = self._model.postprocess(values, quantize=self._settings.postprocess == "uint8")
        # A plain tensor of its own: users may compute gradients with it, and no batch is kept alive by one row.
        return _plain(values.cpu())


def _plain(values: Tensor) -> Tensor:
    with torch.inference_mode(False):
        return torch.empty(values.shape, dtype=values.dtype).copy_(values)
