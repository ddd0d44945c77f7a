"""Where passes through the network are computed: at once on the CPU, in the background on CUDA devices.

A GPU idles while the processor gathers windows and fetches results, unless it has its next pass already. So a CUDA
lane takes a pass while it computes another, and what it is given and gives back is copied meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from vggish_pt import constants as c
from vggish_pt.inference.loading import no_windows

if TYPE_CHECKING:
    from vggish_pt.inference.settings import EmbedSettings
    from vggish_pt.nn.extractor import Extractor


class PendingBatch(Protocol):
    """A pass through the network that was begun."""

    def done(self) -> bool:
        """Whether :meth:`values` would not wait."""

    def values(self) -> Tensor:
        """Waits for the values: a plain tensor (n, ...) on the CPU, of its own memory."""


class Runner(Protocol):
    """A device with the model on it.

    Attributes:
        depth: how many passes may be under way; 0 where :meth:`begin` computes at once.
    """

    depth: int

    def begin(self, parts: Sequence[Tensor]) -> PendingBatch:
        """Begins a pass.

        Args:
            parts: windows, each (n, 96, 64) float32; computed together.
        """


def make_runner(model: Extractor, settings: EmbedSettings) -> Runner:
    """The lane for a model where it is.

    Args:
        model: the model.
        settings: what decides the numbers.
    """
    return CudaRunner(model, settings) if model.device.type == "cuda" else HostRunner(model, settings)


@torch.inference_mode()
def compute(model: Extractor, settings: EmbedSettings, examples: Tensor) -> Tensor:
    """The model's values for windows (n, 96, 64): (n, ...) on its device."""
    weight = model.network.conv1.weight
    values = model.network.infer(examples.to(weight.device, weight.dtype), settings.layer).float()
    if settings.postprocess is not None:
        values = model.postprocess(values, quantize=settings.postprocess == "uint8")
    return values


def plain(values: Tensor) -> Tensor:
    """A tensor of its own: users may compute gradients with it, and nothing else is kept alive by it."""
    with torch.inference_mode(False):
        return torch.empty(values.shape, dtype=values.dtype).copy_(values)


class HostRunner:
    """Computes at once, and waits for it: the CPU, and devices without queues of their own."""

    depth = 0

    def __init__(self, model: Extractor, settings: EmbedSettings) -> None:
        self._model = model
        self._settings = settings

    def begin(self, parts: Sequence[Tensor]) -> PendingBatch:
        """As in :class:`Runner`."""
        examples = parts[0] if len(parts) == 1 else torch.cat(list(parts))
        return _Computed(plain(compute(self._model, self._settings, examples).cpu()))


class _Computed:
    def __init__(self, values: Tensor) -> None:
        self._values = values

    def done(self) -> bool:
        return True

    def values(self) -> Tensor:
        return self._values


class CudaRunner:
    """Computes in the background.

    Windows are gathered in pinned memory, which alone the device can fetch while the processor goes on. They are
    copied on a stream of their own, as on the stream of the computation they would wait for the pass before. The
    results are small and go back on that stream, into pinned memory too, with an event behind them.

    Two passes may be under way. A third is begun only when the first one's event was waited for, so two staging
    buffers, used in turn, are never written while the device still reads them.
    """

    depth = 2

    def __init__(self, model: Extractor, settings: EmbedSettings) -> None:
        self._model = model
        self._settings = settings
        self._device = model.device
        self._upload = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        self._staging = deque(no_windows() for _ in range(self.depth))

    def begin(self, parts: Sequence[Tensor]) -> PendingBatch:
        """As in :class:`Runner`."""
        with torch.inference_mode(), torch.cuda.device(self._device):
            values = compute(self._model, self._settings, self._on_device(parts))
            result = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            result.copy_(values, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
            return _Queued(result, event)

    def _on_device(self, parts: Sequence[Tensor]) -> Tensor:
        if any(part.device.type != "cpu" for part in parts):  # the front end computed on a device
            return torch.cat([part.to(self._device) for part in parts])
        count = sum(map(len, parts))
        if len(self._staging[0]) < count:
            self._staging[0] = torch.empty((count, c.EXAMPLE_FRAMES, c.MEL_BANDS), pin_memory=True)
        staged = self._staging[0][:count]
        self._staging.rotate()
        torch.cat(list(parts), out=staged)
        stream = torch.cuda.current_stream()
        with torch.cuda.stream(self._upload):
            examples = staged.to(self._device, non_blocking=True)
        stream.wait_stream(self._upload)
        examples.record_stream(stream)  # else its memory could be given to the next upload while it is being read
        return examples


class _Queued:
    def __init__(self, result: Tensor, event: torch.cuda.Event) -> None:
        self._result = result
        self._event = event

    def done(self) -> bool:
        return bool(self._event.query())  # type: ignore[no-untyped-call]

    def values(self) -> Tensor:
        self._event.synchronize()
        return plain(self._result)  # pinned memory is dear, and goes back to torch's cache
