"""Interface of a model as inference needs it."""

from __future__ import annotations

from typing import Any, Protocol

import torch

from vggish_pt.nn.frontend import LogMel
from vggish_pt.nn.network import Network
from vggish_pt.nn.postprocess import Postprocessor


class Extractor(Protocol):
    """Model that inference can run, such as :class:`vggish_pt.VGGish`.

    Attributes:
        frontend: waveform → log-mel windows.
        network: log-mel windows → embeddings.
        postprocess: embeddings → whitened or 8-bit embeddings.
    """

    frontend: LogMel
    network: Network
    postprocess: Postprocessor

    @property
    def device(self) -> torch.device:
        """Device of the network."""

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """Move or cast the model, like :meth:`torch.nn.Module.to`."""
