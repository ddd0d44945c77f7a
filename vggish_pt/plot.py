"""Figure of a clip: waveform, log-mel spectrogram, embeddings over time, and the output of a layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vggish_pt import constants as c
from vggish_pt.audio.waveform import load_waveform
from vggish_pt.errors import AudioError
from vggish_pt.nn.layers import check_layer, fused_stages
from vggish_pt.utils.figures import save
from vggish_pt.utils.optional import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from vggish_pt.audio import AudioLike
    from vggish_pt.model import VGGish

__all__ = ["MAX_SECONDS", "plot_clip", "save"]

MAX_SECONDS = 600.0
"""Longest clip that is drawn: longer ones are unreadable and need much memory."""

_WAVEFORM_COLUMNS = 2000


def plot_clip(
    model: VGGish,
    source: AudioLike,
    sample_rate: float | None = None,
    *,
    layer: str | None = None,
    hop: float = c.DEFAULT_HOP_SECONDS,
    title: str | None = None,
) -> Figure:
    """Draw a clip, for a notebook or for :func:`save`.

    Args:
        model: the model.
        source: a path, bytes, file object, array or tensor, as for ``embed``; at most 600 s.
        sample_rate: sample rate of an array or tensor, in hertz.
        layer: also draw this layer, "conv1" to "conv4", "fc1", "fc2" or a fusion; None for none.
        hop: seconds from the start of one window to the next.
        title: title of the figure; None for the name of the source.

    Returns:
        A matplotlib figure that is not shown in a window: waveform, log-mel, embedding and, if asked for, the layer. A
        convolutional layer is drawn as its mean over channels, time to the right and frequency upwards.

    Raises:
        AudioError: audio is missing, damaged or too long.
        SettingsError: there is no such layer.
        MissingDependencyError: matplotlib is not installed.
    """
    if layer is not None:
        check_layer(layer)
    figures = require("matplotlib.figure", "plotting")
    waveform = load_waveform(source, sample_rate)
    seconds = len(waveform) / c.SAMPLE_RATE
    if seconds > MAX_SECONDS:
        raise AudioError(f"{seconds:.0f} s are too long for a figure (at most {MAX_SECONDS:.0f}); cut out a segment")
    result = model.embed(waveform, c.SAMPLE_RATE, hop=hop)
    figure: Figure = figures.Figure(figsize=(9, 6 if layer is None else 8), layout="constrained")
    axes = figure.subplots(3 if layer is None else 4, 1, sharex=True)
    figure.suptitle(title or (Path(source).name if isinstance(source, str | Path) else result.source))
    _draw_waveform(axes[0], waveform.numpy(), seconds)
    _draw_log_mel(axes[1], model.frontend.log_mel(waveform).numpy(), result.start.numpy())
    _draw_vectors(axes[2], result.values.numpy(), hop, "embedding")
    if layer is not None:
        values = model.embed(waveform, c.SAMPLE_RATE, hop=hop, layer=layer).values
        if values.ndim == 4:
            _draw_maps(axes[3], values, hop, layer)
        else:
            _draw_vectors(axes[3], values.numpy(), hop, "fused" if fused_stages(layer) else layer)
    axes[-1].set_xlabel("seconds")
    axes[-1].set_xlim(0, max(seconds, float(result.end[-1])))
    return figure


def _draw_waveform(axis: Axes, waveform: Any, seconds: float) -> None:
    # Minimum and maximum of each column, so that every peak is drawn.
    columns = np.array_split(waveform, min(len(waveform), _WAVEFORM_COLUMNS))
    times = np.linspace(0, seconds, len(columns))
    axis.fill_between(times, [p.min() for p in columns], [p.max() for p in columns], linewidth=0.4)
    axis.set_ylabel("waveform")


def _draw_log_mel(axis: Axes, log_mel: Any, starts: Any) -> None:
    extent = (0, max(1, len(log_mel)) * c.FRAME_HOP / c.SAMPLE_RATE, 0, c.MEL_BANDS)
    axis.imshow(log_mel.T, origin="lower", aspect="auto", extent=extent, cmap="magma", interpolation="nearest")
    for start in starts[1:]:
        axis.axvline(start, color="white", linewidth=0.4)
    axis.set_ylabel("mel band")


def _draw_vectors(axis: Axes, values: Any, hop: float, label: str) -> None:
    extent = (0, hop * len(values), values.shape[1], 0)
    level = float(np.abs(values).max()) or 1.0
    axis.imshow(
        values.T, aspect="auto", extent=extent, cmap="coolwarm", vmin=-level, vmax=level, interpolation="nearest"
    )
    axis.set_ylabel(label)


def _draw_maps(axis: Axes, values: torch.Tensor, hop: float, label: str) -> None:
    mean = values.mean(dim=1).numpy()  # (n, time, frequency)
    for index, window in enumerate(mean):
        extent = (index * hop, index * hop + min(hop, c.DEFAULT_HOP_SECONDS), 0, mean.shape[2])
        axis.imshow(
            window.T, origin="lower", aspect="auto", extent=extent, vmin=0, vmax=mean.max() or 1.0, cmap="viridis"
        )
    axis.set_ylim(0, mean.shape[2])
    axis.set_ylabel(f"{label}, mean of channels")
