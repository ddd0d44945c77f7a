"""``vggish-pt train``: labelled sounds to a classifier."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from vggish_pt.cli.options import Device, Hop, Resampler, Weights
from vggish_pt.errors import SettingsError

_DATA = "Data"
_MODEL = "Model"
_LEARNING = "Learning"
_AUGMENT = "Augmentation"
_RUN = "Run"


def _option(help_text: str, panel: str, metavar: str | None = None, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=help_text, rich_help_panel=panel, metavar=metavar, **more)


def train(
    data: Annotated[
        str,
        typer.Argument(
            help="A folder with a sub-folder of sounds for each class, or a manifest (CSV, JSON lines, Parquet) with "
            "the columns path and label, or labels separated by ';'; optionally fold, group, split, start, end.",
            metavar="DATA",
            show_default=False,
        ),
    ],
    out: Annotated[Path, _option("The run folder to make.", _RUN, "RUN")],
    weights: Weights = "audioset",
    fold_from: Annotated[
        str | None, _option("A regular expression that finds the fold in a file's name.", _DATA, "REGEX")
    ] = None,
    validation_fold: Annotated[str | None, _option("The fold to validate with.", _DATA, "FOLD")] = None,
    test_fold: Annotated[str | None, _option("A fold that training never sees.", _DATA, "FOLD")] = None,
    validation_share: Annotated[
        float, _option("Share of the clips to validate with, where neither folds nor splits say; 0: none.", _DATA)
    ] = 0.2,
    skip_unreadable: Annotated[
        bool, _option("Leave out files that cannot be read, instead of failing.", _DATA, None, "--skip-unreadable")
    ] = False,
    head: Annotated[
        str,
        _option("linear; mlp: with a hidden layer; attention: over windows.", _MODEL, "linear|mlp|attention"),
    ] = "linear",
    features: Annotated[
        str, _option("The layer that the head sees, as in embed --layer.", _MODEL, "LAYER")
    ] = "fused:conv4",
    activation: Annotated[
        str,
        _option("What features go through first; auto: a ReLU for the embedding.", _MODEL, "auto|relu|gelu|none"),
    ] = "auto",
    hidden: Annotated[int, _option("Width of the hidden layer, or of the attention.", _MODEL, "N")] = 256,
    dropout: Annotated[float, _option("Share of features that training leaves out.", _MODEL)] = 0.2,
    hop: Hop = 0.96,
    pad: Annotated[str, _option("As in embed.", _MODEL, "short|drop|tail")] = "short",
    resampler: Resampler = "soxr",
    backbone: Annotated[
        str,
        _option("whole: train it all; frozen: the head alone; gradual: from the top.", _MODEL, "whole|frozen|gradual"),
    ] = "whole",
    frozen_blocks: Annotated[
        int, _option("So many of the lowest blocks (conv1 to conv4, fc) are never trained.", _MODEL, "N")
    ] = 0,
    unfreeze_at: Annotated[
        str,
        _option("For gradual: epochs from which each block, from the top, is trained.", _MODEL, "E,E,..."),
    ] = "1,2,3,4,5",
    backbone_lr_factor: Annotated[
        float, _option("The backbone's learning rate as a share of the head's.", _MODEL)
    ] = 0.2,
    head_epochs: Annotated[
        int, _option("First train the head alone so often, on features computed once: seconds.", _LEARNING, "N")
    ] = 0,
    epochs: Annotated[int, _option("How often training sees every clip; 0: the head alone.", _LEARNING, "N")] = 20,
    batch_size: Annotated[int, _option("Clips in a step, on each device.", _LEARNING, "N")] = 8,
    windows: Annotated[int, _option("Windows of a clip in a step, at most.", _LEARNING, "N")] = 3,
    accumulate: Annotated[int, _option("Batches whose gradients make one step.", _LEARNING, "N")] = 1,
    optimizer: Annotated[str, _option("A class of torch.optim.", _LEARNING, "NAME")] = "AdamW",
    optimizer_option: Annotated[
        list[str] | None, _option("A further argument of it, such as momentum=0.9; repeatable.", _LEARNING, "KEY=VALUE")
    ] = None,
    lr: Annotated[float, _option("Learning rate of the head; with one-cycle the highest.", _LEARNING)] = 5e-4,
    weight_decay: Annotated[float, _option("Of all weights but biases.", _LEARNING)] = 0.05,
    schedule: Annotated[
        str, _option("A class of torch.optim.lr_scheduler, or none.", _LEARNING, "NAME")
    ] = "OneCycleLR",
    schedule_option: Annotated[
        list[str] | None, _option("A further argument of it; repeatable.", _LEARNING, "KEY=VALUE")
    ] = None,
    clip: Annotated[float, _option("Largest norm of the gradients; 0: no bound.", _LEARNING)] = 5.0,
    swa: Annotated[
        float, _option("Average the weights of the epochs after this share of all; 0: don't.", _LEARNING)
    ] = 0.0,
    early_stopping: Annotated[
        int, _option("Stop after so many epochs without a better validation figure; 0: never.", _LEARNING, "N")
    ] = 0,
    metric: Annotated[
        str,
        _option(
            "Which validation figure counts; auto: accuracy, or map.", _LEARNING, "auto|accuracy|macro_f1|map|loss"
        ),
    ] = "auto",
    keep: Annotated[str, _option("Which weights to keep.", _LEARNING, "best|last")] = "best",
    class_weights: Annotated[
        str, _option("balanced: weigh classes by their rarity.", _LEARNING, "none|balanced")
    ] = "none",
    label_smoothing: Annotated[float, _option("Share of the target spread over all classes.", _LEARNING)] = 0.0,
    random_crop: Annotated[
        bool, _option("Take windows from anywhere in a clip.", _AUGMENT, None, "--random-crop/--no-random-crop")
    ] = True,
    gain: Annotated[float, _option("Change the level by up to so much.", _AUGMENT, "DECIBELS")] = 0.0,
    time_shift: Annotated[float, _option("Turn clips around by up to so much.", _AUGMENT, "SECONDS")] = 0.0,
    noise: Annotated[Path | None, _option("Mix in recordings of this folder.", _AUGMENT, "FOLDER")] = None,
    noise_share: Annotated[float, _option("Share of the clips that get noise.", _AUGMENT)] = 0.5,
    snr: Annotated[
        str, _option("Level of clips above the noise, lowest and highest.", _AUGMENT, "DECIBELS,DECIBELS")
    ] = "5,30",
    mixup: Annotated[float, _option("Mix clips, with shares from Beta(x, x); 0: don't.", _AUGMENT, "X")] = 0.0,
    spec_augment: Annotated[
        bool, _option("Mask bands and times (needs torchaudio).", _AUGMENT, None, "--spec-augment")
    ] = False,
    seed: Annotated[int, _option("Of all randomness.", _RUN, "N")] = 0,
    device: Device = "auto",
    devices: Annotated[int, _option("How many devices train side by side.", _RUN, "N")] = 1,
    precision: Annotated[str, _option("bf16: mixed precision, faster and less exact.", _RUN, "fp32|bf16")] = "fp32",
    workers: Annotated[
        int, _option("Processes that prepare batches; changes speed only.", _RUN, "N", min=0, max=256)
    ] = 0,
    cache: Annotated[str, _option("Where decoded audio is kept while training runs.", _RUN, "disk|memory")] = "disk",
    checkpoint: Annotated[
        float, _option("Save the state this often, beside the end of each epoch.", _RUN, "SECONDS", min=0)
    ] = 60.0,
    resume: Annotated[
        bool, _option("Go on with the training in RUN; all else as it was.", _RUN, None, "--resume")
    ] = False,
    overwrite: Annotated[bool, _option("Replace the training in RUN.", _RUN, None, "--overwrite")] = False,
    quiet: Annotated[bool, _option("Print errors only.", _RUN, None, "--quiet", "-q")] = False,
) -> None:
    """Train a classifier of sounds: fine-tune VGGish, train a head on it, or train all from scratch (--weights none).

    RUN then holds the model, its labels, metrics, logs (TensorBoard and CSV) and a learning curve. A training that was
    stopped goes on with --resume and gives the same result.

    Example: vggish-pt train sounds --out run
    """
    from vggish_pt.classify.config import HeadConfig, WindowSettings
    from vggish_pt.classify.training.settings import AugmentSettings, TrainSettings

    # All that can be wrong with settings is found out before torch loads and before the first file is read.
    settings = TrainSettings(
        weights=weights,
        head=HeadConfig(head, features, activation, hidden, dropout),  # type: ignore[arg-type]
        window=WindowSettings(hop, pad, resampler),  # type: ignore[arg-type]
        backbone=backbone,  # type: ignore[arg-type]
        frozen_blocks=frozen_blocks,
        unfreeze_at=tuple(_numbers("unfreeze-at", unfreeze_at, int)),
        head_epochs=head_epochs,
        epochs=epochs,
        batch_size=batch_size,
        windows=windows,
        accumulate=accumulate,
        optimizer=optimizer,
        optimizer_options=_options("optimizer-option", optimizer_option),
        lr=lr,
        backbone_lr_factor=backbone_lr_factor,
        weight_decay=weight_decay,
        schedule=schedule,
        schedule_options=_options("schedule-option", schedule_option),
        clip=clip,
        swa=swa,
        early_stopping=early_stopping,
        metric=metric,  # type: ignore[arg-type]
        keep=keep,  # type: ignore[arg-type]
        precision=precision,  # type: ignore[arg-type]
        class_weights=class_weights,  # type: ignore[arg-type]
        label_smoothing=label_smoothing,
        augment=AugmentSettings(
            random_crop=random_crop,
            gain=gain,
            time_shift=time_shift,
            noise=None if noise is None else str(noise),
            noise_share=noise_share,
            snr=_pair("snr", snr),
            mixup=mixup,
            spec_augment=spec_augment,
        ),
        devices=devices,
        seed=seed,
    )
    if resume and overwrite:
        raise SettingsError("--resume goes on with a training, --overwrite replaces it; use one of them")
    if quiet:
        warnings.simplefilter("ignore")
    from vggish_pt.classify.data.labelled import read_labelled
    from vggish_pt.classify.data.parts import choose_parts, describe
    from vggish_pt.classify.training.memory import keep_freed_memory
    from vggish_pt.classify.training.run_options import RunOptions
    from vggish_pt.cli.train_table import TrainTable

    keep_freed_memory()
    options = RunOptions(
        device=device, workers=workers, cache=cache, checkpoint_seconds=checkpoint, skip_unreadable=skip_unreadable
    )
    labelled = read_labelled(data, fold_from=fold_from)
    parts = choose_parts(
        labelled, validation_fold=validation_fold, test_fold=test_fold, share=validation_share, seed=seed
    )
    with TrainTable(enabled=not quiet) as table:
        table.note(f"{labelled.name}: {describe(labelled, parts)}")
        from vggish_pt.classify.training.train import train as run_training

        metrics = run_training(
            labelled.select(parts.train.tolist()).examples,
            labelled.select(parts.validation.tolist()).examples,
            labelled.labels,
            out,
            settings,
            multilabel=labelled.multilabel,
            test=labelled.select(parts.test.tolist()).examples,
            options=options,
            resume=resume,
            overwrite=overwrite,
            watch=table.watch,
        )
        table.finish(out, metrics)
    if table.unreadable:
        typer.echo(f"vggish-pt: {table.unreadable} files could not be read and were left out", err=True)
        raise typer.Exit(3)


def _numbers(name: str, text: str, kind: type[Any]) -> list[Any]:
    try:
        return [kind(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise SettingsError(f"--{name} must be numbers separated by commas, not {text!r}") from None


def _pair(name: str, text: str) -> tuple[float, float]:
    numbers = _numbers(name, text, float)
    if len(numbers) != 2:
        raise SettingsError(f"--{name} must be two numbers separated by a comma, not {text!r}")
    return numbers[0], numbers[1]


def _options(name: str, given: list[str] | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for text in given or ():
        key, equals, value = text.partition("=")
        if not equals or not key.isidentifier():
            raise SettingsError(f"--{name} must be KEY=VALUE, not {text!r}")
        try:
            found[key] = json.loads(value.lower() if value in ("True", "False") else value)
        except ValueError:
            found[key] = value
    return found
