"""VGGish as a scikit-learn transformer: one row of features for each audio file or waveform.

>>> from sklearn.linear_model import LogisticRegression
>>> from sklearn.pipeline import make_pipeline
>>> from sklearn.preprocessing import StandardScaler
>>> from vggish_pt.sklearn import VGGishTransformer
>>> classifier = make_pipeline(VGGishTransformer(), StandardScaler(), LogisticRegression())
>>> classifier.fit(["a.wav", "b.wav"], ["dog", "rain"])         # doctest: +SKIP
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_memory, validate_data
from torch import Tensor

from vggish_pt import constants as c
from vggish_pt.audio import AudioLike
from vggish_pt.audio.resample import ResamplerName
from vggish_pt.errors import SettingsError
from vggish_pt.inference.devices import choose_device
from vggish_pt.inference.pooling import Pooling, check_pooling, clip_vector, layer_size
from vggish_pt.inference.settings import EmbedSettings, Postprocess
from vggish_pt.model import VGGish
from vggish_pt.nn.windows import Pad
from vggish_pt.pretrained import folder as storage
from vggish_pt.pretrained import registry
from vggish_pt.version import __version__

_PCM = ("int8", "int16", "int32", "uint8")


class VGGishTransformer(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Transformer from clips to features. Nothing is learned, so ``transform`` works without ``fit``.

    X is one of:

    - paths of audio files: a list, an array, a pandas Series, or a table of one column;
    - a list of waveforms, each an array or tensor (T,) or (channels, T) at ``sample_rate``, of any lengths;
    - a numeric table (clips, T): a waveform in each row. As in all of scikit-learn, a table must have the same number
      of columns in ``transform`` as in ``fit``.

    Waveforms are floating point in [-1, 1] or PCM (int8, int16, int32, uint8); other integers are not scaled.

    Args:
        weights: "audioset", "synthetic", a model folder, or a Hub repository "user/name". Clones and pickles contain
            the name only; each process loads the weights once.
        layer: layer of the network: "embedding", "fc1", "fc2", or "conv1" to "conv4", averaged over time and frequency.
        pooling: pooling of a clip's windows to one row: "mean", "max" or "mean+std".
        hop: seconds from the start of one window to the next, a multiple of 0.01.
        pad: "short", "tail" or "drop"; with "drop", a clip shorter than one window is an error.
        postprocess: None, "pca" or "uint8"; applied to windows, before pooling.
        resampler: "soxr", "resampy" or "torchaudio".
        final_relu: True or False to override the configuration of the weights; None to keep it.
        sample_rate: sample rate of waveforms, in hertz. Files contain their own.
        batch_size: windows per batch; features do not depend on it. None for the default.
        device: "cpu", "cuda", "cuda:N", "mps" or "auto".
        memory: None, a folder, or a ``joblib.Memory`` that caches the features of each X, so that a parameter search
            embeds every fold once. Files and the model folder are identified by name, size and modification time.

    Attributes:
        n_features_in_: number of columns of the table passed to ``fit``, if it was a table.
        feature_names_in_: names of these columns, if they have names.

    ``Pipeline(memory=...)`` works too, but it caches ``fit`` only, not ``predict``, and identifies files and weights by
    name alone.
    """

    def __init__(
        self,
        weights: str | os.PathLike[str] = "audioset",
        layer: str = "embedding",
        pooling: Pooling = "mean",
        *,
        hop: float = c.DEFAULT_HOP_SECONDS,
        pad: Pad = "short",
        postprocess: Postprocess | None = None,
        resampler: ResamplerName = "soxr",
        final_relu: bool | None = None,
        sample_rate: float = c.SAMPLE_RATE,
        batch_size: int | None = None,
        device: str = "cpu",
        memory: Any = None,
    ) -> None:
        self.weights = weights
        self.layer = layer
        self.pooling = pooling
        self.hop = hop
        self.pad = pad
        self.postprocess = postprocess
        self.resampler = resampler
        self.final_relu = final_relu
        self.sample_rate = sample_rate
        self.batch_size = batch_size
        self.device = device
        self.memory = memory

    def fit(self, X: Any, y: Any = None) -> VGGishTransformer:  # noqa: ARG002
        """Check parameters and the kind of input. Neither audio nor weights are read.

        Args:
            X: see the class.
            y: ignored.

        Raises:
            SettingsError: a parameter is not valid, or X is of an unknown kind.
            ValueError: a table has missing, infinite or too few values.
        """
        self._settings()
        self._clips(X, reset=True)
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Compute the features of clips.

        Args:
            X: see the class.

        Returns:
            (clips, features) float32.

        Raises:
            AudioError: audio is missing, empty, damaged or non-finite; the message names it.
            WeightsError: there are no such weights.
            SettingsError: a parameter is not valid, or X is of an unknown kind.
        """
        settings, pooling = self._settings()
        clips, are_files = self._clips(X, reset=False)
        folder = registry.resolve(self.weights)
        cached = check_memory(self.memory).cache(_features, ignore=["batch_size", "device"])
        features: NDArray[np.float32] = cached(
            clips,
            [_file_stamp(clip) for clip in clips] if are_files else self.sample_rate,
            folder,
            (__version__, *_folder_stamp(folder)),
            settings,
            pooling,
            self.final_relu,
            batch_size=self.batch_size,
            device=self.device,
        )
        return features

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:  # noqa: ARG002
        """Return the names of the columns: "embedding_0" and so on, or "embedding_mean_0" and "embedding_std_0".

        Args:
            input_features: ignored.
        """
        size = layer_size(self.layer, storage.read_config(registry.resolve(self.weights)))
        kinds = ("_mean", "_std") if self.pooling == "mean+std" else ("",)
        return np.array([f"{self.layer}{kind}_{i}" for kind in kinds for i in range(size)], dtype=object)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.transformer_tags.preserves_dtype = []  # the output is always float32
        return tags

    def _settings(self) -> tuple[EmbedSettings, Pooling]:
        names = ("hop", "pad", "batch_size", "layer", "postprocess", "resampler")
        settings = EmbedSettings(**{name: getattr(self, name) for name in names})
        choose_device(self.device)
        return replace(settings, batch_size=None), check_pooling(self.pooling)

    def _clips(self, X: Any, *, reset: bool) -> tuple[Sequence[AudioLike], bool]:
        """Return the clips, and True if they are files."""
        clips = _listed(X)
        if clips is not None:
            kinds = {isinstance(clip, str | os.PathLike) for clip in clips}
            if len(kinds) == 1:
                return clips, kinds.pop()
            raise SettingsError("X must be paths of audio files or waveforms, not both")
        table = validate_data(self, X, reset=reset, dtype="numeric")
        if table.dtype.kind != "f" and table.dtype.name not in _PCM:
            table = table.astype(np.float64)
        return list(table), False


def _listed(X: Any) -> list[Any] | None:
    """Return X as a list of paths or waveforms; None if it is neither, but perhaps a table."""
    if isinstance(X, str | bytes | os.PathLike):
        raise SettingsError(f"X must be a list of clips, not one: [{X!r}]")
    if isinstance(X, list | tuple):
        items = list(X)
    else:
        array = np.asarray(X) if hasattr(X, "__array__") else np.empty(())
        # Only arrays of objects or text, whose items may be paths or waveforms; also a table of one column.
        if array.dtype.kind not in "OUT" or array.ndim == 0 or array.size != len(array):
            return None
        items = array.ravel().tolist()
    audio = (str, os.PathLike, np.ndarray, Tensor)
    return items if items and all(isinstance(item, audio) for item in items) else None


def _features(
    clips: Sequence[AudioLike],
    stamps: list[tuple[int, ...]] | float,
    folder: Path,
    folder_stamp: tuple[Any, ...],
    settings: EmbedSettings,
    pooling: Pooling,
    final_relu: bool | None,
    *,
    batch_size: int | None,
    device: str,
) -> NDArray[np.float32]:
    """Compute the features of clips. The arguments decide the result, so that it can be cached.

    Args:
        clips: paths or waveforms.
        stamps: size and modification time of each file; or the sample rate of waveforms.
        folder: the model folder.
        folder_stamp: sizes and modification times of its files.
        settings: settings to embed with.
        pooling: pooling of a clip's windows.
        final_relu: the mode; None for that of the model.
        batch_size: windows per batch.
        device: device to compute on.
    """
    model = _load(folder, folder_stamp, final_relu, str(choose_device(device)))
    sample_rate = None if isinstance(stamps, list) else stamps
    with closing(model.embed_iter(clips, sample_rate, **asdict(replace(settings, batch_size=batch_size)))) as results:
        return np.stack([clip_vector(result, pooling) for result in results])


def _file_stamp(path: Any) -> tuple[int, ...]:
    """Return modification time and size of a file; an empty tuple if it does not exist."""
    try:
        state = Path(path).stat()
    except (OSError, ValueError):
        return ()
    return state.st_mtime_ns, state.st_size


def _folder_stamp(folder: Path) -> tuple[int, ...]:
    return tuple(n for name in (storage.CONFIG_NAME, storage.WEIGHTS_NAME) for n in _file_stamp(folder / name))


@lru_cache(maxsize=2)
def _load(folder: Path, folder_stamp: tuple[Any, ...], final_relu: bool | None, device: str) -> VGGish:  # noqa: ARG001
    return VGGish.from_pretrained(folder, final_relu=final_relu, device=device)
