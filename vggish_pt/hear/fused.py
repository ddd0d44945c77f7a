"""The HEAR 2021 API with fused layers in place of the embedding: a module name for HEAR's tools.

As :mod:`vggish_pt.hear`, but every vector is a multilayer fusion of 8192 numbers (:mod:`vggish_pt.nn.fusion`).
"""

from __future__ import annotations

from vggish_pt import hear
from vggish_pt.hear import HearModel, get_scene_embeddings, get_timestamp_embeddings

__all__ = ["get_scene_embeddings", "get_timestamp_embeddings", "load_model"]


def load_model(model_file_path: str = "") -> HearModel:
    """Loads a model for HEAR; see :func:`vggish_pt.hear.load_model`.

    Args:
        model_file_path: name of weights or model folder; "" for ``audioset``.
    """
    return hear.load_model(model_file_path, layer="fused")
