"""Windows of any sources → passes through the network of a fixed size, dealt out to one device or several."""

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

# The first pass is this small and each further one twice as large as the one before, up to the batch size: a network
# that waited for a full pass would idle as long as that takes to read, which for few files is most of the time. The
# sizes depend on nothing but the count, so that results stay the same bit for bit from run to run.
_FIRST_PASS = 32


class Receiver(Protocol):
    """Who gets the values of windows that were added to a batch."""

    pending: int
    """How many of its windows are still to be computed."""

    def take(self, values: Tensor) -> None:
        """Takes the values of its next windows."""


class Batch:
    """Gathers windows of any sources until there are enough for a pass through the network.

    Each receiver gets its values in the order of its windows. On the CPU it has them when the call returns that
    completed the pass; from devices that compute in the background, with a later call, or :meth:`run_all`.

    Args:
        models: the model; or the same model on several devices, which get passes in turn.
        settings: what decides the numbers, and the size of a pass once the first few are done.
    """

    def __init__(self, models: Extractor | Sequence[Extractor], settings: EmbedSettings) -> None:
        self._models = list(models) if isinstance(models, Sequence) else [models]
        self._settings = settings
        self._largest = settings.batch_size or DEFAULT_BATCH_SIZE
        self._size = min(_FIRST_PASS, self._largest)
        self._lanes = [make_runner(model, settings) for model in self._models]
        self._depth = sum(lane.depth for lane in self._lanes)
        self._next = 0
        self._waiting: deque[tuple[Receiver, Tensor]] = deque()
        self._count = 0
        self._running: deque[tuple[PendingBatch, list[tuple[Receiver, int]]]] = deque()

    def add(self, record: Receiver, examples: Tensor) -> None:
        """Adds windows, (n, 96, 64); runs the network as often as there are enough."""
        if len(examples) == 0:
            return
        record.pending += len(examples)
        self._count += len(examples)
        self._waiting.append((record, examples))
        while self._count >= self._size:
            self._run_one()
        self.collect()

    def collect(self) -> None:
        """Gives out the values of passes that are done by now, without waiting."""
        while self._running and self._running[0][0].done():
            self._finish_one()

    def run_all(self) -> None:
        """Runs the network on what is left, and waits for all passes."""
        while self._count:
            self._run_one()
        while self._running:
            self._finish_one()

    def empty(self) -> Tensor:
        """The values of a clip without windows: none, of the right shape and type."""
        return plain(compute(self._models[0], self._settings, no_windows()).cpu())

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
        # Lanes take turns, so where all are full, the oldest pass is the next lane's.
        while len(self._running) >= max(1, self._depth):
            self._finish_one()
        begun = self._lanes[self._next].begin([examples for _, examples in taken])
        self._next = (self._next + 1) % len(self._lanes)
        self._count -= self._size - room
        self._size = min(2 * self._size, self._largest)
        self._running.append((begun, [(record, len(examples)) for record, examples in taken]))
        while len(self._running) > self._depth:
            self._finish_one()

    def _finish_one(self) -> None:
        begun, receivers = self._running.popleft()
        for (record, _), part in zip(
            receivers, torch.split(begun.values(), [count for _, count in receivers]), strict=True
        ):
            record.take(part)
