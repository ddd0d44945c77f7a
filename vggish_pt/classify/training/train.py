"""Training a classifier: labelled clips → a run folder."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from vggish_pt.audio.clip import Clip
from vggish_pt.classify.config import ClassifierConfig
from vggish_pt.classify.data import waveforms
from vggish_pt.classify.data.augment import require_masks
from vggish_pt.classify.data.clips import TrainingClips, ValidationClips
from vggish_pt.classify.model import VGGishClassifier
from vggish_pt.classify.training.loop import Job, fit
from vggish_pt.classify.training.progress import TrainingProgress, Watch
from vggish_pt.classify.training.run_folder import TrainingRun
from vggish_pt.classify.training.settings import RunOptions, TrainSettings
from vggish_pt.errors import AudioError, SettingsError, TrainingError
from vggish_pt.model import VGGish
from vggish_pt.nn.config import VGGishConfig

SCRATCH_FC_WIDTH = 4096


class LabelledClip(Protocol):
    """A clip and its labels, such as :class:`vggish_pt.classify.data.labelled.Example`."""

    @property
    def item(self) -> Clip:
        """Where its audio is."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of its classes."""


def train(
    training: Sequence[LabelledClip],
    validation: Sequence[LabelledClip],
    labels: Sequence[str],
    out: Path,
    settings: TrainSettings,
    *,
    multilabel: bool = False,
    test: Sequence[LabelledClip] = (),
    backbone: VGGish | None = None,
    options: RunOptions | None = None,
    resume: bool = False,
    overwrite: bool = False,
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Trains a classifier and writes its run folder.

    Args:
        training: the clips to learn from.
        validation: the clips by which the best weights are chosen; may be none, and then the last are kept.
        labels: names of the classes.
        out: the run folder.
        settings: what decides the result.
        multilabel: whether a clip may have any number of labels.
        test: clips that are kept out of both; only noted in ``split.csv``.
        backbone: where to start, instead of the weights that the settings name. It is changed.
        options: what does not decide the result.
        resume: whether to go on with the training that is there.
        overwrite: whether to replace it.
        watch: is told how training goes.

    Returns:
        What ``metrics.json`` holds.

    Raises:
        SettingsError: settings that cannot be, or other ones than those of the training to go on with.
        TrainingError: too few clips or classes; or the loss is not finite.
        AudioError: files that cannot be read.
        OutputError: the folder cannot be written, or holds a training already.
        MissingDependencyError: Lightning, TensorBoard or torchaudio is needed and cannot be loaded.
    """
    from vggish_pt.inference.devices import choose_device
    from vggish_pt.utils.optional import require

    require("lightning.fabric", "training")
    require("tensorboard", "training")
    require("matplotlib", "the learning curve")
    if settings.augment.spec_augment:
        require_masks()
    if settings.augment.noise is not None and not Path(settings.augment.noise).exists():
        raise SettingsError(f"{settings.augment.noise}: no such folder of noise")
    options = options or RunOptions()
    watch = watch or _unwatched
    device = choose_device(options.device)
    if device.index is not None and settings.devices > 1:
        raise SettingsError(f"device {options.device!r} is one, and {settings.devices} are asked for; say cuda")
    _check(training, labels, multilabel, settings)
    run = TrainingRun(out)
    with run.locked(), ExitStack() as stack:
        # The caller's random state is left alone.
        stack.enter_context(torch.random.fork_rng(devices=range(torch.cuda.device_count())))
        torch.manual_seed(settings.seed)
        model = _model(labels, multilabel, settings, backbone)
        parts = {"training": list(training), "validation": list(validation)}
        config = _config(model, settings, parts)
        going_on = run.prepare(config, resume=resume, overwrite=overwrite)
        if going_on and (finished := run.read_metrics()) is not None:
            return finished
        run.write_split(_split_rows({**parts, "test": list(test)}))
        examples = [*parts["training"], *parts["validation"]]
        store = _decode([e.item for e in examples], run.cache / "clips", settings, options, watch)
        noise = _noise(settings, run.cache / "noise", options, watch)
        readable = [i for i in range(len(examples)) if store.lengths[i] > 0]
        chosen = {
            "training": [i for i in readable if i < len(training)],
            "validation": [i for i in readable if i >= len(training)],
        }
        kept = {name: [examples[i] for i in places] for name, places in chosen.items()}
        _check(kept["training"], labels, multilabel, settings)
        targets = {name: _targets(clips, labels) for name, clips in kept.items()}
        job = Job(
            model=_with_config(model, config),
            training=TrainingClips(store, targets["training"], chosen["training"], settings, noise),
            validation=ValidationClips(store, targets["validation"], chosen["validation"], settings.window),
            plain=ValidationClips(store, targets["training"], chosen["training"], settings.window),
            targets=targets,
            names=[example.item.path for example in examples],
            settings=settings,
            options=options,
            run=run,
            device=device,
            resume=going_on,
        )
        metrics = fit(job, watch)
        waveforms.remove(run.cache)
        return metrics


def _unwatched(event: TrainingProgress) -> None:
    pass


def _check(training: Sequence[LabelledClip], labels: Sequence[str], multilabel: bool, settings: TrainSettings) -> None:
    if len(training) < max(2, settings.devices):
        raise TrainingError(f"training needs at least {max(2, settings.devices)} clips, not {len(training)}")
    if not multilabel and len(labels) < 2:
        raise TrainingError(f"there is one class only ({labels[0] if labels else 'none'}); training needs two at least")
    seen = {label for example in training for label in example.labels}
    if missing := [label for label in labels if label not in seen]:
        raise TrainingError(
            f"no training clip has the label {missing[0]!r}; give it clips in the training part, or leave it out"
        )


def _model(
    labels: Sequence[str], multilabel: bool, settings: TrainSettings, backbone: VGGish | None
) -> VGGishClassifier:
    if backbone is None:
        if settings.scratch:
            backbone = VGGish(VGGishConfig(fc_width=SCRATCH_FC_WIDTH, name="random"))
            initialise(backbone)
        else:
            backbone = VGGish.from_pretrained(settings.weights)
    return VGGishClassifier(backbone, labels, multilabel=multilabel, head=settings.head, settings=settings.window)


def initialise(backbone: VGGish) -> None:
    """Random weights for training from scratch, with outputs about as large at every layer.

    He et al., "Delving Deep into Rectifiers" (ICCV 2015).
    """
    for layer in backbone.network.children():
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)


def _config(model: VGGishClassifier, settings: TrainSettings, parts: dict[str, list[LabelledClip]]) -> ClassifierConfig:
    from dataclasses import replace

    return replace(model.config, training={"settings": settings.to_dict(), "data": _data_digest(parts)})


def _with_config(model: VGGishClassifier, config: ClassifierConfig) -> VGGishClassifier:
    model._config = config
    return model


def _data_digest(parts: dict[str, list[LabelledClip]]) -> str:
    import hashlib
    import json

    told = [
        [name, example.item.key.hex(), list(example.labels)] for name, examples in parts.items() for example in examples
    ]
    return hashlib.blake2b(json.dumps(told).encode(), digest_size=16).hexdigest()


def _split_rows(parts: dict[str, list[LabelledClip]]) -> list[dict[str, Any]]:
    return [
        {
            "path": example.item.path,
            "start": example.item.start,
            "end": example.item.end,
            "labels": ";".join(example.labels),
            "part": name,
        }
        for name, examples in parts.items()
        for example in examples
    ]


def _decode(
    items: list[Clip], folder: Path, settings: TrainSettings, options: RunOptions, watch: Watch
) -> waveforms.WaveformStore:
    store, failures = waveforms.load(
        items,
        folder if options.cache == "disk" else None,
        resampler=settings.window.resampler,
        workers=options.decoders,
        watch=lambda done, total: watch(TrainingProgress("decoding", done, total)),
    )
    for error in failures.values():
        watch(TrainingProgress("unreadable", text=str(error)))
    if failures and len(failures) == len(items):
        raise AudioError(f"none of the {len(items)} files can be read; the first: {next(iter(failures.values()))}")
    if failures and not options.skip_unreadable:
        raise AudioError(
            f"{len(failures)} of {len(items)} files cannot be read; the first: {next(iter(failures.values()))}; "
            "repair or remove them, or leave them out (--skip-unreadable)"
        )
    return store


def _noise(settings: TrainSettings, folder: Path, options: RunOptions, watch: Watch) -> waveforms.WaveformStore | None:
    if settings.augment.noise is None:
        return None
    from vggish_pt.dataset.inputs import find_inputs

    files = find_inputs([settings.augment.noise]).files
    if not files:
        raise SettingsError(f"{settings.augment.noise}: no recordings of noise there")
    store = _decode([Clip(str(path)) for path in files], folder, settings, options, watch)
    if not all(store.lengths):  # skipped ones
        kept = [store[i] for i in range(len(store)) if store.lengths[i]]
        return waveforms.WaveformStore([len(a) for a in kept], kept)
    return store


def _targets(examples: Sequence[LabelledClip], labels: Sequence[str]) -> Tensor:
    places = {label: i for i, label in enumerate(labels)}
    targets = np.zeros((len(examples), len(labels)), np.float32)
    for row, example in enumerate(examples):
        for label in example.labels:
            targets[row, places[label]] = 1
    return torch.from_numpy(targets)
