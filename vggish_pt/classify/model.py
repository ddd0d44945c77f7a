"""The classifier: VGGish, a head, and the names of the classes, in one ``nn.Module``."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vggish_pt import constants as c
from vggish_pt.audio import Clip
from vggish_pt.classify.config import ClassifierConfig, HeadConfig, WindowSettings
from vggish_pt.classify.folder import classifier_card, read_classifier, write_classifier
from vggish_pt.classify.heads import Head, feature_size, make_activation, pool_map
from vggish_pt.classify.prediction import Prediction
from vggish_pt.errors import AudioError, SettingsError, VGGishError
from vggish_pt.inference.embeddings import Embeddings
from vggish_pt.inference.pipeline import embed_clips, embed_sources
from vggish_pt.inference.settings import EmbedSettings
from vggish_pt.model import VGGish
from vggish_pt.pretrained.modules import load_tensors, save_and_push, stored_tensors

if TYPE_CHECKING:
    from vggish_pt.audio import AudioLike


class VGGishClassifier(nn.Module):
    """Classifier of audio: a score for each class.

    Args:
        backbone: the network that computes the features.
        labels: names of the classes, in the order of the scores.
        multilabel: True if a clip may have any number of labels (sigmoid), False if it has exactly one (softmax).
        head: configuration of the head and the layer that it reads; None for a linear head.
        settings: windows of the audio; None for a window every 0.96 s.
        training: settings and figures of the training, for records.

    Attributes:
        backbone: :class:`~vggish_pt.VGGish`.
        head: :class:`~vggish_pt.classify.heads.Head`, randomly initialised until it is trained or loaded.
        labels: as given.
        multilabel: as given.
        settings: :class:`~vggish_pt.classify.config.WindowSettings`.

    Raises:
        SettingsError: invalid labels or settings.
    """

    def __init__(
        self,
        backbone: VGGish,
        labels: Sequence[str],
        *,
        multilabel: bool = False,
        head: HeadConfig | None = None,
        settings: WindowSettings | None = None,
        training: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self._config = ClassifierConfig(
            tuple(labels),
            multilabel,
            head or HeadConfig(),
            settings or WindowSettings(),
            backbone.config,
            training or {},
        )
        chosen = self._config.head
        self.backbone = backbone
        self.head = Head(
            feature_size(chosen.features, backbone.config),
            len(labels),
            chosen,
            make_activation(chosen.activation, chosen.features, backbone.config),
        )

    @property
    def config(self) -> ClassifierConfig:
        """Contents of ``config.json``: :class:`~vggish_pt.classify.config.ClassifierConfig`."""
        return self._config

    @property
    def labels(self) -> list[str]:
        """Names of the classes, in the order of the scores."""
        return list(self._config.labels)

    @property
    def multilabel(self) -> bool:
        """True if a clip may have any number of labels."""
        return self._config.multilabel

    @property
    def settings(self) -> WindowSettings:
        """Windows of the audio."""
        return self._config.settings

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return self.backbone.device

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        device: str | torch.device | None = None,
    ) -> VGGishClassifier:
        """Load a classifier, in evaluation mode.

        Args:
            name_or_path: a run folder, or a Hub repository "user/name".
            revision: branch, tag or commit of a Hub repository.
            token: access token for a Hub repository; None uses the one that ``hf auth login`` stored.
            cache_dir: folder for downloads; None for the cache of huggingface_hub.
            local_files_only: True never connects to the network.
            device: device of the model; None for the CPU.

        Raises:
            WeightsError: the classifier does not exist, is damaged, or was written by a newer version.
            DownloadError: the download failed.
        """
        from vggish_pt.classify import hub

        folder = hub.resolve(
            name_or_path, revision=revision, token=token, cache_dir=cache_dir, local_files_only=local_files_only
        )
        config, tensors = read_classifier(folder)
        with torch.device("meta"):  # the tensors are allocated once, by loading
            model = cls(
                VGGish(config.backbone),
                config.labels,
                multilabel=config.multilabel,
                head=config.head,
                settings=config.settings,
                training=config.training,
            )
        return load_tensors(model, model.backbone.network, tensors, device)

    def save_pretrained(self, folder: str | os.PathLike[str], *, card: str | None = None) -> None:
        """Write ``config.json``, ``model.safetensors``, ``labels.txt`` and a model card.

        Args:
            folder: created if it does not exist; a classifier in it is replaced.
            card: text of the model card (``README.md``); None for a default one.

        Raises:
            OutputError: the folder cannot be written.
        """
        text = classifier_card(self.config) if card is None else card
        write_classifier(Path(folder), self.config, stored_tensors(self), card=text)

    def push_to_hub(self, repo_id: str, *, token: str | bool | None = None, private: bool = False) -> str:
        """Upload the classifier to a Hub repository, which is created if it does not exist.

        Args:
            repo_id: "user/name".
            token: access token; None uses the stored one.
            private: True makes a new repository private.

        Returns:
            The commit's address.

        Raises:
            WeightsError: the Hub refuses the upload.
            DownloadError: the Hub cannot be reached.
        """
        from vggish_pt.classify import hub

        return save_and_push(self.save_pretrained, hub.push, repo_id, token=token, private=private)

    def features(self, examples: Tensor) -> Tensor:
        """Compute the features that the head reads, differentiably.

        Args:
            examples: (n, 96, 64) floating point, from ``backbone.frontend``.

        Returns:
            (n, d). Without gradients, windows are computed in blocks to save memory.
        """
        network, layer = self.backbone.network, self._config.head.features
        trained = torch.is_grad_enabled() and any(p.requires_grad for p in network.parameters())
        if trained or examples.requires_grad:
            return pool_map(network(examples, layer))
        return pool_map(network.infer(examples, layer).clone())  # autograd cannot use tensors of inference mode

    def forward(self, examples: Tensor, mask: Tensor | None = None) -> Tensor:
        """Compute the logits of clips from their log-mel windows, differentiably.

        Args:
            examples: (b, w, 96, 64), w windows of each of b clips; or (n, 96, 64), n clips of one window.
            mask: (b, w) bool, False for windows that are padding; None if there are none.

        Returns:
            (b, classes) float32.

        Raises:
            SettingsError: the examples or the mask have another shape.
        """
        if isinstance(examples, Tensor) and examples.ndim == 3:
            examples = examples.unsqueeze(1)
        size = (c.EXAMPLE_FRAMES, c.MEL_BANDS)
        if not isinstance(examples, Tensor) or examples.ndim != 4 or examples.shape[2:] != size:
            shape = tuple(examples.shape) if isinstance(examples, Tensor) else type(examples).__name__
            raise SettingsError(f"a classifier takes log-mel windows (clips, windows, 96, 64), not {shape}")
        if mask is not None and (mask.shape != examples.shape[:2] or mask.dtype != torch.bool):
            raise SettingsError(f"mask must be bool of shape {tuple(examples.shape[:2])}, not {tuple(mask.shape)}")
        windows = examples.flatten(0, 1)
        if mask is None:
            features = self.features(windows).reshape(*examples.shape[:2], -1)
        else:  # padding is not computed
            valid = mask.flatten()
            computed = self.features(windows[valid])
            features = computed.new_zeros(len(valid), computed.shape[1]).masked_scatter(valid.unsqueeze(1), computed)
            features = features.reshape(*examples.shape[:2], -1)
        logits: Tensor = self.head(features, mask)
        return logits

    def window_logits(self, examples: Tensor) -> Tensor:
        """Compute the (n, classes) float32 logits of log-mel windows (n, 96, 64), differentiably."""
        return self.head.windows(self.features(examples))

    def scores(self, logits: Tensor) -> Tensor:
        """Compute scores from logits (..., classes): softmax (single-label) or sigmoid (multi-label)."""
        return logits.sigmoid() if self.multilabel else logits.softmax(dim=-1)

    def predict(self, source: AudioLike, sample_rate: float | None = None, **settings: Any) -> Prediction:
        """Compute the scores of one source, without gradients.

        Args:
            source: a path, file object, bytes of an audio file, or an array or tensor (T,) or (channels, T).
            sample_rate: hertz; required for arrays and tensors, refused for others.
            settings: ``batch_size`` and ``allow_truncated``, as in :meth:`vggish_pt.VGGish.embed`; ``hop``, ``pad`` and
                ``resampler`` replace those of training.

        Raises:
            AudioError: audio that is missing, empty, damaged or non-finite; the message names it.
            SettingsError: an invalid setting.
        """
        clip, chosen = Clip.from_source(source, sample_rate), self.embed_settings(**settings)
        [(_, result)] = embed_clips(self.backbone, [clip], chosen, workers=0, reduce=self.reduce)
        prediction = self.prediction(result)
        if isinstance(prediction, VGGishError):
            raise prediction
        return prediction

    def predict_iter(
        self,
        sources: Iterable[AudioLike],
        sample_rate: float | None = None,
        *,
        workers: int = 1,
        **settings: Any,
    ) -> Generator[Prediction | VGGishError]:
        """Yield the prediction of each source in order, or the error of a source that fails. Batches are shared.

        Args:
            sources: any iterable; it is read only as far ahead as needed to fill batches.
            sample_rate: hertz, for arrays and tensors.
            workers: threads that decode, resample and run the front end ahead of the network; 0 for none.
            settings: as in :meth:`predict`.

        Raises:
            SettingsError: an invalid setting.
        """
        chosen = self.embed_settings(**settings)
        results = embed_sources(self.backbone, sources, sample_rate, chosen, workers=workers, reduce=self.reduce)

        def predictions() -> Generator[Prediction | VGGishError]:
            with closing(results):
                for result in results:
                    yield self.prediction(result)

        return predictions()

    def embed_settings(self, **settings: Any) -> EmbedSettings:
        """Return the settings with which the backbone computes this classifier's features.

        Args:
            settings: as in :meth:`predict`.

        Raises:
            SettingsError: an invalid setting, or one that :meth:`predict` does not take.
        """
        if unknown := settings.keys() - {"hop", "pad", "resampler", "batch_size", "allow_truncated"}:
            raise SettingsError(f"predict has no setting {', '.join(sorted(unknown))}")
        own = self.settings
        chosen = {"hop": own.hop, "pad": own.pad, "resampler": own.resampler, **settings}
        return EmbedSettings(layer=self._config.head.features, **chosen)

    def reduce(self, values: Tensor) -> Tensor:
        """Reduce the features of windows to the much smaller values that :meth:`prediction` needs.

        Args:
            values: (n, ...) features that the backbone computed with :meth:`embed_settings`.

        Returns:
            (n, d) float32 on the CPU.
        """
        training = self.head.training
        self.head.eval()  # no dropout
        try:
            with torch.no_grad():
                weight = self.head.output.weight
                return self.head.parts(pool_map(values).to(weight.device, weight.dtype)).cpu()
        finally:
            self.head.train(training)

    def prediction(self, result: Embeddings | VGGishError) -> Prediction | VGGishError:
        """Compute the scores of a source from its windows.

        Args:
            result: the windows, reduced by :meth:`reduce`; or an error, which is returned unchanged.
        """
        if isinstance(result, VGGishError):
            return result
        if len(result) == 0:
            name = result.source
            return AudioError(f"{name}: shorter than a window of {c.EXAMPLE_SECONDS} s; use pad='short'", name)
        clip, windows = self.head.join(result.values)
        labels = self._config.labels
        return Prediction(
            self.scores(clip), self.scores(windows), result.start, result.end, labels, result.source, result.duration
        )
