"""Feature vectors of clips, by VGGish or by a baseline."""

from __future__ import annotations

import hashlib
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
from vggish_pt.utils.prefetch import prefetch
from vggish_pt.utils.text import display_name

if TYPE_CHECKING:
    from vggish_pt.audio.clip import Clip
    from vggish_pt.model import VGGish

RANDOM = "random"
"""Name of VGGish with random weights."""

Watch = Callable[[int, int], None]
"""Called with the number of finished clips and the number of all clips."""


@dataclass(frozen=True)
class FeatureSettings:
    """Settings of a kind of features.

    Attributes:
        kind: "vggish", or a baseline: "log-mel", "mfcc" or "cqt". A baseline is the mean and standard deviation over
            time; of the other settings it uses the resampler only.
        weights: a name, model folder or Hub repository; "random" for random weights.
        layer: layer of the network, as in :meth:`vggish_pt.VGGish.embed`; conv1 to conv4 are averaged over time and
            frequency.
        pooling: rule that reduces a clip's windows to one vector: "mean", "max" or "mean+std".
        hop: seconds from the start of one window to the next.
        pad: handling of an incomplete window; see :data:`vggish_pt.nn.windows.Pad`.
        resampler: "soxr", "resampy" or "torchaudio".
        seed: random seed of random weights.

    Raises:
        SettingsError: an invalid value.
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
        """Name for tables: "synthetic conv4, mean"."""
        if self.kind != "vggish":
            return f"{self.kind}, mean+std"
        return f"{self.weights} {self.layer}, {self.pooling}"

    @property
    def from_seed(self) -> bool:
        """True for features of random weights."""
        return self.kind == "vggish" and self.weights == RANDOM

    def embed_settings(self) -> EmbedSettings:
        """Return the settings of the embedding."""
        return EmbedSettings(self.hop, self.pad, layer=self.layer, resampler=self.resampler)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings in JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> FeatureSettings:
        """Restore settings from :meth:`to_dict`.

        Raises:
            SettingsError: a key or value that :meth:`to_dict` does not give.
        """
        if not isinstance(values, dict) or values.keys() != (known := {field.name for field in fields(cls)}):
            raise SettingsError(f"feature settings must have exactly {', '.join(sorted(known))}")
        texts = ("kind", "weights", "layer", "pooling", "pad", "resampler")
        if any(not isinstance(values[name], str) for name in texts) or not isinstance(values["hop"], int | float):
            raise SettingsError("feature settings hold a value of a wrong type")
        return cls(**values)


def feature_grid(
    weights: Sequence[str], layers: Sequence[str] = ("embedding",), *, compare: bool = False, **settings: Any
) -> list[FeatureSettings]:
    """Return feature settings for each pair of weights and layers.

    Args:
        weights: names, model folders or Hub repositories.
        layers: layers of the network.
        compare: True adds VGGish with random weights for each layer, and all baselines.
        settings: other fields of :class:`FeatureSettings`.

    Raises:
        SettingsError: an invalid value.
    """
    networks = [*weights, RANDOM] if compare and RANDOM not in weights else weights
    grid = [FeatureSettings(weights=name, layer=layer, **settings) for name in networks for layer in layers]
    if compare:
        resampler = {"resampler": settings["resampler"]} if "resampler" in settings else {}
        grid += [FeatureSettings(kind, **resampler) for kind in BASELINES]
    return grid


class FeatureExtractor:
    """Extractor of feature vectors.

    Args:
        settings: kind of features.
        model: VGGish; None loads the weights that the settings name.
        device: device of the network; a GPU changes the last digits.

    Attributes:
        settings: as given.
        model: VGGish, or None for a baseline.

    Raises:
        WeightsError: the weights do not exist.
        SettingsError: the settings do not fit the weights, or the device does not exist.
    """

    def __init__(self, settings: FeatureSettings, *, model: VGGish | None = None, device: str = "cpu") -> None:
        self.settings = settings
        self.model = model if model is not None or settings.kind != "vggish" else load_model(settings, device)

    def weights(self) -> dict[str, str] | None:
        """Return name, licence and SHA-256 of the network's weights; None for a baseline."""
        if self.model is None:
            return None
        config = self.model.config
        return {"name": config.name, "license": config.license, "sha256": network_digest(self.model)}

    def vectors(
        self, items: Sequence[Clip], *, workers: int = 1
    ) -> Generator[NDArray[np.float32] | VGGishError, None, None]:
        """Yield the (d,) float32 features of each clip in order, or the error of a clip that cannot be used.

        Args:
            items: the clips.
            workers: threads that decode ahead, and compute baselines; 0 for none.
        """
        if self.model is None:
            return prefetch(items, partial(_baseline_vector, settings=self.settings), workers)
        return self._embed(self.model, items, workers)

    def table(
        self, items: Sequence[Clip], *, workers: int = 1, watch: Watch | None = None
    ) -> tuple[NDArray[np.float32], dict[int, VGGishError]]:
        """Compute the features of all clips.

        Args:
            items: the clips.
            workers: see :meth:`vectors`.
            watch: called after each clip.

        Returns:
            (n, d) float32, and the errors by row; rows of failed clips are zeros. If no clip can be used, d is 0.
        """
        rows: list[NDArray[np.float32] | None] = []
        failures: dict[int, VGGishError] = {}
        with closing(self.vectors(items, workers=workers)) as vectors:
            for number, vector in enumerate(vectors):
                if isinstance(vector, VGGishError):
                    failures[number] = vector
                    rows.append(None)
                else:
                    rows.append(vector)
                if watch is not None:
                    watch(number + 1, len(items))
        width = next((len(row) for row in rows if row is not None), 0)
        return np.stack([np.zeros(width, np.float32) if row is None else row for row in rows]), failures

    def _embed(
        self, model: VGGish, items: Sequence[Clip], workers: int
    ) -> Generator[NDArray[np.float32] | VGGishError, None, None]:
        from vggish_pt.inference.pipeline import embed_clips

        settings = self.settings.embed_settings()
        with closing(embed_clips(model, items, settings, workers=workers, reduce=window_vectors)) as results:
            for _, result in results:
                try:
                    yield _finite(clip_vector(result, self.settings.pooling), "the network")
                except VGGishError as error:
                    yield error


def _baseline_vector(clip: Clip, settings: FeatureSettings) -> Generator[NDArray[np.float32] | VGGishError, None, None]:
    from vggish_pt.classify.data.waveforms import decode

    try:
        vector = clip_statistics(decode(clip, settings.resampler), settings.kind)
        yield _finite(vector, display_name(clip.path))
    except VGGishError as error:
        yield error


def _finite(vector: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    if not np.isfinite(vector).all():
        raise VGGishError(f"{name}: its features are not finite; a classifier cannot use them")
    return vector


def network_digest(model: VGGish) -> str:
    """Return the SHA-256 of a network's parameters, which identifies the weights wherever they are stored."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def load_model(settings: FeatureSettings, device: str = "cpu") -> VGGish:
    """Load VGGish with the weights that feature settings name, or with random ones in Google's architecture.

    Raises:
        WeightsError: the weights do not exist.
        SettingsError: the settings do not fit the weights, or the device does not exist.
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
