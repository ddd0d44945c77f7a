"""Sounds → one vector each, by VGGish or by a baseline."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vggish_pt import constants as c
from vggish_pt.audio.resample import ResamplerName
from vggish_pt.classify.probe.baselines import BASELINES, clip_statistics
from vggish_pt.errors import SettingsError, VGGishError
from vggish_pt.inference.pooling import Pooling, check_pooling, clip_vector, window_vectors
from vggish_pt.inference.settings import EmbedSettings
from vggish_pt.nn.windows import Pad
from vggish_pt.utils.text import display_name

if TYPE_CHECKING:
    from vggish_pt.audio.clip import Clip
    from vggish_pt.model import VGGish

RANDOM = "random"
"""Stands for VGGish with random weights."""

Watch = Callable[[int, int], None]
"""Is told how many sounds are done, and of how many."""


@dataclass(frozen=True)
class FeatureSettings:
    """What decides the features of a sound.

    Attributes:
        kind: "vggish", or a baseline: "log-mel", "mfcc" or "cqt", of which mean and standard deviation over time are
            taken, and for which all else but the resampler counts for nothing.
        weights: a name, model folder or Hub repository; "random" for random weights.
        layer: where to read the network, as in :meth:`vggish_pt.VGGish.embed`; of conv1 to conv4 the mean over time
            and frequency is taken.
        pooling: how windows become one vector: "mean", "max" or "mean+std".
        hop: seconds from the start of one window to the next.
        pad: what is done with sound that does not fill a window.
        resampler: how to get to 16 kHz.
        seed: of random weights.

    Raises:
        SettingsError: a value outside what it may be.
    """

    kind: str = "vggish"
    weights: str = "audioset"
    layer: str = "embedding"
    pooling: Pooling = "mean"
    hop: float = c.DEFAULT_HOP_SECONDS
    pad: Pad = "short"
    resampler: ResamplerName = "soxr"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind != "vggish" and self.kind not in BASELINES:
            raise SettingsError(f"features must be vggish, {', '.join(BASELINES)}, not {self.kind!r}")
        check_pooling(self.pooling)
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise SettingsError(f"seed must be a whole number from 0, not {self.seed!r}")
        self.embed_settings()

    @property
    def name(self) -> str:
        """For tables: "synthetic conv4, mean"."""
        if self.kind != "vggish":
            return f"{self.kind}, mean+std"
        return f"{self.weights} {self.layer}, {self.pooling}"

    @property
    def from_seed(self) -> bool:
        """Whether these are features of random weights."""
        return self.kind == "vggish" and self.weights == RANDOM

    def embed_settings(self) -> EmbedSettings:
        """The part that :class:`~vggish_pt.inference.settings.EmbedSettings` knows."""
        return EmbedSettings(self.hop, self.pad, layer=self.layer, resampler=self.resampler)

    def to_dict(self) -> dict[str, Any]:
        """In JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> FeatureSettings:
        """What :meth:`to_dict` gave.

        Raises:
            SettingsError: it is something else.
        """
        if not isinstance(values, dict) or values.keys() != (known := {field.name for field in fields(cls)}):
            raise SettingsError(f"feature settings must have exactly {', '.join(sorted(known))}")
        texts = ("kind", "weights", "layer", "pooling", "pad", "resampler")
        if any(not isinstance(values[name], str) for name in texts) or not isinstance(values["hop"], int | float):
            raise SettingsError("feature settings hold a value of a wrong type")
        return cls(**values)


class FeatureExtractor:
    """Computes features of sounds.

    Args:
        settings: which features.
        model: VGGish; None loads the weights that the settings name.
        device: where to compute; a GPU changes the last digits.

    Attributes:
        settings: as given.
        model: VGGish, or None for a baseline.

    Raises:
        WeightsError: no such weights.
        SettingsError: settings that do not fit the weights, or no such device.
    """

    def __init__(self, settings: FeatureSettings, *, model: VGGish | None = None, device: str = "cpu") -> None:
        self.settings = settings
        self.model = model if model is not None or settings.kind != "vggish" else load_model(settings, device)

    def vectors(
        self, items: Sequence[Clip], *, workers: int = 1
    ) -> Generator[NDArray[np.float32] | VGGishError, None, None]:
        """The features of each sound, (d,) float32, in order; of one that cannot be used, the error in their place.

        Args:
            items: the sounds.
            workers: threads that decode ahead, and compute baselines; 0 for none.
        """
        return self._embed(items, workers) if self.model is not None else self._baseline(items, workers)

    def table(
        self, items: Sequence[Clip], *, workers: int = 1, watch: Watch | None = None
    ) -> tuple[NDArray[np.float32], dict[int, VGGishError]]:
        """The features of all sounds.

        Args:
            items: the sounds.
            workers: see :meth:`vectors`.
            watch: is told how far it is.

        Returns:
            (n, d) float32, and the errors by place; rows of these hold zeros. With no sound that can be used, d is 0.
        """
        rows: list[NDArray[np.float32] | None] = []
        failures: dict[int, VGGishError] = {}
        with closing(self.vectors(items, workers=workers)) as vectors:
            for place, vector in enumerate(vectors):
                if isinstance(vector, VGGishError):
                    failures[place] = vector
                    rows.append(None)
                else:
                    rows.append(vector)
                if watch is not None:
                    watch(place + 1, len(items))
        width = next((len(row) for row in rows if row is not None), 0)
        return np.stack([np.zeros(width, np.float32) if row is None else row for row in rows]), failures

    def _embed(self, items: Sequence[Clip], workers: int) -> Generator[NDArray[np.float32] | VGGishError, None, None]:
        from vggish_pt.inference.pipeline import embed_clips

        assert self.model is not None
        settings = self.settings.embed_settings()
        with closing(embed_clips(self.model, items, settings, workers=workers, reduce=window_vectors)) as results:
            for _, result in results:
                try:
                    yield _finite(clip_vector(result, self.settings.pooling), "the network")
                except VGGishError as error:
                    yield error

    def _baseline(
        self, items: Sequence[Clip], workers: int
    ) -> Generator[NDArray[np.float32] | VGGishError, None, None]:
        from vggish_pt.utils.prefetch import ReadAhead, prefetch

        # As many as there are threads, and not more: a decoded hour has 230 MB.
        ahead: ReadAhead[Clip, NDArray[np.float32] | VGGishError] = ReadAhead()
        return prefetch(items, partial(_baseline_vector, settings=self.settings), workers, ahead=ahead)


def _baseline_vector(item: Clip, settings: FeatureSettings) -> Generator[NDArray[np.float32] | VGGishError, None, None]:
    from vggish_pt.classify.data.waveforms import decode

    try:
        vector = clip_statistics(decode(item, settings.resampler), settings.kind)
        yield _finite(vector, display_name(item.path))
    except VGGishError as error:
        yield error


def _finite(vector: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    if not np.isfinite(vector).all():
        raise VGGishError(f"{name}: its features are not finite; a classifier cannot use them")
    return vector


def load_model(settings: FeatureSettings, device: str = "cpu") -> VGGish:
    """VGGish with the weights that feature settings name, or random ones in Google's architecture.

    Raises:
        WeightsError: no such weights.
        SettingsError: settings that do not fit the weights, or no such device.
    """
    import torch

    from vggish_pt.inference.devices import choose_device
    from vggish_pt.model import VGGish
    from vggish_pt.nn.config import VGGishConfig

    chosen = choose_device(device)
    if not settings.from_seed:
        return VGGish.from_pretrained(settings.weights, device=chosen)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return VGGish(VGGishConfig(name=RANDOM)).to(chosen).eval()
