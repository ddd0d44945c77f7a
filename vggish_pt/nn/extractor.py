"""What inference needs of a model: its three modules, and where they are."""

from __future__ import annotations

from typing import Any, Protocol

import torch

from vggish_pt.nn.frontend import LogMel
from vggish_pt.nn.network import Network
from vggish_pt.nn.postprocess import Postprocessor


class Extractor(Protocol):
    """A model that inference can run: :class:`vggish_pt.VGGish` is one."""

    frontend: LogMel
    network: Network
    postprocess: Postprocessor

    @property
    def device(self) -> torch.device:
        """Where the network is."""

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """As :meth:`torch.nn.Module.to`."""
