"""Saved classifiers: folders with ``config.json``, ``model.safetensors`` and ``labels.txt``.

Tensors have the names of :meth:`~vggish_pt.classify.model.VGGishClassifier.state_dict`. Reading never unpickles, and
checks sizes before it allocates memory.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from vggish_pt import constants as c
from vggish_pt.classify.config import ClassifierConfig
from vggish_pt.errors import CheckpointError, OutputError
from vggish_pt.pretrained.folder import (
    CARD_NAME,
    CONFIG_NAME,
    PCA_SHAPES,
    WEIGHTS_NAME,
    compare_shapes,
    read_tensors,
    tensor_shapes,
)
from vggish_pt.utils.atomic import whole_file
from vggish_pt.utils.json_file import read_text
from vggish_pt.utils.json_file import write_text as write_text
from vggish_pt.utils.text import error_reason

if TYPE_CHECKING:
    import torch

LABELS_NAME = "labels.txt"

_MAX_CONFIG_BYTES = 1 << 24
_BACKBONE = "backbone."


def read_config(folder: Path) -> ClassifierConfig:
    """Read a run folder's configuration.

    Raises:
        CheckpointError: the folder holds no classifier, is damaged, or was written by a newer version.
    """
    path = folder / CONFIG_NAME
    try:
        text = read_text(path, max_bytes=_MAX_CONFIG_BYTES)
    except OSError as error:
        raise CheckpointError(
            f"{folder}: not a classifier's folder ({CONFIG_NAME}: {error_reason(error)}); "
            "vggish-pt train DATA --out RUN makes one"
        ) from None
    return ClassifierConfig.from_json(text, origin=str(path))


def shapes(config: ClassifierConfig) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every tensor of a classifier, without the PCA parameters, which are optional."""
    import torch

    from vggish_pt.classify.heads import Head, feature_size, make_activation

    expected = {_BACKBONE + name: shape for name, shape in tensor_shapes(config.backbone).items()}
    head = config.head
    with torch.device("meta"):  # nothing is allocated
        module = Head(
            feature_size(head.features, config.backbone),
            len(config.labels),
            head,
            make_activation(head.activation, head.features, config.backbone),
        )
    return expected | {f"head.{name}": tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def max_bytes(folder: Path) -> int:
    """Return the largest size in bytes that a classifier's tensors can have with its configuration.

    Raises:
        CheckpointError: the configuration is damaged.
    """
    return 8 * sum(math.prod(shape) for shape in (*shapes(read_config(folder)).values(), *PCA_SHAPES.values()))


def read_classifier(folder: Path) -> tuple[ClassifierConfig, dict[str, torch.Tensor]]:
    """Read a run folder's configuration and weights.

    Returns:
        The configuration and the tensors as stored, memory-mapped.

    Raises:
        CheckpointError: the folder or a file is missing, damaged, or does not match the configuration.
    """
    from safetensors import SafetensorError

    config = read_config(folder)
    path = folder / WEIGHTS_NAME
    try:
        return config, read_tensors(path, lambda shapes: _check_shapes(shapes, config, origin=str(path)))
    except (SafetensorError, OSError) as error:
        unfinished = (
            "" if path.exists() else "; the training is not finished: continue it with vggish-pt train --resume"
        )
        raise CheckpointError(f"{path}: cannot be read ({error}){unfinished}") from None


def write_classifier(
    folder: Path, config: ClassifierConfig, tensors: Mapping[str, torch.Tensor], *, card: str | None = None
) -> None:
    """Write a classifier into a folder; each file is written whole or not at all.

    Args:
        folder: created if it does not exist. A classifier in it is replaced.
        config: the configuration.
        tensors: name to tensor on the CPU, contiguous.
        card: text of ``README.md``; None leaves an existing one alone.

    Raises:
        CheckpointError: the tensors do not match the configuration.
        OutputError: the folder cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save

    _check_shapes({name: tuple(tensor.shape) for name, tensor in tensors.items()}, config, origin=str(folder))
    texts = {
        CONFIG_NAME: config.to_json(),
        LABELS_NAME: "".join(f"{' '.join(label.splitlines()) or label}\n" for label in config.labels),
    }
    if card is not None:
        texts[CARD_NAME] = card
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Weights first: if writing stops after them, the reader checks them against the old configuration.
        with whole_file(folder / WEIGHTS_NAME, overwrite=True) as file:
            file.write(save(dict(tensors)))
        for name, text in texts.items():
            write_text(folder / name, text)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"{folder}: cannot write the classifier there ({error})") from error


def classifier_card(config: ClassifierConfig) -> str:
    """Return a default model card (``README.md``) for a classifier."""
    labels = ", ".join(config.labels[:20]) + (f" and {len(config.labels) - 20} more" if len(config.labels) > 20 else "")
    return f"""---
library_name: vggish_pt
license: {json.dumps(config.backbone.license.lower())}
tags:
- audio
- audio-classification
- vggish
pipeline_tag: audio-classification
---

# A sound classifier on VGGish

A {config.task} classifier with {len(config.labels)} classes: {labels}.

```python
from vggish_pt.classify import VGGishClassifier

model = VGGishClassifier.from_pretrained("user/name")  # this repository, or a folder with its files
prediction = model.predict("clip.wav")
prediction.best
```

- Backbone: VGGish, weights "{config.backbone.name}" ({config.backbone.license}) before training.
- Head: {config.head.kind}, on the layer {config.head.features}.
- A window of {c.EXAMPLE_SECONDS} s every {config.settings.hop} s.

Files: `config.json`, `model.safetensors` and `labels.txt`; nothing in them is code.
"""


def _check_shapes(found: Mapping[str, tuple[int, ...]], config: ClassifierConfig, *, origin: str) -> None:
    expected = shapes(config)
    pca = {_BACKBONE + name: shape for name, shape in PCA_SHAPES.items()}
    if any(name in found for name in pca):
        expected |= pca
    if missing := sorted(expected.keys() - found.keys()):
        raise CheckpointError(
            f"{origin}: tensors are missing: {', '.join(missing[:5])}; this is not a complete classifier"
        )
    if unknown := sorted(found.keys() - expected.keys()):
        raise CheckpointError(
            f"{origin}: unknown tensors: {', '.join(unknown[:5])}; config.json describes another classifier"
        )
    compare_shapes(found, expected, origin=origin)
