"""Resume a run of lightning.Trainer from each of its checkpoints, and compare the weights with the whole run's.

The model, batches, seeds, optimizer and schedule are those of vggish_pt.classify.training.loop, but Lightning's Trainer
runs the loop, with its own callbacks (ModelCheckpoint after each optimizer step and each epoch, WeightAveraging,
CSVLogger) and a stateful loader. For each case, the script prints whether the Trainer's weights equal the loop's, which
checkpoints lead to other weights than the undisturbed run, and the number of rows in metrics.csv after resuming.

    python benchmarks/trainer_resume.py
"""

from __future__ import annotations

import copy
import csv
import logging
import tempfile
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import soundfile
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, WeightAveraging
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from vggish_pt import VGGish, VGGishConfig
from vggish_pt.audio.clip import Clip
from vggish_pt.classify import HeadConfig, RunOptions, TrainSettings, VGGishClassifier, train
from vggish_pt.classify.data import waveforms
from vggish_pt.classify.data.clips import EpochBatches, TrainingClips, ValidationClips, collate
from vggish_pt.classify.training import loop
from vggish_pt.classify.training.optimization import freeze, make_optimizer, make_schedule, trained_blocks
from vggish_pt.classify.training.validation import Loss, standardize

LABELS = ["high", "low"]
TRAINING = 8
PLAIN = TrainSettings(
    head=HeadConfig("linear", features="fused:conv4"), frozen_blocks=3, epochs=3, batch_size=3, windows=1, lr=1e-3
)
CASES = {
    "one cycle": PLAIN,
    "one cycle, 3 batches a step": replace(PLAIN, accumulate=3),
    "rate falls each epoch": replace(PLAIN, schedule="ExponentialLR", schedule_options={"gamma": 0.5}),
    "rate falls on a plateau": replace(
        PLAIN, schedule="ReduceLROnPlateau", schedule_options={"patience": 0, "threshold": 10.0}
    ),
    "averaged from epoch 2": replace(PLAIN, swa=0.5),
    "gradual unfreezing": replace(PLAIN, backbone="gradual", unfreeze_at=(1, 2), frozen_blocks=0),
}


@dataclass(frozen=True)
class Labelled:
    item: Clip
    labels: tuple[str, ...]


def write_clips(folder: Path) -> list[Labelled]:
    clips, rng = [], np.random.default_rng(0)
    for number in range(12):
        label = LABELS[number % 2]
        frequency = (3000 if label == "high" else 300) * rng.uniform(0.8, 1.2)
        tone = 0.2 * np.sin(2 * np.pi * frequency * np.arange(16_000) / 16_000)
        path = folder / f"{number}.wav"
        soundfile.write(path, tone + 0.05 * rng.standard_normal(16_000), 16_000)
        clips.append(Labelled(Clip(str(path), number), (label,)))
    return clips


class Batches(EpochBatches):
    """Take the epoch from the Trainer: it restores a loader's own state only from checkpoints within an epoch."""

    @property
    def sampler(self) -> Batches:
        return self

    def set_epoch(self, epoch: int) -> None:
        self.go_to(epoch)


class StatefulLoader(DataLoader):  # type: ignore[type-arg]
    """Count the batches that were taken, so that a checkpoint can say where to continue."""

    batch = 0

    def __iter__(self) -> Any:
        self.batch %= len(self.batch_sampler)
        self.batch_sampler.go_to(self.batch_sampler._epoch, self.batch)
        for batch in super().__iter__():
            self.batch += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        return {"batch": self.batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.batch = state["batch"]


class Module(lightning.LightningModule):
    def __init__(self, model: VGGishClassifier, settings: TrainSettings, loss: Loss, steps: int, targets: Any) -> None:
        super().__init__()
        self.model, self.settings, self.loss, self.steps, self.targets = model, settings, loss, steps, targets

    def configure_optimizers(self) -> Any:
        optimizer = make_optimizer(self.model, self.settings)
        schedule = make_schedule(optimizer, self.settings, self.steps, higher_is_better=True)
        interval = "step" if schedule.every == "step" else "epoch"
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule.scheduler, "interval": interval, "monitor": "val_accuracy"},
        }

    def on_train_epoch_start(self) -> None:
        freeze(self.model, trained_blocks(self.settings, self.current_epoch))

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        loop._seed_batch(self.settings.seed, self.current_epoch, batch_idx, 0)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.loss(self.model(batch.examples, batch.mask).float(), batch.targets)

    def on_validation_start(self) -> None:
        self.logits: list[Any] = []

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.logits.append(self.model(batch.examples, batch.mask))

    def on_validation_epoch_end(self) -> None:
        logits = torch.cat(self.logits)
        self.log("val_loss", self.loss(logits, self.targets, smoothed=False))
        self.log("val_accuracy", (logits.argmax(1) == self.targets.argmax(1)).float().mean())


