"""The training loop, on Lightning Fabric, which handles devices, precision and gradients across devices.

All randomness of a step derives from (seed, epoch, batch), and checkpoints are written between optimizer steps only.
Therefore a run that was killed and resumed gives the same weights as an undisturbed one, bit for bit.

``lightning.Trainer`` was tried instead (``benchmarks/trainer_resume.py``, Lightning 2.6.6). Undisturbed, it gives the
same weights. Resumed, it gives others: it skips the update of ReduceLROnPlateau in a resumed epoch (8 of 11
checkpoints), does not call ``on_train_epoch_start`` in the middle of an epoch (gradual unfreezing, 5 of 11), and loses
an update of averaged weights at a checkpoint of an epoch's last step (2 of 11). CSVLogger deletes the earlier epochs
from ``metrics.csv``, and ModelCheckpoint compares one metric, without the loss that decides between equal accuracies.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from vggish_pt.classify.data.clips import ClipBatch, EpochBatches, collate
from vggish_pt.classify.model import VGGishClassifier
from vggish_pt.classify.training.head import HEAD_LR, train_head
from vggish_pt.classify.training.job import Counters, Job
from vggish_pt.classify.training.optimization import freeze, make_optimizer, make_schedule, trained_blocks
from vggish_pt.classify.training.progress import TrainingProgress, Watch
from vggish_pt.classify.training.run_folder import TrainingRun
from vggish_pt.classify.training.validation import Loss, Validation, metric_name, standardize
from vggish_pt.errors import CheckpointError, TrainingError


class TrainingLoop:
    """Train the model of a job in one process.

    Args:
        fabric: a ``lightning.fabric.Fabric``, launched.
        job: model, data and settings.
        watch: receives the progress.
    """

    def __init__(self, fabric: Any, job: Job, watch: Watch) -> None:
        settings = job.settings
        self.fabric, self.job, self.settings, self.watch = fabric, job, settings, watch
        self.model = job.model
        self.counters = Counters()
        self.metric = metric_name(settings.metric, job.model.multilabel)
        self.sampler = EpochBatches(
            len(job.training), settings.batch_size, settings.seed, fabric.global_rank, fabric.world_size
        )
        if fabric.device.type == "cuda":
            torch.cuda.set_device(fabric.device)
        self.model.to(fabric.device)
        self.optimizer = make_optimizer(self.model, settings)
        steps = math.ceil(len(self.sampler) / settings.accumulate) * settings.epochs
        self.schedule = make_schedule(self.optimizer, settings, max(1, steps), higher_is_better=self.metric != "loss")
        self.averaged = None if settings.average_from is None else AveragedModel(self.model)
        self.loss = Loss(job.targets["training"], settings, self.model.multilabel).to(fabric.device)
        self.validation = Validation(
            job.validation, job.targets["validation"], self.loss, fabric.device, job.options.workers
        )
        self._saved = self._timed = time.monotonic()
        self._steps_since_save = 0

    @property
    def main(self) -> bool:
        """Return True in the process that writes and reports."""
        return bool(self.fabric.is_global_zero)

    def run(self) -> None:
        """Train to the end, and write the results."""
        saved = self.job.run.load_checkpoint() if self.job.resume else None
        head_loss: float | None = None
        if saved is None:
            standardize(self.model, self.job.plain, self.settings.seed, self.fabric.device)
            if self.settings.head_epochs:
                head_loss = self._train_head()
        else:
            self._restore(saved)
        self._set_up_fabric()
        with _tensorboard(self.job.run, self.counters.epoch, self.main) as writer:
            if head_loss is not None:
                rates = {f"lr_{group['name']}": 0.0 for group in self.optimizer.param_groups} | {"lr_head": HEAD_LR}
                self._record(writer, 0, head_loss, self._validate(), rates)
                self._save()
            while self.counters.epoch < self.settings.epochs and not self.counters.stopped:
                self._epoch(writer)
        if self.main:
            self._finish()

    def _set_up_fabric(self) -> None:
        # Fabric must see every parameter that is trained in any epoch.
        freeze(self.model, trained_blocks(self.settings, self.settings.epochs))
        self.fabric_model, self.fabric_optimizer = self.fabric.setup(self.model, self.optimizer)
        loader = DataLoader(
            self.job.training,
            batch_sampler=self.sampler,
            collate_fn=collate,
            num_workers=self.job.options.workers,
            pin_memory=self.fabric.device.type == "cuda",
        )
        self.loader = self.fabric.setup_dataloaders(loader, use_distributed_sampler=False)

    def _train_head(self) -> float:
        freeze(self.model, ())
        return train_head(
            self.model,
            self.job.plain,
            self.job.targets["training"],
            self.loss,
            self.settings,
            lambda done, total: self._report("head", done=done, total=total),
        )

    def _epoch(self, writer: Any) -> None:
        counters = self.counters
        freeze(self.model, trained_blocks(self.settings, counters.epoch))
        self.fabric_model.train()
        self.sampler.go_to(counters.epoch, counters.batch)
        for batch in self.loader:
            self._batch(batch)
        metrics = self._validate()
        rates = {f"lr_{group['name']}": group["lr"] for group in self.optimizer.param_groups}
        self._record(writer, counters.epoch + 1, counters.loss_sum / max(1, counters.loss_count), metrics, rates)
        self.schedule.after("epoch", metrics.get(self.metric))
        counters.epoch, counters.batch, counters.loss_sum, counters.loss_count = counters.epoch + 1, 0, 0.0, 0
        self._save()

    def _batch(self, batch: ClipBatch) -> None:
        settings, counters = self.settings, self.counters
        _seed_batch(settings.seed, counters.epoch, counters.batch, self.fabric.global_rank)
        last = counters.batch + 1 == len(self.sampler)
        update = last or (counters.batch + 1) % settings.accumulate == 0
        with self.fabric.no_backward_sync(self.fabric_model, enabled=not update):
            logits = self.fabric_model(batch.examples, batch.mask)
            loss = self.loss(logits.float(), batch.targets)
            value = float(loss.detach())
            if not math.isfinite(value):
                raise self._not_finite(value, batch)
            self.fabric.backward(loss / settings.accumulate)
        counters.loss_sum += value * len(batch.targets)
        counters.loss_count += len(batch.targets)
        counters.batch += 1
        if update:
            self._step(last)

    def _step(self, last: bool) -> None:
        settings, counters = self.settings, self.counters
        if settings.clip:
            self.fabric.clip_gradients(
                self.fabric_model, self.fabric_optimizer, max_norm=settings.clip, error_if_nonfinite=False
            )
        self.fabric_optimizer.step()
        self.fabric_optimizer.zero_grad()
        self.schedule.after("step")
        counters.step += 1
        self._steps_since_save += 1
        if last and self.averaged is not None and counters.epoch >= (settings.average_from or 0):
            self.averaged.update_parameters(self.model)
        batches = len(self.sampler)
        self._report("step", done=counters.epoch * batches + counters.batch, total=settings.epochs * batches)
        options = self.job.options
        due = time.monotonic() - self._saved >= options.checkpoint_seconds
        due = due or bool(options.checkpoint_steps and self._steps_since_save >= options.checkpoint_steps)
        if due and not last:
            self._save()

    def _not_finite(self, value: float, batch: ClipBatch) -> TrainingError:
        names = [self.job.names[number] for number in batch.numbers.tolist()]
        clips = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        return TrainingError(
            f"the loss is {value} in epoch {self.counters.epoch + 1}, batch {self.counters.batch + 1} ({clips}); start "
            "again (--overwrite) with a lower learning rate (--lr), a limit on gradients (--clip) or --precision fp32"
        )

    def _record(
        self, writer: Any, epoch: int, train_loss: float, metrics: dict[str, float], rates: dict[str, float]
    ) -> None:
        """Log an epoch's row, save its weights if they are the best, and stop if there was no better epoch for long."""
        counters = self.counters
        self._add_time()
        row = {"epoch": epoch, "step": counters.step, "train_loss": train_loss}
        row |= {f"val_{name}": value for name, value in metrics.items()} | rates
        row |= {"seconds": round(counters.seconds, 3)}
        counters.history.append(row)
        best = counters.compare(epoch, metrics, self.metric)
        if best and self.main and self.settings.keep == "best" and self.averaged is None:
            self.job.run.save_best(self.model.state_dict())
        patience = self.settings.early_stopping
        if patience and epoch - counters.better_epoch >= patience:
            counters.stopped = math.isfinite(metrics.get(self.metric, math.nan))
        if counters.stopped:
            self._report("stopped", text=f"no better {self.metric} for {patience} epochs")
        if self.main:
            writer.write(epoch, {name: float(value) for name, value in row.items() if name != "epoch"})
            self.job.run.write_history(counters.history)
        self._report("epoch", done=epoch, total=self.settings.epochs, row=row)

    def _validate(self) -> dict[str, float]:
        """Return the validation metrics, of the averaged weights once there are any."""
        found = self.validation(self._averaged_model() or self.model)
        return {} if found is None else found.metrics

    def _averaged_model(self) -> VGGishClassifier | None:
        if self.averaged is None or int(self.averaged.n_averaged) == 0:
            return None
        return cast("VGGishClassifier", self.averaged.module)

    def _add_time(self) -> None:
        now = time.monotonic()
        self.counters.seconds += now - self._timed
        self._timed = now

    def _save(self) -> None:
        self._saved, self._steps_since_save = time.monotonic(), 0
        self._add_time()
        if not self.main:
            return
        self.job.run.save_checkpoint(
            {
                "model": self.model.state_dict(),
                "averaged": None if self.averaged is None else self.averaged.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "schedule": None if self.schedule.scheduler is None else self.schedule.scheduler.state_dict(),
                "state": vars(self.counters),
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
            self.counters = Counters(**saved["state"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"{self.job.run.last}: does not fit this training ({type(error).__name__}); start again (--overwrite)"
            ) from error
        self._report("resumed", done=self.counters.epoch, total=self.settings.epochs, text=f"step {self.counters.step}")

    def _finish(self) -> None:
        counters, run, model = self.counters, self.job.run, self.model
        averaged = self._averaged_model()
        if averaged is not None:
            kept, model = "averaged", averaged
        elif run.best.exists() and self.settings.keep == "best" and counters.best is not None:
            kept = "best"
            model.load_state_dict(run.load_best())
        else:
            kept = "last"
        metrics: dict[str, Any] = {
            "kept": kept,
            "epoch": counters.best_epoch if kept == "best" else counters.epoch,
            "epochs": counters.epoch,
            "steps": counters.step,
            "seconds": round(counters.seconds, 1),
            "stopped_early": counters.stopped,
            "metric": self.metric,
        }
        found = self.validation(model)
        if found is not None and found.details is not None:
            metrics["validation"] = found.details.to_dict()
        model.save_pretrained(run.path)
        run.draw_curve(counters.history)
        run.write_metrics(metrics)

    def _report(self, kind: str, **details: Any) -> None:
        if self.main:
            self.watch(TrainingProgress(kind, **details))


def _seed_batch(seed: int, epoch: int, batch: int, rank: int) -> None:
    high, low = np.random.SeedSequence([seed, epoch, batch, rank]).generate_state(2)
    torch.manual_seed((int(high) << 31) ^ int(low))


@contextlib.contextmanager
def _tensorboard(run: TrainingRun, epoch: int, main: bool) -> Iterator[Any]:
    """Open TensorBoard's log. TensorBoard then ignores the events after ``epoch`` of an interrupted run."""
    if not main:
        yield None
        return
    from vggish_pt.classify.training.tensorboard_log import EventsFile

    with EventsFile(run.logs, purge_step=epoch + 1 if epoch else None) as writer:
        yield writer
