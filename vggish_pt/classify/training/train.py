"""Training of a classifier: labelled clips → a run folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
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
from vggish_pt.classify.training.job import Job
from vggish_pt.classify.training.launch import fit
from vggish_pt.classify.training.progress import TrainingProgress, Watch
from vggish_pt.classify.training.run_folder import TrainingRun
from vggish_pt.classify.training.settings import RunOptions, TrainSettings
from vggish_pt.errors import AudioError, SettingsError, TrainingError
from vggish_pt.model import VGGish
from vggish_pt.nn.config import VGGishConfig

SCRATCH_FC_WIDTH = 4096


class LabelledClip(Protocol):
    """A clip and its labels, such as :class:`vggish_pt.classify.data.examples.Example`."""

    @property
    def item(self) -> Clip:
        """Return the clip's audio file and segment."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the names of the clip's classes."""


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
    """Train a classifier and write its run folder.

    Args:
        training: clips to train on.
        validation: clips that select the best weights; if empty, the last weights are saved.
        labels: names of the classes.
        out: the run folder.
        settings: settings that decide the result.
        multilabel: True if a clip may have any number of labels.
        test: clips that training does not use; they are only listed in ``split.csv``.
        backbone: initial backbone, instead of the weights that the settings name. It is changed.
        options: options that do not change the result.
        resume: continue the training in the folder, if there is one.
        overwrite: replace the training in the folder.
        watch: function that receives the progress.

    Returns:
        The contents of ``metrics.json``.

    Raises:
        SettingsError: invalid settings, or other settings than those of the training to resume.
        TrainingError: too few clips or classes; or the loss is not finite.
        AudioError: files that cannot be read.
        OutputError: the folder cannot be written, or already holds a training.
        MissingDependencyError: Lightning, TensorBoard or torchaudio is needed and cannot be imported.
    """
    options, watch = options or RunOptions(), watch or _ignore
    device = _check_environment(settings, options)
    _check_classes(training, labels, multilabel, settings)
    run = TrainingRun(out)
    # The caller's random state is restored at the end.
    with run.locked(), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(settings.seed)
        model = _model(labels, multilabel, settings, backbone)
        parts = {"training": list(training), "validation": list(validation)}
        config = _config(model, settings, parts)
        resume = run.prepare(config, resume=resume, overwrite=overwrite)
        if resume and (finished := run.read_metrics()) is not None:
            return finished
        run.write_split(_split_rows({**parts, "test": list(test)}))
        examples = [*parts["training"], *parts["validation"]]
        store = _decode([example.item for example in examples], run.cache / "clips", settings, options, watch)
        noise = _noise(settings, run.cache / "noise", options, watch)
        numbers = _readable(store, len(training))
        readable = {part: [examples[number] for number in chosen] for part, chosen in numbers.items()}
        _check_classes(readable["training"], labels, multilabel, settings)
        targets = {part: _targets(chosen, labels) for part, chosen in readable.items()}
        job = Job(
            model=_with_config(model, config),
            training=TrainingClips(store, targets["training"], numbers["training"], settings, noise),
            validation=ValidationClips(store, targets["validation"], numbers["validation"], settings.window),
            plain=ValidationClips(store, targets["training"], numbers["training"], settings.window),
            targets=targets,
            names=[example.item.path for example in examples],
            settings=settings,
            options=options,
            run=run,
            device=device,
            resume=resume,
        )
        metrics = fit(job, watch)
        waveforms.remove(run.cache)
        return metrics


def _ignore(event: TrainingProgress) -> None:
    pass


def _check_environment(settings: TrainSettings, options: RunOptions) -> torch.device:
    """Check that libraries, the noise folder and the device exist, and return the device."""
    from vggish_pt.inference.devices import choose_device
    from vggish_pt.utils.optional import require

    require("lightning.fabric", "training")
    require("tensorboard", "training")
    require("matplotlib", "the learning curve")
    if settings.augment.spec_augment:
        require_masks()
    if settings.augment.noise is not None and not Path(settings.augment.noise).exists():
        raise SettingsError(f"{settings.augment.noise}: no such folder of noise")
    device = choose_device(options.device)
    if device.index is not None and settings.devices > 1:
        raise SettingsError(f"device {options.device!r} is one device, but devices is {settings.devices}; use cuda")
    return device


def _check_classes(
    training: Sequence[LabelledClip], labels: Sequence[str], multilabel: bool, settings: TrainSettings
) -> None:
    if len(training) < max(2, settings.devices):
        raise TrainingError(f"training needs at least {max(2, settings.devices)} clips, not {len(training)}")
    if not multilabel and len(labels) < 2:
        raise TrainingError(f"there is one class only ({labels[0] if labels else 'none'}); training needs at least two")
    seen = {label for example in training for label in example.labels}
    if missing := [label for label in labels if label not in seen]:
        raise TrainingError(
            f"no training clip has the label {missing[0]!r}; add training clips with it, or remove the label"
        )


def _readable(store: waveforms.WaveformStore, training: int) -> dict[str, list[int]]:
    """Return the numbers of the readable clips by part; the first ``training`` clips are for training."""
    readable = [number for number in range(len(store)) if store.lengths[number] > 0]
    return {
        "training": [number for number in readable if number < training],
        "validation": [number for number in readable if number >= training],
    }


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
    """Initialize the weights at random for training from scratch, so that all layers have outputs of similar size.

    He et al., "Delving Deep into Rectifiers" (ICCV 2015).
    """
    for layer in backbone.network.children():
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)


def _config(model: VGGishClassifier, settings: TrainSettings, parts: dict[str, list[LabelledClip]]) -> ClassifierConfig:
    return replace(model.config, training={"settings": settings.to_dict(), "data": _data_digest(parts)})


def _with_config(model: VGGishClassifier, config: ClassifierConfig) -> VGGishClassifier:
    model._config = config
    return model


def _data_digest(parts: dict[str, list[LabelledClip]]) -> str:
    clips = [
        [name, example.item.key.hex(), list(example.labels)] for name, examples in parts.items() for example in examples
    ]
    return hashlib.blake2b(json.dumps(clips).encode(), digest_size=16).hexdigest()


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
            "repair or remove them, or skip them (--skip-unreadable)"
        )
    return store


def _noise(settings: TrainSettings, folder: Path, options: RunOptions, watch: Watch) -> waveforms.WaveformStore | None:
    if settings.augment.noise is None:
        return None
    from vggish_pt.dataset.inputs import find_inputs

    files = find_inputs([settings.augment.noise]).files
    if not files:
        raise SettingsError(f"{settings.augment.noise}: the folder holds no recordings of noise")
    store = _decode([Clip(str(path)) for path in files], folder, settings, options, watch)
    if not all(store.lengths):  # skip unreadable files
        arrays = [store[number] for number in range(len(store)) if store.lengths[number]]
        return waveforms.WaveformStore([len(array) for array in arrays], arrays)
    return store


def _targets(examples: Sequence[LabelledClip], labels: Sequence[str]) -> Tensor:
    columns = {label: column for column, label in enumerate(labels)}
    targets = np.zeros((len(examples), len(labels)), np.float32)
    for row, example in enumerate(examples):
        for label in example.labels:
            targets[row, columns[label]] = 1
    return torch.from_numpy(targets)
