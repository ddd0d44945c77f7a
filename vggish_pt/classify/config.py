"""Configuration of a classifier: the contents of a run folder's ``config.json``."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, get_args

from vggish_pt import constants as c
from vggish_pt.errors import CheckpointError, SettingsError
from vggish_pt.nn.config import VGGishConfig, check_format_version
from vggish_pt.nn.layers import check_layer
from vggish_pt.utils.checks import choice, number, whole
from vggish_pt.utils.json_file import object_text, parse_object
from vggish_pt.version import __version__

if TYPE_CHECKING:
    from vggish_pt.audio.resample import ResamplerName
    from vggish_pt.nn.windows import Pad

MODEL_TYPE = "vggish_pt_classifier"
FORMAT_VERSION = 1

HeadKind = Literal["linear", "mlp", "attention"]
Activation = Literal["auto", "relu", "gelu", "none"]

MAX_LABELS = 100_000
MAX_HIDDEN = 1 << 16
DEFAULT_FEATURES = "fused:conv4"


@dataclass(frozen=True)
class WindowSettings:
    """Settings of the windows of a classifier's audio.

    Attributes:
        hop: seconds from the start of one window to the next, a multiple of 0.01.
        pad: "short", "drop" or "tail"; see :data:`vggish_pt.nn.windows.Pad`.
        resampler: "soxr", "resampy" or "torchaudio".

    Raises:
        SettingsError: an invalid value.
    """

    hop: float = c.DEFAULT_HOP_SECONDS
    pad: Pad = "short"
    resampler: ResamplerName = "soxr"

    def __post_init__(self) -> None:
        # Both import numpy, which the help texts of the command line must not need.
        from vggish_pt.audio.resample import check_resampler
        from vggish_pt.nn.windows import check_pad, hop_frames

        hop_frames(self.hop)
        check_pad(self.pad)
        check_resampler(self.resampler)


@dataclass(frozen=True)
class HeadConfig:
    """Type and size of the head, which stands on top of the backbone.

    Attributes:
        kind: linear; mlp (one hidden layer); or attention (over windows). See :mod:`vggish_pt.classify.heads`.
        features: Layer that the head sees; see :func:`vggish_pt.nn.layers.check_layer`. Of a convolutional layer,
            the head sees the mean and the maximum over time and frequency.
        activation: Activation applied to the features first; auto is relu for the embedding and none otherwise.
            VGGish's embedding is pre-activation, while the other layers end in a ReLU.
        hidden: Width of the hidden layer of mlp, or of the attention.
        dropout: Share of the features that training drops.

    Raises:
        SettingsError: a value outside its range.
    """

    kind: HeadKind = "linear"
    features: str = DEFAULT_FEATURES
    activation: Activation = "auto"
    hidden: int = 256
    dropout: float = 0.2

    def __post_init__(self) -> None:
        choice("head", self.kind, get_args(HeadKind))
        check_layer(self.features)
        choice("activation", self.activation, get_args(Activation))
        whole("hidden", self.hidden, 1, MAX_HIDDEN)
        number("dropout", self.dropout, 0, 1, below=True)


@dataclass(frozen=True)
class ClassifierConfig:
    """Configuration of a classifier.

    Attributes:
        labels: names of the classes, in the order of the scores.
        multilabel: True if a clip may have any number of labels (sigmoid), False if it has exactly one (softmax).
        head: :class:`HeadConfig`.
        settings: :class:`WindowSettings`.
        backbone: configuration of the network that computes the features.
        training: settings and figures of the training. Free-form, JSON types.

    Raises:
        SettingsError: labels that are empty, duplicate or not strings, or too few or too many of them.
    """

    labels: tuple[str, ...]
    multilabel: bool = False
    head: HeadConfig = field(default_factory=HeadConfig)
    settings: WindowSettings = field(default_factory=WindowSettings)
    backbone: VGGishConfig = field(default_factory=VGGishConfig)
    training: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if any(not isinstance(label, str) or not label for label in self.labels):
            raise SettingsError("labels must be strings, none of them empty")
        if len(set(self.labels)) != len(self.labels):
            raise SettingsError("labels must differ from each other")
        if not isinstance(self.multilabel, bool):
            raise SettingsError(f"multilabel must be true or false, not {self.multilabel!r}")
        least = 1 if self.multilabel else 2
        if not least <= len(self.labels) <= MAX_LABELS:
            raise SettingsError(
                f"a classifier needs at least {least} and at most {MAX_LABELS} classes, not {len(self.labels)}"
            )

    @property
    def task(self) -> str:
        """ "single-label" or "multi-label"."""
        return "multi-label" if self.multilabel else "single-label"

    def to_json(self) -> str:
        """Return the text of ``config.json``."""
        document = {
            "model_type": MODEL_TYPE,
            "format_version": FORMAT_VERSION,
            "vggish_pt": __version__,
            "task": self.task,
            "labels": list(self.labels),
            "head": asdict(self.head),
            "settings": asdict(self.settings),
            "backbone": asdict(self.backbone),
            "training": self.training,
        }
        return object_text(document, allow_nan=True)

    @classmethod
    def from_json(cls, text: str, *, origin: str = "config.json") -> ClassifierConfig:
        """Parse the text of a ``config.json``.

        Args:
            text: the file's contents.
            origin: name of the file in error messages.

        Raises:
            CheckpointError: the text is not a classifier's configuration, or has a newer format.
        """
        document = parse_object(text, origin=origin)
        if document.get("model_type") == "vggish":
            raise CheckpointError(
                f"{origin}: an extractor's weights, not a classifier; train one with: vggish-pt train DATA --out RUN"
            )
        if document.get("model_type") != MODEL_TYPE:
            raise CheckpointError(f'{origin}: not a classifier (its "model_type" is not "{MODEL_TYPE}")')
        check_format_version(document, FORMAT_VERSION, origin)
        try:
            if document.get("task") not in ("single-label", "multi-label"):
                raise SettingsError(f'"task" must be "single-label" or "multi-label", not {document.get("task")!r}')
            if not isinstance(document.get("labels"), list):
                raise SettingsError('"labels" must be a list')
            return cls(
                labels=tuple(document["labels"]),
                multilabel=document["task"] == "multi-label",
                head=HeadConfig(**_known(HeadConfig, document, "head")),
                settings=WindowSettings(**_known(WindowSettings, document, "settings")),
                backbone=VGGishConfig(**_known(VGGishConfig, document, "backbone")),
                training=_object(document, "training"),
            )
        except (CheckpointError, SettingsError) as error:
            raise CheckpointError(f"{origin}: {error}; the run folder is damaged") from None


def _object(document: dict[str, Any], key: str) -> dict[str, Any]:
    value = document.get(key)
    if not isinstance(value, dict):
        raise SettingsError(f'"{key}" must be an object, not {value!r}')
    return value


def _known(kind: type[Any], document: dict[str, Any], key: str) -> dict[str, Any]:
    names = {f.name for f in fields(kind)}
    return {name: value for name, value in _object(document, key).items() if name in names}
