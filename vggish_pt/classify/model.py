"""The classifier that users hold: VGGish, a head, and the names of the classes, in one ``nn.Module``."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vggish_pt import constants as c
from vggish_pt.audio import Clip
from vggish_pt.classify import folder as store
from vggish_pt.classify.config import ClassifierConfig, HeadConfig, WindowSettings
from vggish_pt.classify.heads import Head, feature_size, make_activation, pool_map
from vggish_pt.errors import AudioError, SettingsError, VGGishError
from vggish_pt.inference.embeddings import Embeddings
from vggish_pt.inference.pipeline import embed_clips, embed_sources
from vggish_pt.inference.settings import EmbedSettings
from vggish_pt.model import VGGish

if TYPE_CHECKING:
    from vggish_pt.audio import AudioLike


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of one source.

    Attributes:
        scores: (classes,) float32, of the whole clip: probabilities that sum to 1 (single-label), or one for each class
            (multi-label). On the CPU, like the following.
        window_scores: (n, classes) float32, of each window.
        start: (n,) float64, when each window starts, in seconds.
        end: (n,) float64, when it ends.
        labels: names of the classes.
        source: name of the source.
        duration: seconds of audio that the source held.
    """

    scores: Tensor
    window_scores: Tensor
    start: Tensor
    end: Tensor
    labels: tuple[str, ...]
    source: str = field(default="", compare=False)
    duration: float = field(default=0.0, compare=False)

    @property
    def best(self) -> str:
        """The class with the highest score."""
        return self.labels[int(self.scores.argmax())]

    def __repr__(self) -> str:
        score = float(self.scores.max())
        return f"Prediction(best={self.best!r}, score={score:.3f}, windows={len(self.start)}, source={self.source!r})"


