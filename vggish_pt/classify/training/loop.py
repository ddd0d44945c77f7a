"""The training loop, on Lightning Fabric: devices, precision and gradients across devices are Fabric's.

All randomness of a step derives from (seed, epoch, batch), and the state is saved between steps only, so that a
training that was killed and resumed gives the same weights as one that was not.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.multiprocessing.spawn import ProcessRaisedException
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from vggish_pt.classify.data.clips import ClipBatch, EpochBatches, TrainingClips, ValidationClips, collate
from vggish_pt.classify.model import VGGishClassifier
from vggish_pt.classify.training.head import train_head
from vggish_pt.classify.training.optimization import freeze, make_optimizer, make_schedule, trained_blocks
from vggish_pt.classify.training.run_folder import TrainingRun
from vggish_pt.classify.training.settings import RunOptions, TrainSettings
from vggish_pt.classify.training.validation import Loss, Validation, figure_name, standardize
from vggish_pt.errors import CheckpointError, TrainingError

if TYPE_CHECKING:
    from vggish_pt.classify.training.progress import TrainingProgress


@dataclass
class Job:
    """All that a process needs to train.

    Attributes:
        model: as it starts.
        training: clips to learn from.
        validation: clips to choose the best weights by; may be none.
        plain: the training clips, unchanged.
        targets: (n, classes) float32 of "training" and "validation".
        names: what errors call clips, by number.
        settings: what decides the result.
        options: what does not.
        run: where to write.
        device: where to train; without an index, on as many of its kind as the settings say.
        resume: whether to go on from the run folder's checkpoint.
    """

    model: VGGishClassifier
    training: TrainingClips
    validation: ValidationClips
    plain: ValidationClips
    targets: dict[str, Tensor]
    names: list[str]
    settings: TrainSettings
    options: RunOptions
    run: TrainingRun
    device: torch.device
    resume: bool


@dataclass
class _State:
    """Where training is. Counts are of what is done."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    seconds: float = 0.0
    best: list[float] | None = None
    best_epoch: int = 0
    better_epoch: int = 0  # when the figure itself was better than ever before
    stopped: bool = False
    history: list[dict[str, Any]] = field(default_factory=list)


def fit(job: Job, watch: Callable[[TrainingProgress], None]) -> dict[str, Any]:
    """Trains, and writes the run folder's results.

    Returns:
        What ``metrics.json`` holds.

    Raises:
        TrainingError: the loss is not finite.
        CheckpointError: the state to go on from is damaged.
        OutputError: the run folder cannot be written.
    """
    from lightning.fabric import Fabric
    from lightning.fabric.strategies import DDPStrategy

    settings = job.settings
    many = settings.devices > 1
    strategy: Any = "auto"
    if many:
        # Gradually unfrozen blocks get no gradients at first.
        strategy = DDPStrategy(start_method="spawn", find_unused_parameters=settings.backbone == "gradual")
    with _quiet_lightning():
        fabric = Fabric(
            accelerator=job.device.type,
            devices=settings.devices if job.device.index is None else [job.device.index],
            strategy=strategy,
            precision="bf16-mixed" if settings.precision == "bf16" else "32-true",
        )
        if not many:
            _Loop(fabric, job, watch).run()
        else:
            try:
                fabric.launch(_run_one, _Sealed(job))
            except ProcessRaisedException as error:
                last = str(error).strip().splitlines()[-1]
                raise TrainingError(f"training failed on one of the devices: {last}") from error
    metrics = job.run.read_metrics()
    if metrics is None:
        raise TrainingError(f"{job.run.path}: training ended without results; go on with --resume")
    return metrics