class Averaging(WeightAveraging):
    def __init__(self, first: int) -> None:
        super().__init__(use_buffers=False)
        self.first = first

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return epoch_idx is not None and epoch_idx >= self.first


class Last(Callback):
    """Keep the weights of the last step, before WeightAveraging replaces them."""

    def on_train_start(self, trainer: Any, pl_module: Module) -> None:
        self.weights = pl_module.model.state_dict()

    def on_train_epoch_end(self, trainer: Any, pl_module: Module) -> None:
        self.weights = copy.deepcopy(pl_module.model.state_dict())


def with_trainer(clips: list[Labelled], backbone: Any, settings: TrainSettings, out: Path, start: Path | None) -> Any:
    torch.manual_seed(settings.seed)
    model = VGGishClassifier(copy.deepcopy(backbone), LABELS, head=settings.head, settings=settings.window)
    store, _ = waveforms.load([clip.item for clip in clips], None)
    targets = torch.eye(2)[[LABELS.index(clip.labels[0]) for clip in clips]]
    numbers = list(range(len(clips)))
    first, last = numbers[:TRAINING], numbers[TRAINING:]
    sampler = Batches(TRAINING, settings.batch_size, settings.seed)
    training = TrainingClips(store, targets[first], first, settings)
    validation = ValidationClips(store, targets[last], last, settings.window)
    plain = ValidationClips(store, targets[first], first, settings.window)
    standardize(model, plain, settings.seed, torch.device("cpu"))
    freeze(model, trained_blocks(settings, settings.epochs))
    model.train()  # standardize left it in evaluation mode, which the Trainer would keep
    steps = -(-len(sampler) // settings.accumulate) * settings.epochs
    module = Module(model, settings, Loss(targets[first], settings, False), steps, targets[last])
    keep = {"dirpath": out / "checkpoints", "save_top_k": -1, "enable_version_counter": False}
    callbacks: list[Any] = [
        ModelCheckpoint(filename="{epoch}-{step}", every_n_train_steps=1, **keep),
        ModelCheckpoint(filename="{epoch}-{step}-end", every_n_epochs=1, save_on_train_epoch_end=True, **keep),
        ends := Last(),
    ]
    if settings.average_from is not None:
        callbacks.append(Averaging(settings.average_from))
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=settings.epochs,
        accumulate_grad_batches=settings.accumulate,
        gradient_clip_val=settings.clip or None,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        log_every_n_steps=10_000,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
        logger=CSVLogger(out, name="", version="logs"),
    )
    loader = StatefulLoader(training, batch_sampler=sampler, collate_fn=collate)
    check = DataLoader(validation, batch_sampler=validation.batches(), collate_fn=collate)
    trainer.fit(module, loader, check, ckpt_path=start, weights_only=True)
    return module.model.state_dict() if settings.average_from is not None else ends.weights


def rows(folder: Path) -> int:
    if not (folder / "logs" / "metrics.csv").exists():
        return 0
    with (folder / "logs" / "metrics.csv").open() as file:
        return len(list(csv.DictReader(file)))


def equal(one: Any, other: Any) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def main() -> None:
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = write_clips(folder)
        torch.manual_seed(7)
        backbone = VGGish(VGGishConfig(fc_width=16, name="small"))
        for place, (case, settings) in enumerate(CASES.items()):
            run = folder / str(place)
            options = RunOptions(device="cpu", cache="memory")
            train(
                clips[:TRAINING], clips[TRAINING:], LABELS, run / "loop", replace(settings, keep="last"),
                backbone=copy.deepcopy(backbone), options=options,
            )  # fmt: skip
            expected = VGGishClassifier.from_pretrained(run / "loop").state_dict()
            whole = with_trainer(clips, backbone, settings, run / "whole", None)
            print(
                f"{case}: equal to the loop's weights: {equal(expected, whole)}; rows {rows(run / 'whole')}", flush=True
            )
            different, left, failed = [], set(), []
            checkpoints = sorted((run / "whole" / "checkpoints").glob("*.ckpt"), key=lambda p: p.stat().st_mtime_ns)
            for number, start in enumerate(checkpoints[:-1]):
                again = run / str(number)
                (again / "logs").mkdir(parents=True)
                (again / "logs" / "metrics.csv").write_bytes((run / "whole" / "logs" / "metrics.csv").read_bytes())
                try:
                    found = with_trainer(clips, backbone, settings, again, start)
                except Exception as error:
                    failed.append(f"{start.stem} ({type(error).__name__}: {str(error)[:200]})")
                    continue
                left.add(rows(again))
                if not equal(found, whole):
                    different.append(start.stem)
            print(f"  {len(checkpoints) - 1} checkpoints; other weights from: {', '.join(different) or 'none'}")
            print(f"  fails from: {', '.join(failed) or 'none'}; rows of metrics.csv after resuming: {sorted(left)}")


if __name__ == "__main__":
    main()