class VGGishClassifier(nn.Module):
    """Audio → a score for each class.

    Args:
        backbone: the network below, in whatever state it is.
        labels: names of the classes, in the order of the scores.
        multilabel: whether a clip may have any number of labels (sigmoid), or has exactly one (softmax).
        head: what stands on top, and which layer it sees; None for a linear head.
        settings: how audio becomes windows; None for a window every 0.96 s.
        training: how it was trained, for records.

    Attributes:
        backbone: :class:`~vggish_pt.VGGish`.
        head: :class:`~vggish_pt.classify.heads.Head`, randomly initialised until trained or loaded.
        labels: as given.
        multilabel: as given.
        settings: :class:`~vggish_pt.classify.config.WindowSettings`.

    Raises:
        SettingsError: labels or settings that cannot be.
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
        """What ``config.json`` holds; :class:`~vggish_pt.classify.config.ClassifierConfig`."""
        return self._config

    @property
    def labels(self) -> list[str]:
        """Names of the classes, in the order of the scores."""
        return list(self._config.labels)

    @property
    def multilabel(self) -> bool:
        """Whether a clip may have any number of labels."""
        return self._config.multilabel

    @property
    def settings(self) -> WindowSettings:
        """How audio becomes windows."""
        return self._config.settings

    @property
    def device(self) -> torch.device:
        """Where the network is."""
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
        """Loads a classifier, in evaluation mode.

        Args:
            name_or_path: a run folder, or a Hub repository "user/name".
            revision: branch, tag or commit of a Hub repository.
            token: access token for a Hub repository; None uses the one that ``hf auth login`` stored.
            cache_dir: where downloads are kept; None for the cache of huggingface_hub.
            local_files_only: True never touches the network.
            device: where to put the model; None for the CPU.

        Raises:
            WeightsError: no such classifier, or one that is damaged or of a newer version.
            DownloadError: it cannot be downloaded.
        """
        from vggish_pt.classify import hub

        folder = hub.resolve(
            name_or_path, revision=revision, token=token, cache_dir=cache_dir, local_files_only=local_files_only
        )
        config, tensors = store.read_classifier(folder)
        with torch.device("meta"):  # nothing is allocated or initialised only to be replaced
            model = cls(
                VGGish(config.backbone),
                config.labels,
                multilabel=config.multilabel,
                head=config.head,
                settings=config.settings,
                training=config.training,
            )
        kept = "backbone.postprocess."  # PCA parameters keep their precision
        state = {name: t if name.startswith(kept) else t.to(torch.float32) for name, t in tensors.items()}
        model.load_state_dict(state, assign=True)
        model.backbone.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        if device is not None:
            model.to(device)
        return model.eval()

    def save_pretrained(self, folder: str | os.PathLike[str], *, card: str | None = None) -> None:
        """Writes ``config.json``, ``model.safetensors``, ``labels.txt`` and a model card.

        Args:
            folder: made if it does not exist; a classifier in it is replaced.
            card: text of the model card (``README.md``); None for a plain one.

        Raises:
            OutputError: the folder cannot be written.
        """
        tensors = {}
        for name, tensor in self.state_dict().items():
            tensor = tensor.detach().to("cpu")
            tensor = tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
            tensors[name] = tensor.contiguous(memory_format=torch.contiguous_format)
        text = store.classifier_card(self.config) if card is None else card
        store.write_classifier(Path(folder), self.config, tensors, card=text)

    def push_to_hub(self, repo_id: str, *, token: str | bool | None = None, private: bool = False) -> str:
        """Uploads the classifier to a Hub repository, which is made if it does not exist.

        Args:
            repo_id: "user/name".
            token: access token; None uses the stored one.
            private: whether a new repository is private.

        Returns:
            The commit's address.

        Raises:
            WeightsError: the Hub refused, or cannot be reached.
        """
        import tempfile

        from vggish_pt.classify import hub

        with tempfile.TemporaryDirectory() as staging:
            folder = Path(staging) / "model"
            self.save_pretrained(folder)
            return hub.push(folder, repo_id, token=token, private=private)

    def features(self, examples: Tensor) -> Tensor:
        """What the head sees of windows, differentiably.

        Args:
            examples: (n, 96, 64) floating point, as ``backbone.frontend`` makes them.

        Returns:
            (n, d). Without gradients it is computed in blocks, so that memory stays small.
        """
        network, layer = self.backbone.network, self._config.head.features
        trained = torch.is_grad_enabled() and any(p.requires_grad for p in network.parameters())
        # What infer gives is no part of a graph; a copy may become one.
        values = (
            network(examples, layer) if trained or examples.requires_grad else network.infer(examples, layer).clone()
        )
        return pool_map(values)

    def forward(self, examples: Tensor, mask: Tensor | None = None) -> Tensor:
        """Log-mel windows of clips → logits, differentiably.

        Args:
            examples: (b, w, 96, 64), w windows of each of b clips; or (n, 96, 64), n clips of one window.
            mask: (b, w) bool, True where a clip has a window; None if all have w.

        Returns:
            (b, classes) float32.

        Raises:
            SettingsError: examples or a mask of another shape.
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
        else:  # windows that are not there cost nothing
            there = mask.flatten()
            found = self.features(windows[there])
            features = found.new_zeros(len(there), found.shape[1]).masked_scatter(there.unsqueeze(1), found)
            features = features.reshape(*examples.shape[:2], -1)
        logits: Tensor = self.head(features, mask)
        return logits

    def window_logits(self, examples: Tensor) -> Tensor:
        """Log-mel windows (n, 96, 64) → the logits of each, (n, classes) float32, differentiably."""
        return self.head.windows(self.features(examples))

    def scores(self, logits: Tensor) -> Tensor:
        """Logits → scores: softmax, or sigmoid if a clip may have several labels. (..., classes) both."""
        return logits.sigmoid() if self.multilabel else logits.softmax(dim=-1)

    def predict(self, source: AudioLike, sample_rate: float | None = None, **settings: Any) -> Prediction:
        """Audio → scores, without gradients.

        Args:
            source: a path, file object, bytes of an audio file, or an array or tensor (T,) or (channels, T).
            sample_rate: hertz; needed for arrays and tensors, not allowed otherwise.
            settings: ``batch_size`` and ``allow_truncated``, as in :meth:`vggish_pt.VGGish.embed`, and ``hop``, ``pad``
                and ``resampler`` where they shall differ from those of training.

        Raises:
            AudioError: audio that is missing, empty, damaged or non-finite; the message names it.
            SettingsError: a setting outside what it may be.
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
        """Like :meth:`predict` for many sources, in order, in shared batches; one that fails yields its error.

        Args:
            sources: any iterable; it is read as far ahead as needed to fill batches.
            sample_rate: hertz, for arrays and tensors.
            workers: threads that decode, resample and run the front end ahead of the network; 0 for none.
            settings: as in :meth:`predict`.

        Raises:
            SettingsError: a setting outside what it may be.
        """
        chosen = self.embed_settings(**settings)
        results = embed_sources(self.backbone, sources, sample_rate, chosen, workers=workers, reduce=self.reduce)

        def predictions() -> Generator[Prediction | VGGishError]:
            with closing(results):
                for result in results:
                    yield self.prediction(result)

        return predictions()

    def embed_settings(self, **settings: Any) -> EmbedSettings:
        """What :meth:`vggish_pt.VGGish.embed` needs to give this classifier's features.

        Args:
            settings: as in :meth:`predict`.

        Raises:
            SettingsError: a setting outside what it may be, or one that prediction does not have.
        """
        if unknown := settings.keys() - {"hop", "pad", "resampler", "batch_size", "allow_truncated"}:
            raise SettingsError(f"predict has no setting {', '.join(sorted(unknown))}")
        own = self.settings
        chosen = {"hop": own.hop, "pad": own.pad, "resampler": own.resampler, **settings}
        return EmbedSettings(layer=self._config.head.features, **chosen)

    def reduce(self, values: Tensor) -> Tensor:
        """What :meth:`prediction` needs of some windows, much smaller than their features.

        Args:
            values: (n, ...) features as :meth:`vggish_pt.VGGish.embed` gives them under :meth:`embed_settings`.

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
        """All windows of a source → scores.

        Args:
            result: its windows, reduced by :meth:`reduce`; or the error in their place, which is passed on.
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