@contextlib.contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Without its hints and warnings, which are meant for those who call it themselves."""
    # Which of them a message goes to depends on the parts of Lightning that were imported.
    loggers = [logging.getLogger(name) for name in ("lightning.fabric", "lightning.pytorch")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


class _Sealed:
    """Something that Fabric does not look into on its way to another process."""

    def __init__(self, job: Job) -> None:
        self.job = job


def _run_one(fabric: Any, sealed: _Sealed) -> None:
    job = sealed.job
    job.model = copy.deepcopy(job.model)  # tensors that were sent to processes are shared by them
    _Loop(fabric, job, lambda _: None).run()


class _Loop:
    def __init__(self, fabric: Any, job: Job, watch: Callable[[TrainingProgress], None]) -> None:
        settings = job.settings
        self.fabric, self.job, self.settings, self.watch = fabric, job, settings, watch
        self.model = job.model
        self.state = _State()
        self.figure = figure_name(settings.metric, job.model.multilabel)
        self.higher = self.figure != "loss"
        self.sampler = EpochBatches(
            len(job.training), settings.batch_size, settings.seed, fabric.global_rank, fabric.world_size
        )
        if fabric.device.type == "cuda":
            torch.cuda.set_device(fabric.device)
        self.model.to(fabric.device)
        self.optimizer = make_optimizer(self.model, settings)
        steps = math.ceil(len(self.sampler) / settings.accumulate) * settings.epochs
        self.schedule = make_schedule(self.optimizer, settings, max(1, steps), higher_is_better=self.higher)
        self.averaged: AveragedModel | None = None
        if settings.average_from is not None:
            self.averaged = AveragedModel(self.model)
        self.loss = Loss(job.targets["training"], settings, self.model.multilabel).to(fabric.device)
        self.validation = Validation(
            job.validation, job.targets["validation"], self.loss, fabric.device, job.options.workers
        )
        self._saved = time.monotonic()
        self._steps_since = 0
        self._begun = time.monotonic()

    @property
    def main(self) -> bool:
        """Whether this process writes and reports."""
        return bool(self.fabric.is_global_zero)

    def run(self) -> None:
        """Trains to the end."""
        saved = self.job.run.load_checkpoint() if self.job.resume else None
        head_loss: float | None = None
        if saved is None:
            standardize(self.model, self.job.plain, self.settings.seed, self.fabric.device)
            if self.settings.head_epochs:
                head_loss = self._train_head()
        else:
            self._restore(saved)
        freeze(self.model, trained_blocks(self.settings, self.settings.epochs))  # what Fabric shall know of
        self.fabric_model, self.fabric_optimizer = self.fabric.setup(self.model, self.optimizer)
        loader = DataLoader(
            self.job.training,
            batch_sampler=self.sampler,
            collate_fn=collate,
            num_workers=self.job.options.workers,
            pin_memory=self.fabric.device.type == "cuda",
        )
        self.loader = self.fabric.setup_dataloaders(loader, use_distributed_sampler=False)
        with _writer(self.job.run, self.state.epoch, self.main) as writer:
            if head_loss is not None:
                self._record(writer, 0, head_loss, self._validate())
                self._save()
            while self.state.epoch < self.settings.epochs and not self.state.stopped:
                self._epoch(writer)
        self._finish()

    def _epoch(self, writer: Any) -> None:
        state = self.state
        freeze(self.model, trained_blocks(self.settings, state.epoch))
        self.fabric_model.train()
        self.sampler.go_to(state.epoch, state.batch)
        for batch in self.loader:
            self._step(batch)
        figures = self._validate()
        self._record(writer, state.epoch + 1, state.loss_sum / max(1, state.loss_count), figures)
        self.schedule.after("epoch", figures.get(self.figure))
        state.epoch, state.batch, state.loss_sum, state.loss_count = state.epoch + 1, 0, 0.0, 0
        self._save()

    def _train_head(self) -> float:
        job = self.job
        freeze(self.model, ())
        return train_head(
            self.model,
            job.plain,
            job.targets["training"],
            self.loss,
            self.settings,
            lambda done, total: self._tell("head", done=done, total=total),
        )

    def _record(self, writer: Any, epoch: int, train_loss: float, figures: dict[str, float]) -> None:
        """Writes and tells an epoch's row; epoch 0 is the head alone."""
        state = self.state
        state.seconds += time.monotonic() - self._begun
        self._begun = time.monotonic()
        row = {"epoch": epoch, "step": state.step, "train_loss": train_loss}
        row |= {f"val_{name}": value for name, value in figures.items()}
        row |= {f"lr_{group['name']}": group["lr"] for group in self.optimizer.param_groups}
        row |= {"seconds": round(state.seconds, 3)}
        state.history.append(row)
        self._judge(epoch, figures)
        if self.main:
            writer.write(epoch, {name: float(value) for name, value in row.items() if name != "epoch"})
            self.job.run.write_history(state.history)
        self._tell("epoch", done=epoch, total=self.settings.epochs, row=row)

    def _step(self, batch: ClipBatch) -> None:
        settings, state = self.settings, self.state
        _seed_step(settings.seed, state.epoch, state.batch, self.fabric.global_rank)
        last = state.batch + 1 == len(self.sampler)
        update = last or (state.batch + 1) % settings.accumulate == 0
        with self.fabric.no_backward_sync(self.fabric_model, enabled=not update):
            logits = self.fabric_model(batch.examples, batch.mask)
            loss = self.loss(logits.float(), batch.targets)
            value = float(loss.detach())
            if not math.isfinite(value):
                self._not_finite(value, batch)
            self.fabric.backward(loss / settings.accumulate)
        state.loss_sum += value * len(batch.targets)
        state.loss_count += len(batch.targets)
        state.batch += 1
        if not update:
            return
        if settings.clip:
            self.fabric.clip_gradients(
                self.fabric_model, self.fabric_optimizer, max_norm=settings.clip, error_if_nonfinite=False
            )
        self.fabric_optimizer.step()
        self.fabric_optimizer.zero_grad()
        self.schedule.after("step")
        state.step += 1
        self._steps_since += 1
        if last and self.averaged is not None and state.epoch >= (settings.average_from or 0):
            self.averaged.update_parameters(self.model)
        self._tell(
            "step", done=state.epoch * len(self.sampler) + state.batch, total=settings.epochs * len(self.sampler)
        )
        options = self.job.options
        due = time.monotonic() - self._saved >= options.checkpoint_seconds
        if not last and (due or (options.checkpoint_steps and self._steps_since >= options.checkpoint_steps)):
            self._save()

    def _not_finite(self, value: float, batch: ClipBatch) -> None:
        names = [self.job.names[number] for number in batch.numbers.tolist()]
        shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        raise TrainingError(
            f"the loss is {value} in epoch {self.state.epoch + 1}, batch {self.state.batch + 1} ({shown}); a lower "
            "learning rate (--lr), a bound on gradients (--clip) or --precision fp32 may help, from the beginning "
            "(--overwrite)"
        )

    def _validate(self) -> dict[str, float]:
        """Figures on the validation clips, of the averaged weights once there are any."""
        averaging = self.averaged is not None and int(self.averaged.n_averaged) > 0
        found = self.validation(self._average() if averaging else self.model)
        return {} if found is None else found.figures

    def _judge(self, epoch: int, figures: dict[str, float]) -> None:
        """Keeps the weights of an epoch if they are the best so far, and stops where it has been long since."""
        state, value = self.state, figures.get(self.figure)
        if value is None or not math.isfinite(value):
            return
        # Of equal figures, as accuracies of few clips often are, the one with the lower loss.
        key = [value if self.higher else -value, -figures["loss"]]
        if state.best is None or key[0] > state.best[0]:
            state.better_epoch = epoch
        if state.best is None or key > state.best:
            state.best, state.best_epoch = key, epoch
            if self.main and self.settings.keep == "best" and self.averaged is None:
                self.job.run.save_best(self.model.state_dict())
        patience = self.settings.early_stopping
        if patience and epoch - state.better_epoch >= patience:
            state.stopped = True
            self._tell("stopped", text=f"no better {self.figure} for {patience} epochs")

    def _save(self) -> None:
        self._saved, self._steps_since = time.monotonic(), 0
        now = time.monotonic()
        self.state.seconds += now - self._begun
        self._begun = now
        if not self.main:
            return
        self.job.run.save_checkpoint(
            {
                "model": self.model.state_dict(),
                "averaged": None if self.averaged is None else self.averaged.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "schedule": None if self.schedule.scheduler is None else self.schedule.scheduler.state_dict(),
                "state": vars(self.state),
            }
        )

    def _restore(self, saved: dict[str, Any]) -> None:
        try:
            self.model.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])
            if self.averaged is not None:
                self.averaged.load_state_dict(saved["averaged"])
            if self.schedule.scheduler is not None:
                self.schedule.scheduler.load_state_dict(saved["schedule"])
            self.state = _State(**saved["state"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"{self.job.run.last}: does not fit this training ({type(error).__name__}); train anew with --overwrite"
            ) from error
        self._tell("resumed", done=self.state.epoch, total=self.settings.epochs, text=f"step {self.state.step}")

    def _finish(self) -> None:
        if not self.main:
            return
        state, run, model = self.state, self.job.run, self.model
        if self.averaged is not None and int(self.averaged.n_averaged) > 0:
            kept, model = "averaged", self._average()
        elif run.best.exists() and self.settings.keep == "best" and state.best is not None:
            kept = "best"
            model.load_state_dict(run.load_best())
        else:
            kept = "last"
        metrics: dict[str, Any] = {
            "kept": kept,
            "epoch": state.best_epoch if kept == "best" else state.epoch,
            "epochs": state.epoch,
            "steps": state.step,
            "seconds": round(state.seconds, 1),
            "stopped_early": state.stopped,
            "metric": self.figure,
        }
        found = self.validation(model)
        if found is not None and found.metrics is not None:
            metrics["validation"] = found.metrics.to_dict()
        model.save_pretrained(run.path)
        run.draw_curve(state.history)
        run.write_metrics(metrics)

    def _average(self) -> VGGishClassifier:
        assert self.averaged is not None
        return cast("VGGishClassifier", self.averaged.module)

    def _tell(self, kind: str, **facts: Any) -> None:
        from vggish_pt.classify.training.progress import TrainingProgress

        if self.main:
            self.watch(TrainingProgress(kind, **facts))


def _seed_step(seed: int, epoch: int, batch: int, rank: int) -> None:
    high, low = np.random.SeedSequence([seed, epoch, batch, rank]).generate_state(2)
    torch.manual_seed((int(high) << 31) ^ int(low))


@contextlib.contextmanager
def _writer(run: TrainingRun, epoch: int, main: bool) -> Iterator[Any]:
    """TensorBoard's log. What an interrupted run wrote after the state that training goes on from is passed over."""
    if not main:
        yield None
        return
    from vggish_pt.classify.training.tensorboard_log import EventsFile

    with EventsFile(run.logs, purge_step=epoch + 1 if epoch else None) as writer:
        yield writer
