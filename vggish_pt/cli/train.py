"""``vggish-pt train``: train a classifier on labelled sounds."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from vggish_pt.classify.config import HeadConfig, WindowSettings
from vggish_pt.classify.training.settings import AugmentSettings, RunOptions, TrainSettings
from vggish_pt.cli.options import Device, FoldFrom, Hop, LabelledData, Overwrite, Pad, Quiet, Resampler, Weights
from vggish_pt.cli.settings_options import OptionGroup, with_options
from vggish_pt.errors import SettingsError

_DATA, _RUN = "Data", "Run"


def _fields(names: str, **metavars: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), "") | metavars


_HEAD = OptionGroup(
    "Model", HeadConfig, _fields("kind features activation hidden dropout", features="LAYER"), {"kind": "head"}
)
_TRAIN = (
    OptionGroup(
        "Model", TrainSettings, _fields("backbone frozen_blocks unfreeze_at backbone_lr_factor", unfreeze_at="E,E,...")
    ),
    OptionGroup(
        "Learning",
        TrainSettings,
        _fields(
            "head_epochs epochs batch_size windows accumulate optimizer optimizer_options lr weight_decay schedule "
            "schedule_options clip swa early_stopping metric keep class_weights label_smoothing",
            optimizer="NAME",
            schedule="NAME",
        ),
        {"optimizer_options": "optimizer_option", "schedule_options": "schedule_option"},
    ),
    OptionGroup(_RUN, TrainSettings, _fields("seed devices precision")),
)
_AUGMENT = OptionGroup(
    "Augmentation",
    AugmentSettings,
    _fields(
        "random_crop gain time_shift noise noise_share snr mixup spec_augment mask_bands mask_frames",
        gain="DECIBELS",
        time_shift="SECONDS",
        noise="FOLDER",
        snr="DECIBELS,DECIBELS",
        mixup="X",
    ),
)
_OPTIONS = (
    OptionGroup(_DATA, RunOptions, _fields("skip_unreadable")),
    OptionGroup(
        _RUN,
        RunOptions,
        _fields("workers decoders cache checkpoint_seconds", checkpoint_seconds="SECONDS"),
        {"checkpoint_seconds": "checkpoint"},
    ),
)


def _option(help_text: str, panel: str, metavar: str | None = None, *names: str) -> Any:
    return typer.Option(*names, help=help_text, rich_help_panel=panel, metavar=metavar)


@with_options(_HEAD, *_TRAIN, _AUGMENT, *_OPTIONS)
def train(
    data: LabelledData,
    out: Annotated[Path, _option("Run folder to create.", _RUN, "RUN")],
    weights: Weights = "audioset",
    hop: Hop = 0.96,
    pad: Pad = "short",
    resampler: Resampler = "soxr",
    device: Device = "auto",
    fold_from: FoldFrom = None,
    validation_fold: Annotated[str | None, _option("Fold for validation.", _DATA, "FOLD")] = None,
    test_fold: Annotated[str | None, _option("Fold for testing, which training never uses.", _DATA, "FOLD")] = None,
    validation_share: Annotated[
        float, _option("Share of the clips for validation, if the data name no folds or splits; 0 for none.", _DATA)
    ] = 0.2,
    resume: Annotated[
        bool, _option("Resume the training in RUN, with otherwise the same command.", _RUN, None, "--resume")
    ] = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    **given: Any,
) -> None:
    """Train a classifier of sounds: fine-tune VGGish, train a head on it, or train all from scratch (--weights none).

    RUN then holds the model, its labels, metrics, logs (TensorBoard and CSV) and a learning curve. If a training is
    interrupted, add --resume to the same command: the result is the same as without the interruption.

    Example: vggish-pt train sounds --out run
    """
    # Settings are checked before torch is imported and before the first file is read.
    settings = TrainSettings(
        weights=weights,
        head=HeadConfig(**_HEAD.values(given)),
        window=WindowSettings(hop, pad, resampler),  # type: ignore[arg-type]
        augment=AugmentSettings(**_AUGMENT.values(given)),
        **{name: value for group in _TRAIN for name, value in group.values(given).items()},
    )
    options = RunOptions(
        device=device, **{name: value for group in _OPTIONS for name, value in group.values(given).items()}
    )
    if resume and overwrite:
        raise SettingsError("--resume continues a training and --overwrite replaces it; use one of them")
    if quiet:
        warnings.simplefilter("ignore")
    from vggish_pt.classify.data.labelled import read_labelled
    from vggish_pt.classify.data.splits import choose_split, describe
    from vggish_pt.classify.training.memory import keep_freed_memory
    from vggish_pt.cli.train_progress import TrainingDisplay

    keep_freed_memory()
    labelled = read_labelled(data, fold_from=fold_from)
    split = choose_split(
        labelled, validation_fold=validation_fold, test_fold=test_fold, share=validation_share, seed=settings.seed
    )
    training, validation, test = (
        labelled.select(clips.tolist()).examples for clips in (split.train, split.validation, split.test)
    )
    with TrainingDisplay(enabled=not quiet) as display:
        display.note(f"{labelled.name}: {describe(labelled, split)}")
        from vggish_pt.classify.training.train import train as run_training

        metrics = run_training(
            training,
            validation,
            labelled.labels,
            out,
            settings,
            multilabel=labelled.multilabel,
            test=test,
            options=options,
            resume=resume,
            overwrite=overwrite,
            watch=display.watch,
        )
        display.finish(out, metrics)
    if display.unreadable:
        typer.echo(f"vggish-pt: {display.unreadable} files could not be read and were left out", err=True)
        raise typer.Exit(3)
