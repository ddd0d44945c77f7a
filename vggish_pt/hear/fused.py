"""The HEAR 2021 API of :mod:`vggish_pt.hear` with fused layers instead of the embedding.

Every vector is a multilayer fusion of 8192 numbers (:mod:`vggish_pt.nn.fusion`). HEAR's tools take the name of a
module, so that the variant needs a module of its own.
"""

from __future__ import annotations

from vggish_pt import hear
from vggish_pt.hear import HearModel, get_scene_embeddings, get_timestamp_embeddings

__all__ = ["get_scene_embeddings", "get_timestamp_embeddings", "load_model"]


def load_model(model_file_path: str = "") -> HearModel:
    """Load a model; see :func:`vggish_pt.hear.load_model`.

    Args:
        model_file_path: name of weights, or a model folder; "" for ``audioset``.
    """
    return hear.load_model(model_file_path, layer="fused")
