"""Batching: windows of any clips are collected into batches of a fixed size for one device or several."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from vggish_pt.inference.loading import no_windows
from vggish_pt.inference.runners import PendingBatch, compute, make_runner, plain

if TYPE_CHECKING:
    from vggish_pt.inference.settings import EmbedSettings
    from vggish_pt.nn.extractor import Extractor

DEFAULT_BATCH_SIZE = 256

# Size of the first batch; each further one is twice as large, up to the batch size. If the network waited for a full
# first batch, it would be idle while that is loaded, which for a few files is most of the time. The sizes depend only
# on the number of batches so far, so that results are the same bit for bit in each run.
_FIRST_BATCH = 32


class Receiver(Protocol):
    """Receiver of the values of windows that were added to a batch.

    Attributes:
        pending: number of its windows that are still to be computed.
    """

    pending: int

    def take(self, values: Tensor) -> None:
        """Receive the values of its next windows, (n, ...)."""


class Batch:
    """Collect windows of any clips until they fill a batch, and run the network.

    A receiver gets its values in the order of its windows: on the CPU in the call that fills the batch, from a CUDA
    device in a later call or in :meth:`run_all`.

    Args:
        models: the model; or the same model on several devices, which get batches in turn.
        settings: settings of the embedding, with the size of batches after the first few.
    """

    def __init__(self, models: Extractor | Sequence[Extractor], settings: EmbedSettings) -> None:
        self._models = list(models) if isinstance(models, Sequence) else [models]
        self._settings = settings
        self._largest = settings.batch_size or DEFAULT_BATCH_SIZE
        self._size = min(_FIRST_BATCH, self._largest)
        self._runners = [make_runner(model, settings) for model in self._models]
        self._depth = sum(runner.depth for runner in self._runners)
        self._next = 0
        self._waiting: deque[tuple[Receiver, Tensor]] = deque()
        self._count = 0
        self._running: deque[tuple[PendingBatch, list[tuple[Receiver, int]]]] = deque()

    def add(self, record: Receiver, examples: Tensor) -> None:
        """Add log-mel windows, (n, 96, 64) float32; run the network each time a batch is full."""
        if len(examples) == 0:
            return
        record.pending += len(examples)
        self._count += len(examples)
        self._waiting.append((record, examples))
        while self._count >= self._size:
            self._run_one()
        self.collect()

    def collect(self) -> None:
        """Hand out the values of batches that are complete, without waiting."""
        while self._running and self._running[0][0].done():
            self._finish_one()

    def run_all(self) -> None:
        """Run the network on the remaining windows, and wait for all batches."""
        while self._count:
            self._run_one()
        while self._running:
            self._finish_one()

    def empty(self) -> Tensor:
        """Return the values of zero windows: (0, ...), of the shape and dtype of the layer."""
        return plain(compute(self._models[0], self._settings, no_windows()).cpu())

    def _run_one(self) -> None:
        parts: list[tuple[Receiver, Tensor]] = []
        room = self._size
        while room and self._waiting:
            record, examples = self._waiting.popleft()
            if len(examples) > room:
                self._waiting.appendleft((record, examples[room:]))
                examples = examples[:room]
            parts.append((record, examples))
            room -= len(examples)
        # Runners take turns, so if all are full, the next runner has the oldest batch.
        while len(self._running) >= max(1, self._depth):
            self._finish_one()
        pending = self._runners[self._next].begin([examples for _, examples in parts])
        self._next = (self._next + 1) % len(self._runners)
        self._count -= self._size - room
        self._size = min(2 * self._size, self._largest)
        self._running.append((pending, [(record, len(examples)) for record, examples in parts]))
        while len(self._running) > self._depth:
            self._finish_one()

    def _finish_one(self) -> None:
        pending, receivers = self._running.popleft()
        for (record, _), part in zip(
            receivers, torch.split(pending.values(), [count for _, count in receivers]), strict=True
        ):
            record.take(part)
