"""Postprocessing: PCA with whitening, clipping and 8-bit quantisation, as in the reference's ``vggish_postprocess.py``.

AudioSet's released features are postprocessed embeddings. Most other uses need the embeddings themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vggish_pt import constants as c
from vggish_pt.errors import SettingsError, WeightsError


class Postprocessor(nn.Module):
    """Whiten, clip and optionally quantise embeddings.

    The parameters are float64 buffers, as the reference computes in float64 and some rows amplify an error 45 times.
    Casts of the model, such as ``.half()``, do not change them. A call without parameters raises WeightsError.

    Args:
        eigen_vectors: (128, 128), one row for each principal component, scaled so that the result is white; or None.
        means: (128,), subtracted from the embeddings first; or None.

    Raises:
        WeightsError: only one of the two, or another shape.
    """

    eigen_vectors: Tensor | None
    means: Tensor | None

    def __init__(self, eigen_vectors: Tensor | None = None, means: Tensor | None = None) -> None:
        super().__init__()
        if (eigen_vectors is None) != (means is None):
            raise WeightsError("PCA parameters are incomplete: both eigen_vectors and means are needed")
        for name, tensor, shape in (
            ("eigen_vectors", eigen_vectors, (c.EMBEDDING_SIZE, c.EMBEDDING_SIZE)),
            ("means", means, (c.EMBEDDING_SIZE,)),
        ):
            if tensor is not None and tuple(tensor.shape) != shape:
                raise WeightsError(f"PCA parameter {name} has shape {tuple(tensor.shape)}, not {shape}")
            self.register_buffer(name, None if tensor is None else tensor.detach().to(torch.float64))

    @property
    def available(self) -> bool:
        """True if the model has PCA parameters."""
        return self.means is not None

    def forward(self, embeddings: Tensor, quantize: bool = False) -> Tensor:
        """Whiten and clip embeddings, differentiably unless they are quantised.

        Args:
            embeddings: (n, 128) floating point, with or without the final ReLU as the parameters were fitted.
            quantize: True maps [-2, 2] to 8-bit integers, which are truncated, not rounded, as in the reference.

        Returns:
            (n, 128) in [-2, 2], of the embeddings' dtype; with ``quantize`` (n, 128) uint8.

        Raises:
            WeightsError: the model has no PCA parameters.
            SettingsError: embeddings of another shape or type.
        """
        if self.eigen_vectors is None or self.means is None:
            raise WeightsError(
                "this model has no PCA parameters, so it cannot postprocess; convert it again with "
                "--pca vggish_pca_params.npz, or use postprocess=None"
            )
        if embeddings.ndim != 2 or embeddings.shape[1] != c.EMBEDDING_SIZE or not embeddings.is_floating_point():
            raise SettingsError(
                "postprocess takes floating-point embeddings (n, 128), "
                f"not {embeddings.dtype} of shape {tuple(embeddings.shape)}"
            )
        centred = embeddings.to(self.means.dtype) - self.means
        clipped = (centred @ self.eigen_vectors.T).clamp(c.QUANTIZE_MIN, c.QUANTIZE_MAX)
        if not quantize:
            return clipped.to(embeddings.dtype)
        return ((clipped - c.QUANTIZE_MIN) * (255.0 / (c.QUANTIZE_MAX - c.QUANTIZE_MIN))).to(torch.uint8)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Postprocessor:  # noqa: ARG002
        # The parameters follow the model to another device, but not to another precision. MPS has no float64.
        for name, buffer in self._buffers.items():
            if buffer is not None:
                device = fn(torch.empty(0, dtype=torch.float32, device=buffer.device)).device
                dtype = torch.float32 if device.type == "mps" else torch.float64
                self._buffers[name] = (
                    torch.empty_like(buffer, dtype=dtype, device=device)
                    if device.type == "meta"
                    else buffer.to(device, dtype)
                )
        return self

    def extra_repr(self) -> str:
        """Return a note that is printed with the module."""
        return "" if self.available else "no PCA parameters"

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # A module without PCA parameters takes those of the state dict.
        for name in ("eigen_vectors", "means"):
            tensor = state_dict.get(prefix + name)
            if tensor is not None and getattr(self, name) is None:
                setattr(self, name, torch.zeros_like(tensor, dtype=torch.float64))
        super()._load_from_state_dict(state_dict, prefix, *args)
