"""The HEAR 2021 API: ``load_model``, ``get_scene_embeddings`` and ``get_timestamp_embeddings``.

    hear-validator vggish_pt.hear

Timestamps are every 50 ms from the start of the sound. Each embedding is that of the 0.975 s *around* its timestamp,
padded with silence before the start and after the end. A scene's embedding is the mean over windows within the sound,
one every 0.48 s.

Source: https://hearbenchmark.com/hear-api.html
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vggish_pt import constants as c
from vggish_pt.errors import SettingsError
from vggish_pt.inference.pooling import layer_size, window_vectors
from vggish_pt.model import VGGish
from vggish_pt.nn.layers import check_layer
from vggish_pt.nn.windows import hop_frames, padding, window_times

DEFAULT_WEIGHTS = "audioset"
TIMESTAMP_HOP = 0.05
SCENE_HOP = 0.48

_BATCH = 256  # windows per pass, which bounds the memory: twenty minutes of audio are 24,000 windows
_HALF = c.EXAMPLE_SAMPLES // 2


class HearModel(nn.Module):
    """Model with the attributes that HEAR asks for; :func:`load_model` returns one.

    Args:
        model: the VGGish.
        layer: layer of the network; convolutional layers are averaged over time and frequency.

    Attributes:
        sample_rate: 16,000 Hz, the rate of all audio.
        scene_embedding_size: numbers in the embedding of a scene.
        timestamp_embedding_size: numbers in the embedding of a timestamp.
    """

    def __init__(self, model: VGGish, layer: str = "embedding") -> None:
        super().__init__()
        self.vggish = model
        self.layer = check_layer(layer)
        self.sample_rate = c.SAMPLE_RATE
        self.scene_embedding_size = self.timestamp_embedding_size = layer_size(self.layer, model.config)

    def forward(self, waveforms: Tensor, hop: float = SCENE_HOP) -> Tensor:
        """Compute a vector for each window of waveforms of one length, without gradients.

        Args:
            waveforms: (sounds, T) floating point at 16 kHz in [-1, 1], T at least 15,600.
            hop: seconds from the start of one window to the next.

        Returns:
            (sounds, windows, d) float32, on the model's device.
        """
        with torch.no_grad():
            examples = self.vggish.frontend(waveforms.to(self.vggish.device), hop)
            sounds, windows = examples.shape[:2]
            size = (sounds, windows, self.timestamp_embedding_size)
            vectors = torch.empty(size, dtype=torch.float32, device=examples.device)
            flat = vectors.view(-1, size[-1])
            dtype = self.vggish.network.conv1.weight.dtype
            # Windows overlap in memory and are copied batch by batch, across sounds.
            for start in range(0, len(flat), _BATCH):
                index = torch.arange(start, min(start + _BATCH, len(flat)), device=examples.device)
                batch = examples[index // windows, index % windows].to(dtype)
                flat[index] = window_vectors(self.vggish.network.infer(batch, self.layer))
        return vectors


def load_model(model_file_path: str | os.PathLike[str] = "", **options: Any) -> HearModel:
    """Load a model.

    Args:
        model_file_path: "audioset" (also for ""), "synthetic", a model folder, or a Hub repository
            "user/name".
        options: ``layer`` of :class:`HearModel`, and arguments of :meth:`vggish_pt.VGGish.from_pretrained`.

    Returns:
        The model, on the CPU unless ``device`` is given.

    Raises:
        WeightsError: there are no such weights.
    """
    layer = options.pop("layer", "embedding")
    return HearModel(VGGish.from_pretrained(model_file_path or DEFAULT_WEIGHTS, **options), layer)


def get_timestamp_embeddings(
    audio: Tensor, model: HearModel, hop_size: float = TIMESTAMP_HOP * 1000
) -> tuple[Tensor, Tensor]:
    """Compute embeddings at regular times.

    Args:
        audio: (sounds, T) floating point at 16 kHz in [-1, 1].
        model: from :func:`load_model`.
        hop_size: milliseconds between timestamps, a multiple of 10.

    Returns:
        Embeddings (sounds, timestamps, d) float32, and timestamps (sounds, timestamps) float32: the centres of the
        windows in milliseconds, from 0 to at most the duration.

    Raises:
        SettingsError: audio of another shape or type, or a hop size that is not valid.
    """
    hop = hop_size / 1000
    audio = _check(audio)
    step = hop_frames(hop) * c.FRAME_HOP
    count = audio.shape[1] // step + 1
    # The window around timestamp i starts half a window before it: at sample i * step of the padded sound.
    total = (count - 1) * step + c.EXAMPLE_SAMPLES
    padded = F.pad(audio, (_HALF, max(0, total - _HALF - audio.shape[1])))[:, :total]
    embeddings = model(padded, hop)
    start, _ = window_times(0, count, hop)
    timestamps = torch.from_numpy(start * 1000).to(embeddings.device, torch.float32)
    return embeddings, timestamps.expand(len(audio), count)


def get_scene_embeddings(audio: Tensor, model: HearModel) -> Tensor:
    """Compute one embedding for each sound.

    Args:
        audio: (sounds, T) floating point at 16 kHz in [-1, 1]; padded with zeros if shorter than 0.975 s.
        model: from :func:`load_model`.

    Returns:
        (sounds, d) float32.

    Raises:
        SettingsError: audio of another shape or type.
    """
    audio = _check(audio)
    scenes: Tensor = model(F.pad(audio, (0, padding(audio.shape[1], SCENE_HOP, "short"))), SCENE_HOP).mean(dim=1)
    return scenes


def _check(audio: Tensor) -> Tensor:
    if not isinstance(audio, Tensor) or audio.ndim != 2 or not audio.is_floating_point() or audio.numel() == 0:
        given = f"{audio.dtype} {tuple(audio.shape)}" if isinstance(audio, Tensor) else type(audio).__name__
        raise SettingsError(f"HEAR models take a floating-point tensor (sounds, samples) at 16 kHz, not {given}")
    return audio
