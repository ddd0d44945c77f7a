"""Runners, which compute batches on a device: at once on the CPU, asynchronously on CUDA devices.

A GPU is idle while the processor collects windows and fetches results, unless its next batch is queued already. So a
CUDA runner accepts a batch while it computes another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor
from typing_extensions import override

if TYPE_CHECKING:
    from vggish_pt.inference.settings import EmbedSettings
    from vggish_pt.nn.extractor import Extractor


class PendingBatch(Protocol):
    """A batch that was started."""

    def done(self) -> bool:
        """Return True if :meth:`values` returns without waiting."""

    def values(self) -> Tensor:
        """Wait for the values and return them: (n, ...) on the CPU, in memory of their own."""


class Runner(Protocol):
    """A model on its device.

    Attributes:
        depth: largest number of batches in flight; 0 if :meth:`begin` computes at once.
    """

    depth: int

    def begin(self, parts: Sequence[Tensor]) -> PendingBatch:
        """Start a batch.

        Args:
            parts: log-mel windows, each (n, 96, 64) float32, which are computed together.
        """


def make_runner(model: Extractor, settings: EmbedSettings) -> Runner:
    """Return the runner for a model on its device.

    Args:
        model: the model.
        settings: settings of the embedding.
    """
    return CudaRunner(model, settings) if model.device.type == "cuda" else HostRunner(model, settings)


@torch.inference_mode()
def compute(model: Extractor, settings: EmbedSettings, examples: Tensor) -> Tensor:
    """Run network and postprocessing on log-mel windows: (n, 96, 64) → (n, ...) on the model's device."""
    weight = model.network.conv1.weight
    values = model.network.infer(examples.to(weight.device, weight.dtype), settings.layer).float()
    if settings.postprocess is not None:
        values = model.postprocess(values, quantize=settings.postprocess == "uint8")
    return values


def plain(values: Tensor) -> Tensor:
    """Return a copy on the CPU that is not an inference tensor, so that gradients can be computed with it."""
    with torch.inference_mode(False):
        return torch.empty(values.shape, dtype=values.dtype).copy_(values)


class HostRunner(Runner):
    """Runner that computes a batch at once: for the CPU and devices other than CUDA's."""

    depth = 0

    def __init__(self, model: Extractor, settings: EmbedSettings) -> None:
        self._model = model
        self._settings = settings

    @override
    def begin(self, parts: Sequence[Tensor]) -> PendingBatch:
        examples = parts[0] if len(parts) == 1 else torch.cat(list(parts))
        return _Computed(plain(compute(self._model, self._settings, examples).cpu()))


class _Computed:
    def __init__(self, values: Tensor) -> None:
        self._values = values

    def done(self) -> bool:
        return True

    def values(self) -> Tensor:
        return self._values


class CudaRunner(Runner):
    """Runner that queues batches on a CUDA device.

    Windows are copied through pinned memory, so that the copy to the device does not wait. The values are copied back
    to pinned memory on the same stream, followed by an event. Not measured on a GPU.
    """

    depth = 2

    def __init__(self, model: Extractor, settings: EmbedSettings) -> None:
        self._model = model
        self._settings = settings
        self._device = model.device

    @override
    def begin(self, parts: Sequence[Tensor]) -> PendingBatch:
        with torch.inference_mode(), torch.cuda.device(self._device):
            if all(part.device.type == "cpu" for part in parts):
                examples = torch.cat(list(parts)).pin_memory().to(self._device, non_blocking=True)
            else:  # windows of a front end on a device
                examples = torch.cat([part.to(self._device) for part in parts])
            values = compute(self._model, self._settings, examples)
            result = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            result.copy_(values, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
            return _Queued(result, event)


class _Queued:
    def __init__(self, result: Tensor, event: torch.cuda.Event) -> None:
        self._result = result
        self._event = event

    def done(self) -> bool:
        return bool(self._event.query())  # type: ignore[no-untyped-call]

    def values(self) -> Tensor:
        self._event.synchronize()
        return plain(self._result)  # the pinned memory goes back to torch's cache
